"""Owns what lists show of a user's API keys: those that work and those that ended, page by page.

Every function is `f(tx, …)` over an open transaction; none of them goes through the keys of others,
nor through all that the user ever had.
"""

from typing import NamedTuple

from llmproxy.accounts import KEY_ROWS, ApiKey, User, api_key_from
from llmproxy.storage.database import Tx

# The few that work are sorted (so the +): by the order of ids all that ended would be gone through.
_LIVE = """
WHERE user_id = :user_id AND ends_at_ms > :now
ORDER BY +api_keys.id DESC LIMIT :limit OFFSET :offset
"""
_ENDED = """
WHERE user_id = :user_id AND ends_at_ms <= :now
ORDER BY ends_at_ms DESC, api_keys.id DESC LIMIT :limit OFFSET :offset
"""


class KeyPage(NamedTuple):
    """One page of a list of API keys."""

    keys: list[ApiKey]
    total: int
    """How many the list has."""
    number: int
    """Of the page, from 1."""
    rows_max: int

    @property
    def first(self) -> int:
        """The place of the first key of the page in the list, from 1."""
        return (self.number - 1) * self.rows_max + 1

    @property
    def last(self) -> int:
        """The place of the last one."""
        return self.first + len(self.keys) - 1

    @property
    def has_next(self) -> bool:
        """Say whether another page follows."""
        return self.last < self.total


def page_of_live_keys(tx: Tx, user: User, number: int, *, now_ms: int, rows_max: int) -> KeyPage:
    """Return a page of the API keys that work, the newest first.

    The last one, where there are not so many as `number`.
    """
    total = count_live_keys(tx, user, now_ms=now_ms)
    return _page(tx, _LIVE, user, number, total, now_ms=now_ms, rows_max=rows_max)


def page_of_ended_keys(tx: Tx, user: User, number: int, *, now_ms: int, rows_max: int) -> KeyPage:
    """Return a page of the API keys that do not work any more, the one that ended last first.

    The last page, where there are not so many as `number`.
    """
    total = tx.execute(
        "SELECT count(*) FROM api_keys WHERE user_id = ? AND ends_at_ms <= ?", (user.id, now_ms)
    ).fetchone()[0]
    return _page(tx, _ENDED, user, number, total, now_ms=now_ms, rows_max=rows_max)


def _page(
    tx: Tx, which: str, user: User, number: int, total: int, *, now_ms: int, rows_max: int
) -> KeyPage:
    number = max(1, min(number, -(-total // rows_max)))
    rows = tx.execute(
        KEY_ROWS + which,
        {
            "user_id": user.id,
            "now": now_ms,
            "limit": rows_max,
            "offset": (number - 1) * rows_max,
        },
    )
    return KeyPage([api_key_from(row) for row in rows], total, number, rows_max)


def count_live_keys(tx: Tx, user: User, *, now_ms: int, name: str | None = None) -> int:
    """Return how many API keys of a user work, of those with a name or of all."""
    row = tx.execute(
        """SELECT count(*) FROM api_keys
           WHERE user_id = :user_id AND ends_at_ms > :now AND (:name IS NULL OR name = :name)""",
        {"user_id": user.id, "now": now_ms, "name": name},
    ).fetchone()
    return int(row[0])


def count_keys_made(tx: Tx, user: User, *, since_ms: int, limit: int) -> int:
    """Return how many of a user's newest `limit` API keys were made since a time, ended or not."""
    row = tx.execute(
        """SELECT count(*) FROM (SELECT created_at_ms FROM api_keys WHERE user_id = ?
                                 ORDER BY id DESC LIMIT ?)
           WHERE created_at_ms > ?""",
        (user.id, limit, since_ms),
    ).fetchone()
    return int(row[0])
