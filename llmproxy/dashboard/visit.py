"""Owns what a request to the dashboard says of itself: where it came from, and by which address.

Here it is decided whether a form was sent by a page of ours, and which cookie counts.
"""

import re
from ipaddress import IPv6Address, IPv6Network
from typing import Any, NamedTuple
from urllib.parse import urlsplit

from litestar import Request
from litestar.datastructures import Headers

from llmproxy.limits import Network, client_address, parse_address

COOKIE = "llmproxy-session"
SECURE_COOKIE = "__Host-llmproxy-session"
"""Browsers take it only over TLS, from this very host: no neighbour can set it."""
_HOST = re.compile(r"[A-Za-z0-9._-]{1,253}(:\d{1,5})?|\[[0-9A-Fa-f:.]{2,45}\](:\d{1,5})?")


class ReachedAt(NamedTuple):
    """How the server is reached: its settings, as far as they concern pages."""

    public_url: str
    trusted_proxies: tuple[Network, ...]
    proxy_port: int
    """That of the proxy where the dashboard has a port of its own, else 0."""


class Visit(NamedTuple):
    """One request, as far as what it may do depends on how it came."""

    peer: str
    """The client's address, for counting attempts."""
    host: str
    is_secure: bool
    """It came by TLS, as far as can be told."""
    base_url: str
    """The address that the user types, for their clients' settings."""
    here: str
    """The address by which the dashboard was reached, for links to it."""
    root: str
    """What stands before our own paths where the public address has a path."""
    session: str
    """The secret in the cookie that counts; may be anything."""

    @property
    def household(self) -> str:
        """By what strangers are counted: their address; of IPv6, the network of a household."""
        address = parse_address(self.peer)
        if isinstance(address, IPv6Address):
            return str(IPv6Network((address, 64), strict=False))
        return self.peer

    @property
    def cookie_name(self) -> str:
        """The name of the session's cookie on this connection."""
        return SECURE_COOKIE if self.is_secure else COOKIE


def read_visit(request: Request[Any, Any, Any], address: ReachedAt) -> Visit:
    """Return what a request says of itself; nothing in it is trusted that anybody could write."""
    peer = request.scope["client"][0] if request.scope["client"] else ""
    given = request.headers.get("host", "")
    host = given.lower() if _HOST.fullmatch(given) else ""
    public = urlsplit(address.public_url)
    is_public = bool(host) and host == public.netloc.lower()
    is_secure = (is_public and public.scheme == "https") or _tells_tls(
        request.headers, peer, address.trusted_proxies
    )
    scheme = "https" if is_secure else "http"
    forwarded_for = [value.encode() for value in request.headers.getall("x-forwarded-for", [])]
    found = client_address(peer, forwarded_for, address.trusted_proxies)
    return Visit(
        peer=str(found or peer),
        host=host,
        is_secure=is_secure,
        base_url=address.public_url or f"{scheme}://{_proxy_host(host, address.proxy_port)}",
        here=address.public_url if is_public else f"{scheme}://{host or 'localhost'}",
        root=public.path if is_public else "",
        session=request.cookies.get(SECURE_COOKIE if is_secure else COOKIE, ""),
    )


def _proxy_host(host: str, proxy_port: int) -> str:
    """Return host and port of the proxy, as far as the way to the dashboard tells it."""
    host = host or "localhost"
    if not proxy_port:
        return host
    name = host if host.endswith("]") else host.rpartition(":")[0] or host
    return f"{name}:{proxy_port}"


def _tells_tls(headers: Headers, peer: str, trusted: tuple[Network, ...]) -> bool:
    """Say whether a trusted reverse proxy says that the client came by TLS."""
    address = parse_address(peer)
    if address is None or not any(address in network for network in trusted):
        return False
    said = headers.get("x-forwarded-proto", "")
    return said.rpartition(",")[2].strip().lower() == "https"


def _origin_of(url: str) -> tuple[str, str]:
    """Return scheme and host, with its port, of an address; empty ones when it is none."""
    try:
        parts = urlsplit(url)
    except ValueError:
        return "", ""
    return parts.scheme, parts.netloc.lower()


def is_own_form(headers: Headers, visit: Visit, public_url: str) -> bool:
    """Say whether a form was sent by a page of ours, as only the browser can tell.

    `Sec-Fetch-Site` decides; old browsers leave it out, and all do over plain HTTP: then `Origin`
    does. Who sends neither is refused, also a browser so old that it does not know `Origin`.
    """
    site = headers.get("sec-fetch-site")
    if site is not None:
        return site == "same-origin"
    scheme, host = _origin_of(headers.get("origin", ""))
    if not host:
        return False
    if (scheme, host) == _origin_of(public_url):
        return True
    # Over TLS a page by plain HTTP is none of ours: anybody on the way may have written it. And
    # browsers that leave `Sec-Fetch-Site` out may send the strict cookie from there, too.
    schemes = {"https"} if visit.is_secure else {"http", "https"}
    return host == visit.host and scheme in schemes
