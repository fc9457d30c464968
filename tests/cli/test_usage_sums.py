"""Sums and exports of requests, on the command line."""

import csv
import io
import json
import re
from pathlib import Path

import msgspec
import pytest

from llmproxy import accounts, crediting, ledger, reports
from llmproxy.clock import RequestIds
from llmproxy.money import parse_usd
from llmproxy.storage.database import Tx
from llmproxy.usage import Leg
from tests.cli.conftest import Program, Quick
from tests.support.books import NOW_MS, Book

DAY_MS = 86_400_000
EMPTY = {
    "requests": 0,
    "refused": 0,
    "usage": dict.fromkeys(reports.USAGE_CLASSES, 0),
    "cost_usd": "0.00",
    "charged_usd": "0.00",
    "shortfall_usd": "0.00",
}


@pytest.fixture
def month(book: Book) -> Book:
    """Two requests on one day, two on the next (one refused, one above its credit), one running."""
    book.settled(Leg(input=1000, cache_read=200, output=100, reasoning=40))
    book.settled(Leg(input=1000), Leg(output=50, model="other"))
    book.now_ms += DAY_MS
    refuse(book, "=HYPERLINK(1)")
    last = book.placed("9")
    with book.write() as tx:
        outcome = msgspec.structs.replace(book.outcome(), model="gpt-large")
        end = ledger.End("settled", "hold", parse_usd("12"), outcome, book.now_ms)
        ledger.end_hold(tx, last, end)
        crediting.credit(
            tx, book.wallet_id, parse_usd("1"), actor="test", reason=None, now_ms=book.now_ms
        )
    book.placed("0.5")
    return book


def refuse(book: Book, model: str) -> None:
    book.now_ms += 1
    outcome = msgspec.structs.replace(book.outcome(), status=400, model=model, ttfb_ms=None)
    with book.write() as tx:
        ledger.record_unheld(
            tx,
            RequestIds().new(book.now_ms),
            api_key_id=1,
            endpoint="chat/completions",
            outcome=outcome,
            now_ms=book.now_ms,
        )


def record_free(tx: Tx, book: Book) -> None:
    """A request that held nothing, as counting tokens does."""
    book.now_ms += 1
    ledger.record_unheld(
        tx,
        RequestIds().new(book.now_ms),
        api_key_id=1,
        endpoint="messages/count_tokens",
        outcome=book.outcome(),
        now_ms=book.now_ms,
        state="settled",
    )


def test_days_are_summed_with_exact_money_and_a_total(quick: Quick, month: Book) -> None:
    summary = quick.json("usage", "summary")
    assert [(row["day"], row["requests"], row["refused"]) for row in summary["rows"]] == [
        ("2026-11-18", 2, 0),
        ("2026-11-19", 1, 1),
    ]
    # (1000 × 2.50 + 200 × 1.25 + 100 × 10) / 1M × 1.2, and (1000 × 2.50 + 50 × 10) / 1M × 1.2
    assert summary["rows"][0]["charged_usd"] == "0.0081"
    assert summary["rows"][0]["usage"] == {
        "input": 2000,
        "cache_read": 200,
        "cache_write_5m": 0,
        "cache_write_1h": 0,
        "output": 150,
        "reasoning": 40,
        "web_searches": 0,
    }
    total = summary["total"]
    assert (total["requests"], total["refused"], total["cost_usd"]) == (3, 1, "12.0081")
    # Ann had 10: what is missing to the cost of her last answer is a shortfall.
    assert (total["charged_usd"], total["shortfall_usd"]) == ("10.00", "2.0081")


def test_the_dearest_group_comes_first_and_the_limit_leaves_the_total_whole(
    quick: Quick, month: Book
) -> None:
    by_model = quick.json("usage", "summary", "--by", "model")
    assert [row["model"] for row in by_model["rows"]] == [
        "openai/gpt-large",
        "openai/gpt-test",
        "openai (no model)",
    ]
    ran = quick.run("usage", "summary", "--by", "model", "--limit", "1", "--json")
    cut = json.loads(ran.out)
    assert (cut["rows"], cut["total"]) == (by_model["rows"][:1], by_model["total"])
    assert ran.err.startswith("… more.")
    assert [row["day"] for row in quick.json("usage", "summary", "--limit", "1")["rows"]] == [
        "2026-11-19"
    ]
    for by, name in (("user", "ann"), ("provider", "openai"), ("key", "ann/laptop")):
        assert [row[by] for row in quick.json("usage", "summary", "--by", by)["rows"]] == [name]
    assert "choose one of day" in quick.fails(2, "usage", "summary", "--by", "colour")


def test_what_names_no_model_is_not_summed_under_an_empty_name(quick: Quick, month: Book) -> None:
    month.now_ms += DAY_MS
    refuse(month, "")
    names = [row["model"] for row in quick.json("usage", "summary", "--by", "model")["rows"]]
    assert "openai (no model)" in names
    assert "openai (no model)" in quick.ok("usage", "requests")
    with month.write() as tx:
        record_free(tx, month)
    with month.read() as tx:
        sums = reports.sum_own(
            tx, month.user_id, "model", since_ms=0, until_ms=month.now_ms + 1, limit=10
        )
    assert "openai (no model)" in [each.name for each in sums]


def test_sums_are_of_what_was_chosen(quick: Quick, month: Book) -> None:
    assert quick.json("usage", "summary", "--until", "2026-11-19")["total"]["requests"] == 2
    assert quick.json("usage", "summary", "--since", "2026-11-19")["total"]["requests"] == 1
    assert quick.json("usage", "summary", "--key", "laptop")["total"]["requests"] == 3
    nothing = quick.json("usage", "summary", "--key", "desk")
    assert (nothing["rows"], nothing["total"]) == ([], EMPTY)
    assert quick.run("usage", "summary", "--key", "desk").err == "No requests that have ended.\n"
    quick.fails(3, "usage", "summary", "--user", "zoe")


def test_a_pipe_gets_plain_columns_and_the_total_last(quick: Quick, month: Book) -> None:
    lines = quick.ok("usage", "summary", "--by", "user").splitlines()
    assert [line.split()[:5] for line in lines] == [
        ["USER", "REQUESTS", "INPUT", "CACHED", "OUTPUT"],
        ["ann", "3", "2,200", "200", "150"],
        ["total", "3", "2,200", "200", "150"],
    ]


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_terminal_gets_bars_that_fit_into_its_width(program: Program, columns: int) -> None:
    book = Book(program.database)
    book.settled()
    book.now_ms += DAY_MS
    book.settled(Leg(input=100))
    book.close()
    ran = program.run_in_terminal("usage", "summary", COLUMNS=str(columns))
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.out).splitlines()
    table = shown[next(i for i, line in enumerate(shown) if line.startswith("DAY")) :]
    assert "█" in table[1]
    assert max(len(line) for line in table) <= columns
    assert table[1].count("█") > table[2].count("█")


def test_an_export_has_every_field_of_every_request(quick: Quick, month: Book) -> None:
    expected = list(reversed(quick.json("usage", "requests", "--limit", "0")))
    lines = quick.ok("usage", "export", "--format", "jsonl").splitlines()
    assert [json.loads(line) for line in lines] == expected
    rows = list(csv.DictReader(io.StringIO(quick.ok("usage", "export"))))
    flat = [name for name in rows[0] if not name.startswith("usage_")]
    assert flat == [name for name in expected[0] if name != "usage"]
    assert [row["id"] for row in rows] == [row["id"] for row in expected]
    assert (rows[0]["usage_cache_read"], rows[0]["stream"], rows[0]["cost_usd"]) == (
        "200",
        "true",
        expected[0]["cost_usd"],
    )
    assert (rows[-1]["state"], rows[-1]["usage_input"], rows[-1]["duration_ms"]) == ("open", "", "")


def test_no_cell_of_an_export_is_a_formula(quick: Quick, book: Book) -> None:
    models = ["=1+1", "+1", "-1", "@sum", "\t=x", "\r\nx", "gpt-4o"]
    for model in models:
        refuse(book, model)
    rows = csv.DictReader(io.StringIO(quick.ok("usage", "export"), newline=""))
    assert [row["model"] for row in rows] == ["'=1+1", "'+1", "'-1", "'@sum", "'=x", "x", "gpt-4o"]
    lines = quick.ok("usage", "export", "--format", "jsonl").splitlines()
    assert [json.loads(line)["model"] for line in lines] == models


def test_an_export_to_a_file_is_whole_private_and_replaces_nothing_unasked(
    quick: Quick, month: Book, tmp_path: Path
) -> None:
    file = tmp_path / "usage.csv"
    ran = quick.run("usage", "export", "-o", str(file))
    assert (ran.code, ran.out) == (0, "")
    assert ran.err == f"5 requests written to {file}.\n"
    assert file.stat().st_mode & 0o777 == 0o600
    first = file.read_text()
    assert "add --yes" in quick.fails(2, "usage", "export", "-o", str(file), "--user", "ann")
    quick.ok("usage", "export", "-o", str(file), "--until", "2020-01-01", "--yes")
    assert file.read_text() == first.partition("\n")[0] + "\n"
    missing = tmp_path / "no" / "where.csv"
    assert "cannot be written" in quick.fails(2, "usage", "export", "-o", str(missing))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["home", "usage.csv"]
    quick.fails(2, "usage", "export", "--format", "xlsx")


def test_pages_hold_every_request_once_and_none_that_was_not_chosen(book: Book) -> None:
    holds = [book.settled() for _ in range(7)]
    running = [book.placed("0.1") for _ in range(2)]
    with book.write() as tx:
        other = accounts.create_user(tx, "ben", now_ms=NOW_MS)
    everything = [hold.id for hold in (*holds, *running)]
    for page_rows in (1, 2, 3, 9, 100):
        pages = list(reports.request_pages(book.read, reports.RequestFilter(), page_rows=page_rows))
        assert [row.id for page in pages for row in page] == everything
        assert all(len(page) <= page_rows for page in pages)
    for wanted, count in (
        (reports.RequestFilter(user_id=other.id), 0),
        (reports.RequestFilter(state="open"), 2),
        (reports.RequestFilter(state="settled", since_ms=holds[3].created_at_ms), 4),
    ):
        found = [r for page in reports.request_pages(book.read, wanted, page_rows=3) for r in page]
        assert len(found) == count


def test_a_writer_gets_in_between_two_pages(book: Book) -> None:
    """No page holds a read transaction open: what is committed meanwhile can be checkpointed."""
    for _ in range(4):
        book.settled()
    pages = reports.request_pages(book.read, reports.RequestFilter(), page_rows=2)
    next(pages)
    with book.write() as tx:
        tx.execute("UPDATE users SET rate_multiplier_micro = 1")
    book.settled()
    assert [len(page) for page in pages] == [2, 1]
