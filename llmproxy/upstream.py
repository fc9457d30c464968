"""Owns the way to the providers: the sole importer of an HTTP client.

What goes out is exactly what the caller gives: no redirects, no proxies from the environment, no
cookies, no decompression, no re-sending. Deadlines other than connecting are the caller's. Nothing
of the client's types leaves this module, so that another one can take its place
(docs/decisions/0003).
"""

import asyncio
import ssl
from collections.abc import Callable
from functools import partial
from typing import Any, cast

import aiohttp
import certifi
import multidict
import yarl
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import Connection
from aiohttp.http_parser import RawResponseMessage
from typing_extensions import override

from llmproxy.errors import LlmproxyError

KEEPALIVE_S = 15.0
"""Idle connections are closed by us first: a provider that closes one while we send on it would
leave us not knowing whether it read the request."""
HEADER_BYTES_MAX = 64 * 1024
HEADERS_MAX = 256
_HEAD_END = b"\r\n\r\n"

Headers = list[tuple[bytes, bytes]]


class UpstreamError(LlmproxyError):
    """The provider could not be reached, or broke off.

    `was_sent` is False only when surely no byte of the request has left: then nothing can have
    been generated.
    """

    def __init__(self, what: str, *, was_sent: bool) -> None:
        """Take a short description without any secret in it."""
        super().__init__(what)
        self.was_sent = was_sent


class Answer:
    """A provider's answer, its body still to be read."""

    __slots__ = ("_response", "headers", "status")

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        """Wrap the client's response."""
        self.status = response.status
        self.headers: Headers = list(response.raw_headers)
        self._response = response

    def header(self, name: bytes) -> bytes:
        """Return a header by its lower-case name, or b""."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return b""

    async def next_chunk(self) -> bytes | None:
        """Return the next bytes as soon as there are any, None at the end.

        Raises:
            UpstreamError: the connection broke before the end; all that came has been returned.
        """
        content = self._response.content
        try:
            return await content.readany() or None
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            # aiohttp forgets what it has not handed out when the connection breaks.
            if unread := content._read_nowait(-1):  # noqa: SLF001
                return unread
            raise UpstreamError(_describe(error), was_sent=True) from error

    def close(self) -> None:
        """Hang up unless the answer was read to its end."""
        self._response.close()


class Upstream:
    """Sends requests to providers. Made on the running event loop."""

    def __init__(self, connect_timeout_s: float) -> None:
        """Take the seconds after which connecting, TLS included, is given up."""
        context = ssl.create_default_context()
        # Slim machines have no certificate store; operators may add theirs by SSL_CERT_FILE.
        context.load_verify_locations(certifi.where())
        self._connector = _Connector(
            limit=0, keepalive_timeout=KEEPALIVE_S, ssl=context, enable_cleanup_closed=False
        )
        self._session = aiohttp.ClientSession(
            connector=self._connector,
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
            max_headers=HEADERS_MAX,
        )
        self._urls: dict[str, yarl.URL] = {}

    async def post(
        self, url: str, headers: Headers, body: bytes, on_sent: Callable[[], None]
    ) -> Answer:
        """Send a request and return its answer once the status has come.

        `on_sent` is called before the first byte leaves: who cancels this before then knows that
        nothing can have been generated.

        Raises:
            UpstreamError: no answer; see its `was_sent`.
        """
        task = asyncio.current_task()
        self._connector.on_connected[task] = on_sent
        parsed = self._urls.get(url)
        if parsed is None:
            # Few different ones: base URLs and paths come from our own tables.
            parsed = self._urls[url] = yarl.URL(url, encoded=True)
        fields = multidict.CIMultiDict(
            [(name.decode("latin-1"), _header_text(value)) for name, value in headers]
        )
        try:
            response = await self._session.request(
                "POST", parsed, data=body, headers=fields, allow_redirects=False
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise UpstreamError(_describe(error), was_sent=False) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise UpstreamError(_describe(error), was_sent=True) from error
        finally:
            self._connector.on_connected.pop(task, None)
        return Answer(response)

    async def close(self) -> None:
        """Close all connections."""
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """aiohttp's own, whose connections end a body that cannot be read.

    Attributes:
        on_connected: what is called when the request of a task has a connection. (No context
            variable: a connection would keep it, and the request with it, as long as it is open.)
    """

    @override
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory = partial(_Connection, loop=self._loop)
        self._factory = cast("partial[ResponseHandler]", factory)
        self.on_connected: dict[asyncio.Task[Any] | None, Callable[[], None]] = {}

    @override
    async def connect(self, *request: Any, **options: Any) -> Connection:
        """Get a connection, to send on it right away."""
        connection = await super().connect(*request, **options)
        self.on_connected.pop(asyncio.current_task())()
        return connection


class _Connection(ResponseHandler):
    """aiohttp's own, but what came before a body was no valid HTTP counts.

    And what comes between answers must not be taken for the next one: that may be another user's.
    """

    _is_answered = False
    """The answer to the last request has begun, or has come."""

    @override
    def set_response_params(self, **options: Any) -> None:
        """Expect an answer: a request is about to be sent."""
        self._is_answered = False
        super().set_response_params(**options)

    @override
    def feed_data(self, data: tuple[RawResponseMessage, aiohttp.StreamReader], *size: int) -> None:
        """Take a head."""
        self._is_answered = data[0].code >= 200
        super().feed_data(data, *size)

    @override
    def data_received(self, data: bytes) -> None:
        """Take a head apart from its body: aiohttp forgets one that came with a bad body."""
        if data and self._is_answered and self._awaits_head():
            assert self.transport is not None
            self.transport.close()
            return
        while self._awaits_head() and (end := data.find(_HEAD_END)) >= 0:
            end += len(_HEAD_END)
            super().data_received(data[:end])
            data = data[end:]
            if not data:
                return
        super().data_received(data)

    def _awaits_head(self) -> bool:
        return self._payload is None or self._payload.is_eof()

    @override
    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        super().set_exception(exc, *cause)
        body = self._payload
        # Without this it would wait for the rest of the body for ever.
        if body is not None and body.exception() is None and not body.is_eof():
            body.set_exception(_InvalidBodyError("its body is no valid HTTP"), *cause)


class _InvalidBodyError(aiohttp.ClientPayloadError):
    """A body whose chunks are broken."""


def _header_text(value: bytes) -> str:
    """Return a header's value for aiohttp, which writes UTF-8: other bytes count as Latin-1."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _describe(error: BaseException) -> str:
    """Return a short text for people; aiohttp's own may hold URLs, never headers."""
    if isinstance(error, aiohttp.ClientPayloadError) and not isinstance(error, _InvalidBodyError):
        # aiohttp would tell of its inner workings, and this is shown to clients.
        return "its connection ended in the middle"
    return (str(error) or type(error).__name__)[:200]
