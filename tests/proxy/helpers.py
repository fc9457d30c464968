"""One running proxy with its provider, and what became of its visitors' requests."""

import json
import time
from typing import Any, NamedTuple

from tests.service.helpers import Books
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import SeenRequest, StubProvider

CHAT = "/v1/openai/chat/completions"
MESSAGES = "/v1/anthropic/messages"
CREDIT_NANOUSD = 5_000_000_000


class Visitor(NamedTuple):
    """A user with 5 USD and a key."""

    name: str
    key: str


class Site:
    """A proxy whose providers `openai` and `anthropic` are both one stub."""

    def __init__(self, proxy: RunningProxy, stub: StubProvider, books: Books) -> None:
        self.proxy = proxy
        self.stub = stub
        self.books = books

    def visitor(self) -> Visitor:
        return Visitor(*self.books.user())

    def send(
        self, visitor: Visitor, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> RawClient:
        """Send a request on a connection of its own."""
        client = RawClient(self.proxy.port, timeout_s=20)
        client.post(path, body, {"authorization": f"Bearer {visitor.key}", **(headers or {})})
        return client

    def ask(
        self, visitor: Visitor, path: str, body: bytes, headers: dict[str, str] | None = None
    ) -> "Got":
        """Send a request and take its answer to the end."""
        with self.send(visitor, path, body, headers) as client:
            return self.take(client)

    @staticmethod
    def take(client: RawClient) -> "Got":
        """Take an answer to the end."""
        head = client.recv_head()
        taken = client.body()
        return Got(head.status, head.headers, taken, client.clean_end, client.reset)

    def last_request(self) -> SeenRequest:
        return self.stub.requests[-1]

    def ended(self, visitor: Visitor, within_s: float = 10.0) -> dict[str, Any]:
        """The row of the visitor's only request, once it has ended."""
        deadline = time.monotonic() + within_s
        while not (rows := self.books.rows(visitor.name)):
            assert time.monotonic() < deadline, "the request has not ended"
            time.sleep(0.005)
        (row,) = rows
        return row

    def assert_paid(
        self, visitor: Visitor, *, state: str, basis: str, nanousd: int, within_s: float = 10.0
    ) -> dict[str, Any]:
        """Check how the visitor's only request ended, and that the wallet says the same."""
        row = self.assert_row(visitor, state=state, basis=basis, cost=nanousd, within_s=within_s)
        assert self.books.wallet(visitor.name) == (CREDIT_NANOUSD - nanousd, 0)
        return row

    def assert_row(
        self, visitor: Visitor, *, state: str, basis: str, cost: int, within_s: float = 10.0
    ) -> dict[str, Any]:
        """Check how the visitor's only request ended."""
        row = self.ended(visitor, within_s)
        assert (row["state"], row["basis"], row["cost_nanousd"], row["charged_nanousd"]) == (
            state,
            basis,
            cost,
            cost,
        ), row
        return row

    def assert_released(self, visitor: Visitor) -> dict[str, Any]:
        return self.assert_paid(visitor, state="released", basis="none", nanousd=0)


class Got(NamedTuple):
    """A whole answer as it came over the wire."""

    status: int
    headers: list[tuple[bytes, bytes]]
    body: bytes
    clean_end: bool
    reset: bool

    def header(self, name: str) -> bytes | None:
        wanted = name.encode()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def error(self) -> dict[str, Any]:
        error: dict[str, Any] = json.loads(self.body)["error"]
        return error

    def last_event(self) -> tuple[bytes, dict[str, Any]]:
        """Name and data of the last event of a stream."""
        *_, name, data = self.body.rstrip(b"\n").split(b"\n")
        return name.removeprefix(b"event: "), json.loads(data.removeprefix(b"data: "))


def chat(**fields: Any) -> bytes:  # noqa: ANN401
    """A chat request of at most 100 tokens of output."""
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "gpt-4o", "max_tokens": 100, "messages": messages, **fields}
    return json.dumps(body, separators=(",", ":")).encode()


def message(**fields: Any) -> bytes:  # noqa: ANN401
    """A messages request of at most 100 tokens of output."""
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "claude-sonnet-4-6", "max_tokens": 100, "messages": messages, **fields}
    return json.dumps(body, separators=(",", ":")).encode()


def estimate_nanousd(body: bytes, seen_bytes: int, *, input_rate: int, output_rate: int) -> int:
    """The documented estimate: bytes / 3, upwards, at these rates in nano-USD per token."""
    return -(-len(body) // 3) * input_rate + -(-seen_bytes // 3) * output_rate
