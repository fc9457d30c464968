"""Owns one request on a client's connection, and its answer, as bytes of HTTP/1.1.

The proxy's own paths use it directly; the pages use it through ASGI, which costs a dictionary and
a task switch for each message, and cannot ask whether a client is still there. Must not know what
is asked or answered.
"""

import asyncio
from typing import Any

from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import (
    STATUS_LINE,
    HttpToolsProtocol,
    RequestResponseCycle,
)

from llmproxy.headers import Headers

CYCLE = "llmproxy.cycle"
"""The key of a weak reference to a request's `Cycle` in its ASGI scope, which the cycle has."""
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"
_BODILESS = frozenset({204, 304})


class DisconnectedError(Exception):
    """The client left before its request was complete."""


class Cycle(RequestResponseCycle):
    """One request and its answer."""

    _loop: asyncio.AbstractEventLoop
    _head = b""
    """What has not been sent yet of the answer's head."""
    _is_chunked = False
    _is_bodiless = False
    _body_left: int | None = None
    """How many bytes of the body are still to come, None when nobody said."""

    @classmethod
    def begin(cls, protocol: HttpToolsProtocol, scope: Any, *, keep_alive: bool) -> "Cycle":  # noqa: ANN401 - ASGI
        """Return the cycle of a request whose head has come on a connection."""
        cycle = cls(
            scope=scope,
            transport=protocol.transport,
            flow=protocol.flow,
            logger=protocol.logger,
            access_logger=protocol.access_logger,
            access_log=False,
            default_headers=protocol.server_state.default_headers,
            message_event=asyncio.Event(),
            expect_100_continue=protocol.expect_100_continue,
            keep_alive=keep_alive,
            on_response=protocol.on_response_complete,
        )
        cycle._loop = protocol.loop
        return cycle

    # --- the request -------------------------------------------------------------------------

    def is_gone(self) -> bool:
        """Say whether the client has hung up."""
        return self.transport.is_closing()

    def abort(self) -> None:
        """Hang up on the client."""
        self.transport.abort()

    async def read(self) -> bytes:
        """Return what has come of the request's body since the last call; see `more_body`.

        Raises:
            DisconnectedError: the client has left before all of it came.
        """
        if self.more_body and not self.body:
            await self._wait_for_more()
        if self.disconnected:
            raise DisconnectedError
        data, self.body = bytes(self.body), bytearray()
        return data

    async def _wait_for_more(self) -> None:
        if self.waiting_for_100_continue and not self.transport.is_closing():
            self.transport.write(_CONTINUE)
            self.waiting_for_100_continue = False
        while self.more_body and not self.body and not self.disconnected:
            self.flow.resume_reading()
            self.message_event.clear()
            await self.message_event.wait()

    # --- the answer --------------------------------------------------------------------------

    def start(self, status: int, headers: Headers) -> None:
        """Begin the answer; its head leaves with the body's first piece, or in a moment.

        Raises:
            ValueError: a line break in a header would end it early.
        """
        self.response_started = True
        self.waiting_for_100_continue = False
        headers = self.default_headers + headers  # the date
        lines: list[bytes] = []
        for name, value in headers:
            lines += (name, b": ", value, b"\r\n")
            if name == b"content-length":
                self._body_left = int(value)
            elif name == b"connection" and value.lower() == b"close":
                self.keep_alive = False
        head = b"".join(lines)
        if not head.count(b"\r") == head.count(b"\n") == len(headers):
            msg = "a header of an answer has a line break in it"
            raise ValueError(msg)
        self._head = b"".join((STATUS_LINE[status], head, *self._framing(status), b"\r\n"))
        self._loop.call_soon(self._send_head)

    def _framing(self, status: int) -> list[bytes]:
        """Decide how the body will end, and return the headers that say so."""
        lines: list[bytes] = []
        if self.scope["method"] == "HEAD" or status in _BODILESS:
            self._is_bodiless = True
        elif self._body_left is None and self.scope["http_version"] == "1.1":
            self._is_chunked = True
            lines.append(b"transfer-encoding: chunked\r\n")
        elif self._body_left is None:
            self.keep_alive = False  # HTTP/1.0 knows no chunks: it ends with the connection
        if not self.keep_alive:
            lines.append(b"connection: close\r\n")
        return lines

    def _send_head(self) -> None:
        """Send a head that no piece of a body has taken along."""
        if self._head and not self.is_gone():
            self.transport.write(self._head)
        self._head = b""

    @property
    def is_full(self) -> bool:
        """Say whether so much waits to be sent that no more should be written now."""
        return self.flow.write_paused and not self.is_gone()

    async def drained(self) -> None:
        """Return when the client has taken most of what waits, or has left."""
        await self.flow.drain()

    def write(self, body: bytes, *, more: bool) -> None:
        """Send a piece of the body; the last one has `more` False."""
        # Not `disconnected`: of several requests on a connection uvicorn tells only the last.
        if self.is_gone():
            return
        head, self._head = self._head, b""
        if self._is_bodiless:
            data = head
        elif self._is_chunked:
            end = b"" if more else b"0\r\n\r\n"
            chunk = (b"%x\r\n" % len(body), body, b"\r\n") if body else ()
            data = b"".join((head, *chunk, end))
        else:
            self._count(len(body), more=more)
            data = head + body if head else body
        if data:
            self.transport.write(data)
        if not more:
            self._complete()

    def _count(self, size: int, *, more: bool) -> None:
        """Compare what is sent with the length that the head told."""
        if self._body_left is None:
            return
        self._body_left -= size
        if self._body_left < 0 or (self._body_left and not more):
            self.transport.abort()
            msg = "an answer is not as long as its head says"
            raise ValueError(msg)

    def _complete(self) -> None:
        self.response_complete = True
        self.message_event.set()
        if not self.keep_alive:
            self.transport.close()
        self.on_response()

    # --- ASGI --------------------------------------------------------------------------------

    @override
    async def send(self, message: Any) -> None:
        """Take a message of the answer, as ASGI has it."""
        if message["type"] == "http.response.start":
            self.start(message["status"], [(n.lower(), v) for n, v in message.get("headers", ())])
            return
        if self.is_full:
            await self.drained()
        self.write(message.get("body", b""), more=message.get("more_body", False))
