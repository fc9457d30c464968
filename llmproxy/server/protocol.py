"""Owns what we add to uvicorn: the connection in the ASGI scope, and how the process stops.

ASGI cannot ask whether a client is still there without waiting, and cannot hang up on it.
Java's clients offer h2c with every request: uvicorn would lose the body (Kludex/uvicorn#2722).
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import httptools
import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from llmproxy.clock import Clock, RequestIds, request_id_text
from llmproxy.errors import invalid_request

CONNECTION = "llmproxy.connection"
"""The scope's key for the client's `asyncio.Transport`."""


class ProxyProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on httptools; each request's scope names its connection.

    Upgrades are declined, as RFC 9110 (7.8) allows: the request goes on as plain HTTP/1.1.
    """

    _is_repeating_head = False

    @override
    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._go_on_without_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("This is not a valid HTTP request.")

    def _go_on_without_upgrade(self, rest: bytes) -> None:
        """Read the body of a request at whose head the parser has stopped for good.

        A new parser gets a head with the same framing, whose callbacks are left out.
        """
        framing = (b"content-length", b"transfer-encoding")
        head = [b"POST / HTTP/1.1"]
        head += [name + b": " + value for name, value in self.headers if name in framing]
        # The old parser has called the request complete; nobody has looked at it yet.
        self.cycle.more_body = True
        self.cycle.message_event.clear()
        self.parser = httptools.HttpRequestParser(self)
        self._is_repeating_head = True
        self.data_received(b"\r\n".join(head) + b"\r\n\r\n" + rest)

    @override
    def on_url(self, url: bytes) -> None:
        """Take a part of the URL."""
        if not self._is_repeating_head:
            super().on_url(url)

    @override
    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header."""
        if not self._is_repeating_head:
            super().on_header(name, value)

    @override
    def on_headers_complete(self) -> None:
        """Start the request."""
        if not self._is_repeating_head:
            super().on_headers_complete()
        self._is_repeating_head = False

    @override
    def on_message_begin(self) -> None:
        """Begin a request as uvicorn does, then add the connection to its scope."""
        if self._is_repeating_head:
            return
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[CONNECTION] = self.transport

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in our own envelope, and hang up."""
        request_id = request_id_text(RequestIds().new(Clock().now_ms()))
        error = invalid_request(msg)
        body = error.body(request_id)
        headers = [
            *error.headers(request_id),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [b"HTTP/1.1 400 Bad Request", *(name + b": " + value for name, value in headers)]
        self.transport.write(b"\r\n".join(lines) + b"\r\n\r\n" + body)
        self.transport.close()


class ProxyServer(uvicorn.Server):
    """uvicorn's server that stops as a service should: drained, and with exit code 0."""

    def __init__(
        self, config: uvicorn.Config, *, on_stop: Callable[[], None], on_started: Callable[[], None]
    ) -> None:
        """Take what to call when the stop begins and when the server accepts connections."""
        super().__init__(config)
        self._on_stop = on_stop
        self._on_started = on_started

    @override
    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start as uvicorn does, then say so."""
        await super().startup(sockets)
        self._on_started()

    @override
    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Stop admitting, finish what runs, then stop."""
        self._on_stop()
        await super().shutdown(sockets)

    @override
    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Stop gently at the first signal, at once at the second; never die of one."""
        loop = asyncio.get_running_loop()
        signals = (signal.SIGINT, signal.SIGTERM)
        for number in signals:
            loop.add_signal_handler(number, self._stop)
        try:
            yield
        finally:
            for number in signals:
                loop.remove_signal_handler(number)

    def _stop(self) -> None:
        if self.should_exit:
            self.force_exit = True
        self.should_exit = True
