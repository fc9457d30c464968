"""Owns the serving process's one writing connection: group commit, checkpoints, foreign changes.

Jobs `f(tx, …)` run on the event loop, many to a transaction, and are answered only after COMMIT
has returned with `synchronous=FULL`: what was answered is on disk. Only what waits for the disk,
COMMIT and checkpoints, runs in a thread; statements take microseconds and would cost more in
switching threads than in running (docs/decisions/0002). While the thread has the connection, jobs
gather for the next transaction. Must not know any table.
"""

import asyncio
import contextlib
import logging
import sqlite3
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from llmproxy.errors import DatabaseError
from llmproxy.storage.database import BUSY_TIMEOUT_MS, DatabaseFiles, Tx, open_current
from llmproxy.storage.disk_thread import Disk, DiskThread
from llmproxy.storage.jobs import (
    ErrorClass,
    Job,
    JobQueue,
    classify,
    run_in_savepoints,
    run_together,
)
from llmproxy.storage.wal import WalGauge

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
STOP_PATIENCE_S = 15.0
"""How long a stop waits for a database that is busy or full."""

_log = logging.getLogger("llmproxy.storage")


class Writer(Generic[S]):
    """Runs all writes of the serving process, and watches for what others change."""

    def __init__(self, files: DatabaseFiles, disk: Disk | None = None) -> None:
        """Open the database; the caller holds the serving lock. `disk` is a thread by default."""
        self._files = files
        self._connection = open_current(files, is_serving=True)
        # A foreign writer is waited for by the loop's clock, never by blocking the loop.
        self._connection.execute("PRAGMA busy_timeout=0")
        # What a burst has left of the WAL is cut off; else it is written over.
        self._connection.execute("PRAGMA journal_size_limit=12582912").fetchone()
        self._wal = WalGauge(files.wal)
        self._load: Callable[[Tx], S] | None = None
        self._publish: Callable[[S], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs = JobQueue()
        self._committing: list[Job] = []
        self._has_committed = True
        self._disk: Disk = disk or DiskThread()
        self._is_scheduled = False
        self._is_lingering = False
        self._is_watch_due = False
        self._uses_savepoints = False
        self._is_in_trouble = False
        self._jobs_since_look = 0
        self._unwritten = 0
        self._busy_since_s = 0.0
        self._begun_s = 0.0
        self._data_version = -1
        self.is_broken = False
        self.commits = 0

    def start(self, load: Callable[[Tx], S], publish: Callable[[S], None]) -> None:
        """Begin to run jobs; called on the event loop, once.

        `load(tx)` reads a snapshot of what others may change; `publish(snapshot)` receives it:
        now, after every foreign commit, and on `refresh`.

        Raises:
            DatabaseError: the first snapshot cannot be read.
        """
        self._load, self._publish = load, publish
        self._loop = asyncio.get_running_loop()
        try:
            self._publish_changes()
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
        is tried again for as long as the database is merely busy or full.
        """
        if self.is_broken:
            self._unwritten += 1  # not kept: nothing will be written any more
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
        self._roll_back()
        if not self._has_committed:  # the COMMIT that was under way when the loop ended failed
            self._jobs.put_back(self._committing)
        self._write_the_rest()
        self._unwritten += self._jobs.count_unwaited()
        if self._unwritten:
            _log.critical(
                "%d settlements and other records could NOT be written before the stop. Open "
                "holds are ended at the next start, without a charge.",
                self._unwritten,
            )
        if not self.is_broken:
            with contextlib.suppress(sqlite3.Error):
                self._checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")
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
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.Error as error:
            self._not_begun(error)
            return
        self._busy_since_s = 0.0
        self._begun_s = self._now_s()
        # What was committed before this transaction is known before its jobs are answered.
        if not self._look_for_changes():
            self._roll_back()
            return
        batch = self._jobs.take_batch()
        try:
            has_run = self._run_jobs(batch)
        except sqlite3.Error as error:
            self._not_written(batch, error)
            return
        self._uses_savepoints = not has_run
        if has_run:
            self._committing, self._has_committed = batch, False
            self._disk.run(self._commit, self._committed)
        else:
            self._roll_back()
            self._jobs.put_back(batch)
            self._schedule_if_waiting()

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
        self._connection.execute("COMMIT")
        self._has_committed = True  # told here too: the loop may have ended before it hears of it

    def _committed(self, error: Exception | None) -> None:
        """Answer the jobs of a transaction whose COMMIT has returned."""
        batch, self._committing, self._has_committed = self._committing, [], True
        if error is not None:
            self._not_written(batch, error)
            return
        if self._is_in_trouble:
            self._is_in_trouble = False
            _log.warning("the database can be written again")
        self.commits += 1
        for job in batch:
            job.answer()
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

    def _not_begun(self, error: sqlite3.Error) -> None:
        """Wait for a foreign writer; for anything else as after a failed COMMIT."""
        assert self._loop is not None
        if classify(error) is not ErrorClass.BUSY:
            self._not_written([], error)
            return
        now = self._loop.time()
        self._busy_since_s = self._busy_since_s or now
        if now - self._busy_since_s > BUSY_TIMEOUT_MS / 1000:
            self._busy_since_s = now
            self._jobs.refuse_waiting(f"The ledger is busy: {error}.")
        self._schedule_later(BUSY_PAUSE_S)

    def _not_written(self, batch: list[Job], error: Exception) -> None:
        """Put the jobs of a transaction back that the database could not take."""
        self._roll_back()
        self._jobs.put_back(batch)
        for job in batch:
            job.error = None
        if classify(error) not in {ErrorClass.FULL, ErrorClass.BUSY}:
            self._break(error)  # also an error that nobody foresaw, of BEGIN or COMMIT
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

    def _break(self, error: Exception) -> None:
        """Take no more jobs for good, and answer all who wait."""
        if self.is_broken:
            return
        self.is_broken = True
        self._jobs.refuse_waiting(f"The ledger has failed: {error}.")
        self._unwritten += len(self._jobs)
        _log.critical(
            "the database has failed, no more requests are taken, %d settlements and other "
            "records are not written: %s",
            len(self._jobs),
            error,
        )
        self._jobs.clear()

    def _write_the_rest(self) -> None:
        """Write what is queued, without a loop, for as long as a stop may take."""
        deadline = time.monotonic() + STOP_PATIENCE_S
        while self._jobs and not self.is_broken:
            batch = self._jobs.take_batch()
            try:
                self._connection.execute("BEGIN IMMEDIATE")
                run_in_savepoints(self._connection, batch)
                self._connection.execute("COMMIT")
            except sqlite3.Error as error:
                self._roll_back()
                self._jobs.put_back(batch)
                if classify(error) not in {ErrorClass.FULL, ErrorClass.BUSY}:
                    self._break(error)
                elif time.monotonic() > deadline:
                    _log.error("the database cannot be written: %s", error)
                    return
                time.sleep(BUSY_PAUSE_S if classify(error) is ErrorClass.BUSY else RETRY_PAUSE_S)
                continue
            for job in batch:
                if job.future is None:
                    job.answer()  # to the log; no loop is left to hear of the others

    # --- what others change, and checkpoints -------------------------------------------------

    def _watch(self) -> None:
        """Look for foreign commits and for a long WAL, a few times a second."""
        assert self._loop is not None
        self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        # Under load the disk thread nearly always has the connection: then right after it.
        self._is_watch_due = True
        if not self._disk.is_busy:
            self._look_around()

    def _look_around(self) -> None:
        self._is_watch_due = False
        self._jobs_since_look = 0
        if self.is_broken or not self._look_for_changes():
            return
        if self._wal.exceeds(CHECKPOINT_WAL_BYTES):
            self._disk.run(self._checkpoint_passively, self._checkpointed)

    def _look_for_changes(self) -> bool:
        """Read and publish the snapshot again if another connection has committed since.

        False when the database turns out to be broken.
        """
        try:
            self._publish_changes()
        except Exception as error:  # noqa: BLE001 - the snapshot's reader is not of this module
            if classify(error) is ErrorClass.BROKEN:
                self._break(error)
                return False
            # Whatever it is, it is tried again, and the last snapshot holds until then.
            _log.exception("what has changed in the database could not be read")
        return True

    def _publish_changes(self) -> None:
        assert self._publish is not None
        # Moves only with commits of other connections, never with our own.
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self._publish(self._load_at_once())
            self._data_version = version

    def _load_at_once(self) -> S:
        """Return the snapshot of one moment, whoever commits meanwhile."""
        assert self._load is not None
        if self._connection.in_transaction:
            return self._load(self._connection)
        self._connection.execute("BEGIN")
        try:
            return self._load(self._connection)
        finally:
            self._connection.execute("ROLLBACK")

    def _checkpoint_passively(self) -> None:
        self._checkpoint("PRAGMA wal_checkpoint(PASSIVE)")

    def _checkpointed(self, error: Exception | None) -> None:
        if error is not None:
            _log.error("the write-ahead log could not be copied: %s", error)
            if classify(error) is ErrorClass.BROKEN:
                self._break(error)
        self._schedule_if_waiting()

    def _checkpoint(self, statement: str) -> None:
        """Checkpoint unless a foreign writer is at work (the WAL-reset bug, locks.py)."""
        gate = self._files.gate()
        if not gate.try_acquire():
            return
        try:
            _, _, copied_frames = self._connection.execute(statement).fetchone()
            self._wal.note_checkpoint(copied_frames)
        finally:
            gate.release()


def _nothing(tx: Tx) -> None:
    del tx
