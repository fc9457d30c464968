"""Owns what must come to its end though whoever asked for it may be gone by then."""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class KeptTasks:
    """Runs each in a task of its own, and holds it until it has ended.

    The event loop itself holds tasks weakly: one that nobody waits for any more might be collected.
    """

    def __init__(self) -> None:
        """Begin with none."""
        self._running: set[asyncio.Task[Any]] = set()

    async def run(self, job: Coroutine[Any, Any, T]) -> T:
        """Return what a job returns; it goes on when whoever waits for it is cancelled."""
        task = asyncio.ensure_future(job)
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return await asyncio.shield(task)
