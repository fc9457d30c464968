"""The idempotency key of a hold: whose it is, and when it is free again."""

import sqlite3

import pytest

from llmproxy import ledger, recovery
from llmproxy.money import parse_usd
from tests.ledger.helpers import earlier, settle, usd, with_key
from tests.support.books import NOW_MS, Book


def test_an_idempotency_key_belongs_to_the_first_hold_until_that_is_released(book: Book) -> None:
    first, second = with_key(book), with_key(book, asked=b"b" * 32)
    assert earlier(book, first) is None
    with book.write() as tx:
        assert ledger.place_hold(tx, first) is None
    assert earlier(book, second) == ledger.EarlierHold(first.id, b"a" * 32, "open", None)
    with book.write() as tx:
        ledger.end_hold(tx, first, ledger.released(book.outcome(), at_ms=NOW_MS))
    assert earlier(book, second) is None
    with book.write() as tx:
        assert ledger.place_hold(tx, second) is None
    settle(book, second, "0.5")
    found = earlier(book, with_key(book))
    assert found == ledger.EarlierHold(second.id, b"b" * 32, "settled", parse_usd("0.5"))
    assert earlier(book, with_key(book, key=b"l" * 32)) is None
    assert earlier(book, book.hold("1")) is None


def test_an_expired_hold_keeps_its_idempotency_key(book: Book) -> None:
    hold = with_key(book)
    with book.write() as tx:
        ledger.place_hold(tx, hold)
        ledger.note_seen(tx, hold, 7)
        recovery.expire_open_holds(tx, now_ms=NOW_MS)
    assert earlier(book, with_key(book)) == ledger.EarlierHold(hold.id, b"a" * 32, "expired", 7)


def test_a_placing_that_was_cancelled_gives_its_idempotency_key_back(book: Book) -> None:
    """As `Holds.place` queues it behind the placing, whatever became of that."""
    hold = with_key(book)
    with book.write() as tx:
        ledger.place_hold(tx, hold)
        assert ledger.end_if_open(tx, hold, ledger.released(book.outcome(), at_ms=NOW_MS))
        again = with_key(book)
        assert ledger.find_earlier_hold(tx, again) is None
        assert ledger.place_hold(tx, again) is None


def test_the_table_itself_refuses_a_second_hold_with_the_same_key(book: Book) -> None:
    with book.write() as tx:
        ledger.place_hold(tx, with_key(book))
    with pytest.raises(sqlite3.IntegrityError, match="UNIQUE"), book.write() as tx:
        ledger.place_hold(tx, with_key(book))
    assert book.balance() == usd("10", "1")
