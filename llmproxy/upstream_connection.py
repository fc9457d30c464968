"""Owns one connection to a provider: HTTP/1.1 on httptools, a request and its answer at a time.

Sends exactly what it is given and hands on exactly what comes, as it comes. Must not choose where
to connect, follow redirects, decompress, send again, or have deadlines: those are the caller's.
"""

import asyncio
from collections.abc import Callable
from typing import cast

import httptools
from typing_extensions import override

from llmproxy.errors import LlmproxyError

HEAD_BYTES_MAX = 64 * 1024
"""Of an answer's headers."""
HEAD_TOO_LARGE = "the head of its answer is too large"
LITTLE_BUT_FRAMING = "its answer is little but framing"
WAITING_BYTES_MAX = 256 * 1024
"""As much of an answer may wait to be read before nothing more is taken from the provider."""

Headers = list[tuple[bytes, bytes]]


class UpstreamError(LlmproxyError):
    """The provider could not be reached, or broke off.

    `was_sent` is False only when surely no byte of the request has left: then nothing can have
    been generated.
    """

    def __init__(self, what: str, *, was_sent: bool, is_ours: bool = False) -> None:
        """Take a short description without any secret in it, and whether it is our own lack."""
        super().__init__(what)
        self.was_sent = was_sent
        self.is_ours = is_ours


class Answer:
    """A provider's answer: its head, and its body as it comes."""

    __slots__ = (
        *("_broken", "_chunks", "_connection", "_is_complete", "_loop", "_size", "_waiter"),
        *("has_head", "headers", "status"),
    )

    def __init__(self, connection: "Connection", loop: asyncio.AbstractEventLoop) -> None:
        """Begin without anything; the connection fills it."""
        self._loop = loop
        self.status = 0
        self.headers: Headers = []
        """Names are in lower case, values as they came."""
        self.has_head = False
        self._connection: Connection | None = connection
        """None once the connection is somebody else's, or closed."""
        self._chunks: list[bytes] = []
        self._size = 0
        self._is_complete = False
        self._broken: str | None = None
        """Why the rest of it does not come. No exception: raised, it would refer to this."""
        self._waiter: asyncio.Future[None] | None = None

    def header(self, name: bytes) -> bytes:
        """Return a header by its lower-case name, or b""."""
        for key, value in self.headers:
            if key == name:
                return value
        return b""

    @property
    def is_event_stream(self) -> bool:
        """Say whether it calls itself a stream of events."""
        return self.header(b"content-type").lower().startswith(b"text/event-stream")

    async def next_chunk(self) -> bytes | None:
        """Return the next bytes as soon as there are any, None at the end.

        Raises:
            UpstreamError: the connection broke before the end; all that came has been returned.
        """
        while not self._chunks:
            if self._is_complete:
                return None
            if self._broken is not None:
                raise UpstreamError(self._broken, was_sent=True)
            self._waiter = self._loop.create_future()
            await self._waiter
        chunks = self._chunks
        chunk = chunks[0] if len(chunks) == 1 else b"".join(chunks)
        chunks.clear()
        self._size = 0
        if self._connection is not None:
            self._connection.resume()
        return chunk

    def close(self) -> None:
        """Hang up unless the answer has come to its end."""
        if self._connection is not None:
            self._connection.abort()
            self._connection = None

    # --- what the connection calls -----------------------------------------------------------

    async def wait_for_head(self) -> None:
        """Return when the head has come.

        Raises:
            UpstreamError: it does not come.
        """
        while not self.has_head:
            if self._broken is not None:
                raise UpstreamError(self._broken, was_sent=True)
            self._waiter = self._loop.create_future()
            await self._waiter

    def take(self, chunk: bytes) -> bool:
        """Take a piece of the body; say whether more than enough waits to be read now."""
        self._chunks.append(chunk)
        self._size += len(chunk)
        self.wake()
        return self._size > WAITING_BYTES_MAX

    def end(self, broken: str | None = None) -> None:
        """Take note that nothing more comes, and why, if that is not all."""
        self._is_complete = broken is None
        self._broken = broken
        self._connection = None
        self.wake()

    def wake(self) -> None:
        """Let the reader go on."""
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Connection(asyncio.Protocol):
    """A connection; `give_back` is called with it when it may be used again."""

    def __init__(self, give_back: Callable[["Connection"], None]) -> None:
        """Take what the pool wants to know."""
        self._give_back = give_back
        self._loop = asyncio.get_running_loop()
        self._transport: asyncio.Transport | None = None
        self._socket: asyncio.Transport | None = None
        """What is paused: under TLS the transport below. While the one above it is paused, uvloop
        forgets at the connection's end what it has not decrypted yet (its pull request 661)."""
        self._is_tls = False
        self._has_said_end = False
        self._parser = httptools.HttpResponseParser(self)
        self._answer: Answer | None = None
        """The answer that comes, until all of it has come."""
        self._is_paused = False
        self._is_spoiled = False
        """Something came that nobody had asked for: it could be taken for the next answer."""
        self._head_bytes = 0
        self._unread_bytes = 0
        """What has come since anything of it was handed on: of a head that does not end, or of
        fields behind a body, which the parser keeps until each is complete."""
        self._has_length = False
        self.idle_since_s = 0.0

    @property
    def is_closed(self) -> bool:
        """Say whether nothing can be sent any more."""
        return self._transport is None or self._transport.is_closing()

    def send(self, head: bytes, body: bytes) -> Answer:
        """Send a request; from here on the provider may act on it."""
        assert self._transport is not None
        assert self._answer is None
        self._answer = answer = Answer(self, self._loop)
        self._has_length = False
        self._head_bytes = self._unread_bytes = 0
        self._transport.writelines((head, body))
        return answer

    def use_tls(self, transport: asyncio.Transport) -> None:
        """Go on by a transport that encrypts, above the one that was there."""
        self._transport = transport
        self._is_tls = True

    def abort(self) -> None:
        """Hang up at once."""
        if self._transport is not None:
            self._transport.abort()

    def close(self) -> None:
        """End a connection that is not in use."""
        if self._transport is not None:
            self._transport.close()

    def resume(self) -> None:
        """Go on reading."""
        if self._is_paused and self._socket is not None:
            self._is_paused = False
            self._socket.resume_reading()

    # --- asyncio's protocol ------------------------------------------------------------------

    @override
    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = self._socket = cast("asyncio.Transport", transport)

    @override
    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if self._answer is None:
            self.abort()  # nobody has asked
            return
        self._unread_bytes += len(data)
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserUpgrade:
            self._fail("it answered with another protocol")
        except httptools.HttpParserError:
            self._fail(self._invalid())
        self._check()

    def _invalid(self) -> str:
        has_head = self._answer is not None and self._answer.has_head
        return "its body is no valid HTTP" if has_head else "its answer is no valid HTTP"

    def _check(self) -> None:
        """Hang up after what must not be: more than the answer, or what comes without an end."""
        if self._answer is None:
            if self._is_spoiled:
                self.abort()
        elif self._unread_bytes > HEAD_BYTES_MAX:
            self._fail(LITTLE_BUT_FRAMING if self._answer.has_head else HEAD_TOO_LARGE)

    @override
    def eof_received(self) -> None:
        """Take note that the end is meant: under TLS a cut connection does not say so."""
        self._has_said_end = True

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """End the answer; one of no set length ends so, others are cut short."""
        self._transport = self._socket = None
        if self._answer is None:
            return
        is_meant = exc is None and (self._has_said_end or not self._is_tls)
        if not self._answer.has_head:
            self._fail("it closed the connection")
        elif is_meant and not self._has_length:
            self._end()
        else:
            self._fail("its connection ended in the middle")

    # --- httptools' callbacks ----------------------------------------------------------------

    def on_message_begin(self) -> None:
        """Begin an answer."""
        if self._answer is None:
            self._is_spoiled = True

    def on_header(self, name: bytes, value: bytes) -> None:
        """Take a header, or a field behind a chunked body, which goes nowhere."""
        if self._answer is None or self._answer.has_head:
            return
        name = name.lower()
        if name == b"content-length":
            self._has_length = True
        elif name == b"transfer-encoding":
            self._has_length = value.lower().rstrip().endswith(b"chunked")
        self._answer.headers.append((name, value))
        self._head_bytes += len(name) + len(value)

    def on_headers_complete(self) -> None:
        """Take the head, unless it only tells of one to come (RFC 9110, 15.2)."""
        answer, status = self._answer, self._parser.get_status_code()
        if answer is None:
            return
        if status < 100:
            self._fail("its answer is no valid HTTP")
            return
        if status < 200:
            answer.headers.clear()
            self._has_length = False
            return
        if self._head_bytes > HEAD_BYTES_MAX:
            self._fail(HEAD_TOO_LARGE)
            return
        self._unread_bytes = 0
        answer.status = status
        answer.has_head = True
        answer.wake()

    def on_body(self, body: bytes) -> None:
        """Take a piece of the body."""
        self._unread_bytes = 0
        if self._answer is not None and self._answer.take(body) and not self._is_paused:
            assert self._socket is not None
            self._is_paused = True
            self._socket.pause_reading()

    def on_message_complete(self) -> None:
        """End the answer, and let the connection be used again if it can be."""
        if self._answer is not None and self._answer.has_head:
            self._end()

    def _end(self) -> None:
        answer, self._answer = self._answer, None
        assert answer is not None
        self.resume()
        can_go_on = (
            self._transport is not None
            and self._parser.should_keep_alive()
            and not self._transport.get_write_buffer_size()  # it may still read the request
        )
        answer.end()
        if can_go_on:
            self._give_back(self)
        else:
            self.abort()

    def _fail(self, what: str) -> None:
        answer, self._answer = self._answer, None
        if answer is not None:
            answer.end(what)
        self.abort()
