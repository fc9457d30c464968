"""Owns setting up providers that no preset knows, what they take, and how they are forgotten.

Writers are `f(tx, …)`. Must not talk to providers.
"""

import msgspec

from llmproxy.dialects.families import FAMILIES
from llmproxy.errors import NotFoundError, RefusedError
from llmproxy.key_pool import (
    KEYLESS,
    KEYLESS_NAME,
    Provider,
    ProviderKey,
    ensure_provider,
    find_provider,
    find_provider_key,
    insert_provider,
)
from llmproxy.presets import Preset, check_new_name
from llmproxy.provider_events import ProviderEvent, add_event
from llmproxy.storage.database import Tx


def add_provider(tx: Tx, name: str, described: Preset, *, now_ms: int) -> Provider:
    """Set up a provider that no preset knows; its base URL has been checked.

    Raises:
        RefusedError: the name cannot be used, or is taken.
    """
    check_new_name(name)
    if find_provider(tx, name) is not None:
        msg = f"There is a provider {name} already. Change it: llmproxy providers set {name}"
        raise RefusedError(msg)
    insert_provider(tx, name, described, now_ms=now_ms)
    return ensure_provider(tx, name, now_ms=now_ms)


def add_keyless(tx: Tx, provider: Provider, *, actor: str, now_ms: int) -> ProviderKey:
    """Let a provider be used without a key: a row that can be paused like a key, with no secret."""
    tx.execute(
        """INSERT INTO provider_keys(provider_id, name, sealed, masked, state_since_ms, state_by,
                                     created_at_ms)
           VALUES(?, ?, ?, 'no key needed', ?, ?, ?)""",
        (provider.id, KEYLESS_NAME, KEYLESS, now_ms, actor, now_ms),
    )
    event = ProviderEvent(
        provider.name, KEYLESS_NAME, "active", "needs no key", None, None, actor, now_ms
    )
    add_event(tx, event)
    return find_provider_key(tx, provider.name, KEYLESS_NAME)


def set_dialect(tx: Tx, provider: Provider, dialect: str) -> Provider:
    """Say which of `FAMILIES` a provider speaks, such as a gateway in a known one's place.

    Where the old one knows no `stream_options` and the new one does, it is asked for usage.
    """
    has_option = FAMILIES[dialect].has_stream_options
    had_option = FAMILIES[provider.dialect].has_stream_options
    asked = has_option and (provider.injects_usage or not had_option)
    tx.execute(
        "UPDATE providers SET dialect = ?, injects_usage = ? WHERE id = ?",
        (dialect, asked, provider.id),
    )
    return msgspec.structs.replace(provider, dialect=dialect, injects_usage=asked)


def set_injects_usage(tx: Tx, provider: Provider, *, wanted: bool) -> Provider:
    """Say whether a provider is asked for usage in its streams.

    Raises:
        RefusedError: its dialect reports usage unasked.
    """
    if wanted and not FAMILIES[provider.dialect].has_stream_options:
        msg = f"{provider.name} speaks {provider.dialect}, which has no stream_options."
        raise RefusedError(msg)
    tx.execute("UPDATE providers SET injects_usage = ? WHERE id = ?", (wanted, provider.id))
    return msgspec.structs.replace(provider, injects_usage=wanted)


def count_open_requests(tx: Tx, name: str) -> int:
    """Return how many requests to a provider have not ended."""
    row = tx.execute(
        """SELECT count(*) FROM holds JOIN price_versions ON price_versions.id = price_version_id
           WHERE state = 'open' AND provider = ?""",
        (name,),
    ).fetchone()
    return int(row[0])


def remove_provider(tx: Tx, name: str, *, actor: str, now_ms: int) -> None:
    """Forget a provider and its keys; what was sent to it stays in the history.

    Raises:
        NotFoundError: it is not set up.
    """
    row = tx.execute("SELECT id FROM providers WHERE name = ?", (name,)).fetchone()
    if row is None:
        msg = f"Provider {name!r:.80} is not set up. See: llmproxy providers list"
        raise NotFoundError(msg)
    tx.execute("DELETE FROM provider_keys WHERE provider_id = ?", (row[0],))
    tx.execute("DELETE FROM providers WHERE id = ?", (row[0],))
    add_event(tx, ProviderEvent(name, None, "removed", None, None, None, actor, now_ms))
