"""The sums by day: written with each request's row or not at all, and the same as from the rows."""

import contextlib
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import msgspec
import pytest

from llmproxy import accounts, crediting, ledger, recovery
from llmproxy.clock import RequestIds
from llmproxy.money import parse_usd
from llmproxy.rollups import DAY_MS, TOKEN_CLASSES
from llmproxy.storage.database import AdminDatabase, Tx, connect
from llmproxy.usage import Leg, Usage
from tests.ledger.helpers import settle, usd
from tests.support.books import NOW_MS, Book
from tests.support.older import turn_back_to_first_schema

TODAY = NOW_MS // DAY_MS
Day = dict[str, object]


def days(tx: Tx) -> list[Day]:
    rows = tx.execute("SELECT * FROM requests_by_day ORDER BY 1, 2, 3, 4, 5, 6")
    return [dict(row) for row in rows]


def read_days(book: Book) -> list[Day]:
    with book.read() as tx:
        return days(tx)


def day(**columns: object) -> Day:
    """A sum of one user, as it is but for these columns."""
    group = {"user_id": 1, "day": TODAY, "api_key_id": 1, "provider": "openai"}
    group |= {"endpoint": "/v1/openai/chat/completions", "model": "gpt-test"}
    sums = dict.fromkeys(("requests", "refused", *TOKEN_CLASSES), 0)
    money = {"cost_nanousd": 0, "charged_nanousd": 0, "shortfall_nanousd": 0}
    return group | sums | money | columns


def record(book: Book, tx: Tx, state: str, at_ms: int = NOW_MS) -> None:
    """A request that held nothing, and names a model that only its client knows."""
    outcome = msgspec.structs.replace(book.outcome(), model="whatever")
    ledger.record_unheld(
        tx,
        RequestIds().new(at_ms),
        api_key_id=1,
        endpoint="chat",
        outcome=outcome,
        now_ms=at_ms,
        state=state,
    )


def test_ended_requests_are_summed_by_all_classes_of_all_their_legs(book: Book) -> None:
    book.settled(Leg(1, 2, 3, 4, 50, 6, 7), Leg(output=1000, model="other"))
    book.settled(Leg(input=10))
    (found,) = read_days(book)
    cost = found["cost_nanousd"]
    assert found == day(
        requests=2,
        input=11,
        cache_read=2,
        cache_write_5m=3,
        cache_write_1h=4,
        output=1050,
        reasoning=6,
        web_searches=7,
        cost_nanousd=cost,
        charged_nanousd=cost,
    )
    assert cost == parse_usd("10") - book.balance()[0]


def test_what_is_released_expires_or_is_short_counts_with_what_it_cost(book: Book) -> None:
    released, expired, short = book.placed("1"), book.placed("2"), book.placed("3")
    with book.write() as tx:
        ledger.end_hold(tx, released, ledger.released(book.outcome(), at_ms=NOW_MS))
    settle(book, short, "9.5")
    with book.write() as tx:
        ledger.note_seen(tx, expired, parse_usd("2.5"))
        recovery.expire_open_holds(tx, now_ms=NOW_MS + 9000)
        assert recovery.expire_open_holds(tx, now_ms=NOW_MS + 9001) == 0
    cost, charged, owed = usd("12", "10", "2")
    assert read_days(book) == [
        day(
            requests=3,
            output=1,  # what `settle` proves its cost by
            cost_nanousd=cost,
            charged_nanousd=charged,
            shortfall_nanousd=owed,
        )
    ]


def test_what_held_nothing_counts_under_no_model(book: Book) -> None:
    with book.write() as tx:
        for state in ("refused", "refused", "settled", "released"):
            record(book, tx, state)
    assert read_days(book) == [day(endpoint="chat", model="", requests=2, refused=2)]


def test_each_user_key_endpoint_model_and_day_has_sums_of_its_own(book: Book) -> None:
    with book.write() as tx:
        bob = accounts.create_user(tx, "bob", now_ms=NOW_MS)
        accounts.create_api_key(tx, bob, "laptop", now_ms=NOW_MS)
        crediting.credit(tx, bob.wallet_id, 10, actor="test", reason=None, now_ms=NOW_MS)
        ann = accounts.find_user(tx, "ann")
        accounts.create_api_key(tx, ann, "phone", now_ms=NOW_MS)
        version = ledger.pin_prices(tx, "xai", "grok", b"{}", now_ms=NOW_MS)
    holds: list[tuple[ledger.Hold, dict[str, Any], dict[str, Any]]] = [
        (book.hold("0"), {}, {}),
        (book.hold("0"), {"api_key_id": 3}, {}),
        (book.hold("0"), {"endpoint": "responses"}, {}),
        (book.hold("0"), {"price_version_id": version}, {"provider": "xai", "model": "grok"}),
        (book.hold("0"), {"created_at_ms": (TODAY + 1) * DAY_MS}, {}),
        (book.hold("0"), {"created_at_ms": (TODAY + 1) * DAY_MS - 1}, {}),
        (book.hold("0"), {"wallet_id": bob.wallet_id, "api_key_id": 2}, {"user_id": bob.id}),
    ]
    for hold, of_hold, of_outcome in holds:
        placed = msgspec.structs.replace(hold, **of_hold)
        outcome = msgspec.structs.replace(book.outcome(), **of_outcome)
        with book.write() as tx:
            ledger.place_hold(tx, placed)
            ledger.end_hold(tx, placed, ledger.released(outcome, at_ms=NOW_MS))
    assert read_days(book) == [
        day(requests=2),
        day(endpoint="responses", requests=1),
        day(provider="xai", model="grok", requests=1),
        day(api_key_id=3, requests=1),
        day(day=TODAY + 1, requests=1),
        day(user_id=2, api_key_id=2, requests=1),
    ]
    with book.write() as tx:  # its prices are none, which the closing check would find
        tx.execute("DROP TRIGGER price_versions_stay_as_written")
        tx.execute(
            """UPDATE price_versions SET (prices, sha256) =
               (SELECT prices, sha256 FROM price_versions WHERE model = 'gpt-test')"""
        )


def test_a_usage_that_cannot_be_read_counts_as_no_tokens(tmp_path: Path) -> None:
    book = Book(tmp_path / "data" / "llmproxy.db")
    hold = book.placed("1")
    outcome = msgspec.structs.replace(book.outcome(), usage='{"legs":')
    with book.write() as tx:
        ledger.end_hold(tx, hold, ledger.End("settled", "usage", 5, outcome, NOW_MS))
    assert read_days(book) == [day(requests=1, cost_nanousd=5, charged_nanousd=5)]
    book.close()
    with migrated_again(book.path) as connection:
        assert days(connection) == [day(requests=1, cost_nanousd=5, charged_nanousd=5)]


def test_a_write_that_is_undone_leaves_no_sum(book: Book) -> None:
    hold = book.placed("1")
    one = parse_usd("1")
    end = ledger.End("settled", "hold", one, book.outcome(), NOW_MS)
    with book.write() as tx:
        tx.execute("SAVEPOINT job")
        ledger.end_hold(tx, hold, end)
        tx.execute("ROLLBACK TO job")
    assert read_days(book) == []
    with contextlib.suppress(ZeroDivisionError), book.write() as tx:
        ledger.end_hold(tx, hold, end)
        raise ZeroDivisionError
    assert read_days(book) == []
    with book.write() as tx:
        ledger.end_hold(tx, hold, end)
    with pytest.raises(ledger.HoldEndedError), book.write() as tx:
        ledger.end_hold(tx, hold, end)
    assert read_days(book) == [day(requests=1, cost_nanousd=one, charged_nanousd=one)]


def migrated_again(path: Path) -> closing[sqlite3.Connection]:
    """The database after it has been one of the first schema, which knew no sums."""
    turn_back_to_first_schema(path)
    AdminDatabase(path).close()
    return closing(connect(path))


@pytest.fixture
def old_path(tmp_path: Path) -> Path:
    """A database with requests of every kind."""
    book = Book(tmp_path / "data" / "llmproxy.db")
    book.settled(Leg(1, 2, 3, 4, 50, 6, 7), Leg(output=1000, model="other"), Leg(input=2**20))
    book.settled(Leg(input=5))
    settle(book, book.placed("1"), "9.7")
    book.now_ms = (TODAY + 1) * DAY_MS - 1  # the hold comes at midnight, the others just before
    with book.write() as tx:
        for state in ("refused", "settled", "released"):
            record(book, tx, state, book.now_ms)
        ledger.place_hold(tx, book.hold("0"))
        recovery.expire_open_holds(tx, now_ms=book.now_ms)
    book.close()
    return book.path


def test_a_migration_sums_what_there_is_as_it_would_have_been_written(old_path: Path) -> None:
    with closing(connect(old_path)) as connection:
        before = days(connection)
    assert len(before) == 3
    with migrated_again(old_path) as connection:
        assert days(connection) == before


@pytest.mark.parametrize(
    "written", [msgspec.json.encode(Usage(())).decode(), '{"legs":"x"}', '{"legs":["a","b"]}']
)
def test_a_usage_without_legs_is_none(old_path: Path, written: str) -> None:
    """No dialect reports one; an edited row must not keep a server from starting."""
    with closing(connect(old_path)) as connection:
        connection.execute("UPDATE requests SET usage = ?", (written,))
    with migrated_again(old_path) as connection:
        assert {row["input"] for row in days(connection)} == {0}
