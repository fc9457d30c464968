"""Money set aside: placing a hold, letting it grow, and noting what it has seen."""

import msgspec
import pytest

from llmproxy import accounts, crediting, ledger
from llmproxy.money import parse_usd
from llmproxy.reports.requests import find_request
from tests.ledger.helpers import earlier, extend, hold_row, settle, usd, with_key
from tests.support.books import NOW_MS, Book


def test_a_hold_sets_money_aside_without_taking_it(book: Book) -> None:
    hold = book.placed("4")
    assert book.balance() == usd("10", "4")
    assert hold_row(book, hold)["state"] == "open"


def test_a_hold_takes_the_last_nano_dollar_and_not_one_more(book: Book) -> None:
    book.placed("4")
    with book.write() as tx:
        shortage = ledger.place_hold(tx, book.hold("6.000000001"))
    assert shortage is not None
    assert (shortage.balance_nanousd, shortage.held_nanousd) == usd("10", "4")
    assert shortage.available_nanousd == parse_usd("6")
    assert book.balance() == usd("10", "4")
    book.placed("6")
    assert book.balance() == usd("10", "10")


def test_what_nobody_can_have_is_not_held(book: Book) -> None:
    hold = msgspec.structs.replace(book.hold("1"), amount_nanousd=2**70)
    with book.write() as tx:
        refused = ledger.place_hold(tx, hold)
    assert refused is not None
    assert refused.available_nanousd == parse_usd("10")


def test_a_shortage_writes_nothing(book: Book) -> None:
    hold = book.hold("11")
    with book.write() as tx:
        assert ledger.place_hold(tx, hold) is not None
        assert tx.execute("SELECT count(*) FROM holds").fetchone()[0] == 0


def test_a_failure_within_a_transaction_leaves_nothing_of_it(book: Book) -> None:
    class PowerCutError(Exception):
        pass

    with pytest.raises(PowerCutError), book.write() as tx:  # noqa: PT012 - that is the point
        assert ledger.place_hold(tx, book.hold("1")) is None
        raise PowerCutError
    assert book.balance() == usd("10", "0")


def test_a_hold_grows_while_there_is_credit_and_is_given_back_as_it_has_grown(book: Book) -> None:
    hold = book.placed("1")
    assert extend(book, hold, "4") is None
    assert extend(book, hold, "5") is None
    assert book.balance() == usd("10", "10")
    shortage = extend(book, hold, "0.000000001")
    assert shortage is not None
    assert shortage.available_nanousd == 0
    assert hold_row(book, hold)["amount_nanousd"] == parse_usd("10")
    assert settle(book, hold, "7") == parse_usd("7")
    assert book.balance() == usd("3", "0")
    with book.read() as tx:
        assert tx.execute("SELECT hold_nanousd FROM requests").fetchone()[0] == parse_usd("10")


def test_a_cost_above_a_grown_hold_draws_on_the_rest(book: Book) -> None:
    hold = book.placed("1")
    extend(book, hold, "4")
    book.placed("3")
    assert settle(book, hold, "8") == parse_usd("7")
    assert book.balance() == usd("3", "3")
    assert hold_row(book, hold)["shortfall_nanousd"] == parse_usd("1")


def test_a_hold_that_has_ended_grows_no_more(book: Book) -> None:
    hold = book.placed("1")
    settle(book, hold, "1")
    with pytest.raises(ledger.HoldEndedError):
        extend(book, hold, "1")
    assert book.balance() == usd("9", "0")


def test_what_has_been_seen_never_goes_back(book: Book) -> None:
    hold = book.placed("1")
    with book.write() as tx:
        for cost in (3, 5, 4):
            ledger.note_seen(tx, hold, cost)
    assert hold_row(book, hold)["seen_cost_nanousd"] == 5
    settle(book, hold, "1")
    with book.write() as tx:
        ledger.note_seen(tx, hold, 9)
    assert hold_row(book, hold)["seen_cost_nanousd"] == 5


def all_rows(book: Book, other_than: bytes = b"") -> list[list[tuple[object, ...]]]:
    """All wallets, and all holds but one."""
    with book.read() as tx:
        wallets = tx.execute("SELECT * FROM wallets WHERE id <> ?", (book.wallet_id,)).fetchall()
        holds = tx.execute("SELECT * FROM holds WHERE id <> ?", (other_than,)).fetchall()
    return [[tuple(row) for row in rows] for rows in (wallets, holds)]


def test_each_operation_leaves_every_other_hold_and_wallet_alone(book: Book) -> None:
    with book.write() as tx:
        bob = accounts.create_user(tx, "bob", now_ms=NOW_MS, rate_multiplier_micro=0)
        accounts.create_api_key(tx, bob, "laptop", now_ms=NOW_MS)
        common = {"actor": "test", "reason": "why", "now_ms": NOW_MS}
        crediting.credit(tx, bob.wallet_id, parse_usd("8"), **common)  # type: ignore[arg-type]
        bobs = msgspec.structs.replace(with_key(book), wallet_id=bob.wallet_id, api_key_id=2)
        assert ledger.place_hold(tx, bobs) is None
    anns = book.placed("2")
    hold = with_key(book)
    before = all_rows(book)
    assert earlier(book, hold) is None
    with book.write() as tx:
        assert ledger.place_hold(tx, hold) is None
    with book.write() as tx:
        ledger.note_seen(tx, hold, 5)
        assert ledger.extend_hold(tx, hold, parse_usd("1")) is None
    assert settle(book, hold, "4") == parse_usd("4")
    with book.write() as tx:
        crediting.adjust(tx, book.wallet_id, -1, **common)  # type: ignore[arg-type]
    assert all_rows(book, hold.id) == before
    assert book.balance() == (parse_usd("6") - 1, parse_usd("2"))
    # What a hold can draw on is its own.
    assert settle(book, anns, "9") == parse_usd("6") - 1


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_running_request_is_known_to_be_a_stream_or_not(book: Book, is_stream: bool) -> None:
    hold = msgspec.structs.replace(book.hold("1"), is_stream=is_stream)
    with book.write() as tx:
        ledger.place_hold(tx, hold)
        running = find_request(tx, hold.id)
    assert running is not None
    assert (running.state, running.model_served, running.is_stream) == ("open", None, is_stream)
