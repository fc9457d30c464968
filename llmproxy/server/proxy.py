"""Owns the step from a client's connection to who answers: bounded bodies in, answers out."""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple, Protocol

from llmproxy.clock import Clock
from llmproxy.errors import ApiError, overloaded
from llmproxy.headers import Headers
from llmproxy.logs import RequestLog
from llmproxy.metrics import Metrics
from llmproxy.relay import ClientGoneError, Request
from llmproxy.server.cycle import DisconnectedError
from llmproxy.trace import Trace


class BodyBudget:
    """How many bytes of request bodies may be in memory: of one, and of all requests together."""

    def __init__(self, body_bytes_max: int, in_flight_max: int) -> None:
        """Take the limits; a body of the largest size always fits when it is the only one."""
        self.body_bytes_max = body_bytes_max
        self._in_flight_max = max(in_flight_max, body_bytes_max)
        self._in_flight = 0

    def take(self, size: int) -> None:
        """Count bytes that have been read; to be given back with `give_back`.

        Raises:
            ApiError: 503, nothing was counted.
        """
        if self._in_flight + size > self._in_flight_max:
            raise overloaded("The proxy is reading too many large requests now.")
        self._in_flight += size

    def give_back(self, size: int) -> None:
        """Count bytes as gone."""
        self._in_flight -= size


class Observer(NamedTuple):
    """Who hears of every request at its end."""

    clock: Clock
    metrics: Metrics
    log: RequestLog | None
    """None when requests are not logged."""

    def begin(self) -> float:
        """Note that a request has come; the result is for `end`."""
        self.metrics.in_flight += 1
        return self.clock.monotonic_s()

    def end(self, trace: Trace, client: "HttpClient", began_s: float) -> None:
        """Note that a request has ended."""
        self.metrics.in_flight -= 1
        trace.status, trace.bytes_out = client.status, client.bytes_out
        trace.duration_s = self.clock.monotonic_s() - began_s
        if client.started_s:
            trace.ttfb_s = client.started_s - began_s
        self.metrics.note_end(trace)
        if self.log is not None:
            self.log.write(trace)


class ClientConnection(Protocol):
    """What is needed of a client's connection: see `cycle.Cycle`."""

    @property
    def more_body(self) -> bool:
        """Whether more of the request's body is to come."""

    def is_gone(self) -> bool:
        """Say whether the client has hung up."""

    def abort(self) -> None:
        """Hang up on the client."""

    async def read(self) -> bytes:
        """Return what has come of the body; raises DisconnectedError."""

    def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""

    @property
    def is_full(self) -> bool:
        """Whether no more should be written now."""

    async def drained(self) -> None:
        """Wait until more may be written."""

    def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body."""


class HttpClient:
    """A client's connection, and what the log says of it; see `exchange.Client`."""

    __slots__ = (
        *("_clock", "_connection", "abort", "drained", "is_gone"),
        *("bytes_out", "has_started", "started_s", "status"),
    )

    def __init__(self, connection: ClientConnection, clock: Clock) -> None:
        """Take the connection."""
        self._connection = connection
        self._clock = clock
        self.is_gone = connection.is_gone
        self.abort = connection.abort
        self.drained = connection.drained
        self.has_started = False
        self.started_s = 0.0
        self.status = 0
        self.bytes_out = 0

    def start(self, status: int, headers: Headers) -> None:
        """Begin the answer."""
        self.has_started = True
        self.status, self.started_s = status, self._clock.monotonic_s()
        self._connection.start(status, headers)

    @property
    def is_full(self) -> bool:
        """Say whether so much waits to be sent that no more should be written now."""
        return self._connection.is_full

    def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body; the last one has `more` False."""
        self.bytes_out += len(body)
        self._connection.write(body, more=more)


Handler = Callable[[Request, HttpClient], Awaitable[None]]


class Door(NamedTuple):
    """What every request passes, on its way in and out."""

    budget: BodyBudget
    observer: Observer


async def serve_request(
    door: Door, handle: Handler, scope: dict[str, Any], connection: ClientConnection
) -> None:
    """Hand one request over, to the relay or to another that answers API keys.

    Args:
        door: limits of bodies, and who hears of the request.
        handle: who answers it.
        scope: the request's head, as ASGI has it.
        connection: where its body comes from and its answer goes to.
    """
    headers: Headers = scope["headers"]
    body = _Body(door.budget, connection)
    trace = Trace()
    request = Request(
        method=scope["method"],
        raw_path=scope["raw_path"],
        query=scope["query_string"],
        headers=headers,
        read_body=partial(body.read, headers),
        trace=trace,
        peer=scope["client"][0] if scope["client"] else "",
    )
    client = HttpClient(connection, door.observer.clock)
    began_s = door.observer.begin()
    try:
        await handle(request, client)
    finally:
        door.budget.give_back(body.size)
        trace.bytes_in = body.size
        door.observer.end(trace, client, began_s)


class _Body:
    """One request's body on its way in."""

    __slots__ = ("_budget", "_connection", "size")

    def __init__(self, budget: BodyBudget, connection: ClientConnection) -> None:
        self._budget = budget
        self._connection = connection
        self.size = 0

    async def read(self, headers: Headers) -> bytes:
        """Return the whole body.

        Raises:
            ApiError: 413, or 503 when those of all requests together are too large.
            ClientGoneError: the client left before all of it came.
        """
        limit = self._budget.body_bytes_max
        for name, value in headers:
            if name == b"content-length" and value.isdigit() and int(value) > limit:
                raise _too_large(limit)
        parts: list[bytes] = []
        has_more = True
        while has_more:
            try:
                part = await self._connection.read()
            except DisconnectedError as error:
                raise ClientGoneError from error
            if self.size + len(part) > limit:
                raise _too_large(limit)
            self._budget.take(len(part))
            self.size += len(part)
            parts.append(part)
            has_more = self._connection.more_body
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request body is larger than {limit} bytes.")
