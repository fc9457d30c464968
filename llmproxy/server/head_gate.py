"""Owns what a request's head must be, beyond what the parser demands of it. Pure.

A server in front of ours and ours must never read two different requests out of the same bytes
(RFC 9112, 11.2), nor find its way by another path or another framing. Of what is left open by the
parser, only the one plain form is taken; the rest is refused before anybody looks at it.
"""

import re
from typing import NamedTuple

from llmproxy.headers import Headers

HEADERS_MAX = 100
"""Common to Apache, Tomcat and gunicorn, so what works behind those works here. The SDKs send about
20, coding agents 30; proxies and tracing in front of us add their own."""

_HOST_BYTES = b"abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789-._~!$&'()*+,;=%:[]"
"""The characters of RFC 3986's host and port. Nobody goes where it leads."""
_LOOKED_AT = frozenset({b"host", b"transfer-encoding", b"expect"})
_ABSOLUTE = re.compile(rb"https?://[^/?#@]+(/[^?#]*)?(?:\?([^#]*))?", re.IGNORECASE)


class Head(NamedTuple):
    """What a head says beside its method and its headers; path and query as they came."""

    path: bytes
    query: bytes
    awaits_continue: bool
    """The client sends the body when it is told to (RFC 9110, 10.1.1)."""


class HeadRefusedError(Exception):
    """A head that is not served: with this status, and this sentence for the client."""

    def __init__(self, status: int, message: str) -> None:
        """Take what to answer."""
        super().__init__(message)
        self.status = status


def read_head(version: str, target: bytes, headers: Headers) -> Head:
    """Read a head.

    Args:
        version: of HTTP, such as `1.1`.
        target: of the request line.
        headers: all of them, names in lower case.

    Raises:
        HeadRefusedError: it could be read in more than one way, or is too much.
    """
    if version not in {"1.1", "1.0"}:
        raise HeadRefusedError(400, "Only HTTP/1.1 and HTTP/1.0 are spoken here.")
    if len(headers) > HEADERS_MAX:
        raise HeadRefusedError(431, f"The request has more than {HEADERS_MAX} headers.")
    hosts, awaits_continue = 0, False
    for name, value in [header for header in headers if header[0] in _LOOKED_AT]:
        if name == b"host":
            hosts += 1
            if value.translate(None, _HOST_BYTES):
                raise HeadRefusedError(400, "The Host header is not a host.")
        elif name == b"transfer-encoding":
            _check_coding(version, value)
        elif value.lower() == b"100-continue":
            awaits_continue = version == "1.1"
    # RFC 9112, 3.2; HTTP/1.0 knows no such header, and may do without.
    if hosts > 1 or (hosts == 0 and version == "1.1"):
        raise HeadRefusedError(400, "A request has exactly one Host header.")
    if target.startswith(b"/") and b"#" not in target:
        path, _, query = target.partition(b"?")
    else:
        path, query = _split_absolute(target)
    return Head(path, query, awaits_continue)


def _check_coding(version: str, value: bytes) -> None:
    """Refuse any framing but chunks (RFC 9112, 6.1); the parser refuses a length beside them."""
    if value.strip(b" \t").lower() != b"chunked":
        raise HeadRefusedError(400, "The only Transfer-Encoding that is read is chunked.")
    if version == "1.0":
        raise HeadRefusedError(400, "HTTP/1.0 has no Transfer-Encoding.")


def _split_absolute(target: bytes) -> tuple[bytes, bytes]:
    """Return path and query of a URL as a target (RFC 9112, 3.2.2); its host leads nowhere."""
    found = _ABSOLUTE.fullmatch(target)
    if found is not None:
        return found[1] or b"/", found[2] or b""
    if target == b"*":
        return target, b""
    raise HeadRefusedError(400, "The request line has no path that could be served.")
