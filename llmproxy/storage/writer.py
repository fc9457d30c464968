"""Owns the serving process's one writing connection: group commit, checkpoints, foreign changes.

Jobs `f(tx, …)` run on the event loop, many to a transaction, and are answered only after COMMIT
has returned with `synchronous=FULL`: what was answered is on disk. Only what waits for the disk,
COMMIT and checkpoints, runs in a thread; statements take microseconds and would cost more in
switching threads than in running (docs/decisions/0002). While the thread has the connection, jobs
gather for the next transaction. What the database does not take in the end goes to the keeper.
Must not know any table.
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
    classify,
    passes,
    run_in_savepoints,
    run_together,
)
from llmproxy.storage.wal import WriteAheadLog

S = TypeVar("S")
T = TypeVar("T")

QUEUE_JOBS_MAX = 10_000
OFFERED_JOBS_MAX = 1_000
WATCH_INTERVAL_S = 0.2
LINGER_S = 0.005
"""How long a write that nobody waits for may wait for company: a sync of the disk costs more than
everything else about a request."""
BATCH_INTERVAL_S = 0.002
"""From the beginning of one transaction to that of the next: under load, more jobs share one."""
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
        self._keeper = keeper
        self._connection = open_current(files, is_serving=True)
        # A foreign writer is waited for by the loop's clock, never by blocking the loop.
        self._connection.execute("PRAGMA busy_timeout=0")
        # What a burst has left of the WAL is cut off; else it is written over.
        self._connection.execute("PRAGMA journal_size_limit=12582912").fetchone()
        self._wal = WriteAheadLog(files)
        self._identity = files.identity()
        self._changes: ForeignChanges[S] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs = JobQueue()
        self._batch: list[Job] = []
        """What has been taken from the queue for a transaction, and is not answered yet."""
        self._has_committed = False
        self._commit_error: Exception | None = None
        self._disk: Disk = disk or DiskThread()
        self._is_scheduled = False
        self._is_lingering = False
        self._is_watch_due = False
        self._uses_savepoints = False
        self._is_in_trouble = False
        self._jobs_since_look = 0
        self._busy_since_s = 0.0
        self._begun_s = 0.0
        self.failed = asyncio.Event()
        """Set when the database has failed for good: nothing is written any more."""
        self.failure = ""
        """Why it has."""
        self.has_copied_log = False
        """The log that was found at the start is in the database file, synced."""
        self.kept = 0
        """How many writes the keeper has taken."""
        self.dropped = 0
        """How many writes were left out for good."""
        self.commits = 0

    @property
    def is_broken(self) -> bool:
        """Whether the database has failed for good."""
        return self.failed.is_set()

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
        self._schedule_if_waiting()

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # noqa: ANN401 - any f(tx, …)
        """Queue `function(tx, *args)`; the future resolves after COMMIT.

        Queued jobs run in order; a job may run twice, the first time rolled back. Raises what the
        function raised, or DatabaseError.
        """
        assert self._loop is not None
        future: asyncio.Future[T] = self._loop.create_future()
        if self.is_broken or len(self._jobs) >= QUEUE_JOBS_MAX:
            future.set_exception(DatabaseError("The ledger cannot be written now."))
        else:
            self._jobs.append(Job(function, args, future))
            self._schedule()
        return future

    def enqueue(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - any f(tx, …)
        """Queue a write that must happen and that nobody waits for, such as a settlement.

        It shares the next transaction that somebody waits for, or has its own a moment later. It
        is tried again for as long as the database is merely busy or full; when that does not end
        before the stop, or the database has failed, the keeper gets it.
        """
        if self.is_broken:
            self._keep([Job(function, args, None)])
            return
        self._jobs.append(Job(function, args, None))
        if not self._is_lingering and self._loop is not None:
            self._is_lingering = True
            self._loop.call_later(LINGER_S, self._end_lingering)

    def offer(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - any f(tx, …)
        """Queue a write that may be left out: it is, while the database cannot be written."""
        if not self._is_in_trouble and len(self._jobs) < OFFERED_JOBS_MAX:
            self.enqueue(function, *args)

    async def refresh(self) -> None:
        """Return once the published snapshot holds every commit made before this call."""
        await self.submit(_nothing)  # every transaction looks for changes first

    @property
    def queued(self) -> int:
        """How many writes wait for their transaction."""
        return len(self._jobs)

    def close(self) -> None:
        """Run what is queued, checkpoint, and close the file; after the loop has ended."""
        self._disk.join()
        if self._has_committed:
            self._batch = []
        elif self._batch:
            self._take_back(self._commit_error or DatabaseError("the last COMMIT did not return"))
        self._roll_back()
        self._write_the_rest()
        self._keep(self._jobs.take_unwaited())
        if self.kept:
            _log.critical(
                "%d settlements could not be written before the stop; they are kept, and the next "
                "start writes them",
                self.kept,
            )
        if self.dropped:
            _log.critical("%d records could NOT be written before the stop", self.dropped)
        if not self.is_broken:
            with contextlib.suppress(sqlite3.Error, DatabaseError):
                self._wal.copy_all(self._connection)
        self._connection.close()

    # --- transactions ------------------------------------------------------------------------

    def _end_lingering(self) -> None:
        self._is_lingering = False
        self._schedule_if_waiting()

    def _schedule_if_waiting(self) -> None:
        if self._jobs:
            self._schedule()

    def _schedule(self) -> None:
        """Let the jobs run at the end of this turn of the loop, so that its jobs share a commit."""
        if not self._is_scheduled and not self._disk.is_busy and self._loop is not None:
            self._is_scheduled = True
            pause_s = self._begun_s + BATCH_INTERVAL_S - self._now_s()
            if pause_s > 0:
                self._loop.call_later(pause_s, self._run_batch)
            else:
                self._loop.call_soon(self._run_batch)

    def _now_s(self) -> float:
        assert self._loop is not None
        return self._loop.time()

    def _schedule_later(self, pause_s: float) -> None:
        """Let the jobs run after a pause, and not before: new ones wait with the others."""
        assert self._loop is not None
        self._is_scheduled = True
        self._loop.call_later(pause_s, self._run_batch)

    def _run_batch(self) -> None:
        """Run waiting jobs in one transaction and send its COMMIT to the disk thread."""
        self._is_scheduled = False
        if self._disk.is_busy or not self._jobs or self.is_broken:
            return
        try:
            self._begin()
        except (sqlite3.Error, FileGoneError) as error:
            self._not_begun(error)
            return
        self._busy_since_s = 0.0
        self._begun_s = self._now_s()
        # What was committed before this transaction is known before its jobs are answered.
        if not self._look_for_changes():
            self._roll_back()
            return
        self._batch = self._jobs.take_batch()
        self._has_committed, self._commit_error = False, None
        try:
            has_run = self._run_jobs(self._batch)
        except sqlite3.Error as error:
            self._not_written(error)
            return
        self._uses_savepoints = not has_run
        if has_run:
            self._disk.run(self._commit, self._committed)
        else:
            self._put_batch_back()
            self._roll_back()
            self._schedule_if_waiting()

    def _begin(self) -> None:
        """Begin a transaction, on the file that everybody else finds at its path.

        Raises:
            sqlite3.Error: the database cannot be written now.
            FileGoneError: what is written now would be gone with the file.
        """
        if self._files.identity() != self._identity:
            raise FileGoneError(self._files.path)
        self._connection.execute("BEGIN IMMEDIATE")

    def _run_jobs(self, batch: list[Job]) -> bool:
        """Run jobs, without savepoints at first; False if they must be rolled back and run again.

        Raises:
            sqlite3.Error: the trouble is the database's.
        """
        if self._uses_savepoints:
            run_in_savepoints(self._connection, batch)
            return True
        return run_together(self._connection, batch)

    def _commit(self) -> None:
        # How it went is noted here too: the loop may have ended before it hears of it.
        try:
            self._connection.execute("COMMIT")
        except Exception as error:
            self._commit_error = error
            raise
        self._has_committed = True

    def _committed(self, error: BaseException | None) -> None:
        """Answer the jobs of a transaction whose COMMIT has returned."""
        if error is not None:
            self._not_written(error)
            return
        batch, self._batch = self._batch, []
        if self._is_in_trouble:
            self._is_in_trouble = False
            _log.warning("the database can be written again")
        self.commits += 1
        for job in batch:
            job.answer()
        self._keep_failed(batch)
        self._jobs_since_look += len(batch)
        if self._is_watch_due or self._jobs_since_look >= LOOK_AFTER_JOBS:
            self._look_around()
        self._schedule_if_waiting()

    def _roll_back(self) -> None:
        # SQLITE_FULL and I/O errors have already rolled everything back (money.md 1.2).
        if self._connection.in_transaction:
            try:
                self._connection.execute("ROLLBACK")
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
        self._schedule_later(BUSY_PAUSE_S)

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
        self._schedule_later(RETRY_PAUSE_S)

    def _take_back(self, error: BaseException) -> None:
        """Put the jobs of a transaction back that the database could not take."""
        self._put_batch_back()
        self._roll_back()
        if not passes(error):
            self._break(error)  # also an error that nobody foresaw, of BEGIN or COMMIT

    def _put_batch_back(self) -> None:
        for job in self._batch:
            job.error = None
        self._jobs.put_back(self._batch)
        self._batch = []

    def _break(self, error: BaseException) -> None:
        """Take no more jobs for good, answer all who wait, and keep what must not be lost."""
        if self.is_broken:
            return
        self.failed.set()
        self.failure = str(error)
        self._put_batch_back()
        self._jobs.refuse_waiting(f"The ledger has failed: {error}.")
        _log.critical("the database has failed, no more requests are taken: %s", error)
        self._keeper.note_failure(self.failure)
        self._keep(self._jobs.take_unwaited())

    def _keep(self, jobs: list[Job]) -> None:
        """Give the keeper what the database does not take."""
        if jobs:
            kept = self._keeper.keep([(job.function, job.args) for job in jobs])
            self.kept += kept
            self.dropped += len(jobs) - kept

    def _keep_failed(self, batch: list[Job]) -> None:
        """Give the keeper what must happen and failed for a reason of its own that is no answer."""
        failed = [job for job in batch if job.future is None and job.has_crashed]
        if failed:
            self.kept += self._keeper.keep([(job.function, job.args) for job in failed])

    def _write_the_rest(self) -> None:
        """Write what is queued, without a loop, for as long as a stop may take."""
        deadline = time.monotonic() + STOP_PATIENCE_S
        while self._jobs and not self.is_broken:
            self._batch = self._jobs.take_batch()
            try:
                self._begin()
                run_in_savepoints(self._connection, self._batch)
                self._connection.execute("COMMIT")
            except (sqlite3.Error, FileGoneError) as error:
                self._take_back(error)
                if time.monotonic() > deadline:
                    _log.error("the database cannot be written: %s", error)
                    return
                time.sleep(BUSY_PAUSE_S if classify(error) is ErrorClass.BUSY else RETRY_PAUSE_S)
                continue
            for job in self._batch:
                if job.future is None:
                    job.answer()  # to the log; no loop is left to hear of the others
            self._keep_failed(self._batch)
            self._batch = []

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
            self._changes.look()
        except Exception as error:  # noqa: BLE001 - the snapshot's reader is not of this module
            if classify(error) is ErrorClass.BROKEN:
                self._break(error)
                return False
            # Whatever it is, it is tried again, and the last snapshot holds until then.
            _log.exception("what has changed in the database could not be read")
        return True

    def _checkpointed(self, error: BaseException | None) -> None:
        if error is not None:
            _log.error("the write-ahead log could not be copied: %s", error)
            if classify(error) is ErrorClass.BROKEN:
                self._break(error)
        self._schedule_if_waiting()


def _nothing(tx: Tx) -> None:
    del tx
