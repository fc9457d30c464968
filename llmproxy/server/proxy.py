"""Owns the step from ASGI to the relay: messages in, messages out, nothing decided."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from llmproxy.errors import ApiError
from llmproxy.headers import Headers
from llmproxy.relay import ClientGoneError, Relay, Request
from llmproxy.server.protocol import CONNECTION

Message = dict[str, Any]
Receive = Callable[[], Awaitable[Message]]
Send = Callable[[Message], Awaitable[None]]


class AsgiClient:
    """A client's connection behind ASGI; see `exchange.Client`."""

    __slots__ = ("_connection", "_send", "has_started")

    def __init__(self, connection: asyncio.Transport, send: Send) -> None:
        """Take the connection and ASGI's `send`."""
        self._connection = connection
        self._send = send
        self.has_started = False

    def is_gone(self) -> bool:
        """Say whether the client has hung up."""
        return self._connection.is_closing()

    def abort(self) -> None:
        """Hang up on the client."""
        self._connection.abort()

    async def start(self, status: int, headers: Headers) -> None:
        """Send the head of the answer (it leaves with the first part of the body)."""
        self.has_started = True
        await self._send({"type": "http.response.start", "status": status, "headers": headers})

    async def send(self, body: bytes, *, more: bool) -> None:
        """Send a part of the body; waits while the client reads too slowly."""
        await self._send({"type": "http.response.body", "body": body, "more_body": more})


async def serve_request(
    relay: Relay, body_bytes_max: int, scope: Message, receive: Receive, send: Send
) -> None:
    """Hand one ASGI request to the relay.

    Args:
        relay: the request path.
        body_bytes_max: the largest body that is read.
        scope: ASGI's scope, of type `http`, with our connection in it.
        receive: ASGI's `receive`.
        send: ASGI's `send`.
    """
    headers: Headers = scope["headers"]

    async def read_body() -> bytes:
        return await _read_body(headers, body_bytes_max, receive)

    request = Request(
        method=scope["method"],
        raw_path=scope["raw_path"],
        query=scope["query_string"],
        headers=headers,
        read_body=read_body,
    )
    await relay.handle(request, AsgiClient(scope[CONNECTION], send))


async def _read_body(headers: Headers, limit: int, receive: Receive) -> bytes:
    """Return the whole body.

    Raises:
        ApiError: 413.
        ClientGoneError: the client left before all of it came.
    """
    for name, value in headers:
        if name == b"content-length" and value.isdigit() and int(value) > limit:
            raise _too_large(limit)
    parts: list[bytes] = []
    size = 0
    has_more = True
    while has_more:
        message = await receive()
        if message["type"] == "http.disconnect":
            raise ClientGoneError
        parts.append(message.get("body", b""))
        size += len(parts[-1])
        if size > limit:
            raise _too_large(limit)
        has_more = message.get("more_body", False)
    return parts[0] if len(parts) == 1 else b"".join(parts)


def _too_large(limit: int) -> ApiError:
    return ApiError(413, "request_too_large", f"The request body is larger than {limit} bytes.")
