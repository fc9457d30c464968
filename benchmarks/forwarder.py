"""A bare ASGI forwarder, the yardstick: `python -m benchmarks.forwarder PROVIDER_PORT`.

uvicorn with uvloop and httptools, one keep-alive client on httptools behind it, and nothing else:
no keys, no prices, no ledger, no checks. What llmproxy costs more than this is the price of what it
does, and their ratio is much the same on any machine. It prints its port.
"""

# mypy: disable-error-code="explicit-override"
# asyncio calls the methods of a Protocol; typing.override is younger than Python 3.11.

import asyncio
import socket
import sys
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Any, cast

import httptools
import uvicorn

from benchmarks.load import HOST

Scope = dict[str, Any]
Receive = Callable[[], Awaitable[dict[str, Any]]]
Send = Callable[[dict[str, Any]], Awaitable[None]]

_NOT_SENT_ON = frozenset({b"host", b"connection", b"content-length", b"transfer-encoding"})
_NOT_SENT_BACK = frozenset({b"connection", b"transfer-encoding"})


class Upstream(asyncio.Protocol):
    """One connection to the provider; an answer's pieces are awaited one by one."""

    def __init__(self) -> None:
        """Wait for the connection."""
        self._pieces: deque[bytes] = deque()
        self._waiter: asyncio.Future[None] | None = None
        self.has_head = self.is_done = self.is_lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def send(self, request: bytes) -> None:
        """Send a request whose answer is read next."""
        self._parser = httptools.HttpResponseParser(self)
        self.headers: list[tuple[bytes, bytes]] = []
        self.has_head = self.is_done = False
        self._transport.write(request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)
        self._wake()

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_lost = True
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    def on_header(self, name: bytes, value: bytes) -> None:
        self.headers.append((name.lower(), value))

    def on_headers_complete(self) -> None:
        self.status = self._parser.get_status_code()
        self.has_head = True

    def on_body(self, body: bytes) -> None:
        self._pieces.append(body)

    def on_message_complete(self) -> None:
        self.is_done = True

    async def read_head(self) -> None:
        """Wait for the status and the headers.

        Raises:
            ConnectionError: the provider hung up.
        """
        while not self.has_head:
            await self._more()

    async def read_piece(self) -> tuple[bytes, bool]:
        """Return what has come of the body, waiting for some, and whether there is more.

        Raises:
            ConnectionError: the provider hung up.
        """
        while not (self._pieces or self.is_done):
            await self._more()
        data = b"".join(self._pieces)
        self._pieces.clear()
        return data, not self.is_done

    async def _more(self) -> None:
        if self.is_lost:
            raise ConnectionError("the provider hung up")
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


class Forwarder:
    """The application."""

    def __init__(self, provider_port: int) -> None:
        """Take where everything goes."""
        self._port = provider_port
        self._host = b"%b:%d" % (HOST.encode(), provider_port)
        self._idle: list[Upstream] = []

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Forward one request."""
        body = b""
        while True:
            message = await receive()
            body += message.get("body", b"")
            if not message.get("more_body"):
                break
        upstream = await self._connection()
        upstream.send(self._request(scope, body))
        await upstream.read_head()
        headers = [field for field in upstream.headers if field[0] not in _NOT_SENT_BACK]
        await send({"type": "http.response.start", "status": upstream.status, "headers": headers})
        has_more = True
        while has_more:
            data, has_more = await upstream.read_piece()
            await send({"type": "http.response.body", "body": data, "more_body": has_more})
        self._idle.append(upstream)

    async def _connection(self) -> Upstream:
        while self._idle:
            upstream = self._idle.pop()
            if not upstream.is_lost:
                return upstream
        loop = asyncio.get_running_loop()
        _, upstream = await loop.create_connection(Upstream, HOST, self._port)
        return upstream

    def _request(self, scope: Scope, body: bytes) -> bytes:
        lines = [b"POST %b HTTP/1.1" % scope["raw_path"], b"host: %b" % self._host]
        lines += [b"%b: %b" % field for field in scope["headers"] if field[0] not in _NOT_SENT_ON]
        return b"\r\n".join([*lines, b"content-length: %d" % len(body), b"", body])


def main() -> None:
    """Serve until it is killed."""
    app = Forwarder(int(sys.argv[1]))
    config = uvicorn.Config(
        cast("Any", app),
        loop="uvloop",
        http="httptools",
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        server_header=False,
        proxy_headers=False,
    )
    listener = socket.create_server((HOST, 0), backlog=2048)
    print(listener.getsockname()[1], flush=True)
    uvicorn.Server(config).run([listener])


if __name__ == "__main__":
    main()
