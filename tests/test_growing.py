"""How often a growing stream asks the ledger for more, which is real and on a real file."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest

from llmproxy.growing import GrowingHold
from llmproxy.limits import Limits
from tests.support.books import Book
from tests.test_gate import HandQueue, Scene, costing, principal

T = TypeVar("T")
STEP, MOST, CREDIT = 256, 5000, 1000
"""In tokens; each costs a nano-dollar."""


class BookQueue(HandQueue):
    """A writer that writes at once, and is heard of at the next turn of the loop."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book

    def submit(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        future: asyncio.Future[T] = super().submit(function, *args)
        with self._book.write() as tx:
            result = function(tx, *args)
        asyncio.get_running_loop().call_soon(future.set_result, result)
        return future


@pytest.fixture
def book(tmp_path: Path) -> Book:
    """A user with so much that a stream of `MOST` tokens cannot be held."""
    return Book(tmp_path / "data" / "llmproxy.db", credit=f"{CREDIT / 10**9:.9f}")


def stream_of(queue: BookQueue, book: Book, **limits: int) -> GrowingHold:
    """A stream that holds a step."""
    quote = msgspec.structs.replace(costing(MOST), held_output_tokens=STEP)
    hold = book.placed(f"{STEP / 10**9:.9f}")
    scene = Scene(**limits)
    return GrowingHold(queue, scene.gate, principal(Limits(1, **limits)), quote, hold)


async def pass_on(stream: GrowingHold, seen_bytes: int) -> bool:
    """Ask as `cover.py` does, and let come what was asked for."""
    is_held = seen_bytes <= stream.look_at_bytes or await stream.covers(seen_bytes)
    await asyncio.sleep(0)
    return is_held


def test_each_step_is_asked_for_once_and_the_end_of_the_credit_too(book: Book) -> None:
    """Text comes byte by byte, two for a token, and 1,000 tokens are paid for."""

    async def run() -> tuple[int, int]:
        queue = BookQueue(book)
        stream, passed = stream_of(queue, book), 0
        while await pass_on(stream, passed + 1):
            passed += 1
        return passed, len(queue.asked)

    # Asked for are 512, 768 and 1,024, which come to 1,000, and once more where the text ends.
    assert asyncio.run(run()) == (2 * CREDIT, 4)
