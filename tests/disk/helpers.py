"""A server whose disk gives trouble: a stream that runs meanwhile, and what it must cost."""

import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from llmproxy.storage.spill import Contents, read_spill
from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.service.test_lifecycle import until_released
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import StubProvider
from tests.support.waiting import wait_until

CREDIT = 5_000_000_000
COST = 4_500_000
"""Of the stream: 1000 × 2.50 / 1e6 + 200 × 10.00 / 1e6."""
BODY = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}'


class Disk:
    """A server on a database, with streams that wait in the middle until told to go on."""

    def __init__(self, home: Path, stub: StubProvider, log: Path | None = None) -> None:
        self.proxy = RunningProxy(home)
        if log is not None:
            self.proxy.log = log
        self.stub = stub
        self.path = home / "data" / "llmproxy.db"
        self.wal = self.path.with_name("llmproxy.db-wal")
        self.spill = self.path.with_name("llmproxy.db.spill")
        self._go_on = threading.Event()
        stub.handle = until_released(self._go_on)  # type: ignore[assignment]

    def start(self, template: Path) -> None:
        """Start on a copy of a home that has been set up."""
        shutil.copytree(template, self.proxy.home, dirs_exist_ok=True)
        self.proxy.start()

    @contextmanager
    def books(self) -> Iterator[Books]:
        """A look at the database that leaves no connection behind."""
        books = Books(self.proxy.home)
        try:
            yield books
        finally:
            books.close()

    def user(self) -> tuple[str, str]:
        with self.books() as books:
            return books.user()

    def wallet(self, name: str) -> tuple[int, int]:
        with self.books() as books:
            return books.wallet(name)

    @contextmanager
    def running_stream(self, key: str) -> Iterator[RawClient]:
        """A client in the middle of a stream, which ends when the test says so."""
        with ExitStack() as stack:
            stack.callback(self._go_on.set)
            client = stack.enter_context(RawClient(self.proxy.port))
            client.post(CHAT, BODY, {"authorization": f"Bearer {key}"})
            assert client.recv_head().status == 200
            next(client.recv_chunks())
            yield client

    def finish(self, client: RawClient) -> None:
        """Let the streams go on; this one comes to its proper end."""
        self._go_on.set()
        assert client.body().endswith(b"data: [DONE]\n\n")
        assert client.clean_end

    def assert_refuses(self, key: str, says: str = "") -> None:
        """A request is answered 503 at once, or as soon as it may, and never sent on."""
        sent = len(self.stub.requests)
        answered = ask(self.proxy.port, "POST", CHAT, chat_body(), bearer(key))
        assert answered.status == 503, answered.body
        error = answered.json()["error"]
        assert error["code"] == "ledger_busy"
        # Users are told no paths; the operator is told what it is.
        assert error["message"] == "The ledger cannot be used now. Try again in a moment."
        assert says in self.proxy.log.read_text()
        assert int(answered.headers["retry-after"]) > 0
        assert len(self.stub.requests) == sent
        ready = ask(self.proxy.port, "GET", "/readyz")
        assert (ready.status, ready.json()["reason"]) == (503, "the database cannot be used")

    def assert_serves(self, key: str) -> None:
        self._go_on.set()
        assert ask(self.proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200

    def assert_settled(self, name: str, times: int = 1) -> None:
        """The streams of a user are paid, exactly and once."""
        wait_until(lambda: self.wallet(name) == (CREDIT - COST * times, 0))
        with self.books() as books:
            rows = [(row["state"], row["basis"]) for row in books.rows(name)]
        assert rows == [("settled", "usage")] * times
        self.proxy.verify_ledger()

    def kept(self) -> Contents:
        return read_spill(self.spill)

    def logged(self) -> str:
        return self.proxy.log.read_text()


def wait_for(is_so: Callable[[], bool]) -> None:
    wait_until(is_so, 10)
