"""The pool: what users hold as credit, against what the operator says to hold at providers."""

import msgspec
import pytest

from llmproxy import ledger, pool
from llmproxy.clock import Clock
from llmproxy.money import format_usd
from llmproxy.pricing import PricedModel, price
from llmproxy.rollups import DAY_MS
from llmproxy.usage import Leg, Usage
from tests.cli.conftest import Quick
from tests.support.books import NOW_MS, PRICES, Book

COST = 7_800_000
"""Of one settled request, in nano-USD."""
MIDNIGHT_MS = NOW_MS - NOW_MS % DAY_MS + DAY_MS


def settle(book: Book, at_ms: int, provider: str = "openai") -> None:
    """A request that came at a moment and has cost COST."""
    with book.write() as tx:
        book.price_version = ledger.pin_prices(
            tx, provider, "gpt-test", PRICES.canonical_json(), now_ms=at_ms
        )
    book.now_ms = at_ms - 1
    hold = book.placed()
    usage = Usage((Leg(input=1200, cache_read=0, output=350),))
    cost = price(
        usage,
        PricedModel("gpt-test", PRICES, book.price_version),
        user_multiplier_micro=hold.user_multiplier_micro,
        model_multiplier_micro=hold.model_multiplier_micro,
    )
    assert cost.nanousd == COST
    outcome = msgspec.structs.replace(book.outcome(usage, cost), provider=provider)
    with book.write() as tx:
        end = ledger.End("settled", "usage", cost.nanousd, outcome, at_ms + 10)
        ledger.end_hold(tx, hold, end)


def at(monkeypatch: pytest.MonkeyPatch, now_ms: int) -> None:
    monkeypatch.setattr(Clock, "now_ms", lambda _: now_ms)


def test_what_is_told_less_what_was_spent_since_is_left(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    told_ms = MIDNIGHT_MS + 5 * 3_600_000
    settle(book, MIDNIGHT_MS - 1)
    settle(book, told_ms - 1)
    at(monkeypatch, told_ms)
    quick.ok("pool", "set", "openai", "100")
    for at_ms in (told_ms, told_ms + 1, MIDNIGHT_MS + DAY_MS, MIDNIGHT_MS + 9 * DAY_MS):
        settle(book, at_ms)
    settle(book, told_ms + 7, "anthropic")
    shown = quick.json("pool", "show")
    assert shown["providers"] == [
        {
            "provider": "openai",
            "told_usd": "100.00",
            "told_at": "2026-11-19T05:00:00.000Z",
            "by": "cli:olga",
            "spent_usd": format_usd(4 * COST),
            "left_usd": format_usd(100 * 10**9 - 4 * COST),
        }
    ]
    assert shown["sold_usd"] == format_usd(10 * 10**9 - 7 * COST)
    assert (shown["held_usd"], shown["lacking_usd"], shown["untold"]) == ("0.00", "0.00", [])
    assert quick.run("pool", "show").err == ""


@pytest.mark.parametrize("hours", [0, 1, 5, 23, 24, 25, 47, 48, 100])
def test_what_was_spent_is_by_when_requests_came_at_whatever_moment_it_is_told(
    quick: Quick, book: Book, hours: int
) -> None:
    told_ms = MIDNIGHT_MS + hours * 3_600_000
    came = [MIDNIGHT_MS + step * 3_600_000 + extra for step in range(0, 60, 6) for extra in (0, 1)]
    for at_ms in came:
        settle(book, at_ms)
    with book.write() as tx:
        pool.tell_funds(tx, "openai", 10**12, actor="test", now_ms=told_ms)
        (fund,) = pool.find_pool(tx).funds
    assert fund.spent_nanousd == COST * sum(at_ms >= told_ms for at_ms in came)


def test_pruned_requests_and_running_ones(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was pruned has cost what it has; what runs has cost nothing yet."""
    told_ms = MIDNIGHT_MS + 5 * 3_600_000
    at(monkeypatch, told_ms)
    quick.ok("pool", "set", "openai", "100")
    settle(book, told_ms + 5)
    book.placed("2")
    at(monkeypatch, told_ms + 3 * DAY_MS)
    quick.ok("usage", "prune", "--before", "0d", "--yes")
    shown = quick.json("pool", "show")
    assert shown["providers"][0]["spent_usd"] == format_usd(COST)
    assert shown["held_usd"] == "2.00"


def test_the_newest_of_what_was_told_counts(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, NOW_MS + 10)
    quick.ok("pool", "set", "openai", "100")
    settle(book, NOW_MS + 20)
    at(monkeypatch, NOW_MS + 30)
    told = quick.json("pool", "set", "openai", "50.5")
    assert (told["told_usd"], told["spent_usd"], told["left_usd"]) == ("50.50", "0.00", "50.50")
    quick.ok("pool", "set", "groq", "1")
    assert [each["provider"] for each in quick.json("pool", "show")["providers"]] == [
        "groq",
        "openai",
    ]
    assert quick.json("pool", "show")["left_usd"] == "51.50"


def test_where_more_was_sold_than_is_held_everybody_hears_of_it(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, NOW_MS + 10)
    assert "pool" not in {check["name"] for check in quick.json("doctor")["checks"]}
    said = "users hold 10.00 USD of credit, 9.00 USD more than the estimated 1.00 USD"
    assert said in quick.run("pool", "set", "openai", "1").err
    assert said in quick.run("pool", "show").err
    (check,) = [each for each in quick.json("doctor")["checks"] if each["name"] == "pool"]
    assert check["status"] == "warn"
    assert said in check["message"]
    assert "llmproxy pool set" in check["advice"]
    assert quick.run("pool", "set", "openai", "10").err == ""
    (check,) = [each for each in quick.json("doctor")["checks"] if each["name"] == "pool"]
    assert check["status"] == "ok"


def test_nothing_is_left_where_more_was_spent_than_was_told(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    at(monkeypatch, NOW_MS + 10)
    quick.ok("pool", "set", "openai", "0.001")
    quick.ok("pool", "set", "groq", "20")
    settle(book, NOW_MS + 20)
    shown = quick.json("pool", "show")
    assert [each["left_usd"] for each in shown["providers"]] == ["20.00", "0.00"]
    assert (shown["left_usd"], shown["lacking_usd"]) == ("20.00", "0.00")


def test_what_cannot_be_told_is_refused(quick: Quick, book: Book) -> None:
    assert "Known: " in quick.fails(3, "pool", "set", "nobody", "1")
    quick.fails(2, "pool", "set", "openai", "much")
    assert "below zero" in quick.fails(2, "pool", "set", "openai", "--", "-1")
    assert quick.json("pool", "show") == {
        "sold_usd": "10.00",
        "held_usd": "0.00",
        "left_usd": None,
        "lacking_usd": None,
        "providers": [],
        "untold": [],
    }
    ran = quick.run("pool", "show")
    assert "llmproxy pool set openai" in ran.err
    assert "Warning" not in ran.err


def test_days_and_parts_are_read_by_their_keys(book: Book) -> None:
    """A million requests are not walked through: neither the table of sums nor that of holds."""
    with book.read() as tx:
        plans = {
            name: " / ".join(
                row["detail"] for row in tx.execute("EXPLAIN QUERY PLAN " + statement, bounds)
            )
            for name, statement, bounds in (
                ("days", pool._DAYS, {"first_day": 1, "provider": "openai"}),
                ("part", pool._PART, {"since": b"", "until": b"", "provider": "openai"}),
            )
        }
    assert "SEARCH requests_by_day USING PRIMARY KEY (user_id=? AND day>?)" in plans["days"]
    assert "SEARCH holds USING PRIMARY KEY (id>? AND id<?)" in plans["part"]
