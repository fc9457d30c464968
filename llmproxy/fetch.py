"""Owns plain synchronous GETs: what a command asks another server once. Follows no redirect.

A deadline holds for the whole answer, and a size. Requests of users never come here (upstream.py).
"""

import http.client
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from typing import Any, NamedTuple

import certifi
from typing_extensions import override

from llmproxy.errors import LlmproxyError

CHUNK_BYTES = 64 * 1024


class FetchError(LlmproxyError):
    """No whole answer could be had."""


class Fetched(NamedTuple):
    """An answer of any status; `location` is where a redirect points, `date` the server's time."""

    status: int
    body: bytes
    location: str
    date: str


class _NoRedirect(urllib.request.HTTPRedirectHandler):
    @override
    def redirect_request(self, *args: Any, **kwargs: Any) -> None:
        """Follow nothing: what is sent along is meant for one server."""


def fetch(
    url: str, headers: Mapping[str, str], *, timeout_s: float, bytes_max: int, is_cut: bool = False
) -> Fetched:
    """Return the answer to a GET, whatever its status.

    Args:
        url: an http or https URL that has been checked.
        headers: all headers but those that the connection needs.
        timeout_s: for everything together.
        bytes_max: of the body.
        is_cut: take the beginning of a longer body; else it is refused.

    Raises:
        FetchError: unreachable, too slow, too long, or not HTTP.
    """
    context = ssl.create_default_context()
    context.load_verify_locations(certifi.where())
    opener = urllib.request.build_opener(
        urllib.request.ProxyHandler({}),  # as in upstream.py: no proxy of the environment's
        urllib.request.HTTPSHandler(context=context),
        _NoRedirect(),
    )
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - checked by callers
    deadline_s = time.monotonic() + timeout_s
    try:
        try:
            response = opener.open(request, timeout=timeout_s)
        except urllib.error.HTTPError as error:
            response = error  # an answer like any other
        with response:
            body = _read(response, deadline_s, bytes_max, is_cut=is_cut)
            said = response.headers
            return Fetched(response.status, body, said.get("location", ""), said.get("date", ""))
    except (OSError, http.client.HTTPException, ValueError) as error:
        reason = error.reason if isinstance(error, urllib.error.URLError) else error
        msg = str(reason) or type(reason).__name__
        raise FetchError(msg[:200]) from error


def _read(response: Any, deadline_s: float, bytes_max: int, *, is_cut: bool) -> bytes:  # noqa: ANN401 - urllib's own
    parts: list[bytes] = []
    size = 0
    while size <= bytes_max:
        if time.monotonic() > deadline_s:
            msg = "it took too long"
            raise TimeoutError(msg)
        part = response.read1(CHUNK_BYTES)
        if not part:
            if response.length:  # bytes that were promised and have not come
                msg = "it broke off"
                raise FetchError(msg)
            return b"".join(parts)
        parts.append(part)
        size += len(part)
    if not is_cut:
        msg = f"it is longer than {bytes_max:,} bytes"
        raise FetchError(msg)
    return b"".join(parts)[:bytes_max]
