"""A writer that is watched from outside, and a disk that fails when told to."""

import asyncio
import sqlite3
import time
from collections.abc import Awaitable, Callable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

from llmproxy.storage.database import DatabaseFiles, Tx
from llmproxy.storage.jobs import Write
from llmproxy.storage.writer import Writer

INSERT = "INSERT INTO boots(pid, version, started_at_ms) VALUES(?, 'x', 1)"


def insert(tx: Tx, pid: int) -> int:
    tx.execute(INSERT, (pid,))
    return pid


def fail(tx: Tx, error: Exception) -> None:
    insert(tx, 666)
    raise error


def count(tx: Tx) -> int:
    return int(tx.execute("SELECT count(*) FROM boots").fetchone()[0])


class FaultyConnection:
    """A real connection whose statements fail when told to, as a disk would make them.

    A failed COMMIT has rolled everything back, as SQLite does when the disk is full.
    """

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real
        self.faults: dict[str, list[int]] = {}
        self.at_fault: Callable[[], object] = lambda: None

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
        if codes := self.faults.get(sql):
            self.at_fault()
            if self._real.in_transaction:
                self._real.execute("ROLLBACK")
            raise sqlite_error(codes.pop(0))
        return self._real.execute(sql, *arguments)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._real, name)


def sqlite_error(code: int) -> sqlite3.Error:
    is_damage = code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    error = (sqlite3.DatabaseError if is_damage else sqlite3.OperationalError)(f"fault {code}")
    error.sqlite_errorcode = code
    return error


class Site:
    """A writer on a real file, and a second connection that looks at what is on disk."""

    def __init__(self, path: Path) -> None:
        self.files = DatabaseFiles(path)
        self.settlements: set[Callable[..., object]] = {insert}
        self.kept: list[Write] = []
        self.failures: list[str] = []
        self.writer: Writer[int] = Writer(self.files, self)
        self.connection = self.writer._connection
        self.faulty = FaultyConnection(self.connection)
        self.writer._connection = self.writer._transaction._connection = self.faulty  # type: ignore[assignment]
        self.published: list[int] = []
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run work on a loop with the writer started; the writer stays open."""

        async def main() -> None:
            self.writer.start(count, self.published.append)
            await asyncio.sleep(0)
            await work()

        asyncio.run(main())

    def keep(self, writes: Sequence[Write]) -> int:
        """Take what the database did not of `settlements`."""
        kept = [write for write in writes if write[0] in self.settlements]
        self.kept += kept
        return len(kept)

    def note_failure(self, why: str) -> None:
        self.failures.append(why)

    def pids(self) -> list[int]:
        with closing(sqlite3.connect(self.files.path)) as connection:
            return [row[0] for row in connection.execute("SELECT pid FROM boots ORDER BY id")]

    def commits(self) -> int:
        return self.statements.count("COMMIT")

    def checkpoints(self) -> int:
        return sum("wal_checkpoint" in statement for statement in self.statements)


async def eventually(is_so: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)
