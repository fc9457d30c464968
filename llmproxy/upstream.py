"""Owns the way to the providers: the sole importer of an HTTP client.

httpx's types are the boundary; the transport under them is an argument. What goes out is exactly
what the caller gives: no redirects, no proxies from the environment, no cookies, no
decompression, no re-sending. Deadlines other than connecting are the caller's.
"""

import ssl
from collections.abc import AsyncIterator
from functools import partial
from typing import Any, cast

import aiohttp
import certifi
import httpx
import multidict
import yarl
from aiohttp.client_proto import ResponseHandler
from typing_extensions import override

from llmproxy.errors import LlmproxyError

KEEPALIVE_S = 15.0
"""Idle connections are closed by us first: a provider that closes one while we send on it would
leave us not knowing whether it read the request."""
HEADER_BYTES_MAX = 64 * 1024

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

    def __init__(self, response: httpx.Response) -> None:
        """Wrap the transport's response."""
        self.status = response.status_code
        self.headers: Headers = response.headers.raw
        self._response = response
        assert isinstance(response.stream, httpx.AsyncByteStream)
        self._chunks = response.stream.__aiter__()

    def header(self, name: bytes) -> bytes:
        """Return a header by its lower-case name, or b""."""
        for key, value in self.headers:
            if key.lower() == name:
                return value
        return b""

    async def next_chunk(self) -> bytes | None:
        """Return the next bytes as soon as there are any, None at the end.

        Raises:
            UpstreamError: the connection broke before the end.
        """
        try:
            return await anext(self._chunks, None)
        except httpx.HTTPError as error:
            raise UpstreamError(str(error), was_sent=True) from error

    async def close(self) -> None:
        """Hang up unless the answer was read to its end."""
        assert isinstance(self._response.stream, httpx.AsyncByteStream)
        await self._response.stream.aclose()


class Upstream:
    """Sends requests to providers through one transport."""

    def __init__(self, transport: httpx.AsyncBaseTransport) -> None:
        """Take the transport; `close` closes it."""
        self._transport = transport
        self._urls: dict[str, httpx.URL] = {}

    async def post(self, url: str, headers: Headers, body: bytes) -> Answer:
        """Send a request and return its answer once the status has come.

        Raises:
            UpstreamError: no answer; see its `was_sent`.
        """
        parsed = self._urls.get(url)
        if parsed is None:
            # Few different ones: base URLs and paths come from our own tables.
            parsed = self._urls[url] = httpx.URL(url)
        request = httpx.Request("POST", parsed, headers=headers, content=body)
        try:
            return Answer(await self._transport.handle_async_request(request))
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.PoolTimeout) as error:
            raise UpstreamError(str(error), was_sent=False) from error
        except httpx.HTTPError as error:
            raise UpstreamError(str(error), was_sent=True) from error

    async def close(self) -> None:
        """Close all connections."""
        await self._transport.aclose()


class AiohttpTransport(httpx.AsyncBaseTransport):
    """httpx's transport interface over aiohttp's client: a fifth of the CPU of httpx's own pool.

    Made on the running event loop.
    """

    def __init__(self, connect_timeout_s: float) -> None:
        """Take the seconds after which connecting, TLS included, is given up."""
        context = ssl.create_default_context()
        # Slim machines have no certificate store; operators may add theirs by SSL_CERT_FILE.
        context.load_verify_locations(certifi.where())
        self._session = aiohttp.ClientSession(
            connector=_Connector(
                limit=0, keepalive_timeout=KEEPALIVE_S, ssl=context, enable_cleanup_closed=False
            ),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=connect_timeout_s),
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            trust_env=False,
            skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
            max_line_size=HEADER_BYTES_MAX,
            max_field_size=HEADER_BYTES_MAX,
        )
        self._urls: dict[httpx.URL, yarl.URL] = {}

    @override
    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request; httpx's own exceptions come out of it."""
        url = self._urls.get(request.url)
        if url is None:
            url = self._urls[request.url] = yarl.URL(str(request.url), encoded=True)
        headers = multidict.CIMultiDict(
            (name.decode("latin-1"), _header_text(value)) for name, value in request.headers.raw
        )
        try:
            response = await self._session.request(
                request.method, url, data=request.content, headers=headers, allow_redirects=False
            )
        except (aiohttp.ConnectionTimeoutError, aiohttp.ClientConnectorError) as error:
            raise httpx.ConnectError(_describe(error)) from error
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(_describe(error)) from error
        return httpx.Response(response.status, headers=response.raw_headers, stream=_Body(response))

    @override
    async def aclose(self) -> None:
        """Close the session and its connections."""
        await self._session.close()


class _Connector(aiohttp.TCPConnector):
    """aiohttp's own, whose connections end a body that cannot be read."""

    @override
    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        factory = partial(_Connection, loop=self._loop)
        self._factory = cast("partial[ResponseHandler]", factory)


class _Connection(ResponseHandler):
    """aiohttp's own, but for a body whose chunks are broken: there it would wait for ever."""

    @override
    def set_exception(self, exc: BaseException, *cause: BaseException) -> None:
        super().set_exception(exc, *cause)
        body = self._payload
        if body is not None and body.exception() is None and not body.is_eof():
            body.set_exception(aiohttp.ClientPayloadError("its body is no valid HTTP"), *cause)


class _Body(httpx.AsyncByteStream):
    """The body of an aiohttp response, unbuffered."""

    def __init__(self, response: aiohttp.ClientResponse) -> None:
        self._response = response

    @override
    async def __aiter__(self) -> AsyncIterator[bytes]:
        content = self._response.content
        try:
            while chunk := await content.readany():
                yield chunk
        except (TimeoutError, aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError(_describe(error)) from error

    @override
    async def aclose(self) -> None:
        self._response.close()


def _header_text(value: bytes) -> str:
    """Return a header's value so that aiohttp, which writes UTF-8, sends the same bytes."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        return value.decode("latin-1")


def _describe(error: BaseException) -> str:
    """Return a short text for people; aiohttp's own may hold URLs, never headers."""
    return (str(error) or type(error).__name__)[:200]
