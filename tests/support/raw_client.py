"""A small blocking HTTP client on a raw socket: byte for byte, read by read."""

import socket
import struct
import time
from collections.abc import Iterator, Mapping
from types import TracebackType
from typing import NamedTuple, Self


class Head(NamedTuple):
    """The status and the headers of an answer, names and values as sent."""

    status: int
    headers: list[tuple[bytes, bytes]]

    def header(self, name: str) -> bytes | None:
        """The first header of this name, in any case of letters."""
        wanted = name.encode().lower()
        return next((value for key, value in self.headers if key.lower() == wanted), None)


class RawClient:
    """One connection.

    Attributes:
        clean_end: after the body: whether its framing said that it is complete.
        reset: whether the server closed with RST.
    """

    def __init__(
        self,
        port: int,
        host: str = "127.0.0.1",
        timeout_s: float = 10.0,
        *,
        takes_little: bool = False,
    ) -> None:
        """With `takes_little`, only some tens of KB may wait in both ends' sockets."""
        self._sock = socket.socket()
        self._sock.settimeout(timeout_s)
        if takes_little:
            self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            # The server's end has room for so many segments.
            self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_MAXSEG, 536)
        try:
            self._sock.connect((host, port))
        except OSError:
            self._sock.close()
            raise
        self._sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._buffer = bytearray()
        self._head = Head(0, [])
        self.clean_end = False
        self.reset = False

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @property
    def local_port(self) -> int:
        """Our own end's port."""
        return int(self._sock.getsockname()[1])

    def send(self, raw: bytes) -> None:
        """Put raw bytes on the wire."""
        self._sock.sendall(raw)

    def post(self, path: str, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Send a POST of a JSON body in one write."""
        lines = [f"POST {path} HTTP/1.1", "host: 127.0.0.1", "content-type: application/json"]
        lines += [f"{name}: {value}" for name, value in (headers or {}).items()]
        lines.append(f"content-length: {len(body)}")
        self.send("\r\n".join(lines).encode("latin-1") + b"\r\n\r\n" + body)

    def recv_head(self) -> Head:
        """Read a status line and headers; a 1xx is an answer of its own.

        Raises:
            ConnectionError: the connection ended before.
        """
        while (end := self._buffer.find(b"\r\n\r\n")) < 0:
            data = self._read()
            if not data:
                message = f"the connection ended in the head: {bytes(self._buffer)!r}"
                raise ConnectionError(message)
            self._buffer += data
        line, *rest = bytes(self._buffer[:end]).split(b"\r\n")
        del self._buffer[: end + 4]
        headers = [(n, v.strip(b" \t")) for n, _, v in (h.partition(b":") for h in rest)]
        self._head = Head(int(line.split(b" ", 2)[1]), headers)
        return self._head

    def recv_raw(self) -> Iterator[tuple[float, bytes]]:
        """The rest of the connection as it comes, up to its end."""
        data = bytes(self._buffer)
        self._buffer.clear()
        data = data or self._read()
        while data:
            yield time.monotonic(), data
            data = self._read()

    def recv_chunks(self) -> Iterator[tuple[float, bytes]]:
        """The body, de-chunked: what each TCP read brought, and when (monotonic seconds).

        It ends with the body or with the connection; `clean_end` tells which.
        """
        self.clean_end = False
        length = self._head.header("content-length")
        chunked = (self._head.header("transfer-encoding") or b"").lower() == b"chunked"
        body = _ChunkedBody() if chunked else _SizedBody(None if length is None else int(length))
        data = b""
        while True:
            self._buffer += data
            if piece := body.take(self._buffer):
                yield time.monotonic(), piece
            if body.complete:
                self.clean_end = True
                return
            data = self._read()
            if not data:
                self.clean_end = not chunked and length is None and not self.reset
                return

    def body(self) -> bytes:
        """The whole body, or as much of it as came; see `clean_end`."""
        return b"".join(piece for _, piece in self.recv_chunks())

    def close(self) -> None:
        """Close with FIN."""
        self._sock.close()

    def half_close(self) -> None:
        """Send FIN and go on reading."""
        self._sock.shutdown(socket.SHUT_WR)

    def abort(self) -> None:
        """Close with RST."""
        self._sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self._sock.close()

    def _read(self) -> bytes:
        try:
            return self._sock.recv(65_536)
        except ConnectionResetError:
            self.reset = True
            return b""


class _SizedBody:
    """A body of a known length, or (None) one that ends with the connection."""

    def __init__(self, length: int | None) -> None:
        self._left = length
        self.complete = length == 0

    def take(self, buffer: bytearray) -> bytes:
        """Take what belongs to the body out of the buffer."""
        piece = bytes(buffer if self._left is None else buffer[: self._left])
        del buffer[: len(piece)]
        if self._left is not None:
            self._left -= len(piece)
            self.complete = self._left == 0
        return piece


class _ChunkedBody:
    """A chunked body."""

    def __init__(self) -> None:
        self._left = 0  # of the chunk, with the CRLF behind it
        self._last = False
        self.complete = False

    def take(self, buffer: bytearray) -> bytes:
        """Take what is there of the body out of the buffer, without its framing."""
        piece = bytearray()
        while buffer and not self.complete:
            if self._left:
                part = bytes(buffer[: self._left])
                del buffer[: len(part)]
                data_left = max(self._left - 2, 0)
                piece += part[:data_left]
                self._left -= len(part)
                continue
            line_end = buffer.find(b"\r\n")
            if line_end < 0:
                break
            line = bytes(buffer[:line_end])
            del buffer[: line_end + 2]
            if self._last:
                self.complete = not line  # an empty line ends the trailers
            elif size := int(line.partition(b";")[0], 16):
                self._left = size + 2
            else:
                self._last = True
        return bytes(piece)
