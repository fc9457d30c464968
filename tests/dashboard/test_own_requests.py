"""Looking at a user's requests in bounded steps: nothing is left out, nothing comes twice."""

import random
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest

from llmproxy import accounts, ledger, reports
from llmproxy.clock import RequestIds
from llmproxy.reports import Look, RequestFilter
from tests.support.books import NOW_MS, PRICES, Book

DAY_MS = 86_400_000
FILTERS: tuple[dict[str, Any], ...] = (
    {},
    {"model": "gpt-a"},
    {"model": "gpt-test"},
    {"provider": "groq"},
    {"provider": "groq", "model": "gpt-b"},
    {"key": "laptop"},
    {"key": "other"},
    {"key": "nobody"},
    {"state": "open"},
    {"state": "settled"},
    {"state": "refused", "model": "gpt-a"},
    {"state": "released"},
    {"since_ms": NOW_MS + DAY_MS, "until_ms": NOW_MS + 2 * DAY_MS},
    {"since_ms": NOW_MS + DAY_MS, "model": "gpt-b"},
)


@pytest.fixture
def past(book: Book) -> Book:
    """Eighty requests of three days, in many ways; some still run. Another user has some too."""
    chance = random.Random(7)  # the same past each time
    with book.write() as tx:
        ann = accounts.find_user(tx, "ann")
        accounts.create_api_key(tx, ann, "other", now_ms=NOW_MS)
        eve = accounts.create_user(tx, "eve", now_ms=NOW_MS)
        accounts.create_api_key(tx, eve, "laptop", now_ms=NOW_MS)
    for _ in range(60):
        user_id, key_id = chance.choice([(ann.id, 1), (ann.id, 2), (eve.id, 3)])
        outcome = msgspec.structs.replace(
            book.outcome(),
            user_id=user_id,
            provider=chance.choice(["openai", "groq"]),
            model=chance.choice(["gpt-a", "gpt-b"]),
        )
        at_ms = NOW_MS + chance.randrange(3 * DAY_MS)
        with book.write() as tx:
            ledger.record_unheld(
                *(tx, RequestIds().new(at_ms)),
                api_key_id=key_id,
                endpoint="chat/completions",
                outcome=outcome,
                now_ms=at_ms,
                state=chance.choice(["refused", "settled"]),
            )
    for _ in range(20):
        book.now_ms = NOW_MS + chance.randrange(3 * DAY_MS)
        if chance.random() < 0.5:
            book.settled(amount="0.01")
        else:
            book.placed("0.01")
    return book


def back(book: Book, wanted: RequestFilter, limit: int, most: int) -> Iterator[Look]:
    go_on = wanted.before
    while True:
        with book.read() as tx:
            asked = msgspec.structs.replace(wanted, before=go_on)
            look = reports.look_back(tx, asked, limit=limit, most=most)
        yield look
        if look.go_on is None:
            return
        assert go_on is None or look.go_on < go_on
        go_on = look.go_on


@pytest.mark.parametrize("given", FILTERS, ids=str)
@pytest.mark.parametrize(("limit", "most"), [(3, 1), (3, 5), (7, 2), (100, 4), (5, 100)])
def test_both_ways_lead_past_each_request_once(
    past: Book, given: dict[str, Any], limit: int, most: int
) -> None:
    wanted = RequestFilter(user_id=past.user_id, **given)
    with past.read() as tx:
        all_of_them = [row.id for row in reports.list_requests(tx, wanted, limit=-1)]
    looks = list(back(past, wanted, limit, most))
    assert [row.id for look in looks for row in look.rows] == all_of_them
    assert all(len(look.rows) <= limit for look in looks)

    found, after = [], bytes(16)
    while True:
        with past.read() as tx:
            look = reports.look_ahead(tx, wanted, after, limit=limit, most=most)
        found += [row.id for row in look.rows]
        assert len(look.rows) <= limit
        if look.go_on is None:
            break
        assert look.go_on > after
        after = look.go_on
    assert found == all_of_them[::-1]


def test_days_without_such_requests_are_not_looked_at(book: Book) -> None:
    book.now_ms = NOW_MS - 30 * DAY_MS
    rare = book.settled(amount="0.01")
    for day in range(10):
        book.now_ms = NOW_MS + day * DAY_MS
        with book.write() as tx:
            book.price_version = ledger.pin_prices(
                tx, "openai", "gpt-common", PRICES.canonical_json(), now_ms=NOW_MS
            )
        hold = book.placed("0.01")
        outcome = msgspec.structs.replace(book.outcome(), model="gpt-common")
        with book.write() as tx:
            ledger.end_hold(tx, hold, ledger.End("released", "none", 0, outcome, book.now_ms))
    for state in (None, "settled"):
        wanted = RequestFilter(user_id=book.user_id, model="gpt-test", state=state)
        (look,) = back(book, wanted, 5, 1)
        assert [row.id for row in look.rows] == [rare.id]
    (only,) = back(book, RequestFilter(user_id=book.user_id, key="nobody"), 5, 1)
    assert (only.rows, only.go_on) == ([], None)


def test_ids_are_found_by_their_beginning_among_the_users_own(past: Book) -> None:
    with past.read() as tx:
        wanted = RequestFilter(user_id=past.user_id)
        rows = reports.list_requests(tx, wanted, limit=-1)
        others = reports.list_requests(tx, RequestFilter(user_id=2), limit=-1)
        for row in rows:
            assert reports.find_own_ids(tx, past.user_id, row.id.hex()[:20], limit=5) == [row.id]
            assert reports.is_own(tx, past.user_id, row.id)
        assert others
        assert not any(reports.is_own(tx, past.user_id, row.id) for row in others)


@pytest.mark.parametrize(
    ("text", "digits"),
    [
        ("req_0193578C2d4e", "0193578c2d4e"),
        ("0193578c-2d4e-7a3f-8d1c-5b6a79808f9e", "0193578c2d4e7a3f8d1c5b6a79808f9e"),
        (" 0193578c ", "0193578c"),
        ("0193578", None),
        ("0" * 33, None),
        ("0193578g", None),
        ("0193 578c 2d4e", None),
        ("", None),
    ],
)
def test_what_can_be_a_request_id_or_its_beginning(text: str, digits: str | None) -> None:
    assert reports.id_digits(text) == digits


def test_exact_sums_have_all_their_digits() -> None:
    # Decimal would round after 28.
    rated = 12_345_678_901_234_567_890_123_456_789_012_345
    assert reports.exact_usd(rated, factors=2) == "12345678.901234567890123456789012345"
    assert (reports.exact_usd(0), reports.exact_usd(10**15)) == ("0.00", "1.00")
