"""Owns when the next transaction begins: at the end of this turn of the loop, or after a pause.

Must not know what runs in it, nor why it is to wait.
"""

import asyncio
from collections.abc import Callable

from llmproxy.storage.disk_thread import Disk
from llmproxy.storage.jobs import JobQueue

LINGER_S = 0.005
"""How long a write that nobody waits for may wait for company: a sync of the disk costs more than
everything else about a request."""
BATCH_INTERVAL_S = 0.002
"""From the beginning of one transaction to that of the next: under load, more jobs share one."""
FEW_JOBS = 2
"""After a transaction of so few there is no load, and nobody is made to wait for company."""


class Schedule:
    """The moment of the next transaction; there is none before `start`."""

    def __init__(self, jobs: JobQueue, disk: Disk, begin: Callable[[], None]) -> None:
        """Take whom to begin it for, who may have the connection then, and what begins it."""
        self._jobs = jobs
        self._disk = disk
        self._begin = begin
        self._loop: asyncio.AbstractEventLoop | None = None
        self.is_set = False
        """It has its moment."""
        self._is_lingering = False
        self._begun_s = 0.0
        self._last_jobs = 0

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Begin transactions on this loop, the first one for what waits already."""
        self._loop = loop
        self.soon()

    def soon(self) -> None:
        """Let waiting jobs run at the end of this turn of the loop: its jobs share a commit.

        Does nothing while the disk's thread has the connection; to be called again after that.
        """
        if self.is_set or not self._jobs or self._disk.is_busy or self._loop is None:
            return
        self.is_set = True
        pause_s = self._begun_s + BATCH_INTERVAL_S - self._loop.time()
        if pause_s > 0 and self._last_jobs > FEW_JOBS:
            self._loop.call_later(pause_s, self._run)
        else:
            self._loop.call_soon(self._run)

    def later(self, pause_s: float) -> None:
        """Let the jobs run after a pause, and not before: new ones wait with the others."""
        assert self._loop is not None
        self.is_set = True
        self._loop.call_later(pause_s, self._run)

    def linger(self) -> None:
        """Let the jobs run a moment later, unless they share a transaction before."""
        if not self._is_lingering and self._loop is not None:
            self._is_lingering = True
            self._loop.call_later(LINGER_S, self._end_lingering)

    def note_begun(self, now_s: float) -> None:
        """Note that a transaction has begun now, by the loop's clock, for all jobs that wait."""
        self._begun_s = now_s
        self._last_jobs = len(self._jobs)

    def _end_lingering(self) -> None:
        self._is_lingering = False
        self.soon()

    def _run(self) -> None:
        self.is_set = False
        self._begin()
