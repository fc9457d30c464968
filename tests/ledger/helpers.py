"""What the tests of the ledger share: amounts as text, holds with a key, and how they end."""

import sqlite3

import msgspec

from llmproxy import ledger
from llmproxy.money import parse_usd
from tests.support.books import NOW_MS, Book, costing


def settle(book: Book, hold: ledger.Hold, cost: str) -> int:
    with book.write() as tx:
        outcome = costing(book.outcome(), parse_usd(cost))
        end = ledger.End("settled", "usage", parse_usd(cost), outcome, NOW_MS + 5)
        return ledger.end_hold(tx, hold, end)


def extend(book: Book, hold: ledger.Hold, by: str) -> ledger.Standing | None:
    with book.write() as tx:
        return ledger.extend_hold(tx, hold, parse_usd(by))


def usd(*amounts: str) -> tuple[int, ...]:
    return tuple(parse_usd(amount) for amount in amounts)


def hold_row(book: Book, hold: ledger.Hold) -> sqlite3.Row:
    with book.read() as tx:
        row: sqlite3.Row = tx.execute("SELECT * FROM holds WHERE id = ?", (hold.id,)).fetchone()
    return row


def with_key(book: Book, key: bytes = b"k" * 32, asked: bytes = b"a" * 32) -> ledger.Hold:
    """A hold of 1 USD that has not been placed, of a request with an idempotency key."""
    return msgspec.structs.replace(book.hold("1"), idempotency_hash=key, body_hash=asked)


def earlier(book: Book, hold: ledger.Hold) -> ledger.EarlierHold | None:
    with book.read() as tx:
        return ledger.find_earlier_hold(tx, hold)
