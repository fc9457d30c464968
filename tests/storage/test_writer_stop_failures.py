"""The stop of the writer: what is queued is written, kept, or said loudly."""

import asyncio
import logging
import sqlite3
import threading

import pytest

from llmproxy.storage import writer as module
from llmproxy.storage.database import Tx
from tests.storage.helpers import Site, count, eventually, fail, insert


def test_close_writes_what_is_queued(site: Site) -> None:
    loop_has_ended = threading.Event()

    def insert_first(tx: Tx) -> int:
        loop_has_ended.wait(1)  # the first batch has not ended when the loop is left
        return insert(tx, 0)

    async def work() -> None:
        site.writer.enqueue(insert_first)
        for number in range(1, 1200):
            site.writer.enqueue(insert, number)

    site.run(work)
    # Where the machine was slow, so that the batch had begun, the loop has waited for its end.
    assert site.pids() in ([], list(range(512)))
    loop_has_ended.set()
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


def test_what_cannot_be_written_at_the_stop_is_kept_or_said_loudly(
    site: Site, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_PATIENCE_S", 0.2)
    foreign = sqlite3.connect(site.files.path, isolation_level=None)

    async def work() -> None:
        foreign.execute("BEGIN IMMEDIATE")
        for number in range(3):
            site.writer.enqueue(insert, number)
        site.writer.enqueue(count)

    site.run(work)
    site.writer.close()
    foreign.close()
    assert [arguments for _, arguments in site.kept] == [(0,), (1,), (2,)]
    assert not site.failures
    said = [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]
    assert [line.partition(" could")[0] for line in said] == ["3 settlements", "1 records"]


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


@pytest.mark.parametrize("code", [sqlite3.SQLITE_IOERR_FSYNC, sqlite3.SQLITE_CORRUPT])
def test_a_last_commit_whose_sync_failed_is_not_tried_again(site: Site, code: int) -> None:
    """The loop has ended before it could hear of it."""
    loop_has_ended = threading.Event()

    async def work() -> None:
        site.faulty.at_fault = lambda: loop_has_ended.wait(10)
        site.faulty.faults["COMMIT"] = [code]
        site.writer.enqueue(insert, 1)
        await eventually(lambda: site.writer._disk.is_busy)
        site.writer.enqueue(insert, 2)

    site.run(work)
    loop_has_ended.set()
    site.writer.close()
    assert site.pids() == []
    assert [arguments for _, arguments in site.kept] == [(1,), (2,)]
    assert len(site.failures) == 1
