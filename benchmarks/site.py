"""A temporary home of llmproxy and the real server on it, set up as an operator would."""

import contextlib
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Self

from benchmarks.load import HOST
from benchmarks.processes import Target, free_port

READY_WITHIN_S = 60.0
STOP_WITHIN_S = 60.0
POLL_S = 0.01
MULTIPLIER = "1.07"
"""The users' rate multiplier: with it costs are no round numbers of nano-dollars."""
WRONG_KEY = "llmp_" + "0" * 40
THIS_PROGRAM = f"{shlex.quote(sys.executable)} -m llmproxy"


class Home:
    """A home directory and the command line over it."""

    def __init__(self, path: Path, program: str = THIS_PROGRAM) -> None:
        """Take the directory, and how llmproxy is called.

        Raises:
            SystemExit: there is no such program.
        """
        self.path = path
        self.port = free_port()
        self.command = shlex.split(program)
        if not (self.command and shutil.which(self.command[0])):
            raise SystemExit(f"there is no program {program!r}")
        self.database = path / "data" / "llmproxy.db"
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LLMPROXY_")}
        self.environ = {**kept, "LLMPROXY_HOME": str(path), "LLMPROXY_PORT": str(self.port)}
        self.keys = {"wrong": WRONG_KEY}

    def run(self, *arguments: str, given: str = "") -> str:
        """Run one llmproxy command and return what it prints.

        Raises:
            SystemExit: the command failed; the message has its errors.
        """
        done = subprocess.run(
            [*self.command, *arguments],
            env=self.environ,
            input=given,
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode:
            shown = f"llmproxy {' '.join(arguments)} failed with {done.returncode}"
            raise SystemExit(f"{shown}:\n{done.stderr or done.stdout}")
        return done.stdout

    def set_up(self, base_url: str) -> None:
        """Make a user with much credit, one with too little, and an openai provider at a URL."""
        for name, credit in (("rich", "1000000"), ("poor", "0.000001")):
            options = ("--credit", credit, "--rate-multiplier", MULTIPLIER)
            self.keys[name] = self.run(
                "users", "create", name, *options, "--key", "bench", "--quiet"
            ).strip()
        self.run("providers", "set", "openai", "--base-url", base_url)
        self.run("provider-keys", "add", "openai", given="sk-benchmark-0123456789\n")

    def delete(self) -> None:
        """Remove all of it; the server has stopped."""
        shutil.rmtree(self.path)

    def ledger_problems(self) -> list[str]:
        """Return what `ledger verify` finds."""
        done = subprocess.run(
            [*self.command, "ledger", "verify", "--json"],
            env=self.environ,
            capture_output=True,
            text=True,
            check=False,
        )
        report = json.loads(done.stdout)
        return [f"{each['row']}: {each['message']}" for each in report["problems"]]


class Server:
    """The server as a process, with its output in a file."""

    def __init__(self, home: Home) -> None:
        """Start it.

        Raises:
            SystemExit: it ended, or is not ready within a minute.
        """
        self._log = home.path / "serve.log"
        self.home = home
        self.stop_s = 0.0
        started = time.monotonic()
        with self._log.open("wb") as log:
            command = [*home.command, "serve"]
            self.process = subprocess.Popen(command, env=home.environ, stdout=log, stderr=log)
        while not self._is_ready():
            code = self.process.poll()
            if code is not None:
                raise SystemExit(f"the server ended with {code} at its start:\n{self._tail()}")
            if time.monotonic() - started > READY_WITHIN_S:
                self.process.kill()
                raise SystemExit(f"the server is not ready after {READY_WITHIN_S} s:{self._tail()}")
            time.sleep(POLL_S)
        self.start_s = time.monotonic() - started

    def target(self, key: str = "rich") -> Target:
        """Return where a load with a key goes."""
        headers = {"authorization": f"Bearer {self.home.keys[key]}"}
        return Target("llmproxy", self.home.port, "/v1/openai", headers, self.process.pid)

    def _is_ready(self) -> bool:
        url = f"http://{HOST}:{self.home.port}/readyz"
        try:
            with urllib.request.urlopen(url, timeout=2) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> None:
        """Stop it as a service manager does.

        Raises:
            SystemExit: it did not end, or not with 0.
        """
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_WITHIN_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            message = f"the server did not stop in {STOP_WITHIN_S} s:\n{self._tail()}"
            raise SystemExit(message) from None
        if code:
            raise SystemExit(f"the server ended with {code}:\n{self._tail()}")
        self.stop_s = time.monotonic() - started

    @contextlib.contextmanager
    def running(self) -> Iterator[Self]:
        """Give itself to a block; it is stopped in good order unless the block fails."""
        try:
            yield self
            self.stop()
        finally:
            self.process.kill()
            self.process.wait()
