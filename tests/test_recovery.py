"""What a start makes of a dead process's work: its open holds, and the ends that it kept."""

import asyncio
import errno
import os
import resource
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import msgspec
import pytest

from llmproxy import ledger, ledger_check, recovery
from llmproxy.recovery import Fate
from llmproxy.storage.database import DatabaseFiles
from llmproxy.storage.spill import Spill
from llmproxy.storage.writer import Writer
from tests.support.books import NOW_MS, Book, costing

HOLDS = 10_000


def test_ten_thousand_open_holds_end_each_by_what_was_seen(tmp_path: Path) -> None:
    book = Book(tmp_path / "data" / "llmproxy.db", credit="20")
    holds = [book.hold("0.001") for _ in range(HOLDS)]
    with book.write() as tx:
        for number, hold in enumerate(holds):
            assert ledger.place_hold(tx, hold) is None
            ledger.note_seen(tx, hold, number * 100)
    begun_s = time.process_time()
    with book.write() as tx:
        assert recovery.expire_open_holds(tx, now_ms=NOW_MS + 60_000) == HOLDS
    taken_s = time.process_time() - begun_s
    # Far above what it takes: the promise is a second, docs/reliability.md has the figure.
    assert taken_s < 5
    spent = sum(number * 100 for number in range(HOLDS))
    assert book.balance() == (20 * 10**9 - spent, 0)
    with book.read() as tx:
        steps: list[int] = []
        assert ledger_check.verify(tx, on_progress=steps.append).problems == []
        assert steps == [1000] * 10 + [0]
        rows = tx.execute("SELECT state, basis, count(*) FROM requests GROUP BY 1, 2").fetchall()
    assert [tuple(row) for row in rows] == [
        ("expired", "estimate", HOLDS - 1),
        ("expired", "none", 1),
    ]
    book.close()


class Site:
    """A book, a spill beside it, and the ends of holds on their way from one to the other."""

    def __init__(self, path: Path) -> None:
        self.book = Book(path, credit="20")
        self.spill = Spill(path.with_name("spill"))
        self.keeper = recovery.EndsKeeper(self.spill)

    def placed(self) -> ledger.Hold:
        hold = self.book.hold("1")
        with self.book.write() as tx:
            assert ledger.place_hold(tx, hold) is None
        return hold

    def end_with(self, reason: str) -> ledger.End:
        end = self.end()
        outcome = msgspec.structs.replace(end.outcome, reason=reason)
        return msgspec.structs.replace(end, outcome=outcome)

    def end(self, cost_nanousd: int = 1000) -> ledger.End:
        outcome = ledger.Outcome(
            self.book.user_id, "openai", "gpt-test", False, 200, 5, reason="two\nlines\0"
        )
        outcome = costing(outcome, cost_nanousd)
        return ledger.End("settled", "usage", cost_nanousd, outcome, NOW_MS + 1)

    def replay(self) -> list[Fate]:
        with self.book.write() as tx:
            return [recovery.write_kept(tx, kept) for kept in recovery.read_kept(self.spill).ends]


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data" / "llmproxy.db")
    yield site
    site.spill.close()
    with site.book.read() as tx:
        assert ledger_check.verify(tx).problems == []
    site.book.close()


def test_ends_of_holds_are_kept_as_they_are_and_nothing_else_is(site: Site) -> None:
    holds = [site.placed(), site.placed()]
    writes: list[tuple[Callable[..., object], tuple[object, ...]]] = [
        (ledger.end_hold, (holds[0], site.end())),
        (ledger.record_unheld, (b"x" * 16,)),
        (ledger.end_if_open, (holds[1], site.end(7))),
    ]
    assert site.keeper.keep(writes) == 2
    site.keeper.note_failure("disk I/O error")
    kept = recovery.read_kept(site.spill)
    assert [(each.hold, each.end) for each in kept.ends] == [
        (holds[0], site.end()),
        (holds[1], site.end(7)),
    ]
    assert (kept.failures, kept.damaged) == (["disk I/O error"], 0)
    assert site.replay() == [Fate.WRITTEN] * 2


def test_what_was_kept_is_written_once_however_often_it_is_read(site: Site) -> None:
    hold, ended = site.placed(), site.placed()
    with site.book.write() as tx:
        ledger.end_hold(tx, ended, site.end(5))  # on disk, although its sync had failed
    site.keeper.keep([(ledger.end_hold, (each, site.end())) for each in (hold, ended)])
    site.keeper.keep([(ledger.end_hold, (hold, site.end()))])
    assert site.replay() == [Fate.WRITTEN, Fate.HAD_ENDED, Fate.HAD_ENDED]
    assert site.replay() == [Fate.HAD_ENDED] * 3
    assert site.book.balance() == (20 * 10**9 - 1005, 0)


def test_an_end_without_its_hold_charges_nobody(site: Site) -> None:
    site.book.settled()
    before = site.book.balance()
    never = site.book.hold("1")
    released = ledger.released(site.end().outcome, at_ms=NOW_MS)
    site.keeper.keep(
        [(ledger.end_hold, (never, site.end())), (ledger.end_if_open, (never, released))]
    )
    # Of one that was to be released nothing is missing.
    assert site.replay() == [Fate.UNKNOWN, Fate.HAD_ENDED]
    assert site.book.balance() == before


def test_a_hold_that_grew_ends_with_all_of_it(site: Site) -> None:
    hold = site.placed()
    with site.book.write() as tx:
        assert ledger.extend_hold(tx, hold, 5 * 10**9) is None
    site.keeper.keep([(ledger.end_hold, (hold, site.end(3 * 10**9)))])
    assert site.replay() == [Fate.WRITTEN]
    assert site.book.balance() == (17 * 10**9, 0)


def test_a_record_of_another_version_is_counted_as_damaged(site: Site) -> None:
    site.spill.append(b'{"type":"of the future"}')
    site.spill.append(b'{"type":"end","hold":{}}')
    assert recovery.read_kept(site.spill) == ([], [], 2)


def test_nothing_to_keep_leaves_the_spill_alone(site: Site) -> None:
    assert site.keeper.keep([(ledger.record_unheld, (b"x" * 16,))]) == 0
    assert site.spill.path.read_bytes().strip(b"\0") == b""


def test_what_there_was_room_for_is_kept_and_the_rest_is_counted(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    holds = [site.placed() for _ in range(3)]
    site.keeper.keep([(ledger.end_hold, (holds[0], site.end()))])
    room = len(site.spill.path.read_bytes().rstrip(b"\0")) + 4  # for one more, not for two
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (2 * room, limits[1]))
    try:
        kept = site.keeper.keep([(ledger.end_if_open, (hold, site.end())) for hold in holds[1:]])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert kept == 1
    assert "1 of 2 settlements could not be kept" in caplog.text
    assert [each.hold for each in recovery.read_kept(site.spill).ends] == holds[:2]


def test_what_may_not_be_on_disk_is_not_said_to_be_kept(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    hold = site.placed()
    os.close(site.spill._file)
    site.spill._file = os.open(os.devnull, os.O_RDWR)  # takes every write, and cannot be synced
    assert site.keeper.keep([(ledger.end_hold, (hold, site.end()))]) == 0
    assert f"{site.spill.path} may not be on disk: {os.strerror(errno.EINVAL)}" in caplog.text


def test_what_there_is_no_room_for_is_said_loudly(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    hold = site.placed()
    os.close(site.spill._file)
    site.spill._file = os.open(site.spill.path, os.O_RDONLY)  # every write fails now
    assert site.keeper.keep([(ledger.end_hold, (hold, site.end()))]) == 0
    assert "1 of 1 settlements could not be kept" in caplog.text


UNWRITABLE = "half a character: \ud800"
"""Neither SQLite nor JSON takes it."""


def test_what_cannot_be_kept_for_a_reason_of_its_own_costs_no_other(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    holds = [site.placed() for _ in range(3)]
    ends = [site.end(), site.end_with(UNWRITABLE), site.end()]
    kept = site.keeper.keep(
        [(ledger.end_hold, (hold, end)) for hold, end in zip(holds, ends, strict=True)]
    )
    assert kept == 2
    assert "1 of 3 settlements could not be kept" in caplog.text
    assert "surrogates not allowed" in caplog.text
    assert [each.hold for each in recovery.read_kept(site.spill).ends] == [holds[0], holds[2]]


@pytest.mark.parametrize("at_the_stop", [False, True])
def test_a_settlement_that_nobody_can_take_does_not_stop_the_writer(
    site: Site, at_the_stop: bool, caplog: pytest.LogCaptureFixture
) -> None:
    writer: Writer[None] = Writer(DatabaseFiles(site.book.path), site.keeper)
    bad, first, second = site.placed(), site.placed(), site.placed()
    may_commit = threading.Event()
    commit = writer._transaction.commit

    def commit_late() -> None:
        may_commit.wait(10)
        commit()

    async def work() -> None:
        writer.start(lambda _tx: None, lambda _nothing: None)
        writer._transaction.commit = commit_late  # type: ignore[method-assign]
        writer.enqueue(ledger.end_hold, bad, site.end_with(UNWRITABLE))
        writer.enqueue(ledger.end_hold, first, site.end())
        while not writer._disk.is_busy:
            await asyncio.sleep(0.001)
        late = writer.submit(ledger.end_hold, second, site.end())
        if not at_the_stop:
            may_commit.set()
            assert await asyncio.wait_for(late, 5) == 1000

    asyncio.run(work())
    may_commit.set()
    writer.close()
    assert "1 of 1 settlements could not be kept" in caplog.text
    with site.book.read() as tx:
        rows = tx.execute("SELECT id FROM holds WHERE state = 'settled'").fetchall()
    assert {row[0] for row in rows} == {first.id, second.id}
