"""The one writing connection in trouble: full, damaged and silent disks."""

import asyncio
import contextlib
import gc
import sqlite3
import threading
import time

import pytest

from llmproxy.errors import DatabaseError
from llmproxy.storage import writer as module
from llmproxy.storage.database import Tx
from tests.storage.helpers import INSERT, Site, count, eventually, fail, insert, sqlite_error

# --- trouble of the disk ---


def test_a_full_disk_refuses_waiters_at_once_and_settlements_are_written_later(site: Site) -> None:
    def big(tx: Tx, number: int) -> None:
        tx.execute(
            "INSERT INTO boots(pid, version, started_at_ms) VALUES(?, ?, 1)",
            (number, "x" * 100_000),
        )

    async def work() -> None:
        pages = site.connection.execute("PRAGMA page_count").fetchone()[0]
        site.connection.execute(f"PRAGMA max_page_count={pages + 2}")
        site.writer.enqueue(big, 1)
        began = time.monotonic()
        for number in (2, 3):
            with pytest.raises(DatabaseError, match="cannot be written now"):
                await site.writer.submit(big, number)
        assert time.monotonic() - began < 1
        assert not site.writer.is_broken
        site.connection.execute("PRAGMA max_page_count=100000")
        await eventually(lambda: site.pids() == [1])
        await site.writer.submit(big, 4)
        assert site.pids() == [1, 4]

    site.run(work)


def test_what_may_be_left_out_is_while_the_disk_is_full(site: Site) -> None:
    async def work() -> None:
        site.writer.offer(insert, 1)
        await site.writer.submit(insert, 2)
        site.faulty.faults["BEGIN IMMEDIATE"] = [sqlite3.SQLITE_FULL] * 3
        with pytest.raises(DatabaseError, match="cannot be written now"):
            await site.writer.submit(insert, 3)
        for _ in range(2000):
            site.writer.offer(insert, 4)
        site.writer.enqueue(insert, 5)
        await eventually(lambda: site.pids() == [1, 2, 5])
        await site.writer.refresh()  # now the writer knows it too
        site.writer.offer(insert, 6)
        await eventually(lambda: site.pids() == [1, 2, 5, 6])

    site.run(work)


def test_what_may_be_left_out_is_when_too_much_waits(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        monkeypatch.setattr(module, "OFFERED_JOBS_MAX", 3)
        for number in range(1, 6):
            site.writer.offer(insert, number)
        site.writer.enqueue(insert, 9)
        await eventually(lambda: site.pids() == [1, 2, 3, 9])

    site.run(work)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT"])
@pytest.mark.parametrize(
    "code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_READONLY, sqlite3.SQLITE_CANTOPEN]
)
def test_what_may_pass_is_tried_again(site: Site, statement: str, code: int) -> None:
    async def work() -> None:
        site.faulty.faults[statement] = [code] * 2
        site.writer.enqueue(insert, 1)
        waiter = site.writer.submit(insert, 2)
        with pytest.raises(DatabaseError, match="cannot be written now"):
            await asyncio.wait_for(waiter, 1)
        site.writer.enqueue(insert, 3)
        await eventually(lambda: site.pids() == [1, 3])
        assert not site.writer.is_broken

    site.run(work)


@pytest.mark.parametrize("statement", ["BEGIN IMMEDIATE", "COMMIT", INSERT])
@pytest.mark.parametrize(
    "code",
    [
        sqlite3.SQLITE_CORRUPT,
        sqlite3.SQLITE_NOTADB,
        sqlite3.SQLITE_IOERR,
        sqlite3.SQLITE_IOERR_FSYNC,
    ],
)
def test_damage_ends_all_writing_and_nobody_is_left_waiting(
    site: Site, statement: str, code: int, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        late: list[asyncio.Future[int]] = []
        loop = asyncio.get_running_loop()

        def queue_another() -> None:
            """During the failing statement, from the thread that runs it."""
            asked = threading.Event()

            def ask() -> None:
                late.append(site.writer.submit(insert, 3))
                asked.set()

            if statement == "COMMIT":
                loop.call_soon_threadsafe(ask)
                asked.wait(5)
            else:
                ask()

        site.faulty.at_fault = queue_another
        site.faulty.faults[statement] = [code]
        site.writer.enqueue(insert, 1)
        waiter = site.writer.submit(insert, 2)
        for future in (waiter, *late):
            with pytest.raises(DatabaseError, match="failed"):
                await asyncio.wait_for(future, 1)
        assert len(late) == 1
        with pytest.raises(DatabaseError, match="failed"):
            await asyncio.wait_for(late[0], 1)
        assert site.writer.is_broken
        with pytest.raises(DatabaseError):
            await asyncio.wait_for(site.writer.submit(insert, 4), 1)
        site.writer.enqueue(insert, 5)

    site.run(work)
    site.writer.close()
    assert site.pids() == []
    assert [arguments for _, arguments in site.kept] == [(1,), (5,)]
    assert len(site.failures) == 1
    assert "2 settlements could not be written before the stop; they are kept" in caplog.text
    assert "could NOT" not in caplog.text


def test_what_may_be_left_out_is_no_loss_when_the_database_fails(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """Notes of running streams: one waits when it fails, others come for as long as they run."""

    async def work() -> None:
        site.faulty.faults["COMMIT"] = [sqlite3.SQLITE_IOERR_FSYNC]
        site.writer.enqueue(insert, 1)
        site.writer.enqueue(count)
        site.writer.offer(count)
        with pytest.raises(DatabaseError, match="failed"):
            await asyncio.wait_for(site.writer.submit(insert, 2), 1)
        for _ in range(20):
            site.writer.offer(count)
        assert site.writer.queued == 0

    site.run(work)
    site.writer.close()
    assert [arguments for _, arguments in site.kept] == [(1,)]
    assert "1 settlements could not be written before the stop; they are kept" in caplog.text
    assert "1 records could NOT be written" in caplog.text  # the one that was not merely offered


def test_nobody_complains_of_a_failure_that_nobody_waits_for_any_more(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        _ = site.writer.submit(fail, ValueError("a bug"))
        await site.writer.refresh()
        site.faulty.faults["BEGIN IMMEDIATE"] = [sqlite3.SQLITE_CORRUPT]
        _ = site.writer.refresh()
        await asyncio.wait_for(site.writer.failed.wait(), 1)
        _ = site.writer.refresh()
        del _
        gc.collect()

    site.run(work)
    assert "never retrieved" not in caplog.text


def test_a_file_that_is_no_database_any_more_is_damage(site: Site) -> None:
    """Without injection: the file is overwritten under the running writer."""

    async def work() -> None:
        await site.writer.submit(insert, 1)
        site.connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with site.files.path.open("r+b") as file:
            file.write(b"\xff" * site.files.path.stat().st_size)
        site.connection.execute("PRAGMA cache_size=0")
        site.connection.execute("PRAGMA shrink_memory")
        foreign = sqlite3.connect(site.files.path)
        with contextlib.suppress(sqlite3.Error):
            foreign.execute("INSERT INTO boots VALUES(1)")
        foreign.close()
        waiter = site.writer.submit(insert, 2)
        with pytest.raises(DatabaseError):
            await asyncio.wait_for(waiter, 2)
        assert site.writer.is_broken

    site.run(work)


# --- trouble that others wait in ---


def test_a_rollback_that_fails_as_well_leaves_nobody_waiting(site: Site) -> None:
    async def work() -> None:
        real = site.connection.execute

        def full(tx: Tx) -> None:
            real("SELECT 1")  # nothing has rolled back by itself
            raise sqlite_error(sqlite3.SQLITE_FULL)

        site.faulty.faults["ROLLBACK"] = [sqlite3.SQLITE_IOERR]
        site.writer.enqueue(insert, 1)
        with pytest.raises(DatabaseError, match="failed"):
            await asyncio.wait_for(site.writer.submit(full), 1)
        assert site.writer.is_broken

    site.run(work)
    site.writer.close()
    assert [arguments for _, arguments in site.kept] == [(1,)]


def test_the_death_of_the_disk_thread_is_a_failure_of_the_database(site: Site) -> None:
    async def work() -> None:
        def die() -> None:
            raise SystemExit

        site.writer._transaction.commit = die  # type: ignore[method-assign]
        site.writer.enqueue(insert, 1)
        with pytest.raises(DatabaseError, match="failed"):
            await asyncio.wait_for(site.writer.submit(insert, 2), 1)
        await asyncio.wait_for(site.writer.failed.wait(), 1)

    site.run(work)
    site.writer.close()
    assert [arguments for _, arguments in site.kept] == [(1,)]


def test_a_disk_that_does_not_answer_keeps_nobody_waiting_who_came_later(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "DISK_PATIENCE_S", 0.1)

    async def work() -> None:
        answers = threading.Event()
        commit = site.writer._transaction.commit

        def commit_late() -> None:
            answers.wait(30)
            commit()

        site.writer._transaction.commit = commit_late  # type: ignore[method-assign]
        first = site.writer.submit(insert, 1)
        await eventually(lambda: site.writer._disk.is_busy)
        site.writer.enqueue(insert, 2)
        with pytest.raises(DatabaseError, match="disk does not answer"):
            await asyncio.wait_for(site.writer.submit(insert, 3), 5)
        answers.set()
        assert await first == 1
        await eventually(lambda: site.pids() == [1, 2])

    site.run(work)


def test_no_room_for_the_index_of_the_log_is_a_full_disk(site: Site) -> None:
    async def work() -> None:
        site.faulty.faults["BEGIN IMMEDIATE"] = [sqlite3.SQLITE_IOERR_SHMSIZE]
        site.writer.enqueue(insert, 1)
        await eventually(lambda: site.pids() == [1])
        assert not site.writer.is_broken

    site.run(work)


def test_a_file_that_was_moved_away_is_not_written_until_it_is_back(site: Site) -> None:
    path, elsewhere = site.files.path, site.files.path.with_name("elsewhere")

    async def work() -> None:
        await site.writer.submit(insert, 1)
        path.rename(elsewhere)
        site.writer.enqueue(insert, 2)
        with pytest.raises(DatabaseError, match="is gone, or another file is there"):
            await site.writer.submit(insert, 3)
        path.touch()
        with pytest.raises(DatabaseError, match="is gone, or another file is there"):
            await site.writer.submit(insert, 4)
        elsewhere.rename(path)
        await eventually(lambda: site.pids() == [1, 2])
        assert await site.writer.submit(insert, 5) == 5

    site.run(work)
