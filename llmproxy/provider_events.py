"""Owns the history of providers and their keys: each state that they had, why, since when, by whom.

Writers are `f(tx, …)`, called in the transaction that changes the state. Must not hold secrets.
"""

from collections.abc import Mapping

import msgspec

from llmproxy.storage.database import Tx

OVERLOADED = "overloaded"
"""No state of a provider, but what it says of one model."""
EVENTS_MAX = 10_000
"""Older ones are forgotten: a key that fails for months must not fill the disk."""
REASON_CHARS_MAX = 300


class ProviderEvent(msgspec.Struct, frozen=True):
    """One change of a provider's state, or (with `provider_key`) of one of its keys'."""

    provider: str
    provider_key: str | None
    state: str
    reason: str | None
    upstream_status: int | None
    """The HTTP status by which the provider showed it, if one did."""
    until_ms: int | None
    actor: str
    created_at_ms: int


def add_event(tx: Tx, event: ProviderEvent) -> None:
    """Write one event, and forget the oldest above EVENTS_MAX."""
    reason = event.reason and event.reason[:REASON_CHARS_MAX]
    added = tx.execute(
        """INSERT INTO provider_events(provider, provider_key, state, reason, upstream_status,
                                       until_ms, actor, created_at_ms)
           VALUES(?, ?, ?, ?, ?, ?, ?, ?)""",
        msgspec.structs.astuple(msgspec.structs.replace(event, reason=reason)),
    )
    assert added.lastrowid is not None
    tx.execute("DELETE FROM provider_events WHERE id <= ?", (added.lastrowid - EVENTS_MAX,))


Statuses = Mapping[tuple[str, str | None], int | None]
"""HTTP statuses, by a provider's name and its key's, or None for the provider itself."""


def last_statuses(tx: Tx) -> Statuses:
    """Return by which HTTP status each state of now was shown; None, or nothing, if by none."""
    rows = tx.execute(
        """SELECT provider, provider_key, upstream_status FROM provider_events
           WHERE id IN (SELECT max(id) FROM provider_events WHERE state <> ?
                        GROUP BY provider, provider_key)""",
        (OVERLOADED,),
    )
    return {(provider, key): status for provider, key, status in rows}


def list_events(tx: Tx, provider: str, limit: int) -> list[ProviderEvent]:
    """Return the latest events of a provider and its keys, the newest first."""
    rows = tx.execute(
        """SELECT provider, provider_key, state, reason, upstream_status, until_ms, actor,
                  created_at_ms
           FROM provider_events WHERE provider = ? ORDER BY id DESC LIMIT ?""",
        (provider, limit),
    )
    return [ProviderEvent(*row) for row in rows]
