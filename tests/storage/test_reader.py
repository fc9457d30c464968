"""Reading beside the writer: one moment, a time limit, never a write."""

import asyncio
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy.errors import DatabaseError
from llmproxy.storage import reader as reader_module
from llmproxy.storage.database import AdminDatabase, Tx
from llmproxy.storage.reader import Reader, ReadTimeoutError

ENDLESS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT sum(i) FROM n"


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    path = tmp_path / "data" / "llmproxy.db"
    AdminDatabase(path).close()
    reader = Reader(path)
    yield reader
    reader.close()


def count_users(tx: Tx) -> int:
    return int(tx.execute("SELECT count(*) FROM users").fetchone()[0])


def test_a_question_that_takes_too_long_is_given_up_and_the_loop_goes_on(
    reader: Reader, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reader_module, "READ_TIMEOUT_S", 0.3)
    turns = 0

    async def ask() -> None:
        nonlocal turns
        question = asyncio.ensure_future(reader.read(lambda tx: tx.execute(ENDLESS).fetchone()))
        while not question.done():
            await asyncio.sleep(0.01)
            turns += 1
        with pytest.raises(ReadTimeoutError, match=r"longer than 0\.3 s"):
            await question
        assert await reader.read(count_users) == 0

    began = time.monotonic()
    asyncio.run(ask())
    assert time.monotonic() - began < 3
    assert turns > 5


def test_it_cannot_write(reader: Reader) -> None:
    def write(tx: Tx) -> None:
        tx.execute("INSERT INTO boots(pid, version, started_at_ms) VALUES(1, 'x', 1)")

    with pytest.raises(DatabaseError, match="cannot be read: attempt to write a readonly"):
        asyncio.run(reader.read(write))


def test_each_question_sees_what_was_committed_before_it(reader: Reader, tmp_path: Path) -> None:
    assert asyncio.run(reader.read(count_users)) == 0
    with sqlite3.connect(tmp_path / "data" / "llmproxy.db") as other:
        other.execute(
            "INSERT INTO users(name, rate_multiplier_micro, created_at_ms) VALUES('a', 1, 1)"
        )
    other.close()
    assert asyncio.run(reader.read(count_users)) == 1
