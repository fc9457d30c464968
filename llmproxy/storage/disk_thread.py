"""Owns the thread that waits for the disk, so that the event loop never does.

It runs one piece of work at a time and calls back on the loop. Must not know what the work is.
"""

import asyncio
import contextlib
import queue
import threading
from collections.abc import Callable
from typing import Protocol


class Disk(Protocol):
    """What waits for the disk in the event loop's place: a `DiskThread`."""

    is_busy: bool
    """Whether work is under way that `done` has not been called for."""
    busy_since_s: float
    """When the last work began, by the loop's clock."""

    def run(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Run `work` elsewhere, then `done(error)` on the loop that this is called on."""

    def join(self) -> None:
        """Wait until all work is done; there is no more to come."""


class DiskThread:
    """One thread that runs one piece of work at a time."""

    def __init__(self) -> None:
        """Start the thread; it ends with `join`, or with the process."""
        self.is_busy = False
        """Whether work is under way that `done` has not been called for."""
        self.busy_since_s = 0.0
        """When the last work began, by the loop's clock."""
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="llmproxy-disk", daemon=True)
        self._thread.start()

    def run(self, work: Callable[[], None], done: Callable[[BaseException | None], None]) -> None:
        """Run `work` in the thread, then `done(error)` on the loop that this is called on."""
        loop = asyncio.get_running_loop()
        self.is_busy, self.busy_since_s = True, loop.time()

        def run() -> None:
            failure: BaseException | None = None
            try:
                work()
            except BaseException as error:  # noqa: BLE001 - delivered: the thread must not die
                failure = error
            with contextlib.suppress(RuntimeError):  # the loop has ended: nobody is left to tell
                loop.call_soon_threadsafe(give_back, failure)

        def give_back(failure: BaseException | None) -> None:
            self.is_busy = False
            done(failure)

        self._work.put(run)

    def join(self) -> None:
        """Wait until all work is done and end the thread."""
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()
