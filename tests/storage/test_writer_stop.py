"""The one writing connection at its end, and what must happen and cannot: it is kept."""

import logging
import sqlite3
import threading

import pytest

from llmproxy.errors import DatabaseError, RefusedError
from llmproxy.storage import writer as module
from tests.storage.helpers import Site, eventually, fail, insert


def said_loudly(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in caplog.records if record.levelno == logging.CRITICAL]


@pytest.mark.parametrize("settlements", [[], [2, 3]])
def test_a_stop_while_the_directory_is_gone_keeps_settlements_and_is_clean(
    site: Site,
    settlements: list[int],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(module, "STOP_PATIENCE_S", 0.1)
    data = site.files.path.parent
    elsewhere = data.with_name("elsewhere")

    async def work() -> None:
        await site.writer.submit(insert, 1)
        data.rename(elsewhere)
        for number in settlements:
            site.writer.enqueue(insert, number)

    site.run(work)
    site.writer.close()
    assert [arguments for _, arguments in site.kept] == [(number,) for number in settlements]
    assert len(said_loudly(caplog)) == bool(settlements)
    assert not site.failures  # the database is as good as it was
    with pytest.raises(sqlite3.ProgrammingError, match="closed"):
        site.connection.execute("SELECT 1")
    elsewhere.rename(data)
    assert site.pids() == [1]


@pytest.mark.parametrize("at_the_stop", [False, True])
def test_what_must_happen_and_crashes_is_kept_and_what_was_refused_is_not(
    site: Site, at_the_stop: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """A bug may be mended by the next start; a refusal, such as of a hold's second end, stays."""
    bug = ValueError("a bug")
    site.settlements.add(fail)

    async def work() -> None:
        site.writer.enqueue(fail, bug)
        site.writer.enqueue(fail, RefusedError("it has ended"))
        site.writer.enqueue(insert, 1)
        if not at_the_stop:
            waiter = site.writer.submit(fail, ValueError("who waits for it hears of it"))
            with pytest.raises(ValueError, match="hears of it"):
                await waiter
            assert site.kept == [(fail, (bug,))]

    site.run(work)
    site.writer.close()
    assert site.kept == [(fail, (bug,))]
    assert site.writer.kept == 1
    assert site.pids() == [1]
    assert "a queued write failed: a bug" in caplog.text
    assert [line.partition(" could")[0] for line in said_loudly(caplog)] == ["1 settlements"]


def test_what_crashed_in_a_last_commit_that_the_loop_never_heard_of_is_kept_too(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    bug = ValueError("a bug")
    site.settlements.add(fail)
    loop_has_ended = threading.Event()
    commit = site.writer._transaction.commit

    def commit_late() -> None:
        loop_has_ended.wait(10)
        commit()

    async def work() -> None:
        site.writer._transaction.commit = commit_late  # type: ignore[method-assign]
        site.writer.enqueue(fail, bug)
        site.writer.enqueue(insert, 1)
        await eventually(lambda: site.writer._disk.is_busy)
        site.writer.enqueue(insert, 2)

    site.run(work)
    assert not site.kept
    loop_has_ended.set()
    site.writer.close()
    assert site.kept == [(fail, (bug,))]
    assert site.writer.kept == 1
    assert site.pids() == [1, 2]
    assert caplog.text.count("a queued write failed: a bug") == 1


def test_who_comes_after_a_busy_time_waits_as_long_again(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "BUSY_TIMEOUT_MS", 500)
    foreign = sqlite3.connect(site.files.path, isolation_level=None)

    def tries() -> int:
        return site.statements.count("BEGIN IMMEDIATE")

    async def work() -> None:
        foreign.execute("BEGIN IMMEDIATE")
        with pytest.raises(DatabaseError, match="busy"):
            await site.writer.submit(insert, 1)
        newcomer = site.writer.submit(insert, 2)
        before = tries()
        await eventually(lambda: tries() >= before + 3)
        assert not newcomer.done()
        foreign.execute("ROLLBACK")
        assert await newcomer == 2

    site.run(work)
    foreign.close()
    assert site.pids() == [2]
