"""The demo's stage: a temporary home, the demo provider, the real proxy, one user.

Everything is made on entering and gone after leaving; nothing of the user's is read or written.
"""

import asyncio
import os
import re
import signal
import subprocess
import sys
import threading
from pathlib import Path
from tempfile import TemporaryDirectory
from types import TracebackType
from typing import Self

import llmproxy
from llmproxy import accounts, crediting, key_pool, sessions
from llmproxy.clock import Clock
from llmproxy.config import environ_for_home, find_paths, load_or_make_vault
from llmproxy.dashboard.address import PREFIX
from llmproxy.demo.provider import DemoProvider
from llmproxy.errors import LlmproxyError
from llmproxy.money import parse_multiplier, parse_usd
from llmproxy.storage.database import AdminDatabase

ACTOR = "demo"
USER = "ada"
CREDIT_USD = "0.50"
USER_MULTIPLIER = "1.2"
PROVIDER_KEY = "sk-demo-provider-key"
CHUNK_GAP_S = 0.02
STARTS_WITHIN_S = 20.0
STOPS_WITHIN_S = 10.0
POLL_S = 0.01

# The same program in a process of its own, from a clone, an installation and the one file alike:
# with -I nothing of the caller's counts, so the code's own folder is named.
_SERVE = (
    "import sys; sys.path.insert(0, sys.argv.pop(1)); from llmproxy.cli.app import main; main()"
)


class DemoError(LlmproxyError):
    """The demo could not go on, or something was not as it must be."""


class Stage:
    """What the demo plays on; a context manager.

    `database` reads and writes beside the running proxy, as the command line does.
    """

    def __init__(self) -> None:
        """Prepare nothing yet: that is done on entering."""
        self.provider_url = ""
        self.port = 0
        self.api_key = ""
        self._process: subprocess.Popen[bytes] | None = None
        # First what may fail: it has nothing to close.
        self._folder = TemporaryDirectory(prefix="llmproxy-demo-")
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="demo-provider")
        self._provider = DemoProvider(chunk_gap_s=CHUNK_GAP_S)
        self.home = Path(self._folder.name)
        self._log = self.home / "serve.log"

    def __enter__(self) -> Self:
        """Set everything up, and start the proxy.

        Raises:
            DemoError: the proxy did not start.
        """
        try:
            self._thread.start()
            asyncio.run_coroutine_threadsafe(self._provider.start(), self._loop).result()
            self.provider_url = self._provider.anthropic_base_url
            paths = find_paths({"LLMPROXY_HOME": str(self.home)})
            self.database = AdminDatabase(paths.database)
            self._fill_database()
            self._start_proxy()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Stop everything and remove the home."""
        self.close()

    @property
    def proxy_url(self) -> str:
        """Where the proxy listens."""
        return f"http://127.0.0.1:{self.port}"

    def sign_in_link(self) -> str:
        """Return a link that signs the demo's user in to the dashboard, once, for 15 minutes."""
        with self.database.write() as tx:
            user = accounts.find_user(tx, USER)
            secret = sessions.create_link(tx, user, now_ms=Clock().now_ms())
        return f"{self.proxy_url}{PREFIX}/sign-in/{secret}"

    def close(self) -> None:
        """Stop the proxy and the provider and remove the home; Ctrl-C does not interrupt this."""
        before = {number: signal.signal(number, signal.SIG_IGN) for number in _SIGNALS}
        try:
            self._stop_proxy()
            if self._thread.is_alive():
                asyncio.run_coroutine_threadsafe(self._provider.stop(), self._loop).result()
                self._loop.call_soon_threadsafe(self._loop.stop)
                self._thread.join()
            self._loop.close()
            if hasattr(self, "database"):
                self.database.close()
            self._folder.cleanup()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def wait(self) -> None:
        """Wait until interrupted.

        Raises:
            DemoError: the proxy ended by itself.
        """
        assert self._process is not None
        self._process.wait()
        msg = "The proxy has stopped"
        raise self.failure(msg)

    def failure(self, what: str) -> DemoError:
        """Return an error that says what is wrong and how the proxy's log ends."""
        log = self._log.read_text(errors="replace") if self._log.exists() else ""
        lines = "".join(f"\n  {line}" for line in log.splitlines()[-10:])
        return DemoError(f"{what}." + (f" The proxy's log ends:{lines}" if lines else ""))

    def _fill_database(self) -> None:
        """Do what `users create`, `providers set` and `provider-keys add` do."""
        now_ms = Clock().now_ms()
        vault = load_or_make_vault(find_paths({"LLMPROXY_HOME": str(self.home)}), {})
        with self.database.write() as tx:
            multiplier = parse_multiplier(USER_MULTIPLIER)
            user = accounts.create_user(tx, USER, now_ms=now_ms, rate_multiplier_micro=multiplier)
            accounts.set_user(tx, USER, now_ms=now_ms, is_admin=True)  # sees all of the dashboard
            credit = parse_usd(CREDIT_USD)
            crediting.credit(
                tx, user.wallet_id, credit, actor=ACTOR, reason="the demo's credit", now_ms=now_ms
            )
            self.api_key = accounts.create_api_key(tx, user, "laptop", now_ms=now_ms)
            for name, url in (
                ("openai", self._provider.openai_base_url),
                ("anthropic", self._provider.anthropic_base_url),
                ("gemini", self._provider.gemini_base_url),
            ):
                key_pool.set_base_url(tx, name, url, vault=vault, now_ms=now_ms)
                key_pool.add_provider_key(
                    tx, name, PROVIDER_KEY, name=None, vault=vault, actor=ACTOR, now_ms=now_ms
                )

    def _start_proxy(self) -> None:
        code = Path(llmproxy.__file__).parents[1]
        with self._log.open("wb") as log:
            self._process = subprocess.Popen(  # noqa: S603 - our own program
                [sys.executable, "-I", "-c", _SERVE, str(code), "serve", "--port", "0"],
                cwd=self.home,
                env=environ_for_home(self.home),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=log,
                start_new_session=True,  # Ctrl-C is for us; we stop it
            )
        clock = Clock()
        deadline_s = clock.monotonic_s() + STARTS_WITHIN_S
        pause = threading.Event()
        while clock.monotonic_s() < deadline_s and self._process.poll() is None:
            said = self._log.read_text(errors="replace")
            if found := re.search(r"serves http://127\.0\.0\.1:(\d+) ", said):
                self.port = int(found[1])
                return
            pause.wait(POLL_S)
        msg = "The proxy did not start"
        raise self.failure(msg)

    def _stop_proxy(self) -> None:
        if self._process is None:
            return
        self._process.terminate()
        try:
            self._process.wait(STOPS_WITHIN_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()


_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
