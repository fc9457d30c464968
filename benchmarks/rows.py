"""Fill a ledger with as many rows as a busy year leaves, fast: `fill`.

They are copies of one real request, with ids and times of their own: each has a hold, a charge and
a request, through the schema with all its checks, and `ledger verify` finds nothing wrong.
"""

import contextlib
import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

from llmproxy.storage.database import connect

BATCH_ROWS = 100_000
ROW_BYTES = 1000
"""Of hold, charge and request with their indexes, upwards."""
APART_MS = 1000


def fill(database: Path, rows: int, on_progress: Callable[[int, int], object]) -> None:
    """Add so many copies of the one settled request of a ledger.

    Args:
        database: nobody serves it, and exactly one hold of it is settled.
        rows: how many requests to add.
        on_progress: called with how many there are and how many there will be.

    Raises:
        SystemExit: there is no room on the disk.
    """
    if shutil.disk_usage(database.parent).free < 2 * rows * ROW_BYTES:
        raise SystemExit(f"{rows:,} rows need {2 * rows * ROW_BYTES / 1e9:,.0f} GB of free disk")
    with contextlib.closing(connect(database, must_exist=True)) as db:
        # A crash may take all of it: it is made anew for each run.
        db.execute("PRAGMA synchronous=OFF")
        db.create_function("copy_id", 2, _copy_id, deterministic=True)
        for first in range(0, rows, BATCH_ROWS):
            batch = min(BATCH_ROWS, rows - first)
            _add(db, first - rows, batch)
            on_progress(first + batch, rows)


def _copy_id(number: int, at_ms: int) -> bytes:
    """Return a UUIDv7 whose random bits are a number."""
    return ((at_ms << 80) | (0x7 << 76) | (0x2 << 62) | number).to_bytes(16, "big")


def _add(db: sqlite3.Connection, first: int, count: int) -> None:
    """Add copies number `first` (below zero: earlier than the real one) and following."""
    db.execute("BEGIN IMMEDIATE")
    db.execute("CREATE TEMP TABLE IF NOT EXISTS original AS SELECT * FROM holds")
    db.execute("CREATE TEMP TABLE IF NOT EXISTS original_day AS SELECT * FROM requests_by_day")
    db.execute(
        """CREATE TEMP TABLE copies AS
           WITH RECURSIVE numbers(n) AS (SELECT :first UNION ALL
                                         SELECT n + 1 FROM numbers WHERE n < :last)
           SELECT copy_id(-n, created_at_ms + n * :apart) AS id,
                  created_at_ms + n * :apart AS created_at_ms,
                  ended_at_ms + n * :apart AS ended_at_ms
           FROM numbers, original""",
        {"first": first, "last": first + count - 1, "apart": APART_MS},
    )
    own = {name: f"copies.{name}" for name in ("id", "created_at_ms", "ended_at_ms")}
    _copy(db, "holds", "id", own)
    _copy(db, "requests", "id", own)
    _copy(db, "transfers", "hold_id", {"hold_id": own["id"], "created_at_ms": own["ended_at_ms"]})
    _add_days(db)
    db.execute(
        """UPDATE wallets SET balance_nanousd = balance_nanousd - :count * charged_nanousd
           FROM original WHERE wallets.id = original.wallet_id""",
        {"count": count},
    )
    db.execute("DROP TABLE copies")
    db.execute("COMMIT")
    # The log does not empty itself (see llmproxy/storage/wal.py), and would double the disk used.
    db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


def _add_days(db: sqlite3.Connection) -> None:
    """Add the copies to the sums by day, in which the original stands alone."""
    columns = db.execute("PRAGMA table_info(requests_by_day)").fetchall()
    keys = [row["name"] for row in columns if row["pk"] and row["name"] != "day"]
    sums = [row["name"] for row in columns if not row["pk"]]
    db.execute(
        f"""INSERT INTO requests_by_day(day, {", ".join((*keys, *sums))})
            SELECT copied.day, {", ".join(keys)}, {", ".join(f"{name} * copied.n" for name in sums)}
            FROM original_day, (SELECT created_at_ms / 86400000 AS day, count(*) AS n
                                FROM copies GROUP BY 1) AS copied WHERE true
            ON CONFLICT DO UPDATE SET
            {", ".join(f"{name} = {name} + excluded.{name}" for name in sums)}"""
    )


def _copy(db: sqlite3.Connection, table: str, key: str, own: dict[str, str]) -> None:
    """Copy the original's row of a table, whatever columns that has, with some of its own."""
    names = [row["name"] for row in db.execute(f"PRAGMA table_info({table})")]
    names = [name for name in names if name != "id" or name in own]  # else it is given by itself
    values = [own.get(name, f"found.{name}") for name in names]
    db.execute(
        f"""INSERT INTO {table}({", ".join(names)}) SELECT {", ".join(values)}
            FROM copies, (SELECT * FROM {table}
                          WHERE {key} = (SELECT id FROM original)) AS found"""
    )
