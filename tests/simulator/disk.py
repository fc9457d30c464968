"""The writer's disk thread without a thread: work takes virtual time, and fails when told to.

A COMMIT reaches the disk at some moment, and the writer hears of it at a later one: the process
may die before, between and after.
"""

import asyncio
import random
import sqlite3
from collections.abc import Callable

from tests.simulator.loop import ProcessCrashedError
from tests.storage.helpers import sqlite_error

FULL, LOST, KEPT = "full", "failed and lost", "failed but kept"
"""How a COMMIT can fail: rolled back for want of space; or its sync failed, and then it may be
on the disk or not."""
_CODES = {
    FULL: sqlite3.SQLITE_FULL,
    LOST: sqlite3.SQLITE_IOERR_FSYNC,
    KEPT: sqlite3.SQLITE_IOERR_FSYNC,
}
QUICK_S = (0.0, 0.0, 0.0001, 0.001)
SLOW_S = (0.0, 0.001, 0.02, 0.3)


class SimulatedDisk:
    """See `llmproxy.storage.disk_thread.DiskThread`, in whose place it stands."""

    def __init__(
        self,
        rng: random.Random,
        *,
        is_slow: bool,
        faults: dict[int, str],
        written: Callable[[], None],
    ) -> None:
        """Take how it behaves.

        Args:
            rng: draws how long things take.
            is_slow: it is another kind of disk.
            faults: which commits fail, counted from 1, and how.
            written: called whenever something has reached the disk.
        """
        self.is_busy = False
        self.busy_since_s = 0.0
        self.connection: sqlite3.Connection | None = None
        self.tell_commit: Callable[[Exception], None] = lambda _error: None
        """Told how a COMMIT has failed, as the writer notes it in the disk's thread."""
        self.note: Callable[[str], None] = lambda _text: None
        self._rng = rng
        self._delays = SLOW_S if is_slow else QUICK_S
        self._faults = faults
        self._written = written
        self._commits = 0
        self._work: Callable[[], None] | None = None

    def run(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Do `work` a little later, then call `done(error)` a little later again."""
        loop = asyncio.get_running_loop()
        self.is_busy, self.busy_since_s = True, loop.time()
        self._work = work

        def do() -> None:
            failure = self._do()
            loop.call_later(self._rng.choice(self._delays), give_back, failure)

        def give_back(failure: Exception | None) -> None:
            self.is_busy = False
            done(failure)

        loop.call_later(self._rng.choice(self._delays), do)

    def join(self) -> None:
        """End what is under way: the loop has stopped, the process has not."""
        self._do()

    def _do(self) -> Exception | None:
        work, self._work = self._work, None
        if work is None:
            return None
        assert self.connection is not None
        if not self.connection.in_transaction:
            work()  # a checkpoint
            return None
        self._commits += 1
        fault = self._faults.get(self._commits)
        if fault is not None:
            self.note(f"COMMIT {self._commits}: {fault}")
            self.connection.execute("COMMIT" if fault == KEPT else "ROLLBACK")
            self._written()
            failure = sqlite_error(_CODES[fault])
            self.tell_commit(failure)
            return failure
        try:
            work()
        except ProcessCrashedError:
            raise
        except Exception as error:  # noqa: BLE001 - as the thread does
            return error
        self._written()
        return None
