"""Owns the serving process's one writing connection: group commit, checkpoints, foreign changes.

Jobs `f(tx, …)` run on the event loop, many to a transaction, and are answered only after COMMIT
has returned with `synchronous=FULL`: what was answered is on disk. Only what waits for the disk,
COMMIT and checkpoints, runs in a thread; statements take microseconds and would cost more in
switching threads than in running (docs/decisions/0002). While the thread has the connection, jobs
gather for the next transaction. What the database does not take in the end goes to the keeper.
Must not know any table.

Its states, and what ends them:

    idle        no job waits              submit: scheduled; enqueue or offer: lingering
    lingering   jobs nobody waits for     LINGER_S, or a submit: scheduled
    scheduled   the turn of all jobs is   it comes: BEGIN, the jobs run, COMMIT is sent off;
                near, or after a pause    an error: see below
    in COMMIT   the thread has the        it returned: answered; scheduled if jobs wait, or idle
                connection, jobs gather   an error: see below
    (a checkpoint has the connection in the thread as well)

An error of BEGIN, of a job or of COMMIT rolls everything back, the jobs are first in the queue
again, and by `classify` it is

    OF_JOB      scheduled, and then each job has a savepoint
    BUSY        scheduled after BUSY_PAUSE_S; waiters are refused when it lasts
    FULL        in trouble until a COMMIT returns: scheduled after RETRY_PAUSE_S, waiters refused
    BROKEN      broken for good: waiters are refused, the keeper gets the rest

`close` comes after the loop has ended, and writes without it.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Generic, TypeVar

from llmproxy.errors import DatabaseError
from llmproxy.storage.changes import ForeignChanges
from llmproxy.storage.database import (
    BUSY_TIMEOUT_MS,
    GATE_TIMEOUT_S,
    DatabaseFiles,
    Tx,
    open_current,
)
from llmproxy.storage.disk_thread import Disk, DiskThread
from llmproxy.storage.jobs import (
    ErrorClass,
    FileGoneError,
    Job,
    JobQueue,
    Keeper,
    answer,
    classify,
    fail,
    passes,
)
from llmproxy.storage.leftovers import Leftovers
from llmproxy.storage.schedule import Schedule
from llmproxy.storage.transaction import Transaction
from llmproxy.storage.wal import WriteAheadLog

S = TypeVar("S")
T = TypeVar("T")

QUEUE_JOBS_MAX = 10_000
OFFERED_JOBS_MAX = 1_000
WATCH_INTERVAL_S = 0.2
BUSY_PAUSE_S = 0.002
RETRY_PAUSE_S = 0.25
CHECKPOINT_WAL_BYTES = 4 * 1024 * 1024
LOOK_AFTER_JOBS = 128
"""So many jobs write about 4 MB at most: under load, time alone would let the WAL grow long."""
DISK_PATIENCE_S = 10.0
"""How long a sync may take before new requests are refused instead of kept waiting."""
STOP_PATIENCE_S = 5.0
"""How long a stop waits for a database that is busy or full."""

_log = logging.getLogger("llmproxy.storage")


class Writer(Generic[S]):
    """Runs all writes of the serving process, and watches for what others change."""

    def __init__(self, files: DatabaseFiles, keeper: Keeper, disk: Disk | None = None) -> None:
        """Open the database; the caller holds the serving lock. `disk` is a thread by default."""
        self._files = files
        self._connection = open_current(files, is_serving=True)
        # A foreign writer is waited for by the loop's clock, never by blocking the loop.
        self._connection.execute("PRAGMA busy_timeout=0")
        # What a burst has left of the WAL is cut off; else it is written over.
        self._connection.execute("PRAGMA journal_size_limit=12582912").fetchone()
        self._wal = WriteAheadLog(files)
        self._changes: ForeignChanges[S] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs = JobQueue()
        self._transaction = Transaction(files, self._connection)
        self._leftovers = Leftovers(keeper)
        self._disk: Disk = disk or DiskThread()
        self._schedule = Schedule(self._jobs, self._disk, self._run_batch)
        self._is_in_trouble = False
        self._busy_since_s = 0.0
        """Since when a foreign writer has been waited for; 0 for not now."""
        self._is_watch_due = False
        self._jobs_since_look = 0
        self.is_broken = False
        """The database has failed for good: nothing is written any more."""
        self.failed = asyncio.Event()
        """Set at that moment."""
        self.failure = ""
        """Why it has."""
        self.has_copied_log = False
        """The log that was found at the start is in the database file, synced."""
        self.commits = 0

    @property
    def kept(self) -> int:
        """How many writes the keeper has taken."""
        return self._leftovers.kept

    def start(self, load: Callable[[Tx], S], publish: Callable[[S], None]) -> None:
        """Begin to run jobs; called on the event loop, once.

        `load(tx)` reads a snapshot of what others may change; `publish(snapshot)` receives it:
        now, after every foreign commit, and on `refresh`.

        Raises:
            DatabaseError: the first snapshot cannot be read.
        """
        self._changes = ForeignChanges(self._connection, load, publish)
        self._loop = asyncio.get_running_loop()
        try:
            # After a failed sync the log may be in the system's memory alone, and look whole:
            # nothing is built on it before it has been copied into the file, with a sync.
            self.has_copied_log = self._wal.copy_all(self._connection, wait_s=GATE_TIMEOUT_S)
            self._changes.look()
        except sqlite3.Error as error:
            msg = f"The database {self._files.path} cannot be used: {error}."
            raise DatabaseError(msg) from error
        self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        self._schedule.start(self._loop)

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # noqa: ANN401 - any f(tx, …)
        """Queue `function(tx, *args)`; the future resolves after COMMIT.

        Queued jobs run in order; a job may run twice, the first time rolled back. Raises what the
        function raised, or DatabaseError.
        """
        assert self._loop is not None
        future: asyncio.Future[T] = self._loop.create_future()
        if self.is_broken or len(self._jobs) >= QUEUE_JOBS_MAX:
            fail(future, DatabaseError("The ledger cannot be written now."))
        else:
            self._jobs.append(Job(function, args, future))
            if not self._schedule.is_set:
                self._schedule.soon()
        return future

    def enqueue(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - any f(tx, …)
        """Queue a write that must happen and that nobody waits for, such as a settlement.

        It shares the next transaction that somebody waits for, or has its own a moment later. It
        is tried again for as long as the database is merely busy or full; when that does not end
        before the stop, or the database has failed, the keeper gets it.
        """
        job = Job(function, args)
        if self.is_broken:
            self._leftovers.keep([job])
        else:
            self._jobs.append(job)
            self._schedule.linger()

    def offer(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - any f(tx, …)
        """Queue a write that may be left out: it is, while the database cannot be written."""
        cannot_be_written = self._is_in_trouble or self.is_broken
        if not cannot_be_written and len(self._jobs) < OFFERED_JOBS_MAX:
            self._jobs.append(Job(function, args, may_be_lost=True))
            self._schedule.linger()

    def refresh(self) -> asyncio.Future[None]:
        """Resolve once the published snapshot holds every commit made before this call."""
        return self.submit(_nothing)  # every transaction looks for changes first

    def publish_own(self) -> asyncio.Future[None]:
        """Do as `refresh` does, with what was written here: nobody looks for that by itself."""
        assert self._changes is not None
        self._changes.forget()
        return self.refresh()

    @property
    def queued(self) -> int:
        """How many writes wait for their transaction."""
        return len(self._jobs)

    def close(self) -> None:
        """Run what is queued, checkpoint, and close the file; after the loop has ended."""
        self._disk.join()
        self._end_last_commit()
        self._write_the_rest()
        self._leftovers.keep(self._jobs.take_unwaited())
        self._leftovers.report()
        if not self.is_broken:
            with contextlib.suppress(sqlite3.Error, DatabaseError):
                self._wal.copy_all(self._connection)
        self._connection.close()

    # --- transactions ------------------------------------------------------------------------

    def _run_batch(self) -> None:
        """Run waiting jobs in one transaction and send its COMMIT to the disk thread."""
        if self._disk.is_busy or not self._jobs or self.is_broken:
            return
        try:
            self._transaction.begin()
        except (sqlite3.Error, FileGoneError) as error:
            self._not_begun(error)
            return
        self._busy_since_s = 0.0
        self._schedule.note_begun(self._now_s())
        # What was committed before this transaction is known before its jobs are answered.
        if not self._look_for_changes():
            self._roll_back()
            return
        try:
            has_run = self._transaction.run(self._jobs.take_batch())
        except sqlite3.Error as error:
            self._not_written(error)
            return
        if has_run:
            self._disk.run(self._transaction.commit, self._committed)
        else:
            self._put_back()
            self._schedule.soon()

    def _committed(self, error: BaseException | None) -> None:
        """Answer the jobs of a transaction whose COMMIT has returned."""
        if error is not None:
            self._not_written(error)
            return
        if self._is_in_trouble:
            self._is_in_trouble = False
            _log.warning("the database can be written again")
        self.commits += 1
        jobs = self._transaction.take_jobs()
        self._answer(jobs)
        self._jobs_since_look += len(jobs)
        if self._is_watch_due or self._jobs_since_look >= LOOK_AFTER_JOBS:
            self._look_around()
        self._schedule.soon()

    def _answer(self, jobs: list[Job]) -> None:
        """Tell how it went, after COMMIT; what has crashed and must happen is kept."""
        self._leftovers.keep_crashed(answer(jobs))

    def _put_back(self) -> None:
        """Undo the transaction; its jobs are the next to run."""
        for job in self._transaction.jobs:
            job.error = None
        self._jobs.put_back(self._transaction.take_jobs())
        self._roll_back()

    def _now_s(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _roll_back(self) -> None:
        try:
            self._transaction.roll_back()
        except sqlite3.Error as error:
            self._break(error)

    # --- trouble -----------------------------------------------------------------------------

    def _not_begun(self, error: Exception) -> None:
        """Wait for a foreign writer; for anything else as after a failed COMMIT."""
        if classify(error) is not ErrorClass.BUSY:
            self._not_written(error)
            return
        now = self._now_s()
        self._busy_since_s = self._busy_since_s or now
        if now - self._busy_since_s > BUSY_TIMEOUT_MS / 1000:
            self._busy_since_s = 0.0  # who comes next waits as long
            self._jobs.refuse_waiting(f"The ledger is busy: {error}.")
        self._schedule.later(BUSY_PAUSE_S)

    def _not_written(self, error: BaseException) -> None:
        """Go on after a transaction that the database could not take, or end all writing."""
        self._take_back(error)
        if self.is_broken:
            return
        self._jobs.refuse_waiting(f"The ledger cannot be written now: {error}.")
        if not self._is_in_trouble:
            self._is_in_trouble = True
            _log.error(
                "the database cannot be written, %d settlements and other records wait: %s",
                len(self._jobs),
                error,
            )
        self._schedule.later(RETRY_PAUSE_S)

    def _take_back(self, error: BaseException) -> None:
        """Put the jobs of a transaction back that the database could not take."""
        self._put_back()
        if not passes(error):
            self._break(error)  # also an error that nobody foresaw, of BEGIN or COMMIT

    def _break(self, error: BaseException) -> None:
        """Take no more jobs for good, answer all who wait, and keep what must not be lost."""
        if self.is_broken:
            return
        self.is_broken = True
        self.failed.set()
        self.failure = str(error)
        self._jobs.refuse_waiting(f"The ledger has failed: {error}.")
        _log.critical("the database has failed, no more requests are taken: %s", error)
        self._leftovers.note_failure(self.failure)
        self._leftovers.keep(self._jobs.take_unwaited())

    # --- the stop ----------------------------------------------------------------------------

    def _end_last_commit(self) -> None:
        """Do what the loop, which has ended, did not do after the last COMMIT."""
        error = self._transaction.commit_error
        if error is None:
            self._answer_unwaited()
        elif self._transaction.jobs:
            self._take_back(error)
        self._roll_back()

    def _write_the_rest(self) -> None:
        """Write what is queued, without a loop, for as long as a stop may take."""
        deadline = time.monotonic() + STOP_PATIENCE_S
        while self._jobs and not self.is_broken:
            try:
                self._transaction.begin()
                if self._transaction.run(self._jobs.take_batch()):
                    self._transaction.commit()
                    self._answer_unwaited()
                else:
                    self._put_back()
            except (sqlite3.Error, FileGoneError) as error:
                self._take_back(error)
                if time.monotonic() > deadline:
                    _log.error("the database cannot be written: %s", error)
                    return
                time.sleep(BUSY_PAUSE_S if classify(error) is ErrorClass.BUSY else RETRY_PAUSE_S)

    def _answer_unwaited(self) -> None:
        """Answer to the log, and keep; no loop is left in which the others could hear of it."""
        self._answer([job for job in self._transaction.take_jobs() if job.future is None])

    # --- what others change, and checkpoints -------------------------------------------------

    def _watch(self) -> None:
        """Look for foreign commits and for a long WAL, a few times a second."""
        assert self._loop is not None
        self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        # Under load the disk thread nearly always has the connection: then right after it.
        self._is_watch_due = True
        if not self._disk.is_busy:
            self._look_around()
        elif self._now_s() - self._disk.busy_since_s > DISK_PATIENCE_S:
            # Not those in the transaction under way: that one may succeed yet.
            self._jobs.refuse_waiting("The ledger's disk does not answer.")

    def _look_around(self) -> None:
        self._is_watch_due = False
        self._jobs_since_look = 0
        if self.is_broken or not self._look_for_changes():
            return
        if self._wal.exceeds(CHECKPOINT_WAL_BYTES):
            copy = partial(self._wal.copy_passively, self._connection)
            self._disk.run(copy, self._checkpointed)

    def _look_for_changes(self) -> bool:
        """Read and publish the snapshot again if another connection has committed since.

        False when the database turns out to be broken.
        """
        assert self._changes is not None
        try:
            self._changes.look_again()
        except sqlite3.Error as error:
            self._break(error)
            return False
        return True

    def _checkpointed(self, error: BaseException | None) -> None:
        if error is not None:
            _log.error("the write-ahead log could not be copied: %s", error)
            if classify(error) is ErrorClass.BROKEN:
                self._break(error)
        self._schedule.soon()


def _nothing(tx: Tx) -> None:
    del tx
