"""Small things that must be the same each time, or must be told when to happen."""

import asyncio
import random
from collections.abc import Callable, Coroutine, Generator, Iterator
from pathlib import Path
from typing import Any, cast

from typing_extensions import override

from llmproxy.clock import Clock, RequestIds
from llmproxy.storage.spill import Contents
from llmproxy.watchdog import Exchange


class SimulatedClock(Clock):
    """Virtual time, and a wall clock that can be set."""

    def __init__(self, now_s: Callable[[], float]) -> None:
        self._now_s = now_s
        self._wall_ms = 1_795_000_000_000

    def step(self, by_ms: int) -> None:
        """Set the wall clock forward or back."""
        self._wall_ms += by_ms

    @override
    def now_ms(self) -> int:
        return self._wall_ms + round(self._now_s() * 1000)

    @override
    def monotonic_s(self) -> float:
        return self._now_s()


class MemorySpill:
    """See `llmproxy.storage.spill.Spill`: kept from one life to the next, but not in a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._records: list[bytes] = []

    def read(self) -> Contents:
        return Contents([*self._records], 0)

    def append(self, record: bytes) -> None:
        self._records.append(record)

    def sync(self) -> None:
        """Do nothing."""

    def clear(self) -> None:
        self._records.clear()


class SeededIds(RequestIds):
    """Request ids that are the same each time."""

    @override
    def __init__(self, rng: random.Random) -> None:
        self._random = rng


class InOrder(set[Exchange]):
    """The watchdog's exchanges in the order of their coming: a set's own is another each time."""

    def __init__(self) -> None:
        super().__init__()
        self._ordered: dict[Exchange, None] = {}

    @override
    def __iter__(self) -> Iterator[Exchange]:
        return iter(tuple(self._ordered))

    @override
    def add(self, element: Exchange) -> None:
        super().add(element)
        self._ordered[element] = None

    @override
    def discard(self, element: object) -> None:
        super().discard(element)
        self._ordered.pop(cast("Exchange", element), None)


class Stepped(Coroutine[Any, Any, None]):
    """A coroutine whose task is cancelled at the n-th of its awaits, if that is wanted."""

    def __init__(self, inner: Coroutine[Any, Any, None], cancelled_at: int | None) -> None:
        self._inner = inner
        self._left = cancelled_at

    @override
    def send(self, value: None, /) -> object:
        """Run up to the next await."""
        waited_for: object = self._inner.send(value)
        if self._left is not None:
            self._left -= 1
            if self._left == 0:
                task = asyncio.current_task()
                assert task is not None
                task.get_loop().call_soon(task.cancel)
        return waited_for

    @override
    def throw(self, *error: Any) -> object:
        """Run on with an exception."""
        return self._inner.throw(*error)

    @override
    def close(self) -> None:
        """End it."""
        self._inner.close()

    @override
    def __await__(self) -> Generator[Any, Any, None]:
        return self._inner.__await__()
