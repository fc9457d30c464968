"""The first steps of a start: what was kept is written, on a log that is safe."""

import asyncio
import logging
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest

from llmproxy import ledger, ledger_check
from llmproxy.catalog_overrides import NO_OVERRIDES
from llmproxy.clock import Clock
from llmproxy.errors import DatabaseError
from llmproxy.recovery import EndsKeeper
from llmproxy.relay import Snapshot
from llmproxy.server import boot
from llmproxy.storage import writer as writer_module
from llmproxy.storage.database import AdminDatabase, DatabaseFiles
from llmproxy.storage.spill import Spill
from llmproxy.storage.writer import Writer
from tests.support.books import NOW_MS, Book, costing

EMPTY = Snapshot({}, [], [], NO_OVERRIDES)


class Site:
    """A ledger that a process has left, with a log to copy, and its spill."""

    def __init__(self, path: Path) -> None:
        self.files = DatabaseFiles(path)
        self.book = Book(path)
        self.spill = Spill(self.files.spill)
        self.keeper = EndsKeeper(self.spill)
        self.had_copied_log: list[bool] = []
        """For each start."""

    def keep_ends(self, count: int, cost_nanousd: int) -> None:
        """Keep the ends of so many new holds, all in the order of their placing."""
        holds = [self.book.hold("0.01") for _ in range(count)]
        with self.book.write() as tx:
            for hold in holds:
                assert ledger.place_hold(tx, hold) is None
        outcome = costing(self.book.outcome(), cost_nanousd)
        end = ledger.End("settled", "usage", cost_nanousd, outcome, NOW_MS)
        assert self.keeper.keep([(ledger.end_hold, (hold, end)) for hold in holds]) == count

    def start(self) -> int:
        """Start as the serving process does; return the id of the start."""
        writer: Writer[Snapshot] = Writer(self.files, self.keeper)

        async def begin() -> int:
            writer.start(lambda _: EMPTY, lambda _: None)
            self.had_copied_log.append(writer.has_copied_log)
            return await boot.begin_boot(writer, self.files, self.spill, Clock())

        try:
            return asyncio.run(begin())
        finally:
            writer.close()

    @contextmanager
    def somebody_writes(self) -> Iterator[Callable[[], None]]:
        """The gate is held, as by a command in its transaction, until the end or told to let go."""
        gate = self.files.gate()
        assert gate.try_acquire(shared=True)
        try:
            yield gate.release
        finally:
            gate.release()

    @contextmanager
    def somebody_reads(self) -> Iterator[None]:
        """A read transaction is open, as of a copy that is being made."""
        reader = AdminDatabase(self.files.path)
        try:
            with reader.snapshot():
                yield
        finally:
            reader.close()


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data" / "llmproxy.db")
    yield site
    site.spill.close()
    with site.book.read() as tx:
        assert ledger_check.verify(tx).problems == []
    site.book.close()


# --- what was kept ---


@pytest.mark.parametrize("count", [1, 3, 4, 10])
def test_more_ends_than_the_queue_takes_are_all_written(
    site: Site, count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(boot, "ENDS_AT_ONCE", 3)
    monkeypatch.setattr(writer_module, "QUEUE_JOBS_MAX", 3)
    site.keep_ends(count, cost_nanousd=7)
    site.start()
    assert site.book.balance() == (10 * 10**9 - 7 * count, 0)
    with site.book.read() as tx:
        rows = tx.execute("SELECT state, count(*) FROM holds GROUP BY state").fetchall()
    assert [tuple(row) for row in rows] == [("settled", count)]
    assert site.spill.read() == ([], 0)


def test_a_slice_of_kept_ends_always_fits_the_queue() -> None:
    assert boot.ENDS_AT_ONCE < writer_module.QUEUE_JOBS_MAX


# --- the log of the last process ---


def test_a_command_that_writes_at_the_start_is_waited_for(site: Site) -> None:
    site.keeper.note_failure("disk I/O error")
    with site.somebody_writes() as let_go:
        timer = threading.Timer(0.3, let_go)
        timer.start()
        assert site.start() > site.book.boot_id
        timer.join()
    assert site.had_copied_log == [True]


def test_a_command_that_goes_on_writing_delays_a_start_and_no_more(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writer_module, "GATE_TIMEOUT_S", 0.1)
    with site.somebody_writes():
        assert site.start() > site.book.boot_id
    assert site.had_copied_log == [False]


@pytest.mark.parametrize("somebody", [Site.somebody_writes, Site.somebody_reads])
def test_after_a_failure_nothing_is_built_on_a_log_that_cannot_be_copied(
    site: Site,
    somebody: Callable[[Site], AbstractContextManager[object]],
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(writer_module, "GATE_TIMEOUT_S", 0.1)
    caplog.set_level(logging.WARNING)
    site.keep_ends(1, cost_nanousd=7)
    site.keeper.note_failure("disk I/O error")
    before = site.spill.read()
    refusal = r"had failed \(disk I/O error\).* another program uses it\. End that program\."
    with somebody(site):
        with pytest.raises(DatabaseError, match=refusal):
            site.start()
        assert site.had_copied_log == [False]
        assert site.spill.read() == before
        assert site.book.balance() == (10 * 10**9, 10**7)
    site.start()
    assert site.had_copied_log == [False, True]
    assert "the ledger is right" in caplog.text
    assert site.book.balance() == (10 * 10**9 - 7, 0)
    assert site.spill.read() == ([], 0)


def test_without_a_failure_a_reader_does_not_keep_a_server_from_starting(site: Site) -> None:
    with site.somebody_reads():
        site.start()
    assert site.had_copied_log == [False]
