"""Owns the question whether a provider answers to a key: the cheapest one, its list of models.

It costs nothing and changes nothing. A key that is out of quota may list models all the same. Must
not touch the database, and never lets a secret into what it returns.
"""

import json
from typing import Any, NamedTuple

from llmproxy import __version__
from llmproxy.clock import Clock
from llmproxy.dialects.failures import classify
from llmproxy.fetch import FetchError, fetch
from llmproxy.headers import to_provider, without_secret
from llmproxy.key_pool import Provider

TIMEOUT_S = 10.0
LIST_BYTES_MAX = 16 * 1024 * 1024
_ANTHROPIC_VERSION = b"2023-06-01"


class Probe(NamedTuple):
    """What came back: `ok`, `refused` or `unreachable`, a word for people, the server's Date."""

    result: str
    status: int | None
    message: str
    date: str = ""


def probe(provider: Provider, secret: str) -> Probe:
    """Ask a provider for its models with a key; an empty secret sends none."""
    is_anthropic = provider.dialect == "anthropic"
    url = provider.base_url + ("/v1/models" if is_anthropic else "/models")
    asked = [(b"user-agent", f"llmproxy/{__version__}".encode())]
    if is_anthropic:
        asked.append((b"anthropic-version", _ANTHROPIC_VERSION))
    headers = {
        name.decode(): value.decode()
        for name, value in to_provider(asked, provider.dialect, secret)
    }
    try:
        got = fetch(url, headers, timeout_s=TIMEOUT_S, bytes_max=LIST_BYTES_MAX)
    except FetchError as error:
        return Probe("unreachable", None, str(error))
    if got.status == 200:
        # Successful answers pass unchanged: from such a server they would hand the key to clients.
        if secret and secret.encode() in got.body:
            return Probe("refused", 200, "200: it sends the key back, which clients would see")
        count = _count_models(got.body)
        if count is not None:
            return Probe("ok", 200, f"{count:,} models", got.date)
        return Probe("refused", 200, "200: its answer is no list of models; is the base URL right?")
    if got.location:
        where = without_secret(got.location.encode(), secret).decode(errors="replace")[:200]
        return Probe("refused", got.status, f"{got.status}: it is at {where} now")
    masked = without_secret(got.body, secret)
    failure = classify(got.status, {}, masked, Clock().now_ms())
    return Probe("refused", got.status, failure.excerpt, got.date)


def _count_models(body: bytes) -> int | None:
    """Return how many models a list has, in either dialect; None for what is no list."""
    try:
        found: Any = json.loads(body)
    except (ValueError, RecursionError):
        return None
    # Together's list is bare.
    models = found.get("data") if isinstance(found, dict) else found
    return len(models) if isinstance(models, list) else None
