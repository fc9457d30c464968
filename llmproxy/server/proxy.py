"""Owns the step from ASGI to who answers: messages in, messages out, bounded bodies."""

import asyncio
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any, NamedTuple

from llmproxy.clock import Clock
from llmproxy.errors import ApiError
from llmproxy.headers import Headers
from llmproxy.logs import RequestLog
from llmproxy.metrics import Metrics
from llmproxy.relay import ClientGoneError, Request
from llmproxy.server.protocol import CONNECTION
from llmproxy.trace import Trace

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


OVERLOADED_RETRY_AFTER_S = 2


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
            raise ApiError(
                503,
                "overloaded",
                "The proxy is reading too many large requests now. Try again in a moment.",
                should_retry=True,
                retry_after_s=OVERLOADED_RETRY_AFTER_S,
            )
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

    def end(self, trace: Trace, client: "AsgiClient", began_s: float) -> None:
        """Note that a request has ended."""
        self.metrics.in_flight -= 1
        trace.status, trace.bytes_out = client.status, client.bytes_out
        trace.duration_s = self.clock.monotonic_s() - began_s
        if client.started_s:
            trace.ttfb_s = client.started_s - began_s
        self.metrics.note_end(trace)
        if self.log is not None:
            self.log.write(trace)


class AsgiClient:
    """A client's connection behind ASGI; see `exchange.Client`."""

    __slots__ = (
        *("_clock", "_connection", "_send"),
        *("bytes_out", "has_started", "started_s", "status"),
    )

    def __init__(self, connection: asyncio.Transport, send: Send, clock: Clock) -> None:
        """Take the connection and ASGI's `send`."""
        self._connection = connection
        self._send = send
        self._clock = clock
        self.has_started = False
        self.started_s = 0.0
        self.status = 0
        self.bytes_out = 0

    def is_gone(self) -> bool:
        """Say whether the client has hung up."""
        return self._connection.is_closing()

    def abort(self) -> None:
        """Hang up on the client."""
        self._connection.abort()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer (it leaves with the first part of the body)."""
        self.has_started = True
        self.status, self.started_s = status, self._clock.monotonic_s()
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body; waits while the client reads too slowly."""
        self.bytes_out += len(body)
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


Handler = Callable[[Request, AsgiClient], Awaitable[None]]


class Door(NamedTuple):
    """What every request passes, on its way in and out."""

    budget: BodyBudget
    observer: Observer


async def serve_request(
    door: Door, handle: Handler, scope: Message, receive: Receive, send: Send
) -> None:
    """Hand one ASGI request over, to the relay or to another that answers API keys.

    Args:
        door: limits of bodies, and who hears of the request.
        handle: who answers it.
        scope: ASGI's scope, of type `http`, with our connection in it.
        receive: ASGI's `receive`.
        send: ASGI's `send`.
    """
    headers: Headers = scope["headers"]
    body = _Body(door.budget, receive)
    trace = Trace()
    request = Request(
        method=scope["method"],
        raw_path=scope["raw_path"],
        query=scope["query_string"],
        headers=headers,
        read_body=partial(body.read, headers),
        trace=trace,
    )
    client = AsgiClient(scope[CONNECTION], send, door.observer.clock)
    began_s = door.observer.begin()
    try:
        await handle(request, client)
    finally:
        door.budget.give_back(body.size)
        trace.bytes_in = body.size
        door.observer.end(trace, client, began_s)


class _Body:
    """One request's body on its way in."""

    __slots__ = ("_budget", "_receive", "size")

    def __init__(self, budget: BodyBudget, receive: Receive) -> None:
        self._budget = budget
        self._receive = receive
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
            message = await self._receive()
            if message["type"] == "http.disconnect":
                raise ClientGoneError
            part = message.get("body", b"")
            if self.size + len(part) > limit:
                raise _too_large(limit)
            self._budget.take(len(part))
            self.size += len(part)
            parts.append(part)
            has_more = message.get("more_body", False)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request body is larger than {limit} bytes.")
