"""Owns what we add to uvicorn: the connection in the ASGI scope, and how the process stops.

ASGI cannot ask whether a client is still there without waiting, and cannot hang up on it.
"""

import asyncio
import contextlib
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

import uvicorn
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

CONNECTION = "llmproxy.connection"
"""The scope's key for the client's `asyncio.Transport`."""


class ProxyProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on httptools; each request's scope names its connection."""

    @override
    def on_message_begin(self) -> None:
        """Begin a request as uvicorn does, then add the connection to its scope."""
        super().on_message_begin()
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope[CONNECTION] = self.transport

    @override
    def _unsupported_upgrade_warning(self) -> None:
        """Say nothing: clients that try WebSocket first get a 426 (reference wire.md D.2)."""


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
