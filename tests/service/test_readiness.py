"""What `/readyz` asks the database, and how often: anybody may ask it."""

import asyncio
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy.server import app as module
from llmproxy.server.app import _DatabaseProbe
from tests.storage.helpers import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data" / "llmproxy.db")
    yield site
    site.writer.close()


def probe(site: Site) -> _DatabaseProbe:
    return _DatabaseProbe(site.writer)  # type: ignore[arg-type] # of another snapshot


def test_a_success_is_not_tried_again_for_a_while(site: Site) -> None:
    async def work() -> None:
        asked = probe(site)
        assert await asked.can_write()
        commits = site.commits()
        for _ in range(100):
            assert await asked.can_write()
        assert site.commits() == commits

    site.run(work)


def test_after_a_while_it_is_tried_again(site: Site, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "READY_EVERY_S", -1.0)

    async def work() -> None:
        asked = probe(site)
        before = site.commits()
        for _ in range(3):
            assert await asked.can_write()
        assert site.commits() == before + 3
        site.faulty.faults["BEGIN IMMEDIATE"] = [sqlite3.SQLITE_FULL]
        assert not await asked.can_write()

    site.run(work)


def test_a_failure_is_remembered_for_as_long_and_no_longer(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def work() -> None:
        asked = probe(site)
        site.faulty.faults["BEGIN IMMEDIATE"] = [sqlite3.SQLITE_FULL] * 2
        assert not await asked.can_write()
        for _ in range(100):
            assert not await asked.can_write()
        assert len(site.faulty.faults["BEGIN IMMEDIATE"]) == 1  # they were not tried
        monkeypatch.setattr(module, "READY_EVERY_S", -1.0)
        assert not await asked.can_write()
        assert not site.faulty.faults["BEGIN IMMEDIATE"]  # it was really tried
        assert await asked.can_write()

    site.run(work)


@pytest.mark.parametrize("fault", [None, sqlite3.SQLITE_FULL])
def test_all_who_ask_at_once_share_one_write(site: Site, fault: int | None) -> None:
    async def work() -> None:
        asked = probe(site)
        site.faulty.faults["BEGIN IMMEDIATE"] = [fault] if fault else []
        questions = [asyncio.ensure_future(asked.can_write()) for _ in range(20)]
        await asyncio.sleep(0)
        assert site.writer.queued == 1
        questions[0].cancel()  # who asked first has left
        answers = await asyncio.gather(*questions[1:])
        assert set(answers) == {fault is None}

    site.run(work)


def test_a_database_that_does_not_answer_in_time_is_not_ready(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "READY_TIMEOUT_S", 0.1)
    foreign = sqlite3.connect(site.files.path, isolation_level=None)

    async def work() -> None:
        asked = probe(site)
        foreign.execute("BEGIN IMMEDIATE")
        assert not await asked.can_write()
        for _ in range(20):
            assert not await asked.can_write()  # at once: it has had its time
        assert site.writer.queued == 1
        foreign.execute("ROLLBACK")
        await site.writer.refresh()
        assert await asked.can_write()

    site.run(work)
    foreign.close()


def test_a_database_that_has_failed_is_not_ready_whatever_was_before(site: Site) -> None:
    async def work() -> None:
        asked = probe(site)
        assert await asked.can_write()
        site.faulty.faults["BEGIN IMMEDIATE"] = [sqlite3.SQLITE_CORRUPT]
        await asyncio.gather(site.writer.refresh(), return_exceptions=True)
        assert site.writer.is_broken
        assert not await asked.can_write()

    site.run(work)
