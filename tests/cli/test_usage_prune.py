"""Old requests are pruned: their details go, and everything about money stays."""

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from llmproxy import pruning, reports
from llmproxy.clock import Clock, request_id_text
from llmproxy.ledger import Hold
from llmproxy.rollups import DAY_MS
from llmproxy.usage import Leg
from tests.cli.conftest import Quick
from tests.cli.test_usage_sums import record_free, refuse
from tests.support.books import NOW_MS, Book

FIRST, SECOND, THIRD = "2026-11-18", "2026-11-19", "2026-11-20"


@pytest.fixture
def holds(book: Book, monkeypatch: pytest.MonkeyPatch) -> list[Hold]:
    """Two requests on the first day, then one and a refused one on each of two days."""
    holds = [book.settled(), book.settled(Leg(input=7), Leg(output=1, model="other"))]
    for _ in (SECOND, THIRD):
        book.now_ms += DAY_MS
        holds.append(book.settled())
        refuse(book, "whatever")
    with book.write() as tx:
        record_free(tx, book)
    monkeypatch.setattr(Clock, "now_ms", lambda _: NOW_MS + 3 * DAY_MS)
    return holds


def ids(book: Book) -> list[bytes]:
    with book.read() as tx:
        return [row[0] for row in tx.execute("SELECT id FROM requests ORDER BY id")]


def everything_about_money(quick: Quick) -> list[object]:
    """All that must be the same before and after."""
    summaries = [quick.json("usage", "summary", "--by", by) for by in reports.GROUPINGS]
    return [quick.json("users", "list"), quick.json("credits", "list", "ann"), *summaries]


def test_old_requests_go_and_money_and_sums_stay(
    quick: Quick, book: Book, holds: list[Hold]
) -> None:
    before = everything_about_money(quick)
    ran = quick.run("usage", "prune", "--before", THIRD, "--yes")
    assert (ran.code, ran.out) == (0, "4 requests of before 2026-11-20 (UTC) pruned.\n")
    assert "llmproxy db vacuum" in ran.err
    assert len(ids(book)) == 3
    assert ids(book)[0] == holds[3].id
    assert everything_about_money(quick) == before
    quick.ok("ledger", "verify")
    with book.read() as tx:
        noted = tx.execute("SELECT before_day, actor, created_at_ms FROM prunes").fetchall()
        assert tx.execute("SELECT count(*) FROM holds").fetchone()[0] == len(holds)
    assert [tuple(row) for row in noted] == [
        (NOW_MS // DAY_MS + 2, "cli:olga", NOW_MS + 3 * DAY_MS),
    ]


def test_a_dry_run_and_a_no_delete_nothing(quick: Quick, book: Book, holds: list[Hold]) -> None:
    before = ids(book)
    ran = quick.run("usage", "prune", "--before", SECOND, "--dry-run")
    what = "2 requests of before 2026-11-19 (UTC) would be pruned, the oldest of 2026-11-18"
    assert ran.out == f"{what}.\n"
    assert quick.json("usage", "prune", "--before", SECOND, "--dry-run") == {
        "before": "2026-11-19T00:00:00.000Z",
        "requests": 2,
        "oldest_at": "2026-11-18T11:06:40.001Z",
        "deleted": 0,
        "free_bytes": 0,
    }
    said = quick.fails(2, "usage", "prune", "--before", SECOND)
    assert "Delete the details of 2 requests from 2026-11-18 to before 2026-11-19" in said
    assert "add --yes" in said
    assert ids(book) == before
    with book.read() as tx:
        assert reports.pruned_before_ms(tx) is None


@pytest.mark.parametrize(
    ("before", "left"),
    [("2026-11-19T23:59:59Z", 5), ("2026-11-20T02:00:00+03:00", 5), ("1d", 3), ("3d", 7)],
)
def test_whole_days_are_pruned(
    quick: Quick, book: Book, holds: list[Hold], before: str, left: int
) -> None:
    quick.ok("usage", "prune", "--before", before, "--yes")
    assert len(ids(book)) == left
    quick.ok("ledger", "verify")


def test_today_and_what_is_no_time_are_refused(quick: Quick, book: Book, holds: list[Hold]) -> None:
    assert "the latest is 2026-11-21" in quick.fails(
        2, "usage", "prune", "--before", "2026-11-22", "--yes"
    )
    quick.fails(2, "usage", "prune", "--before", "soon", "--yes")
    quick.fails(2, "usage", "prune")
    assert len(ids(book)) == 7
    ran = quick.run("usage", "prune", "--before", "2020-01-01")
    assert (ran.code, ran.out) == (0, "")
    assert "nothing to prune" in ran.err
    assert quick.json("usage", "prune", "--before", "2026-11-21", "--yes")["deleted"] == 7
    assert quick.json("usage", "prune", "--before", "2026-11-21", "--yes")["deleted"] == 0


def test_rows_go_in_slices_between_which_others_write(
    quick: Quick, book: Book, holds: list[Hold], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "SLICE_ROWS", 2)
    monkeypatch.setattr(pruning, "COUNTED_ROWS", 2)
    slices: list[int] = []

    def write_meanwhile(rows: int) -> None:
        slices.append(rows)
        book.placed("0.01")

    day = NOW_MS // DAY_MS + 2
    assert pruning.find_prunable(book.read, day) == (4, NOW_MS + 1)
    assert pruning.prune(book.write, day, on_deleted=write_meanwhile) == 4
    assert slices == [2, 2]
    assert ids(book)[0] == holds[3].id


def test_a_prune_that_was_cut_short_is_no_damage_and_can_go_on(
    quick: Quick, book: Book, holds: list[Hold], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pruning, "SLICE_ROWS", 1)
    real = pruning.prune

    def until_interrupted(write: pruning.Transaction, day: int, **_: object) -> int:
        def interrupt(rows: int) -> None:
            raise KeyboardInterrupt

        return real(write, day, on_deleted=interrupt)

    before = everything_about_money(quick)
    with monkeypatch.context() as patch:
        patch.setattr(pruning, "prune", until_interrupted)
        assert quick.run("usage", "prune", "--before", THIRD, "--yes").code != 0
    assert len(ids(book)) == 6
    quick.ok("ledger", "verify")
    assert everything_about_money(quick) == before
    assert quick.json("usage", "prune", "--before", THIRD, "--yes")["deleted"] == 3
    quick.ok("ledger", "verify")


def test_a_row_of_an_early_version_stays_when_it_came_before_midnight_by_its_id_alone(
    quick: Quick, book: Book, holds: list[Hold]
) -> None:
    """It counts on the day of its time of arrival, which was noted a moment later."""
    day = NOW_MS // DAY_MS + 1
    with book.write() as tx:
        tx.execute(
            "UPDATE requests SET created_at_ms = ? WHERE id = ?", (day * DAY_MS, holds[1].id)
        )
    assert pruning.prune(book.write, day) == 1
    assert ids(book)[0] == holds[1].id


def test_a_pruned_request_is_explained_by_what_the_ledger_keeps(
    quick: Quick, book: Book, holds: list[Hold]
) -> None:
    whole = quick.json("explain", request_id_text(holds[0].id))
    refused = ids(book)[3]
    quick.ok("usage", "prune", "--before", THIRD, "--yes")
    pruned = quick.json("explain", request_id_text(holds[0].id))
    assert (whole["pruned"], pruned["pruned"]) == (False, True)
    same = (
        *("state", "basis", "user", "key", "provider", "model", "created_at", "ended_at"),
        *("hold_usd", "cost_usd", "charged_usd", "shortfall_usd", "user_multiplier", "agrees"),
    )
    assert [pruned[name] for name in same] == [whole[name] for name in same]
    assert (pruned["lines"], pruned["usage"]) == ([], None)
    text = quick.ok("explain", request_id_text(holds[0].id))
    assert "details   pruned (llmproxy usage prune)" in text
    assert "ended     2026-11-18 11:06:41 UTC" in text
    assert "charged    USD  0.009" in text
    assert "pruned" not in quick.ok("explain", request_id_text(holds[3].id))
    said = quick.fails(3, "explain", request_id_text(refused))
    assert "Refused and free requests from before 2026-11-20 have been pruned" in said


def test_lists_and_sums_say_what_was_pruned_of_what_was_asked_for(
    quick: Quick, book: Book, holds: list[Hold], tmp_path: Path
) -> None:
    quick.ok("usage", "prune", "--before", THIRD, "--yes")
    said = "Requests from before 2026-11-20 (UTC) have been pruned"
    file = str(tmp_path / "usage.csv")
    for command, is_told in (
        (("usage", "requests"), True),
        (("usage", "requests", "--limit", "1"), False),
        (("usage", "requests", "--since", SECOND), True),
        (("usage", "requests", "--since", THIRD), False),
        (("usage", "export", "-o", file), True),
        (("usage", "export", "-o", file, "--yes", "--since", THIRD), False),
        (("usage", "summary"), False),
        (("usage", "summary", "--since", FIRST, "--until", THIRD), False),
        (("usage", "summary", "--since", "2026-11-18T08:00"), True),
        (("usage", "summary", "--until", "2026-11-19T08:00"), True),
        (("usage", "summary", "--since", "2026-11-20T08:00"), False),
    ):
        assert (said in quick.run(*command).err) == is_told, command
    part = quick.json("usage", "summary", "--since", "2026-11-18T08:00", "--until", THIRD)
    assert (part["pruned_before"], part["total"]["requests"]) == ("2026-11-20T00:00:00.000Z", 1)
    whole = quick.json("usage", "summary", "--since", FIRST, "--until", THIRD)
    assert (whole["pruned_before"], whole["total"]["requests"]) == (None, 3)


def test_a_vacuum_gives_the_room_back_and_a_backup_does_not(
    quick: Quick, book: Book, tmp_path: Path
) -> None:
    with book.write() as tx:
        tx.execute("CREATE TABLE ballast(data BLOB) STRICT")
        tx.execute("INSERT INTO ballast VALUES(zeroblob(1000000))")
        tx.execute("DROP TABLE ballast")
    copy = quick.json("db", "backup", str(tmp_path / "copy.db"))
    assert copy["bytes"] > 1_000_000
    book.close()
    sizes = quick.json("db", "vacuum")
    assert sizes["bytes_before"] > 1_000_000
    assert sizes["bytes"] == quick.database.stat().st_size < 300_000
    with closing(sqlite3.connect(quick.database)) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    quick.ok("ledger", "verify")


def test_a_vacuum_is_refused_while_a_server_runs(quick: Quick, book: Book) -> None:
    lock = book.database.files.serving_lock
    lock.acquire("pid 41")
    assert "already running" in quick.fails(4, "db", "vacuum")
    lock.release()
