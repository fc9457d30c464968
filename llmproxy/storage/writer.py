"""Owns the serving process's one writing connection: group commit, checkpoints, foreign changes.

Jobs `f(tx, …)` run on the event loop, many to a transaction, and are answered only after COMMIT
has returned with `synchronous=FULL`: what was answered is on disk. Only what waits for the disk,
COMMIT and checkpoints, runs in a thread; statements take microseconds and would cost more in
switching threads than in running (docs/performance.md). While the thread has the connection, jobs
gather for the next transaction. Must not know any table.
"""

import asyncio
import contextlib
import logging
import queue
import sqlite3
import threading
from collections import deque
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from llmproxy.errors import DatabaseError
from llmproxy.storage.database import BUSY_TIMEOUT_MS, DatabaseFiles, Tx, open_current

S = TypeVar("S")
T = TypeVar("T")

BATCH_JOBS_MAX = 512
QUEUE_JOBS_MAX = 10_000
WATCH_INTERVAL_S = 0.2
LINGER_S = 0.005
"""How long a write that nobody waits for may wait for company: a sync of the disk costs more than
everything else about a request."""
BUSY_PAUSE_S = 0.002
RETRY_PAUSE_S = 0.25
CHECKPOINT_WAL_BYTES = 4 * 1024 * 1024

_log = logging.getLogger("llmproxy.storage")


class _Job:
    """One function to run in a transaction; `future` is None when nobody waits for it."""

    __slots__ = ("args", "function", "future", "result")

    def __init__(
        self,
        function: Callable[..., Any],
        args: tuple[Any, ...],
        future: asyncio.Future[Any] | None,
    ) -> None:
        self.function = function
        self.args = args
        self.future = future
        self.result: Any = None


class Writer(Generic[S]):
    """Runs all writes of the serving process, and watches for what others change."""

    def __init__(self, files: DatabaseFiles) -> None:
        """Open the database; the caller holds the serving lock."""
        self._files = files
        self._connection = open_current(files, is_serving=True)
        # A foreign writer is waited for by the loop's clock, never by blocking the loop.
        self._connection.execute("PRAGMA busy_timeout=0")
        self._load: Callable[[Tx], S] | None = None
        self._publish: Callable[[S], None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._jobs: deque[_Job] = deque()
        self._committing: list[_Job] = []
        self._put_off: list[_Job] = []
        self._disk = _DiskThread()
        self._is_scheduled = False
        self._is_lingering = False
        self._is_waiting_for_disk = False
        self._is_watch_due = False
        self._busy_since_s = 0.0
        self._data_version = -1
        self.is_broken = False

    def start(self, load: Callable[[Tx], S], publish: Callable[[S], None]) -> None:
        """Begin to run jobs; called on the event loop, once.

        `load(tx)` reads a snapshot of what others may change; `publish(snapshot)` receives it:
        now, after every foreign commit, and on `refresh`.
        """
        self._load, self._publish = load, publish
        self._loop = asyncio.get_running_loop()
        self._look_for_changes()
        self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        self._schedule()

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # noqa: ANN401 - any f(tx, …)
        """Queue `function(tx, *args)`; the future resolves after COMMIT.

        Queued jobs run in order. Raises what the function raised, or DatabaseError.
        """
        assert self._loop is not None
        future: asyncio.Future[T] = self._loop.create_future()
        if self.is_broken or len(self._jobs) >= QUEUE_JOBS_MAX:
            future.set_exception(DatabaseError("The ledger cannot be written now."))
        else:
            self._jobs.append(_Job(function, args, future))
            self._schedule()
        return future

    def enqueue(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - any f(tx, …)
        """Queue a write that must happen and that nobody waits for, such as a settlement.

        It shares the next transaction that somebody waits for, or has its own a moment later. It
        is tried again for as long as the database is merely busy or full.
        """
        self._jobs.append(_Job(function, args, None))
        if not self._is_lingering and self._loop is not None:
            self._is_lingering = True
            self._loop.call_later(LINGER_S, self._end_lingering)

    async def refresh(self) -> None:
        """Return once the published snapshot holds every commit made before this call."""
        await self.submit(_nothing)  # every transaction looks for changes first

    def close(self) -> None:
        """Run what is queued, checkpoint, and close the file; after the loop has ended."""
        self._disk.join()
        connection = self._connection
        if connection.in_transaction:  # the COMMIT that was under way when the loop ended failed
            self._roll_back()
            self._jobs.extendleft(reversed(self._committing))
        self._jobs.extend(self._put_off)
        connection.execute("PRAGMA busy_timeout=5000")
        while self._jobs and not self.is_broken:
            try:
                self._run_alone(self._jobs.popleft())
            except sqlite3.Error as error:
                _log.error("a settlement could not be written before the stop: %s", error)
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")
        connection.close()

    # --- transactions ------------------------------------------------------------------------

    def _end_lingering(self) -> None:
        self._is_lingering = False
        self._schedule_if_waiting()

    def _schedule(self) -> None:
        """Let the jobs run at the end of this turn of the loop, so that its jobs share a commit."""
        if not self._is_scheduled and not self._is_waiting_for_disk and self._loop is not None:
            self._is_scheduled = True
            self._loop.call_soon(self._run_batch)

    def _run_batch(self) -> None:
        """Run waiting jobs in one transaction and send its COMMIT to the disk thread."""
        self._is_scheduled = False
        if self._is_waiting_for_disk or not self._jobs or self.is_broken:
            return
        if not self._begin():
            return
        # What was committed before this transaction is known before its jobs are answered.
        self._look_for_changes()
        batch = [self._jobs.popleft() for _ in range(min(len(self._jobs), BATCH_JOBS_MAX))]
        try:
            for job in batch:
                job.result = job.function(self._connection, *job.args)
        except Exception as error:  # noqa: BLE001 - whatever a job raises belongs to its waiter
            self._roll_back()
            self._run_each(batch, error)
            self._schedule_if_waiting()
            return
        self._committing = batch
        self._in_disk_thread(self._commit, batch)

    def _begin(self) -> bool:
        """Begin a transaction; False when a foreign writer is at work, to be tried again."""
        assert self._loop is not None
        try:
            self._connection.execute("BEGIN IMMEDIATE")
        except sqlite3.OperationalError as error:
            now = self._loop.time()
            self._busy_since_s = self._busy_since_s or now
            if now - self._busy_since_s > BUSY_TIMEOUT_MS / 1000:
                self._busy_since_s = now
                self._refuse_waiting(error)
            self._is_scheduled = True
            self._loop.call_later(BUSY_PAUSE_S, self._run_batch)
            return False
        self._busy_since_s = 0.0
        return True

    def _commit(self) -> None:
        self._connection.execute("COMMIT")

    def _roll_back(self) -> None:
        # SQLITE_FULL and I/O errors have already rolled everything back (money.md 1.2).
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def _run_each(self, batch: list[_Job], first_error: Exception) -> None:
        """Run the jobs of a failed transaction again, each in one of its own."""
        for job in batch:
            error: Exception | None = first_error
            if len(batch) > 1 and not self.is_broken:
                try:
                    self._run_alone(job)
                    error = None
                except Exception as own_error:  # noqa: BLE001 - belongs to the job's waiter
                    error = own_error
            self._answer(job, error)

    def _run_alone(self, job: _Job) -> None:
        try:
            self._connection.execute("BEGIN IMMEDIATE")
            job.result = job.function(self._connection, *job.args)
            self._connection.execute("COMMIT")
        except BaseException:
            self._roll_back()
            raise

    def _committed(self, batch: list[_Job], error: Exception | None) -> None:
        """Answer the jobs of a transaction whose COMMIT has returned."""
        self._is_waiting_for_disk = False
        if error is not None:
            self._roll_back()
        for job in batch:
            self._answer(job, error)
        if self._is_watch_due:
            self._look_around()
        self._schedule_if_waiting()

    def _schedule_if_waiting(self) -> None:
        if self._jobs:
            self._schedule()

    def _answer(self, job: _Job, error: Exception | None) -> None:
        if isinstance(error, sqlite3.DatabaseError):
            error = self._weigh(job, error)
            if error is None:
                return
        future = job.future
        if future is None:
            if error is not None:
                _log.error("a queued write failed: %s", error, exc_info=error)
        elif not future.done():  # a waiter may have been cancelled
            if error is not None:
                future.set_exception(error)
            else:
                future.set_result(job.result)

    def _weigh(self, job: _Job, error: sqlite3.DatabaseError) -> Exception | None:
        """Return what a waiter is told; None when the job will be tried again."""
        if isinstance(error, sqlite3.IntegrityError):
            return error
        if not isinstance(error, sqlite3.OperationalError) or _is_io_error(error):
            # Damage or a failed fsync: never go on with a suspect ledger (money.md 1.2).
            if not self.is_broken:
                _log.critical("the database has failed, no more requests are taken: %s", error)
            self.is_broken = True
        elif job.future is None and self._loop is not None:
            _log.error("a settlement waits for the database: %s", error)
            self._put_off.append(job)
            self._loop.call_later(RETRY_PAUSE_S, self._put_back)
            return None
        return DatabaseError(f"The ledger cannot be written now: {error}.")

    def _put_back(self) -> None:
        self._jobs.extend(self._put_off)
        self._put_off.clear()
        self._schedule_if_waiting()

    def _refuse_waiting(self, error: sqlite3.OperationalError) -> None:
        """Tell those who wait that the database is busy; what must be written stays queued."""
        waiting, self._jobs = self._jobs, deque()
        for job in waiting:
            if job.future is None:
                self._jobs.append(job)
            else:
                self._answer(job, DatabaseError(f"The ledger is busy: {error}."))

    # --- the disk thread ---------------------------------------------------------------------

    def _in_disk_thread(self, work: Callable[[], None], batch: list[_Job]) -> None:
        """Give the connection to the thread; `_committed` takes it back."""
        self._is_waiting_for_disk = True
        loop = self._loop
        assert loop is not None

        def run() -> None:
            failure: Exception | None = None
            try:
                work()
            except Exception as error:  # noqa: BLE001 - delivered to the loop
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended: `close` goes on
                loop.call_soon_threadsafe(self._committed, batch, failure)

        self._disk.run(run)

    # --- what others change, and checkpoints -------------------------------------------------

    def _watch(self) -> None:
        """Look for foreign commits and for a long WAL, a few times a second."""
        assert self._loop is not None
        self._loop.call_later(WATCH_INTERVAL_S, self._watch)
        # Under load the disk thread nearly always has the connection: then right after it.
        self._is_watch_due = True
        if not self._is_waiting_for_disk:
            self._look_around()

    def _look_around(self) -> None:
        self._is_watch_due = False
        if not self.is_broken:
            self._look_for_changes()
            if self._wal_bytes() >= CHECKPOINT_WAL_BYTES:
                self._in_disk_thread(self._checkpoint_passively, [])

    def _look_for_changes(self) -> None:
        """Read and publish the snapshot again if another connection has committed since."""
        assert self._load is not None
        assert self._publish is not None
        try:
            # Moves only with commits of other connections, never with our own.
            version = self._connection.execute("PRAGMA data_version").fetchone()[0]
            if version == self._data_version:
                return
            snapshot = self._load(self._connection)
        except sqlite3.Error as error:
            _log.warning("the database could not be watched: %s", error)
            return
        self._data_version = version
        self._publish(snapshot)

    def _wal_bytes(self) -> int:
        try:
            return self._files.wal.stat().st_size
        except FileNotFoundError:
            return 0

    def _checkpoint_passively(self) -> None:
        self._checkpoint("PRAGMA wal_checkpoint(PASSIVE)")

    def _checkpoint(self, statement: str) -> None:
        """Checkpoint unless a foreign writer is at work (the WAL-reset bug, locks.py)."""
        gate = self._files.gate()
        if not gate.try_acquire():
            return
        try:
            self._connection.execute(statement).fetchall()
        finally:
            gate.release()


class _DiskThread:
    """One thread that runs one piece of work at a time."""

    def __init__(self) -> None:
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="llmproxy-disk", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], None]) -> None:
        """Run `work` in the thread."""
        self._work.put(work)

    def join(self) -> None:
        """Wait until all work is done and end the thread."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _nothing(tx: Tx) -> None:
    del tx


def _is_io_error(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR
