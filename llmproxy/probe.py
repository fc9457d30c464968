"""Owns the question whether a provider answers to a key: the cheapest one, its list of models.

It costs nothing and changes nothing. A key that is out of quota may list models all the same. Must
not touch the database, and never lets a secret into what it returns. The command line asks by
`probe`, the server by `ask` and `ask_closely`.
"""

import asyncio
import json
from typing import Any, NamedTuple

from llmproxy import __version__
from llmproxy.clock import Clock
from llmproxy.dialects.failures import FailureKind, classify
from llmproxy.dialects.families import FAMILIES
from llmproxy.fetch import Fetched, FetchError, fetch
from llmproxy.headers import Headers, to_provider, without_secret
from llmproxy.key_pool import Provider
from llmproxy.presets import PRESETS, root_url
from llmproxy.upstream import Upstream
from llmproxy.upstream_connection import UpstreamError

TIMEOUT_S = 10.0
LIST_BYTES_MAX = 16 * 1024 * 1024
ERROR_BYTES_MAX = 64 * 1024
LIST_LOOKED_AT = 2 * 1024 * 1024
"""So many bytes of a list the server reads at most; there are none as long."""
_ANTHROPIC_VERSION = b"2023-06-01"
_MODELS = "/models"


class Probe(NamedTuple):
    """What came back, a word for people, the server's Date.

    The result is `ok`, `refused`, `unreachable`, or `unknown` when we could not ask.
    """

    result: str
    status: int | None
    message: str
    date: str = ""
    refuses_key: bool = False
    """The provider does not know the key, or does not serve it at all."""

    @property
    def is_down(self) -> bool:
        """Say whether the provider cannot be reached, or is broken itself."""
        return self.status is None or (self.status >= 500 and self.status != 501)


def probe(provider: Provider, secret: str) -> Probe:
    """Ask a provider for its models with a key; an empty secret sends none."""
    path, asked = _question(provider, secret)
    headers = {name.decode(): value.decode() for name, value in asked}
    try:
        got = fetch(
            root_url(provider.dialect, provider.base_url) + path,
            headers,
            timeout_s=TIMEOUT_S,
            bytes_max=LIST_BYTES_MAX,
        )
    except FetchError as error:
        return Probe("unreachable", None, str(error))
    return _judged(got, path, secret)


def _judged(got: Fetched, path: str, secret: str) -> Probe:
    """Return what to make of an answer, whatever its status."""
    if got.status == 200:
        return _welcomed(got, path, secret)
    if got.location:
        where = without_secret(got.location.encode(), secret).decode(errors="replace")[:200]
        return Probe("refused", got.status, f"{got.status}: it is at {where} now")
    return _refused(got.status, got.body, secret, got.date)


def _welcomed(got: Fetched, path: str, secret: str) -> Probe:
    """Return what to make of a 200."""
    # Successful answers pass unchanged: from such a server they would hand the key to clients.
    if secret and secret.encode() in got.body:
        return Probe("refused", 200, "200: it sends the key back, which clients would see")
    count = _count_models(got.body)
    if count is not None:
        return Probe("ok", 200, f"{count:,} models", got.date)
    if not path.endswith(_MODELS):
        return Probe("ok", 200, "it knows the key", got.date)
    return Probe("refused", 200, "200: its answer is no list of models; is the base URL right?")


async def ask(upstream: Upstream, provider: Provider, secret: str) -> Probe:
    """Ask as `probe` does, without looking at the list; for the server."""
    path, headers = _question(provider, secret)
    try:
        got = await _get(
            upstream, root_url(provider.dialect, provider.base_url), path, headers, list_bytes_max=0
        )
    except (UpstreamError, TimeoutError) as error:
        return _unanswered(error)
    if got.status == 200:
        return Probe("ok", 200, "it answers")
    return _refused(got.status, got.body, secret)


async def ask_closely(upstream: Upstream, provider: Provider, secret: str) -> Probe:
    """Ask as `probe` does, with a look at the list; for the server, when somebody wants to know.

    It is a thread that reads the list, which may be long.
    """
    path, headers = _question(provider, secret)
    try:
        got = await _get(
            upstream,
            root_url(provider.dialect, provider.base_url),
            path,
            headers,
            list_bytes_max=LIST_LOOKED_AT,
        )
    except (UpstreamError, TimeoutError) as error:
        return _unanswered(error)
    if got.status == 200 and len(got.body) >= LIST_LOOKED_AT:
        return Probe("ok", 200, "it answers, with a long list", got.date)
    return await asyncio.to_thread(_judged, got, path, secret)


async def _get(
    upstream: Upstream, base_url: str, path: str, headers: Headers, *, list_bytes_max: int
) -> Fetched:
    """Return an answer with the beginning of its body; `list_bytes_max` is for a 200.

    Raises:
        UpstreamError: there is none.
        TimeoutError: it did not come in time.
    """
    async with asyncio.timeout(TIMEOUT_S):
        answer = await upstream.get(base_url, path, headers)
        bytes_max = list_bytes_max if answer.status == 200 else ERROR_BYTES_MAX
        body = bytearray()
        try:
            while len(body) < bytes_max and (chunk := await answer.next_chunk()):
                body += chunk
        finally:
            answer.close()
    location = answer.header(b"location").decode(errors="replace")
    date = answer.header(b"date").decode(errors="replace")
    return Fetched(answer.status, bytes(body), location, date)


def _unanswered(error: UpstreamError | TimeoutError) -> Probe:
    if isinstance(error, UpstreamError) and error.is_ours:
        return unasked(str(error))
    return Probe("unreachable", None, str(error) or f"no answer within {TIMEOUT_S:g} s")


def unasked(why: str) -> Probe:
    """Return what is known when we could not ask: nothing that counts against anybody."""
    return Probe("unknown", 0, why)


def _question(provider: Provider, secret: str) -> tuple[str, Headers]:
    """Return the path and headers of a request for the list of models."""
    asked = [(b"user-agent", f"llmproxy/{__version__}".encode())]
    preset = PRESETS.get(provider.name)
    path = preset.probe_path if preset else _MODELS
    if provider.dialect == "anthropic":
        asked.append((b"anthropic-version", _ANTHROPIC_VERSION))
    path = FAMILIES[provider.dialect].probe_path or path
    return path, to_provider(asked, provider.dialect, secret)


def _refused(status: int, body: bytes, secret: str, date: str = "") -> Probe:
    failure = classify(status, {}, body, Clock().now_ms(), secret=secret)
    refuses_key = failure.kind in {FailureKind.DEAD, FailureKind.SUSPECT}
    return Probe("refused", status, failure.excerpt, date, refuses_key)


def _count_models(body: bytes) -> int | None:
    """Return how many models a list has, in any dialect; None for what is no list."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    # Together's list is bare.
    models = found.get("data", found.get("models")) if isinstance(found, dict) else found
    return len(models) if isinstance(models, list) else None
