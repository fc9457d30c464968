"""Owns what we add to uvicorn's protocol: our own cycle of request and answer, and limits.

Java's clients offer h2c with every request: uvicorn would lose the body (Kludex/uvicorn#2722).
uvicorn has no limit for a request's head and no deadline for any part of it.
"""

import asyncio
import weakref
from collections.abc import Callable
from functools import partial
from typing import Any, ClassVar
from urllib.parse import unquote

import httptools
from typing_extensions import override
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from llmproxy.clock import Clock, RequestIds, request_id_text
from llmproxy.errors import ApiError, invalid_request, overloaded
from llmproxy.server.cycle import CYCLE, Cycle
from llmproxy.server.head_gate import HeadRefusedError, read_head

FRAMING_BYTES_MAX = 16
"""For each byte of a chunked body; a chunk of one byte has five, and extensions may come on top."""
SURPLUS_MAX = 100
"""So many connections beyond the most are told so; others are dropped."""
WATCHING_MAX = 100
"""So many connections to the port of the metrics; others are dropped."""
PROBE_PATHS = frozenset((b"/healthz", b"/readyz"))
"""They are answered beyond the most too: a supervisor would restart a server that is well."""
SURPLUS_PATIENCE_S = 1.0
"""How long one of them may say nothing."""
MIB = 1024 * 1024


class ProxyProtocol(HttpToolsProtocol):
    """uvicorn's HTTP/1.1 on httptools; each request's scope names its connection.

    Upgrades are declined, as RFC 9110 (7.8) allows: the request goes on as plain HTTP/1.1.
    """

    head_bytes_max = 64 * 1024
    """Of a request line and headers."""
    connections_max = 2**31
    metrics_port = 0
    """Connections to it are the operator's own: they are counted apart."""
    watching: ClassVar[set[asyncio.Protocol]] = set()
    """Those connections."""
    _is_surplus = False
    """There are too many connections: it is told so, and closed."""
    _is_repeating_head = False
    _reading_since_s = 0.0
    """Since when a request's head, or then its body, has been coming; 0 between requests."""
    _idle_since_s = 0.0
    """Since when nothing has been asked that is not answered."""
    _is_in_head = False
    _heads = 0
    """How many requests have begun."""
    _head_bytes = 0
    """What earlier reads have brought of the head that is coming."""
    _read_bytes = 0
    """What the present read has brought, of whatever."""
    _body_bytes = 0
    _raw_bytes = 0
    """Of the body as it comes, its chunks' framing and what stands behind them included."""

    @override
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a connection; one that says nothing is closed as one that says nothing more."""
        super().connection_made(transport)
        self._idle_since_s = self.loop.time()
        if self.server is not None and self.server[1] == self.metrics_port:
            self.watching.add(self)
            if len(self.watching) > WATCHING_MAX:
                transport.abort()
            return
        clients = len(self.server_state.connections) - len(self.watching)
        surplus = clients - self.connections_max
        self._is_surplus = surplus > 0
        if surplus > SURPLUS_MAX:
            transport.abort()

    @override
    def connection_lost(self, exc: Exception | None) -> None:
        """Let a connection go."""
        self.watching.discard(self)
        super().connection_lost(exc)
        for cycle, _ in self.pipeline:  # nobody answers them, so nothing else lets go of us there
            cycle.on_response = _do_nothing
        self.pipeline.clear()

    @override
    def data_received(self, data: bytes) -> None:
        """Parse what has come."""
        if not self._reading_since_s and not self._is_answer_due():
            self._begin_head()  # here, since the parser does not tell of empty lines before it
        head, was_in_head = self._heads, self._is_in_head
        self._read_bytes = len(data)
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._go_on_without_upgrade(data[offer.args[0] :])
        except httptools.HttpParserError as error:
            self._refuse_invalid(error)
        if self._heads == head:  # the same request is still not complete
            if self._is_in_head:
                self._count_head(len(data))
            elif self._reading_since_s and not was_in_head:
                self._count_framing(len(data))

    def _refuse_invalid(self, error: httptools.HttpParserError) -> None:
        refusal = error.__context__  # what one of the parser's callbacks has raised
        if isinstance(refusal, HeadRefusedError):
            self._refuse(refusal.status, str(refusal))
        else:
            self._refuse(400, "This is not a valid HTTP request.")

    def _count_head(self, read_bytes: int) -> None:
        self._head_bytes += read_bytes
        if self._head_bytes > self.head_bytes_max:
            self._refuse(431, _too_large_head(self.head_bytes_max))

    def _count_framing(self, read_bytes: int) -> None:
        """Refuse a body of little but framing: extensions of chunks, or fields behind them.

        The limit of bodies does not see those, and the parser keeps a field until it is complete.
        """
        self._raw_bytes += read_bytes
        framing_bytes = self._raw_bytes - self._body_bytes
        if framing_bytes > self.head_bytes_max + FRAMING_BYTES_MAX * self._body_bytes:
            self._refuse(400, "The chunks of the request's body have more framing than body.")

    def _begin_head(self) -> None:
        self._reading_since_s = self.loop.time()
        self._is_in_head = True
        self._heads += 1
        self._head_bytes = 0

    def _is_answer_due(self) -> bool:
        return self.cycle is not None and not self.cycle.response_complete

    def check_deadline(self, now_s: float, header_timeout_s: float, body_timeout_s: float) -> None:
        """Refuse a request that comes too slowly, and close a connection that is not used."""
        if self.transport.is_closing():
            return
        if not self._reading_since_s:
            is_idle = not self._is_answer_due()
            patience_s = SURPLUS_PATIENCE_S if self._is_surplus else self.timeout_keep_alive
            if is_idle and now_s - self._idle_since_s > patience_s:
                self.transport.close()
            return
        if self.flow.read_paused:  # it is us who wait: with a pipelined request, for its turn
            self._reading_since_s = now_s
            return
        taken_s = now_s - self._reading_since_s
        if self._is_in_head and taken_s > header_timeout_s:
            self._refuse(408, f"The request's head did not come within {header_timeout_s} s.")
        elif not self._is_in_head and taken_s > body_timeout_s + self._body_bytes / MIB:
            self._refuse(408, f"The request's body did not come within {body_timeout_s} s.")

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
        """Take a header; fields behind a chunked body are none (RFC 9110, 6.5.1)."""
        if self._is_in_head and not self._is_repeating_head:
            self.headers.append((name.lower(), value))

    @override
    def on_headers_complete(self) -> None:
        """Start the request."""
        if not self._is_repeating_head:
            self._begin_cycle()
        self._is_repeating_head = False
        self._reading_since_s = self.loop.time()
        self._is_in_head = False
        self._body_bytes = self._raw_bytes = 0

    def _begin_cycle(self) -> None:
        """Do what uvicorn does here, but with a cycle of our own."""
        version = self.parser.get_http_version()
        head = read_head(version, self.url, self.headers)
        self.expect_100_continue = head.awaits_continue
        path = head.path.decode("ascii")
        scope: dict[str, Any] = self.scope  # type: ignore[assignment]
        scope["http_version"] = version
        scope["method"] = self.parser.get_method().decode("ascii")
        scope["path"] = unquote(path) if "%" in path else path
        scope["raw_path"] = head.path
        scope["query_string"] = head.query
        before = self.cycle
        keep_alive = version != "1.0" and self.parser.should_keep_alive() and not self._is_surplus
        self.cycle = Cycle.begin(self, scope, keep_alive=keep_alive)
        scope[CYCLE] = weakref.ref(self.cycle)
        app = self._refusal() or self.app
        if before is None or before.response_complete:
            self._start_asgi_task(self.cycle, app)
        else:  # a pipelined request waits for its turn
            self.flow.pause_reading()
            self.pipeline.appendleft((self.cycle, app))

    def _refusal(self) -> Callable[..., Any] | None:
        """Return what answers a request that may not be served; None if it may."""
        if self._is_surplus and self.scope["raw_path"] not in PROBE_PATHS:
            return partial(_refuse, overloaded("The proxy has too many connections now."))
        most = self.head_bytes_max
        if self._head_bytes + self._read_bytes <= most:  # nearly always
            return None
        size = len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)
        if size <= most:
            return None
        error = ApiError(431, "invalid_request", _too_large_head(most))
        return partial(_refuse, error)

    @override
    def on_body(self, body: bytes) -> None:
        """Take a part of the body."""
        self._body_bytes += len(body)
        super().on_body(body)

    @override
    def on_message_complete(self) -> None:
        """End the request: what comes next is another."""
        self._reading_since_s = 0.0
        super().on_message_complete()
        # uvicorn stops reading at each 64 KiB of a body until more of it is asked for: behind the
        # last of it nobody asks, and that the client leaves would not be seen.
        if not self.pipeline:
            self.flow.resume_reading()

    @override
    def on_message_begin(self) -> None:
        """Begin a request."""
        if self._is_repeating_head:
            return
        if not self._is_in_head:  # right behind another request
            self._begin_head()
        super().on_message_begin()

    @override
    def on_response_complete(self) -> None:
        """Go on with the next request, as uvicorn does; `check_deadline` is the timer."""
        self.server_state.total_requests += 1
        if self.transport.is_closing():
            return
        self._idle_since_s = self.loop.time()
        if self.pipeline:
            cycle, app = self.pipeline.pop()
            self._start_asgi_task(cycle, app)
        if not self.pipeline:  # while requests wait for their turn, no more are read
            self.flow.resume_reading()

    @override
    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP in our own envelope, and hang up."""
        self._refuse(400, msg)

    def _refuse(self, status: int, msg: str) -> None:
        """Answer in our own envelope, unless another answer has its place there, and hang up."""
        if self.transport.is_closing():
            return  # it has been refused already
        is_due = self._is_answer_due()
        if self._is_in_head:
            may_answer = not is_due
        else:
            is_first = is_due and not self.pipeline and not self.cycle.response_started
            may_answer = is_first and self._reading_since_s > 0
        if not may_answer:
            self.transport.close()
            return
        request_id = request_id_text(RequestIds().new(Clock().now_ms()))
        error = invalid_request(msg)
        body = error.body(request_id)
        headers = [
            *error.headers(request_id),
            (b"content-length", b"%d" % len(body)),
            (b"connection", b"close"),
        ]
        lines = [STATUS_LINE[status], *(name + b": " + value + b"\r\n" for name, value in headers)]
        self.transport.write(b"".join(lines) + b"\r\n" + body)
        self.transport.close()


def _do_nothing() -> None:
    """Stand where something was to be called."""


def _too_large_head(most: int) -> str:
    return f"The request's head is larger than {most} bytes."


async def _refuse(error: ApiError, scope: Any, receive: Any, send: Any) -> None:  # noqa: ANN401 - ASGI
    """Answer a request that may not be served, and hang up."""
    del scope, receive
    request_id = request_id_text(RequestIds().new(Clock().now_ms()))
    body = error.body(request_id)
    headers = [
        *error.headers(request_id),
        (b"content-length", b"%d" % len(body)),
        (b"connection", b"close"),
    ]
    await send({"type": "http.response.start", "status": error.status, "headers": headers})
    await send({"type": "http.response.body", "body": body})


def protocol_for(
    head_bytes_max: int, connections_max: int, metrics_port: int
) -> type[ProxyProtocol]:
    """Return the protocol with its limits: bytes of a head, connections at once but to one port."""
    limits = {
        "head_bytes_max": head_bytes_max,
        "connections_max": connections_max,
        "metrics_port": metrics_port,
        "watching": set[asyncio.Protocol](),
    }
    return type("ProxyProtocol", (ProxyProtocol,), limits)
