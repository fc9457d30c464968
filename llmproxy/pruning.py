"""Owns the deletion of old rows of `requests`: their details go, the ledger and the sums stay.

What is deleted goes in slices, each in a transaction of its own, so that a server beside it never
waits long. Whole days (UTC) are pruned; that they were is noted before the first slice, so that a
prune that is cut short leaves nothing that looks like damage. Must not touch money.
"""

import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import NamedTuple

from llmproxy.rollups import DAY_MS
from llmproxy.storage.database import Tx

SLICE_ROWS = 250
"""A transaction of so many rows takes some milliseconds; the server waits for as long."""

Transaction = Callable[[], AbstractContextManager[Tx]]
"""Opens a transaction."""


class Prunable(NamedTuple):
    """What a prune would delete."""

    rows: int
    oldest_ms: int | None
    """When the oldest of them came; None when there is none."""


def first_id(before_day: int) -> bytes:
    """Return the smallest id that a request of a day can have: ids begin with the time."""
    return (before_day * DAY_MS).to_bytes(6) + bytes(10)


def find_prunable(tx: Tx, before_day: int) -> Prunable:
    """Count the rows of requests that came before a day (days since 1970, UTC)."""
    row = tx.execute(
        "SELECT count(*), min(created_at_ms) FROM requests WHERE id < :end AND created_at_ms < :ms",
        {"end": first_id(before_day), "ms": before_day * DAY_MS},
    ).fetchone()
    return Prunable(*row)


def note_prune(tx: Tx, before_day: int, *, actor: str, now_ms: int) -> None:
    """Note that requests before a day may be gone from now on; before the first is deleted."""
    tx.execute(
        "INSERT INTO prunes(before_day, actor, created_at_ms) VALUES(?, ?, ?)",
        (before_day, actor, now_ms),
    )


def delete_slice(tx: Tx, before_day: int, after: bytes) -> tuple[int, bytes | None]:
    """Delete up to SLICE_ROWS rows of before a day, oldest first, from behind an id.

    Returns how many were deleted, and the last id that was looked at; None at the end.
    """
    values = {"after": after, "end": first_id(before_day), "ms": before_day * DAY_MS}
    (last,) = tx.execute(
        """SELECT max(id) FROM (SELECT id FROM requests WHERE id > :after AND id < :end
                                ORDER BY id LIMIT :most)""",
        values | {"most": SLICE_ROWS},
    ).fetchone()
    if last is None:
        return 0, None
    # By both times: in rows of early versions the arrival was noted later than in the id.
    deleted = tx.execute(
        "DELETE FROM requests WHERE id > :after AND id <= :last AND created_at_ms < :ms",
        {"after": after, "last": last, "ms": values["ms"]},
    )
    return deleted.rowcount, last


def prune(write: Transaction, before_day: int, *, on_deleted: Callable[[int], object]) -> int:
    """Delete all rows of requests that came before a day; return how many they were.

    Args:
        write: opens a writing transaction; there is a pause after each, as long as it took.
        before_day: the first day that stays, in days since 1970 (UTC); see `note_prune`.
        on_deleted: called with the number of rows of each slice.
    """
    total, after = 0, b""
    while True:
        begun_s = time.monotonic()
        with write() as tx:
            deleted, last = delete_slice(tx, before_day, after)
        if last is None:
            return total
        total, after = total + deleted, last
        on_deleted(deleted)
        time.sleep(time.monotonic() - begun_s)
