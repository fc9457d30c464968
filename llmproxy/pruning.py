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

COUNTED_ROWS = 10_000
"""So many rows are counted in one transaction."""

Transaction = Callable[[], AbstractContextManager[Tx]]
"""Opens a transaction."""


class Prunable(NamedTuple):
    """What a prune would delete."""

    rows: int
    oldest_ms: int | None
    """When the oldest of them came; None when there is none."""


class Slice(NamedTuple):
    """Some of the rows that came before a day: those behind one id, up to another."""

    before_day: int
    after: bytes
    last: bytes

    def values(self) -> dict[str, object]:
        """Return the parameters of a statement about them."""
        end_ms = self.before_day * DAY_MS
        return {"after": self.after, "last": self.last, "end_ms": end_ms}


def find_prunable(
    read: Transaction, before_day: int, *, on_counted: Callable[[int], object] = lambda _rows: None
) -> Prunable:
    """Count the rows of requests that came before a day, in short transactions.

    Args:
        read: opens a reading transaction.
        before_day: in days since 1970 (UTC).
        on_counted: called with the number of rows since the last call.
    """
    rows, oldest_ms, after = 0, None, b""
    while True:
        with read() as tx:
            found = _next_slice(tx, before_day, after, COUNTED_ROWS)
            if found is None:
                return Prunable(rows, oldest_ms)
            # By both times: early versions noted an arrival later than it stands in the id.
            counted, first_ms = tx.execute(
                """SELECT count(*), min(created_at_ms) FROM requests
                   WHERE id > :after AND id <= :last AND created_at_ms < :end_ms""",
                found.values(),
            ).fetchone()
        rows, after = rows + counted, found.last
        oldest_ms = first_ms if oldest_ms is None else oldest_ms
        on_counted(counted)


def note_prune(tx: Tx, before_day: int, *, actor: str, now_ms: int) -> None:
    """Note that requests before a day may be gone from now on; before the first is deleted."""
    tx.execute(
        "INSERT INTO prunes(before_day, actor, created_at_ms) VALUES(?, ?, ?)",
        (before_day, actor, now_ms),
    )


def prune(
    write: Transaction, before_day: int, *, on_deleted: Callable[[int], object] = lambda _rows: None
) -> int:
    """Delete the rows of requests that came before a day; return how many they were.

    `note_prune` comes first. After each slice there is a pause as long as it took.

    Args:
        write: opens a writing transaction.
        before_day: the first day that stays, in days since 1970 (UTC).
        on_deleted: called with the number of rows since the last call.
    """
    total, after = 0, b""
    while True:
        begun_s = time.monotonic()
        with write() as tx:
            found = _next_slice(tx, before_day, after, SLICE_ROWS)
            if found is None:
                return total
            deleted = tx.execute(
                """DELETE FROM requests
                   WHERE id > :after AND id <= :last AND created_at_ms < :end_ms""",
                found.values(),
            ).rowcount
        total, after = total + deleted, found.last
        on_deleted(deleted)
        time.sleep(time.monotonic() - begun_s)


def _next_slice(tx: Tx, before_day: int, after: bytes, rows: int) -> Slice | None:
    """Return the next rows behind an id, None when there are no more; ids begin with the time."""
    (last,) = tx.execute(
        """SELECT max(id) FROM (SELECT id FROM requests WHERE id > :after AND id < :end
                                ORDER BY id LIMIT :rows)""",
        {"after": after, "end": (before_day * DAY_MS).to_bytes(6) + bytes(10), "rows": rows},
    ).fetchone()
    return None if last is None else Slice(before_day, after, last)
