"""The one writing connection: order, group commit, trouble of the disk, the stop, the WAL."""

import asyncio
import contextlib
import logging
import sqlite3
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from llmproxy.errors import DatabaseError
from llmproxy.storage import writer as module
from llmproxy.storage.database import AdminDatabase, DatabaseFiles, Tx
from llmproxy.storage.writer import Writer

INSERT = "INSERT INTO boots(pid, version, started_at_ms) VALUES(?, 'x', 1)"


def insert(tx: Tx, pid: int) -> int:
    tx.execute(INSERT, (pid,))
    return pid


def fail(tx: Tx, error: Exception) -> None:
    insert(tx, 666)
    raise error


def count(tx: Tx) -> int:
    return int(tx.execute("SELECT count(*) FROM boots").fetchone()[0])


class FaultyConnection:
    """A real connection whose statements fail when told to, as a disk would make them.

    A failed COMMIT has rolled everything back, as SQLite does when the disk is full.
    """

    def __init__(self, real: sqlite3.Connection) -> None:
        self._real = real
        self.faults: dict[str, list[int]] = {}
        self.at_fault: Callable[[], object] = lambda: None

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:  # noqa: ANN401
        if codes := self.faults.get(sql):
            self.at_fault()
            if self._real.in_transaction:
                self._real.execute("ROLLBACK")
            raise sqlite_error(codes.pop(0))
        return self._real.execute(sql, *arguments)

    def __getattr__(self, name: str) -> Any:  # noqa: ANN401
        return getattr(self._real, name)


def sqlite_error(code: int) -> sqlite3.Error:
    is_damage = code & 0xFF in {sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB}
    error = (sqlite3.DatabaseError if is_damage else sqlite3.OperationalError)(f"fault {code}")
    error.sqlite_errorcode = code
    return error


class Site:
    """A writer on a real file, and a second connection that looks at what is on disk."""

    def __init__(self, path: Path) -> None:
        self.files = DatabaseFiles(path)
        self.writer: Writer[int] = Writer(self.files)
        self.connection = self.writer._connection
        self.faulty = FaultyConnection(self.connection)
        self.writer._connection = self.faulty  # type: ignore[assignment]
        self.published: list[int] = []
        self.statements: list[str] = []
        self.connection.set_trace_callback(self.statements.append)

    def run(self, work: Callable[[], Awaitable[None]]) -> None:
        """Run work on a loop with the writer started; the writer stays open."""

        async def main() -> None:
            self.writer.start(count, self.published.append)
            await asyncio.sleep(0)
            await work()

        asyncio.run(main())

    def pids(self) -> list[int]:
        with closing(sqlite3.connect(self.files.path)) as connection:
            return [row[0] for row in connection.execute("SELECT pid FROM boots ORDER BY id")]

    def commits(self) -> int:
        return self.statements.count("COMMIT")

    def checkpoints(self) -> int:
        return sum("wal_checkpoint" in statement for statement in self.statements)


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data" / "llmproxy.db")
    yield site
    site.connection.close()
    site.writer._disk.join() if site.writer._disk._thread.is_alive() else None


async def eventually(is_so: Callable[[], bool], within_s: float = 5.0) -> None:
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline
        await asyncio.sleep(0.005)


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
        site.writer._load = load
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
    assert "1 settlements and other records are not written" in caplog.text
    assert "2 settlements and other records could NOT be written before the stop" in caplog.text


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


# --- the stop ---


def test_close_writes_what_is_queued(site: Site) -> None:
    async def work() -> None:
        for number in range(1200):
            site.writer.enqueue(insert, number)

    site.run(work)
    assert site.pids() == []
    site.statements.clear()
    site.writer.close()
    assert site.pids() == list(range(1200))
    assert site.commits() == 3
    assert not site.files.wal.exists()


@pytest.mark.parametrize("code", [sqlite3.SQLITE_FULL, sqlite3.SQLITE_BUSY])
def test_a_last_commit_that_fails_after_the_loop_has_ended_is_made_up_for(
    site: Site, code: int
) -> None:
    loop_has_ended = threading.Event()

    async def work() -> None:
        site.faulty.at_fault = lambda: loop_has_ended.wait(10)
        site.faulty.faults["COMMIT"] = [code]
        site.writer.enqueue(insert, 1)
        site.writer.enqueue(insert, 2)
        await eventually(lambda: site.writer._disk.is_busy)
        site.writer.enqueue(insert, 3)

    site.run(work)
    threading.Timer(0.1, loop_has_ended.set).start()
    site.writer.close()
    assert site.pids() == [1, 2, 3]


def test_a_last_commit_that_succeeds_after_the_loop_has_ended_counts_once(site: Site) -> None:
    async def work() -> None:
        site.writer.enqueue(insert, 1)
        while not site.writer._disk.is_busy:
            await asyncio.sleep(0)

    site.run(work)
    site.writer.close()
    assert site.pids() == [1]


def test_a_bad_job_at_the_stop_harms_no_other(site: Site, caplog: pytest.LogCaptureFixture) -> None:
    async def work() -> None:
        site.writer.enqueue(insert, 1)
        site.writer.enqueue(fail, ValueError("a bug"))
        site.writer.enqueue(fail, sqlite3.IntegrityError("a check"))
        site.writer.enqueue(insert, 2)

    site.run(work)
    site.writer.close()
    assert site.pids() == [1, 2]
    assert "a queued write failed: a bug" in caplog.text
    assert "a queued write failed: a check" in caplog.text
    assert not site.files.wal.exists()


def test_what_cannot_be_written_at_the_stop_is_said_loudly(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_PATIENCE_S", 0.2)
    foreign = sqlite3.connect(site.files.path, isolation_level=None)

    async def work() -> None:
        foreign.execute("BEGIN IMMEDIATE")
        for number in range(3):
            site.writer.enqueue(insert, number)

    site.run(work)
    site.writer.close()
    foreign.close()
    (said,) = [record for record in caplog.records if record.levelno == logging.CRITICAL]
    assert said.getMessage().startswith("3 settlements and other records could NOT be written")


def test_a_foreign_writer_at_the_stop_is_waited_for(site: Site) -> None:
    foreign = sqlite3.connect(site.files.path, isolation_level=None, check_same_thread=False)

    async def work() -> None:
        foreign.execute("BEGIN IMMEDIATE")
        site.writer.enqueue(insert, 1)

    site.run(work)
    threading.Timer(0.3, foreign.rollback).start()
    site.writer.close()
    assert site.pids() == [1]
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
