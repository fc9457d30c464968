"""The real program under test: `llmproxy serve` as a process, set up by its own commands.

A proxy has a home of its own; users are cheap, so tests that share a proxy make their own.
"""

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from contextlib import closing
from pathlib import Path
from typing import Any, Self

from llmproxy import key_pool, ledger_check, reports
from llmproxy.clock import Clock, parse_request_id
from llmproxy.config import find_paths, load_or_make_vault
from llmproxy.storage.database import AdminDatabase

PROVIDER_KEY = "sk-provider-secret-0001"
STARTS_WITHIN_S = 20.0
STOPS_WITHIN_S = 20.0


class RunningProxy:
    """One home directory, its commands, and its server while it runs."""

    def __init__(self, home: Path, environ: Mapping[str, str] | None = None) -> None:
        self.home = home
        self.environ = {
            **{k: v for k, v in os.environ.items() if not k.startswith("LLMPROXY_")},
            "LLMPROXY_HOME": str(home),
            **(environ or {}),
        }
        self.log = home / "serve.log"
        self.port = 0
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._process is not None and self._process.poll() is None:
            self.kill()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def pid(self) -> int:
        assert self._process is not None
        return self._process.pid

    @property
    def exit_code(self) -> int | None:
        """With which code the server ended; None while it runs."""
        assert self._process is not None
        return self._process.poll()

    # --- the command line ---

    def run(self, *arguments: str, stdin: str = "", check: bool = True) -> str:
        """Run a command; return its stdout."""
        done = self.try_run(*arguments, stdin=stdin)
        if check and done.returncode != 0:
            raise AssertionError(
                f"llmproxy {' '.join(arguments)}: {done.returncode}\n{done.stderr}"
            )
        return done.stdout

    def try_run(self, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "llmproxy", *arguments],
            input=stdin,
            env=self.environ,
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    def json(self, *arguments: str) -> Any:  # noqa: ANN401 - any JSON value
        return json.loads(self.run(*arguments, "--json"))

    def new_user(self, name: str, credit: str = "5", multiplier: str = "1") -> str:
        """Make a user with credit; return an API key."""
        return self.run(
            *("users", "create", name, "--credit", credit, "--rate-multiplier", multiplier),
            *("--key", "test", "--quiet"),
        ).strip()

    def use_provider(
        self, name: str, base_url: str, keys: tuple[str, ...] = (PROVIDER_KEY,)
    ) -> None:
        """Point a provider at a server of the test's and give it keys.

        As `providers set` and `provider-keys add` do it, but without starting Python for each:
        half a second. The commands themselves have tests of their own, and one of the whole way.
        """
        paths, now_ms = find_paths(self.environ), Clock().now_ms()
        with closing(AdminDatabase(paths.database)) as database, database.write() as tx:
            vault = load_or_make_vault(paths, self.environ)
            key_pool.ensure_provider(tx, name, now_ms=now_ms)
            key_pool.set_base_url(tx, name, base_url, vault=vault, now_ms=now_ms, actor="test")
            for key in keys:
                key_pool.add_provider_key(
                    tx, name, key, name=None, vault=vault, actor="test", now_ms=now_ms
                )

    # --- the server ---

    def start(self) -> Self:
        """Start the server on a free port; return when it accepts connections."""
        seen = self.log.stat().st_size if self.log.exists() else 0
        process = self.launch()
        deadline = time.monotonic() + STARTS_WITHIN_S
        while time.monotonic() < deadline:
            said = self.log.read_bytes()[seen:].decode()
            if found := re.search(r"serves http://127\.0\.0\.1:(\d+)", said):
                self.port = int(found[1])
                return self
            if process.poll() is not None:
                break
            time.sleep(0.02)
        raise AssertionError(f"the server did not start:\n{self.log.read_text()}")

    def launch(self) -> subprocess.Popen[bytes]:
        """Start the server and return at once."""
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "llmproxy", "serve", "--port", str(self.port)],
                env=self.environ,
                stdout=subprocess.DEVNULL,
                stderr=log,
            )
        return self._process

    def stop(self) -> int:
        """Ask the server to stop (SIGTERM); return its exit code."""
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        return self._process.wait(STOPS_WITHIN_S)

    def kill(self) -> None:
        """Kill the server at once (SIGKILL)."""
        assert self._process is not None
        self._process.kill()
        self._process.wait(STOPS_WITHIN_S)

    def wait_for_exit(self) -> int:
        assert self._process is not None
        return self._process.wait(STOPS_WITHIN_S)

    def send_signal(self, number: int) -> None:
        assert self._process is not None
        self._process.send_signal(number)

    # --- requests, and what became of them ---

    def post(
        self, path: str, body: object, key: str = "", headers: Mapping[str, str] | None = None
    ) -> "Answered":
        """Send a plain request; errors are answers too."""
        data = body if isinstance(body, bytes) else json.dumps(body).encode()
        request = urllib.request.Request(self.url + path, data=data, method="POST")
        request.add_header("content-type", "application/json")
        if key:
            request.add_header("authorization", f"Bearer {key}")
        for name, value in (headers or {}).items():
            request.add_header(name, value)
        try:
            with urllib.request.urlopen(request, timeout=30) as response:
                return Answered(response.status, dict(response.headers), response.read())
        except urllib.error.HTTPError as error:
            with error:
                return Answered(error.code, dict(error.headers), error.read())

    def request_row(self, request_id: str, within_s: float = 10.0) -> dict[str, Any]:
        """Return the row of an ended request as `usage requests` shows it, once it has ended."""
        wanted = parse_request_id(request_id)
        assert wanted is not None
        path, deadline = find_paths(self.environ).database, time.monotonic() + within_s
        row: reports.Request | None = None
        with closing(AdminDatabase(path)) as database:
            while time.monotonic() < deadline:
                with database.read() as tx:
                    row = reports.find_request(tx, wanted)
                if row is not None and row.state != "open":
                    return row.as_json()
                time.sleep(0.02)
        raise AssertionError(f"request {request_id} has not ended: {row}")

    def verify_ledger(self) -> dict[str, Any]:
        """Check the books, as `ledger verify` does; every test of money ends with this."""
        path = find_paths(self.environ).database
        with closing(AdminDatabase(path)) as database, database.read() as tx:
            report = ledger_check.verify(tx).as_json()
        assert report["ok"], report
        return report


class Answered:
    """A whole answer; header names in lower case."""

    def __init__(self, status: int, headers: Mapping[str, str], body: bytes) -> None:
        self.status = status
        self.headers = {name.lower(): value for name, value in headers.items()}
        self.body = body

    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        return json.loads(self.body)

    @property
    def request_id(self) -> str:
        return self.headers["x-llmproxy-request-id"]
