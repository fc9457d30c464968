"""Owns the table `limits`: the limits of API keys and users, and the suspension of keys.

Every function is `f(tx, …)` over an open transaction. Must not count what is used of a limit.
"""

import msgspec

from llmproxy.limits import Limits, limits_from
from llmproxy.storage.database import Tx

_COLUMNS = """
SELECT id, requests_per_minute, tokens_per_minute, concurrent_max, daily_budget_nanousd,
       monthly_budget_nanousd, spend_per_hour_nanousd, models, providers, networks,
       suspended_at_ms, suspended_reason, resumed_at_ms
FROM limits
"""


def find_limits(tx: Tx, limits_id: int | None) -> Limits | None:
    """Return the limits with an id; None where there are none, or nothing is limited."""
    row = tx.execute(_COLUMNS + "WHERE id = ?", (limits_id,)).fetchone()
    return None if row is None else limits_from(tuple(row))


def load_limits(tx: Tx, ids: set[int]) -> dict[int, Limits | None]:
    """Return the limits with some ids; None where nothing is limited."""
    rows = tx.execute(_COLUMNS).fetchall()
    return {row[0]: limits_from(tuple(row)) for row in rows if row[0] in ids}


def set_key_limits(tx: Tx, key_ids: list[int], changes: dict[str, object]) -> Limits:
    """Change limits that some API keys of one name share; what is not given stays.

    Args:
        tx: an open transaction.
        key_ids: the keys that have the name now: one, or two while one replaces the other.
        changes: by the names of the fields of `Limits`; None lifts a limit.
    """
    return _change(tx, share_limits(tx, key_ids), changes)


def share_limits(tx: Tx, key_ids: list[int]) -> int:
    """Let API keys have the limits of the first of them that has any; return their id.

    Without any they share an empty row: what one of them spends counts for limits that the others
    are given when it has ended.
    """
    limits_id = None
    for key in key_ids:
        row = tx.execute("SELECT limits_id FROM api_keys WHERE id = ?", (key,)).fetchone()
        limits_id = limits_id or row[0]
    limits_id = limits_id or _new_row(tx)
    for key in key_ids:
        tx.execute("UPDATE api_keys SET limits_id = ? WHERE id = ?", (limits_id, key))
    return int(limits_id)


def set_user_limits(tx: Tx, user_id: int, changes: dict[str, object]) -> Limits:
    """Change a user's limits, which hold for all their API keys together; see `set_key_limits`."""
    limits_id = tx.execute("SELECT limits_id FROM users WHERE id = ?", (user_id,)).fetchone()[0]
    if limits_id is None:
        limits_id = _new_row(tx)
        tx.execute("UPDATE users SET limits_id = ? WHERE id = ?", (limits_id, user_id))
    return _change(tx, limits_id, changes)


def suspend(tx: Tx, limits_id: int, reason: str, at_ms: int) -> None:
    """Let the API keys that share these limits do nothing from now on, until they are resumed."""
    tx.execute(
        "UPDATE limits SET suspended_at_ms = ?, suspended_reason = ? WHERE id = ?",
        (at_ms, reason, limits_id),
    )


def resume(tx: Tx, limits_id: int, *, now_ms: int) -> None:
    """Lift a suspension; what was spent before counts for no new one."""
    tx.execute(
        """UPDATE limits SET suspended_at_ms = NULL, suspended_reason = NULL,
                  resumed_at_ms = max(:now, coalesce(suspended_at_ms, 0))
           WHERE id = :id""",
        {"now": now_ms, "id": limits_id},
    )


def _new_row(tx: Tx) -> int:
    return int(tx.execute("INSERT INTO limits DEFAULT VALUES RETURNING id").fetchone()[0])


def _change(tx: Tx, limits_id: int, changes: dict[str, object]) -> Limits:
    before = find_limits(tx, limits_id) or Limits(limits_id)
    limits = msgspec.structs.replace(before, **changes)
    tx.execute(
        """UPDATE limits SET requests_per_minute = ?, tokens_per_minute = ?, concurrent_max = ?,
                  daily_budget_nanousd = ?, monthly_budget_nanousd = ?, spend_per_hour_nanousd = ?,
                  models = ?, providers = ?, networks = ?
           WHERE id = ?""",
        (
            *(limits.requests_per_minute, limits.tokens_per_minute, limits.concurrent_max),
            *(limits.daily_budget_nanousd, limits.monthly_budget_nanousd),
            limits.spend_per_hour_nanousd,
            *(_joined(limits.models), _joined(limits.providers), _joined(limits.networks)),
            limits_id,
        ),
    )
    return limits


def _joined(values: tuple[object, ...] | None) -> str | None:
    return None if values is None else ",".join(map(str, values))
