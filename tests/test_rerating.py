"""What past requests would have cost by another catalog: exact, streamed, and nothing changed.

The prices of the books are 2.50 in, 10 out, 1.25 cached USD per million tokens, and its user pays
1.2 times. All expected sums are worked out by hand from the rates of the catalog given.
"""

import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy import ledger, rerating
from llmproxy.catalog import Catalog
from llmproxy.catalog_parser import parse_entry
from llmproxy.rerating import Rerating, Sum, Why
from llmproxy.usage import Leg, Usage
from tests.support.books import NOW_MS, Book

HOUR_MS = 3_600_000


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    book = Book(tmp_path / "books.db")
    yield book
    book.close()


def catalog(**models: dict[str, Any]) -> Catalog:
    """Return a catalog of OpenAI's models; `gpt_test` stands for `gpt-test`."""
    names = {name: name.replace("_", "-") for name in models}
    entries = [parse_entry("openai", names[name], entry) for name, entry in models.items()]
    return Catalog("2027-01-01", entries)


def rerated(book: Book, other: Catalog) -> Rerating:
    return rerating.rerate(book.read, other, since_ms=NOW_MS, until_ms=NOW_MS + HOUR_MS)


DEARER = catalog(gpt_test={"in_price": "5", "out_price": "10", "prices": {"cache_read": "1"}})


def test_each_user_s_requests_are_priced_again_at_their_own_multiplier(book: Book) -> None:
    # 1200 × 2.5 + 800 × 1.25 + 350 × 10 = 7500 µUSD, × 1.2 = 9000 µUSD
    book.settled()
    # 1000 × 2.5 = 2500 µUSD, × 1.2 = 3000 µUSD
    book.settled(Leg(input=1000))
    before = dump(book)
    found = rerated(book, DEARER)
    # 1200 × 5 + 800 × 1 + 350 × 10 = 10300 µUSD, × 1.2 = 12360 µUSD; 1000 × 5 × 1.2 = 6000 µUSD
    assert found.users == {"ann": Sum(2, 12_000_000, 18_360_000)}
    assert found.total == found.users["ann"]
    assert found.total.difference_nanousd == 6_360_000
    assert found.left_out == {}
    assert dump(book) == before


def dump(book: Book) -> list[str]:
    with sqlite3.connect(book.path) as connection:
        return list(connection.iterdump())


def test_the_model_s_multiplier_is_the_other_catalog_s(book: Book) -> None:
    book.settled(Leg(input=1000))
    entry = {"in_price": "2.5", "out_price": "10", "multiplier": "1.5"}
    # 1000 × 2.5 × 1.2 × 1.5 = 4500 µUSD
    assert rerated(book, catalog(gpt_test=entry)).users["ann"].new_nanousd == 4_500_000


def test_each_cost_is_rounded_up_by_itself(book: Book) -> None:
    for _ in range(3):
        book.settled(Leg(input=1))
    entry = {"in_price": "0.0001", "out_price": "10"}
    # 1 token × 0.1 nano-USD × 1.2 = 0.12 nano-USD, three times one nano-USD
    assert rerated(book, catalog(gpt_test=entry)).total.new_nanousd == 3


def test_tiers_variants_and_regions_of_the_other_catalog_count(book: Book) -> None:
    hold = book.placed()
    usage = Usage((Leg(input=3000, output=10),), service_tier="flex", geo="us")
    settle(book, hold, usage)
    entry = {
        "in_price": "9",
        "out_price": "9",
        "geo_multiplier": {"us": "1.1"},
        "variants": [
            {
                "when": {"service_tier": ["flex"]},
                "in_price": "9",
                "out_price": "9",
                "tiers": [{"above_input_tokens": 2999, "in_price": "1", "out_price": "2"}],
            }
        ],
    }
    # (3000 × 1 + 10 × 2) × 1.1 × 1.2 = 3986.4 µUSD
    assert rerated(book, catalog(gpt_test=entry)).total.new_nanousd == 3_986_400


def settle(book: Book, hold: ledger.Hold, usage: Usage, nanousd: int = 1000) -> None:
    with book.write() as tx:
        outcome = book.outcome(usage)
        ledger.end_hold(tx, hold, ledger.End("settled", "usage", nanousd, outcome, book.now_ms))


def test_another_model_s_part_is_priced_as_that_model(book: Book) -> None:
    legs = (Leg(input=100), Leg(input=100, model="gpt-other"), Leg(output=1, model="gpt-test"))
    settle(book, book.placed(), Usage(legs))
    both: dict[str, dict[str, Any]] = {
        "gpt_test": {"in_price": "1", "out_price": "10"},
        "gpt_big": {"in_price": "7", "out_price": "7", "aliases": ["gpt-other"]},
    }
    # (100 × 1 + 100 × 7 + 1 × 10) × 1.2 = 972 µUSD
    assert rerated(book, catalog(**both)).total.new_nanousd == 972_000
    # Without it the dearest of the provider counts, as it does when it is charged.
    both["gpt_big"] = {"in_price": "8", "out_price": "11"}
    both["gpt_test"] = {"in_price": "7", "out_price": "10"}
    # (100 × 7 + 100 × 8 + 1 × 10) × 1.2 = 1812 µUSD
    assert rerated(book, catalog(**both)).total.new_nanousd == 1_812_000
    del both["gpt_big"]
    # (100 × 7 + 100 × 7 + 1 × 10) × 1.2 = 1692 µUSD
    assert rerated(book, catalog(**both)).total == Sum(1, 1000, 1_692_000)


def test_tokens_say_nothing_of_what_a_model_costs_by_time(book: Book) -> None:
    book.settled(Leg(input=1000))
    by_time = {"mode": "audio", "in_price": "0", "out_price": "0", "prices": {"audio_hour": "1"}}
    found = rerated(book, catalog(gpt_test=by_time))
    assert found.left_out == {Why.OTHER_MEASURE: Sum(1, 3_000_000, 0)}
    free = {"in_price": "0", "out_price": "0"}
    assert rerated(book, catalog(gpt_test=free)).total == Sum(1, 3_000_000, 0)


def test_nor_does_time_say_what_it_costs_by_tokens(book: Book) -> None:
    settle(book, book.placed(), Usage((Leg(audio_seconds=9),)))
    assert rerated(book, DEARER).left_out == {Why.OTHER_MEASURE: Sum(1, 1000, 0)}


def test_what_cannot_be_rated_is_counted_by_its_reason(book: Book) -> None:
    book.settled(Leg(input=1000))
    assert rerated(book, catalog()).left_out == {Why.NO_MODEL: Sum(1, 3_000_000, 0)}
    with book.write() as tx:
        tx.execute("UPDATE requests SET usage = '{'")
    assert rerated(book, DEARER).left_out == {Why.UNREADABLE: Sum(1, 3_000_000, 0)}
    with book.write() as tx:
        tx.execute("DELETE FROM requests")
    assert rerated(book, DEARER).left_out == {Why.PRUNED: Sum(1, 3_000_000, 0)}
    assert rerated(book, DEARER).total == Sum(0, 0, 0)


def test_what_was_charged_without_a_usage_is_counted_by_its_reason(book: Book) -> None:
    by_hold, cut, released, _open = (book.placed("0.5") for _ in range(4))
    with book.write() as tx:
        outcome = book.outcome()
        end = ledger.End("settled", "hold", 500_000_000, outcome, book.now_ms)
        ledger.end_hold(tx, by_hold, end)
        ledger.end_hold(tx, released, ledger.released(outcome, at_ms=book.now_ms))
        ledger.note_seen(tx, cut, 7000)
    with book.write() as tx:
        tx.execute(
            """UPDATE holds SET state = 'expired', basis = 'estimate', cost_nanousd = 7000,
                 charged_nanousd = 7000, shortfall_nanousd = 0, ended_at_ms = created_at_ms
               WHERE id = ?""",
            (cut.id,),
        )
    found = rerated(book, DEARER)
    assert found.left_out == {Why.BY_HOLD: Sum(1, 500_000_000, 0), Why.CUT_OFF: Sum(1, 7000, 0)}
    assert found.users == {}


def test_only_the_span_counts_and_pages_lose_nothing(
    book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    for _ in range(7):
        book.settled(Leg(input=1000))
    times = [NOW_MS + n for n in range(1, 8)]
    monkeypatch.setattr(rerating, "PAGE_ROWS", 2)
    seen: list[tuple[int, int]] = []
    found = rerating.rerate(
        book.read,
        DEARER,
        since_ms=times[1],
        until_ms=times[6],
        on_progress=lambda *each: seen.append(each),
    )
    assert found.total == Sum(5, 15_000_000, 30_000_000)
    assert seen == [(2, 5), (4, 5), (5, 5)]


def test_the_largest_differences_come_first(book: Book) -> None:
    found = Rerating({"a": Sum(1, 5, 6), "b": Sum(1, 9, 2), "c": Sum(1, 3, 3), "d": Sum(1, 0, 1)})
    assert [name for name, _ in found.by_difference()] == ["b", "a", "d"]


def of_model(book: Book, other: Catalog, name: str, provider: str = "openai") -> rerating.Span:
    """Price the requests of one model again, to the end of the span."""
    only = other.find(provider, name)
    assert only is not None
    span = rerating.Span(other, since_ms=NOW_MS, until_ms=NOW_MS + HOUR_MS, only=only)
    while not span.is_done:
        with book.read() as tx:
            span.rate_page(tx)
    return span


def test_of_one_model_only_what_it_has_a_part_in_counts(book: Book) -> None:
    book.settled(Leg(input=1000))
    legs = (Leg(input=100), Leg(input=100, model="gpt-other"))
    settle(book, book.placed(), Usage(legs))
    both = catalog(
        gpt_test={"in_price": "1", "out_price": "10"},
        gpt_big={"in_price": "7", "out_price": "7", "aliases": ["gpt-other"]},
        gpt_third={"in_price": "1", "out_price": "1"},
    )
    # (100 × 1 + 100 × 7) × 1.2 = 960 µUSD; the other one: 1000 × 1 × 1.2 = 1200 µUSD
    assert of_model(book, both, "gpt-big").rerating.users == {"ann": Sum(1, 1000, 960_000)}
    both_rated = Sum(2, 3_001_000, 2_160_000)
    assert of_model(book, both, "gpt-test").rerating.users == {"ann": both_rated}
    assert of_model(book, both, "gpt-third").rerating == Rerating()
    guessed = catalog(
        gpt_test={"in_price": "1", "out_price": "10"},
        gpt_dear={"in_price": "7", "out_price": "70"},
    )  # the provider's dearest counts for what has no price
    assert of_model(book, guessed, "gpt-dear").rerating.users == {"ann": Sum(1, 1000, 960_000)}
    renamed = catalog(gpt_new={"in_price": "1", "out_price": "1", "aliases": ["gpt-test"]})
    assert of_model(book, renamed, "gpt-new").rerating.users["ann"].requests == 2
    with book.write() as tx:
        tx.execute("UPDATE requests SET usage = '{'")
    assert of_model(book, both, "gpt-big").rerating == Rerating()
    assert of_model(book, both, "gpt-test").rerating.left_out == {
        Why.UNREADABLE: Sum(2, 3_001_000, 0)
    }
    other = parse_entry("else", "gpt-test", {"in_price": "1", "out_price": "1"})
    assert of_model(book, Catalog("2027-01-01", [other]), "gpt-test", "else").rerating == Rerating()


def test_a_span_says_how_far_back_it_has_gone(book: Book, monkeypatch: pytest.MonkeyPatch) -> None:
    for _ in range(3):
        book.settled(Leg(input=1000))
    monkeypatch.setattr(rerating, "PAGE_ROWS", 2)
    span = rerating.Span(DEARER, since_ms=NOW_MS, until_ms=NOW_MS + HOUR_MS)
    with book.read() as tx:
        span.rate_page(tx)
    assert (span.is_done, span.seen_since_ms) == (False, NOW_MS + 2)
    assert span.rerating.total == Sum(2, 6_000_000, 12_000_000)
    with book.read() as tx:
        span.rate_page(tx)
    assert (span.is_done, span.seen_since_ms) == (True, NOW_MS)
    assert span.rerating.total.requests == 3
