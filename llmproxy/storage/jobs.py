"""Owns the writer's jobs: their queue, how many run in one transaction, and whose an error is.

A job is a function `f(tx, …)`. An error is its own, or it is the database's; `classify` alone says
which. Must not begin or end a transaction, wait, or decide what becomes of the database: all that
is the writer's.
"""

import asyncio
import enum
import logging
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Protocol

import msgspec

from llmproxy.errors import DatabaseError
from llmproxy.storage.database import Tx

BATCH_JOBS_MAX = 512

Write = tuple[Callable[..., object], tuple[Any, ...]]
"""What a job does: `f(tx, …)` and the arguments behind `tx`."""

_log = logging.getLogger("llmproxy.storage")


class Keeper(Protocol):
    """Keeps elsewhere what must not be lost of the writes that the database does not take.

    It is called on the loop, in the midst of the writer's own work: it must not raise.
    """

    def keep(self, writes: Sequence[Write]) -> int:
        """Keep those writes that are to be kept, durably; return how many it has kept."""

    def note_failure(self, why: str) -> None:
        """Note that the database has failed: it is suspect until somebody has looked at it."""


class ErrorClass(enum.Enum):
    """What an error says about the database."""

    OF_JOB = "nothing: it belongs to the one job that raised it"
    BUSY = "a foreign writer is at work: to be waited for"
    FULL = "it cannot be written now: nobody is kept waiting, settlements are tried again"
    BROKEN = "damage or a failed sync: never go on with a suspect ledger (money.md 1.2)"


_CLASS_BY_CODE = {
    sqlite3.SQLITE_BUSY: ErrorClass.BUSY,
    sqlite3.SQLITE_LOCKED: ErrorClass.BUSY,
    sqlite3.SQLITE_PROTOCOL: ErrorClass.BUSY,
    sqlite3.SQLITE_FULL: ErrorClass.FULL,
    sqlite3.SQLITE_READONLY: ErrorClass.FULL,
    sqlite3.SQLITE_CANTOPEN: ErrorClass.FULL,
    sqlite3.SQLITE_CORRUPT: ErrorClass.BROKEN,
    sqlite3.SQLITE_NOTADB: ErrorClass.BROKEN,
    sqlite3.SQLITE_IOERR: ErrorClass.BROKEN,
    # The index of the log, shared memory that can be made anew, does not fit on the disk.
    sqlite3.SQLITE_IOERR_SHMSIZE: ErrorClass.FULL,
}


class FileGoneError(DatabaseError):
    """The open database is not the file at its path: moved, removed or replaced."""

    def __init__(self, path: Path) -> None:
        """Take the path where it should be."""
        super().__init__(f"{path} is gone, or another file is there now")


def classify(error: BaseException) -> ErrorClass:
    """Return what an error that a statement or a job raised says about the database."""
    if isinstance(error, FileGoneError):
        return ErrorClass.FULL
    # Errors that the sqlite3 module raises by itself, such as of a wrong parameter, have no code.
    code = getattr(error, "sqlite_errorcode", -1)
    if code < 0:
        return ErrorClass.OF_JOB
    of_kind = _CLASS_BY_CODE.get(code & 0xFF, ErrorClass.OF_JOB)
    return _CLASS_BY_CODE.get(code, of_kind)


def passes(error: BaseException) -> bool:
    """Say whether a transaction that failed so may be tried again on the same database."""
    return classify(error) in {ErrorClass.FULL, ErrorClass.BUSY}


class Job(msgspec.Struct, eq=False):
    """One function to run in a transaction; `future` is None when nobody waits for it."""

    function: Callable[..., Any]
    args: tuple[Any, ...]
    future: asyncio.Future[Any] | None = None
    may_be_lost: bool = False
    """Nobody misses it, should the database not take it."""
    result: Any = None
    error: Exception | None = None

    def tell_error(self, error: Exception) -> None:
        """Tell the waiter, or the log when nobody waits, that it has failed."""
        if self.future is None:
            _log.error("a queued write failed: %s", error, exc_info=error)
        elif not self.future.done():  # a waiter may have been cancelled
            fail(self.future, error)


def answer(jobs: list[Job]) -> list[Job]:
    """Tell all who wait how it went; return the jobs that have failed, mostly none."""
    failed = []
    for job in jobs:
        future = job.future
        if job.error is not None:
            failed.append(job)
            job.tell_error(job.error)
        elif future is not None and not future.done():
            future.set_result(job.result)
    return failed


def fail(future: asyncio.Future[Any], error: Exception) -> None:
    """Tell a waiter of an error, which is no news any more should it have left."""
    future.set_exception(error)
    future.exception()  # else asyncio complains of one that nobody has asked for


class JobQueue(deque[Job]):
    """The jobs that wait, in the order in which they run."""

    def take_batch(self) -> list[Job]:
        """Take out the jobs of one transaction."""
        return [self.popleft() for _ in range(min(len(self), BATCH_JOBS_MAX))]

    def put_back(self, batch: list[Job]) -> None:
        """Let jobs whose transaction was rolled back run first again, in their order."""
        self.extendleft(reversed(batch))

    def refuse_waiting(self, why: str) -> None:
        """Tell those who wait that they wait in vain; what must be written stays queued."""
        jobs = list(self)
        self.clear()
        for job in jobs:
            if job.future is None:
                self.append(job)
            else:
                job.tell_error(DatabaseError(why))

    def take_unwaited(self) -> list[Job]:
        """Take out all jobs, and return those that nobody waits for: settlements and records."""
        jobs = [job for job in self if job.future is None]
        self.clear()
        return jobs


def run_together(tx: Tx, batch: list[Job]) -> bool:
    """Run jobs; False as soon as one fails, which leaves the others to be run again.

    Raises:
        sqlite3.Error: the trouble is the database's.
    """
    for job in batch:
        try:
            job.result = job.function(tx, *job.args)
        except Exception as error:
            if classify(error) is not ErrorClass.OF_JOB:
                raise
            return False
    return True


def run_in_savepoints(tx: Tx, batch: list[Job]) -> None:
    """Run jobs, each in a savepoint of its own, so that one that fails undoes no other.

    Raises:
        sqlite3.Error: the trouble is the database's.
    """
    for job in batch:
        job.error = None
        tx.execute("SAVEPOINT job")
        try:
            job.result = job.function(tx, *job.args)
        except Exception as error:
            if classify(error) is not ErrorClass.OF_JOB:
                raise
            job.error = error
            tx.execute("ROLLBACK TO job")
        tx.execute("RELEASE job")
