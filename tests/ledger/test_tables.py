"""What the tables themselves see to: pinned prices, and rows that must stay as they are."""

import sqlite3

import pytest

from llmproxy import ledger
from tests.ledger.helpers import settle
from tests.support.books import Book


def test_equal_prices_are_pinned_once_and_others_anew(book: Book) -> None:
    with book.write() as tx:
        first = ledger.pin_prices(tx, "openai", "m", b'{"a":1}', now_ms=1)
        assert ledger.pin_prices(tx, "openai", "m", b'{"a":1}', now_ms=2) == first
        others = [("openai", "m", b'{"a":2}'), ("openai", "n", b'{"a":1}')]
        others.append(("xai", "m", b'{"a":1}'))
        ids = {ledger.pin_prices(tx, *other, now_ms=2) for other in others}
        assert len(ids | {first}) == 4
        # Not the JSON of prices, which the closing check would find.
        tx.execute("DROP TRIGGER price_versions_stay")
        tx.execute("DELETE FROM price_versions WHERE model IN('m', 'n')")


@pytest.mark.parametrize(
    ("statement", "why"),
    [
        ("UPDATE holds SET state = 'open', ended_at_ms = NULL WHERE state = 'settled'", "ended"),
        ("UPDATE holds SET amount_nanousd = amount_nanousd - 1 WHERE state = 'open'", "only grow"),
        ("DELETE FROM holds", "never deleted"),
        ("DELETE FROM users", "FOREIGN KEY"),
        ("DELETE FROM api_keys", "FOREIGN KEY"),
        ("DELETE FROM wallets", "FOREIGN KEY"),
        ("UPDATE transfers SET amount_nanousd = 1", "never changed"),
        ("DELETE FROM transfers", "never deleted"),
        ("UPDATE price_versions SET prices = '{}'", "never changed"),
        ("UPDATE wallets SET held_nanousd = balance_nanousd + 1", "CHECK"),
        ("UPDATE wallets SET balance_nanousd = -1, held_nanousd = -1", "CHECK"),
        ("UPDATE wallets SET balance_nanousd = 1.5", "REAL"),
        (
            """INSERT INTO transfers(wallet_id, kind, amount_nanousd, hold_id, actor, created_at_ms)
               SELECT wallet_id, kind, amount_nanousd, hold_id, actor, 1 FROM transfers
               WHERE kind = 'charge'""",
            "UNIQUE",
        ),
    ],
)
def test_the_tables_defend_themselves(book: Book, statement: str, why: str) -> None:
    settle(book, book.placed("1"), "0.5")
    book.placed("1")
    with pytest.raises(sqlite3.IntegrityError, match=why), book.write() as tx:
        tx.execute(statement)
