"""Owns the way to the providers: where to connect, and the connections that are kept open.

What goes out is exactly what the caller gives: no redirects, no proxies from the environment, no
cookies, no decompression, no re-sending. Deadlines other than connecting are the caller's. How a
request and its answer look on the wire is `upstream_connection.py`'s (docs/decisions/0010).
"""

import asyncio
import errno
import socket
import ssl
from collections.abc import Callable
from typing import Any, NamedTuple
from urllib.parse import urlsplit

import aiohappyeyeballs
import certifi

from llmproxy.upstream_connection import Answer, Connection, Headers, UpstreamError

KEEPALIVE_S = 15.0
"""Idle connections are closed by us first: a provider that closes one while we send on it would
leave us not knowing whether it read the request."""
PLAIN_KEEPALIVE_S = 4.0
"""Without TLS it is a local server, and many of those are uvicorn, which waits for 5 s."""
SWEEP_INTERVAL_S = 5.0
ADDRESSES_KEPT_S = 10.0
NEXT_ADDRESS_AFTER_S = 0.25
"""RFC 8305: how long one address of a host is tried alone before the next one is tried too."""
_OUR_LACKS = frozenset(
    {errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.EADDRNOTAVAIL}
)
"""Of files, memory or ports: no word on the provider."""


class Upstream:
    """Sends requests to providers. Made on the running event loop."""

    def __init__(self, connect_timeout_s: float) -> None:
        """Take the seconds after which connecting, TLS included, is given up."""
        self._connect_timeout_s = connect_timeout_s
        self._loop = asyncio.get_running_loop()
        self._tls = ssl.create_default_context()
        # Slim machines have no certificate store; operators may add theirs by SSL_CERT_FILE.
        self._tls.load_verify_locations(certifi.where())
        self._bases: dict[str, _Base] = {}
        self._sites: dict[tuple[str, int, bool], _Site] = {}
        self._sweeping = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    async def post(
        self,
        base_url: str,
        path: str,
        headers: Headers,
        body: bytes,
        on_sending: Callable[[], None],
    ) -> Answer:
        """Send a request and return its answer once the head has come.

        Args:
            base_url: the provider's, from our own tables.
            path: what follows in the URL, with the query.
            headers: all but `host` and `content-length`.
            body: all of it.
            on_sending: called right before the first byte leaves: until then, while it is
                connected to the provider, surely nothing has.

        Raises:
            UpstreamError: no answer; see its `was_sent`.
        """
        base = self._base(base_url)
        head = _head(b"POST", base, path, headers, len(body))
        connection = base.site.take() or await self._connect(base.site)
        return await self._send_on(connection, head, body, on_sending)

    async def get(self, base_url: str, path: str, headers: Headers) -> Answer:
        """Send a GET and return its answer once the head has come; see `post`.

        Raises:
            UpstreamError: no answer.
        """
        base = self._base(base_url)
        head = _head(b"GET", base, path, headers, 0)
        # A connection of its own: one that was kept may be about to be closed, and proves nothing.
        return await self._send_on(await self._connect(base.site), head, b"", _nothing)

    def _base(self, base_url: str) -> "_Base":
        base = self._bases.get(base_url)
        if base is None:
            base = self._bases[base_url] = self._take_apart(base_url)
        return base

    @staticmethod
    async def _send_on(
        connection: Connection, head: bytes, body: bytes, on_sending: Callable[[], None]
    ) -> Answer:
        if connection.is_closed:
            what = "it closed a new connection at once"
            raise UpstreamError(what, was_sent=False)
        on_sending()
        answer = connection.send(head, body)
        try:
            await answer.wait_for_head()
        except BaseException:
            answer.close()
            raise
        return answer

    async def _connect(self, site: "_Site") -> Connection:
        try:
            async with asyncio.timeout(self._connect_timeout_s):
                return await site.connect()
        except TimeoutError as error:
            what = f"no connection within {self._connect_timeout_s:g} s"
            raise UpstreamError(what, was_sent=False) from error
        except (OSError, UnicodeError) as error:  # ssl.SSLError among them; a name that is none
            what = (str(error) or type(error).__name__)[:200]
            is_ours = isinstance(error, OSError) and _is_our_lack(error)
            raise UpstreamError(what, was_sent=False, is_ours=is_ours) from error

    async def close(self) -> None:
        """Close all idle connections; those in use are their answers' to close."""
        self._sweeping.cancel()
        for site in self._sites.values():
            site.close_idle(for_s=0)

    def _sweep(self) -> None:
        for site in self._sites.values():
            site.close_idle()
        self._sweeping = self._loop.call_later(SWEEP_INTERVAL_S, self._sweep)

    def _take_apart(self, base_url: str) -> "_Base":
        parts = urlsplit(base_url)
        is_tls = parts.scheme == "https"
        host = parts.hostname or ""
        port = parts.port or (443 if is_tls else 80)
        key = (host, port, is_tls)
        site = self._sites.get(key)
        if site is None:
            site = self._sites[key] = _Site(self._loop, host, port, self._tls if is_tls else None)
        return _Base(site, parts.path, parts.netloc.encode())


class _Site:
    """One host and port, and the connections to it that are open and idle."""

    def __init__(
        self, loop: asyncio.AbstractEventLoop, host: str, port: int, tls: ssl.SSLContext | None
    ) -> None:
        self._loop = loop
        self._host, self._port = host, port
        self._tls = tls
        self._keepalive_s = KEEPALIVE_S if tls else PLAIN_KEEPALIVE_S
        self._idle: list[Connection] = []
        self._lookup: asyncio.Task[list[Any]] | None = None
        self._looked_up_s = 0.0

    def take(self) -> Connection | None:
        """Return the connection that was used last, if one is open and has not idled for long."""
        while self._idle:
            connection = self._idle.pop()
            if self._loop.time() - connection.idle_since_s > self._keepalive_s:
                connection.close()
            elif not connection.is_closed:
                return connection
        return None

    def give_back(self, connection: Connection) -> None:
        """Keep a connection whose answer has come to its end."""
        connection.idle_since_s = self._loop.time()
        self._idle.append(connection)

    def close_idle(self, for_s: float | None = None) -> None:
        """Close those that have been idle for so many seconds, or longer than they may be."""
        longest_s = self._keepalive_s if for_s is None else for_s
        kept: list[Connection] = []
        for connection in self._idle:
            if self._loop.time() - connection.idle_since_s >= longest_s:
                connection.close()
            elif not connection.is_closed:
                kept.append(connection)
        self._idle = kept

    async def connect(self) -> Connection:
        """Return a new connection.

        Raises:
            OSError: none can be made.
        """
        sock = await aiohappyeyeballs.start_connection(
            await self._addresses(), happy_eyeballs_delay=NEXT_ADDRESS_AFTER_S, loop=self._loop
        )
        try:
            transport, connection = await self._loop.create_connection(
                lambda: Connection(self.give_back), sock=sock
            )
            if self._tls is not None:
                # In two steps, since the transport below must be known: see `Connection`.
                encrypted = await self._loop.start_tls(
                    transport, connection, self._tls, server_hostname=self._host
                )
                assert encrypted is not None
                connection.use_tls(encrypted)
        except BaseException:
            sock.close()
            raise
        return connection

    async def _addresses(self) -> list[Any]:
        """Look the host up, one time for all who wait for it."""
        lookup = self._lookup
        if lookup is None or self._loop.time() - self._looked_up_s > ADDRESSES_KEPT_S:
            find = self._loop.getaddrinfo(self._host, self._port, type=socket.SOCK_STREAM)
            lookup = self._lookup = asyncio.ensure_future(find)
            self._looked_up_s = self._loop.time()
        try:
            # A caller that leaves must not take the answer from the others.
            return await asyncio.shield(lookup)
        except OSError:
            self._lookup = None
            raise


def _is_our_lack(error: OSError) -> bool:
    """Say whether we are out of files or the like.

    Looking up a name then says all sorts of things; who was refused by somebody had a socket.
    """
    if error.errno not in _OUR_LACKS and not isinstance(error, ConnectionError | ssl.SSLError):
        try:
            socket.socket().close()
        except OSError as lack:
            return lack.errno in _OUR_LACKS
    return error.errno in _OUR_LACKS


class _Base(NamedTuple):
    """A provider's base URL, taken apart once."""

    site: _Site
    path: str
    host: bytes


def _nothing() -> None:
    pass


def _head(method: bytes, base: _Base, path: str, headers: Headers, body_bytes: int) -> bytes:
    """Return the request line and the headers, as they are sent.

    Raises:
        ValueError: a line break in one of them would end it early.
    """
    lines = [method, b" ", base.path.encode(), path.encode(), b" HTTP/1.1\r\nhost: ", base.host]
    for name, value in headers:
        lines += (b"\r\n", name, b": ", value)
    lines.append(b"\r\ncontent-length: %d\r\n\r\n" % body_bytes)
    head = b"".join(lines)
    if head.count(b"\n") != len(headers) + 4 or head.count(b"\r") != len(headers) + 4:
        msg = "a header or the path has a line break in it"
        raise ValueError(msg)
    return head
