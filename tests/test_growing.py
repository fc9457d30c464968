"""How often a growing stream asks the ledger for more, which is real and on a real file."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import msgspec
import pytest
from typing_extensions import override

from llmproxy.growing import GrowingHold
from tests.support.books import Book
from tests.test_gate import HandQueue, Scene, costing

T = TypeVar("T")
STEP, MOST = 256, 5000
"""In tokens; each costs a nano-dollar."""


class BookQueue(HandQueue):
    """A writer whose questions are counted, and written at once."""

    def __init__(self, book: Book) -> None:
        super().__init__()
        self._book = book

    @override
    def submit(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        """Write; the answer comes with the next turn of the loop."""
        future: asyncio.Future[T] = super().submit(function, *args)
        with self._book.write() as tx:
            result = function(tx, *args)
        asyncio.get_running_loop().call_soon(future.set_result, result)
        return future


async def grow(home: Path, credit: int) -> tuple[int, int]:
    """Pass a stream on byte by byte until its credit ends; return the bytes, and the questions.

    It holds a step at first. Two bytes are taken for a token.
    """
    book = Book(home / "llmproxy.db", credit=f"{credit / 10**9:.9f}")
    queue, scene = BookQueue(book), Scene()
    quote = msgspec.structs.replace(costing(MOST), held_output_tokens=STEP)
    hold = book.placed(f"{STEP / 10**9:.9f}")
    stream = GrowingHold(queue, scene.gate, scene.principal, quote, hold)
    passed = 0
    while passed + 1 <= stream.look_at_bytes or await stream.covers(passed + 1):
        passed += 1
        await asyncio.sleep(0)  # what was asked for has come when there is more to pass
    assert book.balance() == (credit, credit)
    book.close()
    return passed, len(queue.asked)


@pytest.mark.parametrize(
    ("credit", "questions"),
    [
        # 512, 768 and 1,024 tokens, of which 1,000 come; and once more where these are at an end.
        (1000, 4),
        (769, 4),
        # Of the 1,024 none come; and once more.
        (768, 4),
        (257, 2),
        (256, 2),
    ],
)
def test_each_step_is_asked_for_once_and_the_end_of_the_credit_twice(
    tmp_path: Path, credit: int, questions: int
) -> None:
    """However little of the text comes at a time."""
    assert asyncio.run(grow(tmp_path, credit)) == (2 * credit, questions)
