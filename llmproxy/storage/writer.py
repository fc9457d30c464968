"""Owns the serving process's one writing connection and the thread it lives in.

Jobs `f(tx, …)` are handed over from the event loop, run many to a transaction (group commit), and
answered only after COMMIT has returned with `synchronous=FULL`: what was answered is on disk. The
same thread checkpoints, never beside a foreign writer, and notices foreign commits.
Must not know any table.
"""

import asyncio
import contextlib
import logging
import os
import queue
import sqlite3
import threading
import time
from collections.abc import Callable
from typing import Any, Generic, TypeVar

from llmproxy.errors import DatabaseError
from llmproxy.storage.database import DatabaseFiles, Tx, open_current

S = TypeVar("S")
T = TypeVar("T")

BATCH_JOBS_MAX = 512
QUEUE_JOBS_MAX = 10_000
WATCH_INTERVAL_S = 0.2
CHECKPOINT_WAL_BYTES = 4 * 1024 * 1024
RETRY_PAUSE_S = 0.25

_log = logging.getLogger("llmproxy.storage")


class _Job:
    """One function to run in a transaction; `future` is None when nobody waits for it."""

    __slots__ = ("args", "error", "function", "future", "result")

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
        self.error: Exception | None = None


class Writer(Generic[S]):
    """Runs all writes of the serving process, and watches for what others change."""

    def __init__(self, files: DatabaseFiles) -> None:
        """Open the database; the caller holds the serving lock."""
        self._files = files
        self._connection = open_current(files, is_serving=True)
        self._load: Callable[[Tx], S] | None = None
        self._publish: Callable[[S], None] | None = None
        self._jobs: queue.SimpleQueue[_Job | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="llmproxy-writer")
        self._loop: asyncio.AbstractEventLoop | None = None
        self._data_version = -1
        self._watched_at = 0.0
        self._is_closing = False
        self.is_broken = False

    def start(self, load: Callable[[Tx], S], publish: Callable[[S], None]) -> None:
        """Start the thread; called on the event loop, once.

        `load(tx)` reads the snapshot in the writer thread; `publish(snapshot)` receives it on the
        event loop: now, after every foreign commit, and on `refresh`.
        """
        self._load, self._publish = load, publish
        self._loop = asyncio.get_running_loop()
        publish(self._read_snapshot())
        self._thread.start()

    def submit(self, function: Callable[..., T], *args: Any) -> asyncio.Future[T]:  # noqa: ANN401 - any f(tx, …)
        """Queue `function(tx, *args)`; the future resolves after COMMIT.

        Queued jobs run in order. Raises what the function raised, or DatabaseError.
        """
        assert self._loop is not None
        future: asyncio.Future[T] = self._loop.create_future()
        if self.is_broken or self._jobs.qsize() >= QUEUE_JOBS_MAX:
            future.set_exception(DatabaseError("The ledger cannot be written now."))
        else:
            self._jobs.put(_Job(function, args, future))
        return future

    def enqueue(self, function: Callable[..., object], *args: Any) -> None:  # noqa: ANN401 - any f(tx, …)
        """Queue a write that must happen and that nobody waits for, such as a settlement.

        It is tried again for as long as the database is merely busy or full.
        """
        self._jobs.put(_Job(function, args, None))

    async def refresh(self) -> None:
        """Return once the published snapshot holds every commit made before this call."""
        changed = await self.submit(self._snapshot_if_changed)
        if changed is not None and self._publish is not None:
            self._publish(changed)

    def close(self) -> None:
        """Run what is queued, checkpoint, and close the file; blocks until that is done."""
        self._is_closing = True
        self._jobs.put(None)
        if self._thread.is_alive():
            self._thread.join()
        with contextlib.suppress(sqlite3.Error):
            self._checkpoint("PRAGMA wal_checkpoint(TRUNCATE)")
        self._connection.close()

    # What follows runs in the writer thread.

    def _run(self) -> None:
        is_open = True
        while is_open:
            batch, is_open = self._next_batch()
            if batch:
                self._run_batch(batch)
                self._resolve(batch)
            self._watch()

    def _next_batch(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        try:
            job = self._jobs.get(timeout=WATCH_INTERVAL_S)
            while job is not None:
                batch.append(job)
                if len(batch) >= BATCH_JOBS_MAX:
                    return batch, True
                job = self._jobs.get_nowait()
        except queue.Empty:
            return batch, True
        return batch, False

    def _run_batch(self, batch: list[_Job]) -> None:
        """Run all jobs in one transaction; if one of them fails, each in its own."""
        try:
            self._run_transaction(batch)
        except Exception as error:  # noqa: BLE001 - whatever a job raises belongs to its waiter
            if len(batch) == 1:
                self._fail(batch[0], error)
                return
            for job in batch:
                self._run_batch([job])

    def _run_transaction(self, batch: list[_Job]) -> None:
        connection = self._connection
        try:
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                job.result = job.function(connection, *job.args)
            connection.execute("COMMIT")
        except BaseException:
            # SQLITE_FULL and I/O errors have already rolled everything back (money.md 1.2).
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise

    def _fail(self, job: _Job, error: Exception) -> None:
        job.error = error
        if isinstance(error, sqlite3.DatabaseError) and not isinstance(
            error, sqlite3.IntegrityError
        ):
            job.error = DatabaseError(f"The ledger cannot be written now: {error}.")
            if not isinstance(error, sqlite3.OperationalError) or _is_io_error(error):
                # Damage or a failed fsync: never go on with a suspect ledger (money.md 1.2).
                self.is_broken = True
                _log.critical("the database has failed, no more requests are taken: %s", error)
            elif job.future is None and not self._is_closing:
                _log.error("a settlement waits for the database: %s", error)
                time.sleep(RETRY_PAUSE_S)
                self._jobs.put(job)
                return
        if job.future is None:
            _log.error("a queued write failed: %s", error, exc_info=error)

    def _resolve(self, batch: list[_Job]) -> None:
        waited = [job for job in batch if job.future is not None]
        if waited and self._loop is not None:
            # One wake-up of the loop per batch, however many jobs it held.
            with contextlib.suppress(RuntimeError):  # the loop has closed
                self._loop.call_soon_threadsafe(_deliver, waited)

    def _watch(self) -> None:
        now = time.monotonic()
        if now - self._watched_at < WATCH_INTERVAL_S:
            return
        self._watched_at = now
        try:
            changed = self._snapshot_if_changed(self._connection)
            if self._wal_bytes() >= CHECKPOINT_WAL_BYTES:
                self._checkpoint("PRAGMA wal_checkpoint(PASSIVE)")
        except sqlite3.Error as error:
            _log.warning("the database could not be watched: %s", error)
            return
        if changed is not None and self._loop is not None and self._publish is not None:
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._publish, changed)

    def _snapshot_if_changed(self, tx: Tx) -> S | None:
        # data_version moves only with commits of other connections, never with our own.
        version = tx.execute("PRAGMA data_version").fetchone()[0]
        return None if version == self._data_version else self._read_snapshot()

    def _read_snapshot(self) -> S:
        assert self._load is not None
        self._data_version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        return self._load(self._connection)

    def _wal_bytes(self) -> int:
        try:
            return os.stat(self._files.wal).st_size  # noqa: PTH116 - hot: no Path object
        except FileNotFoundError:
            return 0

    def _checkpoint(self, statement: str) -> None:
        """Checkpoint unless a foreign writer is at work (the WAL-reset bug, locks.py)."""
        gate = self._files.gate()
        if not gate.try_acquire():
            return
        try:
            self._connection.execute("PRAGMA busy_timeout=0")
            self._connection.execute(statement).fetchall()
        finally:
            self._connection.execute("PRAGMA busy_timeout=5000")
            gate.release()


def _is_io_error(error: sqlite3.OperationalError) -> bool:
    return error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_IOERR


def _deliver(jobs: list[_Job]) -> None:
    for job in jobs:
        future = job.future
        if future is None or future.done():  # cancelled waiters
            continue
        if job.error is not None:
            future.set_exception(job.error)
        else:
            future.set_result(job.result)
