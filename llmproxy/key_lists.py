"""Owns what lists show of a user's API keys: those that work and those that ended, page by page.

What reads the database is `f(tx, …)` over an open transaction. None of it goes through the keys of
others, nor through all that the user ever had, but for counting and passing over them in an index.
"""

import sqlite3
from collections.abc import Sequence
from typing import Generic, NamedTuple, TypeVar

from llmproxy.accounts import ApiKey, User, find_api_key
from llmproxy.storage.database import Tx

Key = TypeVar("Key")


class KeyPage(NamedTuple, Generic[Key]):
    """One page of a list of keys."""

    keys: list[Key]
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
    def is_all(self) -> bool:
        """Say whether the list has no other page."""
        return len(self.keys) == self.total

    @property
    def has_next(self) -> bool:
        """Say whether another page follows."""
        return self.last < self.total


def page_of(keys: Sequence[Key], number: int, *, rows_max: int) -> KeyPage[Key]:
    """Return a page of keys that are all at hand.

    The last one, where there are not so many as `number`.
    """
    span = _span(number, len(keys), rows_max)
    offset = span["offset"]
    shown = list(keys[offset : offset + rows_max])
    return KeyPage(shown, len(keys), _number(span), rows_max)


def page_of_live_keys(
    tx: Tx, user: User, number: int, *, now_ms: int, rows_max: int
) -> KeyPage[ApiKey]:
    """Return a page of the API keys that work, the newest first.

    The last one, where there are not so many as `number`.
    """
    total = count_live_keys(tx, user, now_ms=now_ms)
    span = _span(number, total, rows_max)
    ids = tx.execute(
        """SELECT id FROM api_keys WHERE user_id = :user_id AND ends_at_ms > :now
           ORDER BY id DESC LIMIT :limit OFFSET :offset""",
        {"user_id": user.id, "now": now_ms, **span},
    )
    return _page(tx, user, ids, total, span)


def page_of_ended_keys(
    tx: Tx, user: User, number: int, *, now_ms: int, rows_max: int
) -> KeyPage[ApiKey]:
    """Return a page of the API keys that do not work any more, the one that ended last first.

    The last page, where there are not so many as `number`.
    """
    total = tx.execute(
        "SELECT count(*) FROM api_keys WHERE user_id = ? AND ends_at_ms <= ?", (user.id, now_ms)
    ).fetchone()[0]
    span = _span(number, total, rows_max)
    ids = tx.execute(
        """SELECT id FROM api_keys WHERE user_id = :user_id AND ends_at_ms <= :now
           ORDER BY ends_at_ms DESC, id DESC LIMIT :limit OFFSET :offset""",
        {"user_id": user.id, "now": now_ms, **span},
    )
    return _page(tx, user, ids, total, span)


def _span(number: int, total: int, rows_max: int) -> dict[str, int]:
    """Return which rows a page has, by the names of SQL's parameters."""
    number = max(1, min(number, -(-total // rows_max)))
    return {"limit": rows_max, "offset": (number - 1) * rows_max}


def _number(span: dict[str, int]) -> int:
    return span["offset"] // span["limit"] + 1


def _page(
    tx: Tx, user: User, ids: sqlite3.Cursor, total: int, span: dict[str, int]
) -> KeyPage[ApiKey]:
    found = [find_api_key(tx, user, row[0]) for row in ids.fetchall()]
    return KeyPage([key for key in found if key], total, _number(span), span["limit"])


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
