"""What an operator moves: credits and adjustments."""

import msgspec
import pytest

from llmproxy import crediting
from llmproxy.errors import RefusedError
from llmproxy.money import parse_usd
from tests.ledger.helpers import usd
from tests.support.books import NOW_MS, Book


def credit(book: Book, amount: str, key: str | None = None, wallet: int | None = None) -> object:
    with book.write() as tx:
        return crediting.credit(
            tx,
            wallet or book.wallet_id,
            parse_usd(amount),
            actor="test",
            reason=None,
            now_ms=NOW_MS,
            idempotency_key=key,
        )


def test_a_credit_with_a_known_idempotency_key_adds_nothing(book: Book) -> None:
    first = credit(book, "5", "invoice-17")
    again = credit(book, "5", "invoice-17")
    assert isinstance(first, crediting.Credited)
    assert first.is_repeat is False
    assert again == msgspec.structs.replace(first, is_repeat=True)
    assert book.balance() == usd("15", "0")
    with pytest.raises(RefusedError, match="another credit"):
        credit(book, "6", "invoice-17")
    with pytest.raises(RefusedError, match="another credit"):
        credit(book, "5", "invoice-17", wallet=77)


@pytest.mark.parametrize("key", ["", "  ", "k" * 256])
def test_a_blank_or_endless_idempotency_key_credits_nothing(book: Book, key: str) -> None:
    with pytest.raises(RefusedError, match="1 to 255 characters"):
        credit(book, "5", key)
    credit(book, "5", "k" * 255)
    assert book.balance() == usd("15", "0")


def test_a_credit_must_be_above_zero(book: Book) -> None:
    for amount in ("0", "-1"):
        with pytest.raises(RefusedError, match="above zero"):
            credit(book, amount)
    credit(book, "0.000000001")
    assert book.balance() == usd("10.000000001", "0")


def test_no_balance_passes_a_billion_dollars(book: Book) -> None:
    with pytest.raises(RefusedError, match="billion"):
        credit(book, "1000000000")
    credit(book, "999999990")
    assert book.balance() == usd("1000000000", "0")


def test_an_adjustment_never_takes_what_is_held(book: Book) -> None:
    book.placed("4")
    with book.write() as tx:
        take = {"actor": "test", "reason": "because", "now_ms": NOW_MS}
        with pytest.raises(RefusedError, match=r"Only 6\.00 USD"):
            crediting.adjust(tx, book.wallet_id, parse_usd("-6.01"), **take)  # type: ignore[arg-type]
        with pytest.raises(RefusedError, match="zero"):
            crediting.adjust(tx, book.wallet_id, 0, **take)  # type: ignore[arg-type]
        done = crediting.adjust(tx, book.wallet_id, parse_usd("-6"), **take)  # type: ignore[arg-type]
    assert done.balance_nanousd == parse_usd("4")
    assert book.balance() == usd("4", "4")


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_adjustment_says_why(book: Book, reason: str) -> None:
    with pytest.raises(RefusedError, match="needs a reason"), book.write() as tx:
        crediting.adjust(tx, book.wallet_id, 1, actor="test", reason=reason, now_ms=NOW_MS)
    assert book.balance() == usd("10", "0")


def test_credits_and_adjustments_say_who_when_and_why(book: Book) -> None:
    with book.write() as tx:
        crediting.credit(
            tx, book.wallet_id, 5, actor="op", reason="gift", now_ms=77, idempotency_key="k"
        )
        crediting.adjust(tx, book.wallet_id, -6, actor="op2", reason="oops", now_ms=78)
        rows = tx.execute(
            """SELECT kind, amount_nanousd, idempotency_key, actor, reason, created_at_ms
               FROM transfers ORDER BY id"""
        ).fetchall()
    assert [tuple(row) for row in rows[-2:]] == [
        ("credit", 5, "k", "op", "gift", 77),
        ("adjust", -6, None, "op2", "oops", 78),
    ]
