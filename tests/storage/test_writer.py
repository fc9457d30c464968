"""The one writing connection: order, group commit, foreign changes and writers, the WAL."""

import asyncio
import sqlite3
import threading
from contextlib import closing
from typing import Any

import pytest

from llmproxy.errors import DatabaseError
from llmproxy.storage import writer as module
from llmproxy.storage.database import AdminDatabase, Tx
from tests.storage.helpers import INSERT, Site, count, eventually, fail, insert

WIDE = "x" * 60_000


def insert_wide(tx: Tx) -> None:
    tx.execute("INSERT INTO boots(pid, version, started_at_ms) VALUES(1, ?, 1)", (WIDE,))


# --- what is normal ---


def test_jobs_run_in_order_and_one_turn_of_the_loop_shares_a_commit(site: Site) -> None:
    async def work() -> None:
        site.statements.clear()
        futures = [site.writer.submit(insert, number) for number in range(100)]
        assert await asyncio.gather(*futures) == list(range(100))
        assert site.commits() == 1
        assert site.pids() == list(range(100))

    site.run(work)


def test_jobs_that_come_during_a_commit_share_the_next(site: Site) -> None:
    async def work() -> None:
        site.statements.clear()
        first = site.writer.submit(insert, 0)
        while not site.writer._disk.is_busy:
            await asyncio.sleep(0)
        others = [site.writer.submit(insert, number) for number in range(1, 50)]
        await asyncio.gather(first, *others)
        assert site.commits() == 2
        assert site.pids() == list(range(50))

    site.run(work)


def test_an_answer_means_that_it_is_on_disk(site: Site) -> None:
    async def work() -> None:
        for number in range(20):
            await site.writer.submit(insert, number)
            assert site.pids()[-1] == number

    site.run(work)


def test_a_write_that_nobody_waits_for_goes_with_the_next_or_alone_soon(site: Site) -> None:
    async def work() -> None:
        site.statements.clear()
        site.writer.enqueue(insert, 1)
        await site.writer.submit(insert, 2)
        assert site.commits() == 1
        site.writer.enqueue(insert, 3)
        await eventually(lambda: site.pids() == [1, 2, 3])

    site.run(work)


def test_an_error_of_one_job_is_its_own(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    errors = [
        ValueError("a bug"),
        sqlite3.IntegrityError("CHECK"),
        sqlite3.DataError("too big"),
        sqlite3.ProgrammingError("no such parameter"),
        sqlite3.InterfaceError("bad type"),
    ]

    async def work() -> None:
        site.statements.clear()
        futures: list[asyncio.Future[Any]] = []
        for number, error in enumerate(errors):
            futures += [site.writer.submit(insert, number), site.writer.submit(fail, error)]
        site.writer.enqueue(fail, ValueError("of a settlement"))
        site.writer.enqueue(insert, 99)
        answers = await asyncio.gather(*futures, return_exceptions=True)
        assert answers[::2] == list(range(len(errors)))
        assert answers[1::2] == errors
        assert site.pids() == [*range(len(errors)), 99]
        assert site.commits() == 1
        assert not site.writer.is_broken
        assert await site.writer.submit(insert, 100) == 100
        assert sum("SAVEPOINT job" in statement for statement in site.statements) == 12

    site.run(work)
    assert "a queued write failed: of a settlement" in caplog.text


def test_real_errors_of_sql_belong_to_the_job_too(site: Site) -> None:
    def of_sql(tx: Tx, statement: str, *parameters: object) -> None:
        insert(tx, 1)
        tx.execute(statement, parameters)

    async def work() -> None:
        answers = await asyncio.gather(
            site.writer.submit(of_sql, "SELECT * FROM nowhere"),
            site.writer.submit(of_sql, "SELECT ?", object()),
            site.writer.submit(of_sql, "INSERT INTO wallets(user_id) VALUES(99)"),
            site.writer.submit(of_sql, "SELECT zeroblob(2000000000)"),
            site.writer.submit(insert, 7),
            return_exceptions=True,
        )
        assert all(isinstance(answer, sqlite3.Error) for answer in answers[:4]), answers
        assert answers[4] == 7
        assert site.pids() == [7]
        assert not site.writer.is_broken

    site.run(work)


def test_no_commit_ever_runs_on_the_loop(site: Site) -> None:
    threads: set[str] = set()
    site.connection.set_trace_callback(
        lambda statement: (
            threads.add(threading.current_thread().name) if statement == "COMMIT" else None
        )
    )

    async def work() -> None:
        failing = [site.writer.submit(fail, ValueError()) for _ in range(3)]
        await asyncio.gather(*failing, site.writer.submit(insert, 1), return_exceptions=True)

    site.run(work)
    assert threads == {"llmproxy-disk"}


def test_a_waiter_that_was_cancelled_hurts_nobody(site: Site) -> None:
    async def work() -> None:
        futures = [site.writer.submit(insert, number) for number in range(3)]
        futures[1].cancel()
        assert await futures[0] == 0
        assert await futures[2] == 2
        # It may have happened: what undoes it stands behind it in the queue.
        assert site.pids() == [0, 1, 2]

    site.run(work)


def test_a_full_queue_refuses_waiters_and_takes_settlements(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "QUEUE_JOBS_MAX", 3)

    async def work() -> None:
        futures = [site.writer.submit(insert, number) for number in range(4)]
        site.writer.enqueue(insert, 9)
        with pytest.raises(DatabaseError, match="cannot be written now"):
            await futures[3]
        assert await asyncio.gather(*futures[:3]) == [0, 1, 2]
        assert site.pids() == [0, 1, 2, 9]

    site.run(work)


def test_foreign_commits_are_published_before_the_next_answer(site: Site) -> None:
    foreign = AdminDatabase(site.files.path)

    async def work() -> None:
        assert site.published == [0]
        for number in range(1, 6):
            with foreign.write() as tx:
                insert(tx, number)
            await site.writer.refresh()
            assert site.published[-1] == number
        await site.writer.submit(insert, 6)
        await site.writer.refresh()
        assert site.published == [0, 1, 2, 3, 4, 5]  # not for commits of its own
        with foreign.write() as tx:
            insert(tx, 7)
        await eventually(lambda: site.published[-1] == 7, 1)  # by itself, without any job

    site.run(work)
    foreign.close()


def test_a_snapshot_that_cannot_be_read_leaves_the_last_one(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    foreign = AdminDatabase(site.files.path)
    is_bad = False

    def load(tx: Tx) -> int:
        if is_bad:
            raise ValueError("of the reader")
        return count(tx)

    async def work() -> None:
        nonlocal is_bad
        assert site.writer._changes is not None
        site.writer._changes._load = load
        with foreign.write() as tx:
            insert(tx, 1)
        is_bad = True
        assert await site.writer.submit(insert, 2) == 2
        assert site.published == [0]
        is_bad = False
        await site.writer.refresh()
        assert site.published == [0, 2]

    site.run(work)
    foreign.close()
    assert "of the reader" in caplog.text


# --- a foreign writer ---


def test_a_foreign_writer_is_waited_for(site: Site) -> None:
    foreign = sqlite3.connect(site.files.path, isolation_level=None)

    async def work() -> None:
        foreign.execute("BEGIN IMMEDIATE")
        waiter = site.writer.submit(insert, 1)
        await asyncio.sleep(0.1)  # the loop is not blocked meanwhile
        assert not waiter.done()
        foreign.execute("COMMIT")
        assert await waiter == 1

    site.run(work)
    foreign.close()


def test_a_foreign_writer_that_stays_is_told_to_waiters_and_settlements_stay(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 100)
    foreign = sqlite3.connect(site.files.path, isolation_level=None)

    async def work() -> None:
        foreign.execute("BEGIN IMMEDIATE")
        site.writer.enqueue(insert, 1)
        waiters = [site.writer.submit(insert, number) for number in (2, 3)]
        site.writer.enqueue(insert, 4)
        for waiter in waiters:
            with pytest.raises(DatabaseError, match="busy"):
                await waiter
        with pytest.raises(DatabaseError, match="busy"):
            await site.writer.submit(insert, 5)
        foreign.execute("ROLLBACK")
        assert await site.writer.submit(insert, 6) == 6
        assert site.pids() == [1, 4, 6]
        assert not site.writer.is_broken

    site.run(work)
    foreign.close()


# --- the WAL ---


async def no_more_checkpoints(site: Site) -> None:
    """Fail unless there is a while without any, thirty times as long as between two looks."""
    for _ in range(5):
        before = site.checkpoints()
        await asyncio.sleep(0.3)
        if site.checkpoints() == before:
            return
    pytest.fail("checkpoints go on for ever")


def test_the_wal_stays_bounded_under_constant_load_and_is_left_alone_when_idle(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_WAL_BYTES", 256 * 1024)
    monkeypatch.setattr(module, "WATCH_INTERVAL_S", 0.01)
    largest = 0

    async def work() -> None:
        nonlocal largest
        for number in range(3000):
            await site.writer.submit(insert, number)
            if number % 50 == 0:
                largest = max(largest, site.files.wal.stat().st_size)
        assert largest < 3 * 256 * 1024
        assert site.checkpoints() > 10
        await no_more_checkpoints(site)
        assert await site.writer.submit(count) == 3000

    site.run(work)


def test_a_long_reader_delays_checkpoints_and_they_catch_up(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "CHECKPOINT_WAL_BYTES", 64 * 1024)
    monkeypatch.setattr(module, "WATCH_INTERVAL_S", 0.01)
    reader = AdminDatabase(site.files.path)

    async def work() -> None:
        await site.writer.submit(insert, 0)
        with reader.read() as tx:
            assert count(tx) == 1
            for number in range(1, 200):
                await site.writer.submit(insert, number)
            assert count(tx) == 1
            high = site.files.wal.stat().st_size
            assert high > 6 * 64 * 1024
        await asyncio.sleep(0.1)
        for number in range(200, 600):
            await site.writer.submit(insert, number)
        assert site.files.wal.stat().st_size <= high + 128 * 1024
        await no_more_checkpoints(site)

    site.run(work)
    reader.close()


def test_what_a_long_reader_makes_of_the_wal_is_cut_off_when_it_has_left(site: Site) -> None:
    """All limits as they are in force: 4 MB until a checkpoint, 12 MB that the file may keep."""
    reader = AdminDatabase(site.files.path)
    kept_bytes = 12 * 1024 * 1024

    async def write(times: int) -> int:
        """Write so many wide rows, one a transaction; return how long the log has been at most."""
        longest = 0
        for _ in range(times):
            await site.writer.submit(insert_wide)
            longest = max(longest, site.files.wal.stat().st_size)
        return longest

    async def work() -> None:
        with reader.read() as tx:
            assert count(tx) == 0
            assert await write(400) > 400 * len(WIDE)
        # The next look after a commit copies the log, and the next write begins it anew.
        await write(module.LOOK_AFTER_JOBS + 2)
        assert await write(400) <= kept_bytes
        assert await site.writer.submit(count) == 930

    site.run(work)
    reader.close()


def test_a_snapshot_is_of_one_moment(site: Site) -> None:
    def load(tx: Tx) -> int:
        first = count(tx)
        with closing(sqlite3.connect(site.files.path)) as other:
            other.execute(INSERT, (7,))
            other.commit()
        assert count(tx) == first
        return first

    async def work() -> None:
        site.writer.start(load, site.published.append)

    asyncio.run(work())
    assert site.published == [0]
    assert site.pids() == [7]
