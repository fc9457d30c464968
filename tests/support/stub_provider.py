"""A scriptable upstream on raw sockets, for tests of bytes, timing and faults.

It runs in a thread with a loop of its own, so that tests may block:

    with StubProvider() as stub:
        stub.handle = handler  # async def handler(request: SeenRequest, out: Out) -> None
        ...
        assert stub.requests[0].header("authorization") == b"Bearer sk-upstream"
"""

# mypy: disable-error-code="explicit-override"
# asyncio calls the methods of a Protocol; typing.override is younger than Python 3.11.

import asyncio
import json
import socket
import ssl
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterable
from dataclasses import dataclass
from http import HTTPStatus
from types import TracebackType
from typing import Any, Self, cast

from tests.support import answers

Headers = Iterable[tuple[str, str]]


@dataclass(frozen=True)
class SeenRequest:
    """One request as it came over the wire.

    Args:
        method: such as `POST`.
        target: the raw request target, path and query.
        headers: names and values as sent, in order.
        body: the body, de-chunked.
        connection: number of the connection it came on, from 0: equal numbers mean reuse.
        raw_head: the request line and the headers, byte for byte.
    """

    method: str
    target: bytes
    headers: list[tuple[bytes, bytes]]
    body: bytes
    connection: int
    raw_head: bytes

    def header(self, name: str) -> bytes | None:
        """The first header of this name, in any case of letters."""
        wanted = name.encode().lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)

    def json(self) -> Any:  # noqa: ANN401 - any JSON value
        """The body as JSON."""
        return json.loads(self.body)


Handler = Callable[[SeenRequest, "Out"], Awaitable[None]]


class Out:
    """The answering side of one connection; every write goes to the socket at once."""

    def __init__(self, connection: "_Connection") -> None:
        self._connection = connection
        self._keeps_alive = connection.keeps_alive
        self._chunked = False
        self.sent_bytes = 0
        self.client_gone = connection.gone

    @property
    def closed(self) -> bool:
        """Whether `close` or `abort` was called or the connection is lost."""
        return self._connection.transport.is_closing()

    async def send(self, raw: bytes) -> None:
        """Put raw bytes on the wire.

        Raises:
            ConnectionResetError: the connection is lost.
        """
        if self.closed:
            raise ConnectionResetError
        self.sent_bytes += len(raw)
        self._connection.transport.write(raw)
        await self._connection.writable.wait()

    async def head(
        self, status: int, headers: Headers = (), *, length: int | None = None, chunked: bool = True
    ) -> None:
        """Send a status line and headers; the body has a length, is chunked or ends with FIN."""
        framing: list[tuple[str, str]] = []
        self._chunked = chunked and length is None
        if length is not None:
            framing = [("content-length", str(length))]
        elif chunked:
            framing = [("transfer-encoding", "chunked")]
        if not self._keeps_alive:
            framing.append(("connection", "close"))
        phrase = HTTPStatus(status).phrase if status in set(HTTPStatus) else "Status"
        lines = [f"HTTP/1.1 {status} {phrase}", *(f"{n}: {v}" for n, v in [*headers, *framing])]
        await self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n")

    async def chunk(self, data: bytes) -> None:
        """Send a piece of the body, as one chunk when the body is chunked."""
        await self.send(b"%x\r\n%b\r\n" % (len(data), data) if self._chunked else data)

    async def end(self) -> None:
        """End the body."""
        if self._chunked:
            await self.send(b"0\r\n\r\n")

    async def json(self, status: int, value: object, headers: Headers = ()) -> None:
        """Send a whole JSON answer; bytes are taken as they are."""
        body = value if isinstance(value, bytes) else json.dumps(value).encode()
        head = [("content-type", "application/json"), *headers]
        await self.head(status, head, length=len(body))
        await self.send(body)

    async def sse(
        self, parts: Iterable[bytes], gap_s: float = 0.0, status: int = 200, headers: Headers = ()
    ) -> None:
        """Send a whole event stream: each part in a TCP write of its own, `gap_s` apart."""
        await self.head(status, [("content-type", "text/event-stream"), *headers])
        for number, part in enumerate(parts):
            if number and gap_s:
                await asyncio.sleep(gap_s)
            await self.chunk(part)
        await self.end()

    def abort(self) -> None:
        """Close with RST."""
        sock = self._connection.transport.get_extra_info("socket")
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._connection.transport.abort()

    def close(self) -> None:
        """Close with FIN, after what was sent."""
        self._connection.transport.close()

    def half_close(self) -> None:
        """Send FIN after what was sent, and go on reading."""
        self._connection.transport.write_eof()


class StubProvider:
    """The upstream; a failure of a handler is raised when the `with` block ends.

    Attributes:
        handle: answers each request; may be set at any time.
        on_connect: runs when a connection was accepted, before anything is read from it.
        read_bodies: False calls the handler when the head is read, with an empty body; the
            connection is closed after the answer.
        keeps_alive: False says `connection: close` in each answer, and does so.
    """

    def __init__(self, tls: ssl.SSLContext | None = None) -> None:
        self._tls = tls
        self.handle: Handler = _default
        self.on_connect: Callable[[Out], Awaitable[None]] | None = None
        self.read_bodies = True
        self.keeps_alive = True
        self.failures: list[Exception] = []
        self.port = 0
        self._seen: list[SeenRequest] = []
        self._connections: list[_Connection] = []
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="stub-provider")

    def __enter__(self) -> Self:
        self._thread.start()
        self._server = asyncio.run_coroutine_threadsafe(self._listen(), self._loop).result(5)
        self.port = cast("int", self._server.sockets[0].getsockname()[1])
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
        if self.failures and error is None:
            raise self.failures[0]

    @property
    def url(self) -> str:
        """`http://127.0.0.1:PORT`, or https where it speaks TLS."""
        return f"{'https' if self._tls else 'http'}://127.0.0.1:{self.port}"

    @property
    def requests(self) -> list[SeenRequest]:
        """What was received so far."""
        return self._seen.copy()

    @property
    def connections_opened(self) -> int:
        """How many connections were accepted so far."""
        return len(self._connections)

    def wait_for_requests(self, count: int, timeout_s: float = 5.0) -> list[SeenRequest]:
        """Block until so many requests were received.

        Raises:
            TimeoutError: they did not come in time.
        """
        deadline = time.monotonic() + timeout_s
        while len(self._seen) < count:
            if time.monotonic() > deadline:
                message = f"{len(self._seen)} of {count} requests after {timeout_s} s"
                raise TimeoutError(message)
            time.sleep(0.002)
        return self.requests

    async def _listen(self) -> asyncio.Server:
        return await self._loop.create_server(self._accept, "127.0.0.1", 0, ssl=self._tls)

    async def _stop(self) -> None:
        self._server.close()
        tasks = [connection.cut() for connection in self._connections]
        await asyncio.gather(*tasks, return_exceptions=True)

    def _accept(self) -> "_Connection":
        return _Connection(self)

    def connected(self, connection: "_Connection") -> int:
        """Note a connection, whose TLS handshake has succeeded; return its number."""
        self._connections.append(connection)
        return len(self._connections) - 1

    def seen(self, request: SeenRequest) -> None:
        """Note a request; called by its connection."""
        self._seen.append(request)


class _Connection(asyncio.Protocol):
    """One accepted connection: reads requests and lets the handler answer them in turn."""

    transport: asyncio.Transport

    def __init__(self, stub: StubProvider) -> None:
        self._stub = stub
        self.keeps_alive = stub.keeps_alive
        self._reader = asyncio.StreamReader()
        self.gone = asyncio.Event()
        self.writable = asyncio.Event()
        self.writable.set()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._number = self._stub.connected(self)
        self.transport = cast("asyncio.Transport", transport)
        self._reader.set_transport(self.transport)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def data_received(self, data: bytes) -> None:
        self._reader.feed_data(data)

    def eof_received(self) -> bool:
        self._reader.feed_eof()
        self.gone.set()
        # A client that sent FIN may still be answered; TLS knows no such half.
        return self.transport.get_extra_info("sslcontext") is None

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.gone.is_set():
            self._reader.feed_eof()
            self.gone.set()
        self.writable.set()

    def pause_writing(self) -> None:
        self.writable.clear()

    def resume_writing(self) -> None:
        self.writable.set()

    def cut(self) -> "asyncio.Task[None]":
        if not self.transport.is_closing():
            self.transport.abort()
        self._task.cancel()
        return self._task

    async def _serve(self) -> None:
        try:
            if self._stub.on_connect is not None:
                await self._stub.on_connect(Out(self))
            while not self.transport.is_closing():
                request = await self._read_request()
                self._stub.seen(request)
                out = Out(self)
                await self._stub.handle(request, out)
                last = (request.header("connection") or b"").lower() == b"close"
                last = last or not (self.keeps_alive and self._stub.read_bodies)
                if last or not out.sent_bytes:
                    break
        except (ConnectionError, EOFError):
            pass  # The client went away: what the test looks at is on the other side.
        except Exception as e:  # noqa: BLE001 - raised again in the thread of the test
            self._stub.failures.append(e)
        self.transport.close()

    async def _read_request(self) -> SeenRequest:
        raw_head = await self._reader.readuntil(b"\r\n\r\n")
        line, *rest = raw_head[:-4].split(b"\r\n")
        method, target, _ = line.split(b" ", 2)
        headers = [(n, v.strip(b" \t")) for n, _, v in (h.partition(b":") for h in rest)]
        lower = {name.lower(): value for name, value in headers}
        body = b""
        if self._stub.read_bodies:
            if lower.get(b"expect", b"").lower() == b"100-continue":
                self.transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            if lower.get(b"transfer-encoding", b"").lower() == b"chunked":
                body = await self._read_chunks()
            else:
                body = await self._reader.readexactly(int(lower.get(b"content-length", b"0")))
        return SeenRequest(method.decode(), target, headers, body, self._number, raw_head)

    async def _read_chunks(self) -> bytes:
        body = bytearray()
        while size := int((await self._reader.readuntil(b"\r\n")).partition(b";")[0], 16):
            body += await self._reader.readexactly(size)
            await self._reader.readexactly(2)
        while await self._reader.readuntil(b"\r\n") != b"\r\n":
            pass  # Trailers.
        return bytes(body)


async def _default(request: SeenRequest, out: Out) -> None:
    await out.json(200, answers.openai_chat())


def closed_port() -> int:
    """A loopback port on which nothing listens: connecting to it is refused."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return cast("int", sock.getsockname()[1])
