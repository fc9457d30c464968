"""The demo provider: an HTTP/1.1 server on loopback that speaks every dialect.

An answer is a pure function of its request, save that a long prompt prefix that was seen before is
reported as cached. Usage counts one token for four characters of the prompt or of the answer.
A marker in the request makes it misbehave: see `llmproxy.demo.mishaps`.
"""

# mypy: disable-error-code="explicit-override"
# asyncio calls the methods of a Protocol; typing.override is younger than Python 3.11.

import asyncio
from collections import deque
from collections.abc import Callable
from http import HTTPStatus
from typing import cast

import httptools
import msgspec

from llmproxy.demo import anthropic_answers, gemini_answers, mishaps, openai_answers, openai_wire
from llmproxy.demo.replies import Answer, Counted, PromptCache, Request

BODY_BYTES_MAX = 64 * 1024 * 1024
# Requests of one connection that may wait for their turn before reading from it pauses.
PIPELINE_MAX = 16
COUNTED_MAX = 10_000
_EVENTS = "text/event-stream; charset=utf-8"
_GEMINI_OPENAI = "/v1beta/openai/"


class DemoProvider:
    """A small provider for demonstrations and tests; it needs no account and costs nothing.

    Any key is taken, except those that start with `sk-demo-bad` (answered 401) or `sk-demo-quota`
    (answered as an account without credit); model ids with `missing` in them are not found.

    Args:
        chunk_gap_s: pause between two events of a stream, in seconds.
    """

    def __init__(self, chunk_gap_s: float = 0.02) -> None:
        self.chunk_gap_s = chunk_gap_s
        self.requests_seen = 0
        # Its own book, to be held against what was reported and charged; the newest last.
        self.counted: deque[Counted] = deque(maxlen=COUNTED_MAX)
        self._cache = PromptCache()
        self._server: asyncio.Server | None = None
        self._connections: set[_Connection] = set()

    async def start(self, host: str = "127.0.0.1", port: int = 0) -> None:
        """Listen; with port 0 on a free port, which `port` then tells."""
        self._host = f"[{host}]" if ":" in host else host
        loop = asyncio.get_running_loop()
        self._server = await loop.create_server(
            lambda: _Connection(self._answer, self._connections, self.chunk_gap_s), host, port
        )

    async def stop(self) -> None:
        """Stop listening and cut what is still open."""
        if self._server is None:
            return
        self._server.close()
        tasks = [task for connection in list(self._connections) if (task := connection.cut())]
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._server.wait_closed()
        self._server = None

    @property
    def port(self) -> int:
        """The port it listens on.

        Raises:
            RuntimeError: it was not started.
        """
        if self._server is None or not self._server.sockets:
            message = "the demo provider is not running"
            raise RuntimeError(message)
        return cast("int", self._server.sockets[0].getsockname()[1])

    @property
    def openai_base_url(self) -> str:
        """The base URL for OpenAI clients; it ends in /v1."""
        return f"{self.anthropic_base_url}/v1"

    @property
    def anthropic_base_url(self) -> str:
        """The base URL for Anthropic clients; it has no path."""
        return f"http://{self._host}:{self.port}"

    @property
    def gemini_base_url(self) -> str:
        """The base URL for Gemini clients; it has no path."""
        return self.anthropic_base_url

    def _answer(self, request: Request) -> Answer:
        self.requests_seen += 1
        request = msgspec.structs.replace(request, path=_path_of(request.path))
        is_anthropic = (
            request.path.startswith("/v1/messages") or "anthropic-version" in request.headers
        )
        error: mishaps.ErrorAnswer = gemini_answers.error
        if request.path.startswith("/v1beta/"):
            usual = gemini_answers.answer(request, self._cache)
        elif is_anthropic:
            usual, error = anthropic_answers.answer(request, self._cache), anthropic_answers.error
        else:
            usual, error = openai_answers.answer(request, self._cache), _openai_error
        answer = mishaps.apply(request, usual, error, is_anthropic=is_anthropic)
        if answer.is_array and answer.events is not None:
            pieces = gemini_answers.as_array(answer.events)
            # Without the closing bracket of what breaks off.
            shown = pieces[:-1] if answer.breaks_off else pieces
            answer = msgspec.structs.replace(answer, events=shown)
        if answer.counted is not None:
            self.counted.append(answer.counted)
        return answer


def _path_of(path: str) -> str:
    """Return a path by which the dialect can be told: Gemini has two faces, and two versions."""
    if path.startswith(_GEMINI_OPENAI):
        return f"/v1/{path.removeprefix(_GEMINI_OPENAI)}"
    is_method = path.startswith("/v1/models/") and ":" in path
    return f"/v1beta/{path.removeprefix('/v1/')}" if is_method else path


def _openai_error(_request: Request, status: int, message: str) -> Answer:
    code = "rate_limit_exceeded" if status == 429 else None
    return openai_wire.error(status, message, None, code)


class _Connection(asyncio.Protocol):
    """One client connection: parses requests and answers them one after another."""

    def __init__(
        self,
        answer: Callable[[Request], Answer],
        connections: "set[_Connection]",
        chunk_gap_s: float,
    ) -> None:
        self._answer = answer
        self._connections = connections
        self._chunk_gap_s = chunk_gap_s
        self._parser = httptools.HttpRequestParser(self)
        # None in the queue: the bytes after the last request were not HTTP.
        self._requests: asyncio.Queue[tuple[Request, bool] | None] = asyncio.Queue()
        self._writable = asyncio.Event()
        self._writable.set()
        self._task: asyncio.Task[None] | None = None
        self.on_message_begin()

    def cut(self) -> asyncio.Task[None] | None:
        """Close at once; gives the task to wait for."""
        self._transport.abort()
        if self._task is not None:
            self._task.cancel()
        return self._task

    # asyncio.Protocol

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._connections.add(self)
        self._task = asyncio.get_running_loop().create_task(self._serve())

    def connection_lost(self, exc: Exception | None) -> None:
        self._connections.discard(self)
        if self._task is not None:
            self._task.cancel()

    def data_received(self, data: bytes) -> None:
        try:
            self._parser.feed_data(data)
        except (httptools.HttpParserError, httptools.HttpParserUpgrade):
            self._requests.put_nowait(None)
            self._transport.pause_reading()
        if self._requests.qsize() >= PIPELINE_MAX:
            self._transport.pause_reading()

    def pause_writing(self) -> None:
        self._writable.clear()

    def resume_writing(self) -> None:
        self._writable.set()

    # httptools

    def on_message_begin(self) -> None:
        self._url = bytearray()
        self._headers: dict[str, str] = {}
        self._body = bytearray()

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_header(self, name: bytes, value: bytes) -> None:
        self._headers[name.decode("latin-1").lower()] = value.decode("latin-1")

    def on_headers_complete(self) -> None:
        if self._headers.get("expect", "").lower() == "100-continue":
            self._transport.write(b"HTTP/1.1 100 Continue\r\n\r\n")

    def on_body(self, body: bytes) -> None:
        self._body += body
        if len(self._body) > BODY_BYTES_MAX:
            self._transport.abort()

    def on_message_complete(self) -> None:
        path, _, query = self._url.decode("latin-1").partition("?")
        method = self._parser.get_method().decode()
        request = Request(method, path, self._headers, bytes(self._body), query)
        self._requests.put_nowait((request, self._parser.should_keep_alive()))

    # Answers

    async def _serve(self) -> None:
        keep_alive = True
        while keep_alive:
            item = await self._requests.get()
            if item is None:
                malformed = openai_wire.error(400, "Malformed HTTP request")
                self._write_plain(malformed, keep_alive=False)
                break
            request, keep_alive = item
            answer = self._answer(request)
            await asyncio.sleep(answer.delay_s)
            if answer.events is None:
                self._write_plain(answer, keep_alive=keep_alive)
                await self._writable.wait()
            else:
                await self._write_stream(answer, answer.events, keep_alive=keep_alive)
            if answer.breaks_off:
                break
            if keep_alive and self._requests.empty():
                self._transport.resume_reading()
        self._transport.close()

    def _write_plain(self, answer: Answer, *, keep_alive: bool) -> None:
        length = ("content-length", str(len(answer.body)))
        head = _head(answer, [("content-type", answer.media_type), length], keep_alive=keep_alive)
        body = answer.body[: len(answer.body) // 2] if answer.breaks_off else answer.body
        self._transport.write(head + body)

    async def _write_stream(
        self, answer: Answer, events: tuple[bytes, ...], *, keep_alive: bool
    ) -> None:
        framing = [
            ("content-type", "application/json" if answer.is_array else _EVENTS),
            ("transfer-encoding", "chunked"),
        ]
        self._transport.write(_head(answer, framing, keep_alive=keep_alive))
        gap_s = self._chunk_gap_s if answer.gap_s is None else answer.gap_s
        for number, event in enumerate(events):
            if number:
                await asyncio.sleep(gap_s)
            self._transport.write(b"%x\r\n%b\r\n" % (len(event), event))
            await self._writable.wait()
        if not answer.breaks_off:
            self._transport.write(b"0\r\n\r\n")


def _head(answer: Answer, framing: list[tuple[str, str]], *, keep_alive: bool) -> bytes:
    connection = "keep-alive" if keep_alive else "close"
    headers = [*framing, *answer.headers, ("connection", connection), ("server", "llmproxy-demo")]
    phrase = "Overloaded" if answer.status == 529 else HTTPStatus(answer.status).phrase
    lines = [f"HTTP/1.1 {answer.status} {phrase}"]
    lines += [f"{name}: {value}" for name, value in headers]
    return "\r\n".join(lines).encode("latin-1") + b"\r\n\r\n"
