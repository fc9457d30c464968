"""Owns a user's own requests page by page, in a time that no filter and no ledger makes long.

A filter that fits little would read all that a user ever sent before a page is full. So one look
goes over so many requests at most, and says where the next one goes on.
"""

from typing import NamedTuple

from llmproxy.reports.requests import (
    NEWEST_FIRST,
    OLDEST_FIRST,
    Request,
    RequestFilter,
    end_bound,
    id_bound,
    select_ended,
    select_running,
)
from llmproxy.rollups import DAY_MS
from llmproxy.storage.database import Tx

LOOKED_AT_MAX = 10_000
"""They take about 15 ms."""


class Look(NamedTuple):
    """What one look has found."""

    rows: list[Request]
    go_on: bytes | None
    """The id behind which there is more to look at; None when that was all."""


def look_back(tx: Tx, wanted: RequestFilter, *, limit: int, most: int = LOOKED_AT_MAX) -> Look:
    """Return up to `limit` requests of one user, newest first, from `wanted.before` on.

    There can be fewer though more would fit: where `most` others were looked at before.
    """
    first, end = id_bound(wanted.since_ms, 0), end_bound(wanted)
    start, ended_before = first, end
    if _is_narrow(wanted):
        ended_before = min(end, _end_of_newest_day(tx, wanted, end))
        edge = _edge_behind(tx, wanted, first, ended_before, most)
        start = first if edge is None else id_after(edge)
    rows = select_running(tx, wanted, start, end, limit + 1, NEWEST_FIRST)
    rows += select_ended(tx, wanted, start, ended_before, limit + 1, NEWEST_FIRST)
    rows.sort(key=lambda row: row.id, reverse=True)
    if len(rows) > limit:
        return Look(rows[:limit], rows[limit - 1].id)
    return Look(rows, start if start > first else None)


def look_ahead(
    tx: Tx, wanted: RequestFilter, after: bytes, *, limit: int, most: int = LOOKED_AT_MAX
) -> Look:
    """Return up to `limit` requests of one user that came after an id, oldest first."""
    first, end = max(id_bound(wanted.since_ms, 0), id_after(after)), end_bound(wanted)
    edge = _edge_ahead(tx, wanted, first, end, most) if _is_narrow(wanted) else None
    rows = select_running(tx, wanted, first, edge or end, limit + 1, OLDEST_FIRST)
    rows += select_ended(tx, wanted, first, edge or end, limit + 1, OLDEST_FIRST)
    rows.sort(key=lambda row: row.id)
    if len(rows) > limit:
        return Look(rows[:limit], rows[limit - 1].id)
    return Look(rows, None if edge is None else _id_before(edge))


def id_after(request_id: bytes) -> bytes:
    """Return the next id; the last one of all has none, and is returned itself."""
    return min(int.from_bytes(request_id) + 1, 2**128 - 1).to_bytes(16)


def _id_before(request_id: bytes) -> bytes:
    return max(int.from_bytes(request_id) - 1, 0).to_bytes(16)


def _is_narrow(wanted: RequestFilter) -> bool:
    """Say whether requests of the user and the span may not be wanted."""
    return any((wanted.key, wanted.provider, wanted.model, wanted.state))


# Answered by the index alone.
_EDGE_BEHIND = """
SELECT id FROM requests INDEXED BY requests_user
WHERE user_id = :user AND id >= :first AND id < :end ORDER BY id DESC LIMIT 1 OFFSET :most
"""
_EDGE_AHEAD = """
SELECT id FROM requests INDEXED BY requests_user
WHERE user_id = :user AND id >= :first AND id < :end ORDER BY id LIMIT 1 OFFSET :most
"""


def _edge_behind(
    tx: Tx, wanted: RequestFilter, first: bytes, end: bytes, most: int
) -> bytes | None:
    """Return the newest ended request that is too many to be looked at, if there is one."""
    bounds = {"user": wanted.user_id, "first": first, "end": end, "most": most}
    row = tx.execute(_EDGE_BEHIND, bounds).fetchone()
    return None if row is None else bytes(row[0])


def _edge_ahead(tx: Tx, wanted: RequestFilter, first: bytes, end: bytes, most: int) -> bytes | None:
    """Return the oldest ended request that is too many to be looked at, if there is one."""
    bounds = {"user": wanted.user_id, "first": first, "end": end, "most": most}
    row = tx.execute(_EDGE_AHEAD, bounds).fetchone()
    return None if row is None else bytes(row[0])


# What held nothing is summed under no model.
_NEWEST_DAY = """
SELECT max(day) FROM requests_by_day
WHERE user_id = :user AND day >= :first_day AND day <= :last_day
  AND (:provider IS NULL OR provider = :provider)
  AND (:model IS NULL OR model = :model OR model = '')
  AND (:key IS NULL
       OR api_key_id IN (SELECT id FROM api_keys WHERE user_id = :user AND name = :key))
  AND (:state IS NULL OR iif(:state = 'refused', refused, requests) > 0)
"""


def _end_of_newest_day(tx: Tx, wanted: RequestFilter, end: bytes) -> bytes:
    """Return the end of the newest day with ended requests like these; smallest id: there is none.

    Whatever came later needs no look.
    """
    (day,) = tx.execute(
        _NEWEST_DAY,
        {
            "user": wanted.user_id,
            "first_day": (wanted.since_ms or 0) // DAY_MS,
            "last_day": int.from_bytes(end[:6]) // DAY_MS,
            "provider": wanted.provider,
            "model": wanted.model,
            "key": wanted.key,
            "state": wanted.state,
        },
    ).fetchone()
    return id_bound(0 if day is None else (int(day) + 1) * DAY_MS, 0)


_USED_MODELS = """
SELECT DISTINCT provider, model FROM requests_by_day
WHERE user_id = :user AND day >= :first_day AND model <> '' ORDER BY 1, 2 LIMIT :limit
"""


def used_models(tx: Tx, user_id: int, *, since_ms: int, limit: int) -> list[tuple[str, str]]:
    """Return the models (provider, id) that a user's requests held credit for, by name."""
    rows = tx.execute(
        _USED_MODELS, {"user": user_id, "first_day": since_ms // DAY_MS, "limit": limit}
    )
    return [(row[0], row[1]) for row in rows]


_OWN_IDS = """
SELECT id FROM requests INDEXED BY requests_user
WHERE user_id = :user AND id BETWEEN :first AND :last
UNION
SELECT id FROM holds
WHERE id BETWEEN :first AND :last AND wallet_id = (SELECT id FROM wallets WHERE user_id = :user)
ORDER BY 1 LIMIT :limit
"""


def find_own_ids(tx: Tx, user_id: int, digits: str, *, limit: int) -> list[bytes]:
    """Return up to `limit` ids of a user's requests that begin with these hex digits (8 to 32)."""
    bounds = {
        "first": bytes.fromhex(digits.ljust(32, "0")),
        "last": bytes.fromhex(digits.ljust(32, "f")),
    }
    rows = tx.execute(_OWN_IDS, {"user": user_id, **bounds, "limit": limit})
    return [bytes(row[0]) for row in rows]


def is_own(tx: Tx, user_id: int, request_id: bytes) -> bool:
    """Say whether a request is this user's, be it running, ended or pruned."""
    return bool(find_own_ids(tx, user_id, request_id.hex(), limit=1))
