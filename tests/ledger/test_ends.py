"""How a hold ends: settled or released, once, and what is recorded of it."""

import msgspec
import pytest

from llmproxy import ledger
from llmproxy.money import parse_usd
from tests.ledger.helpers import extend, hold_row, settle, usd
from tests.support.books import NOW_MS, Book, costing


def test_settling_below_the_hold_gives_the_rest_back(book: Book) -> None:
    hold = book.placed("4")
    assert settle(book, hold, "1.5") == parse_usd("1.5")
    assert book.balance() == usd("8.5", "0")
    row = hold_row(book, hold)
    assert (row["state"], row["basis"], row["ended_at_ms"]) == ("settled", "usage", NOW_MS + 5)
    assert (row["charged_nanousd"], row["shortfall_nanousd"]) == usd("1.5", "0")


def test_settling_at_nothing_leaves_no_transfer(book: Book) -> None:
    hold = book.placed("4")
    assert settle(book, hold, "0") == 0
    with book.read() as tx:
        query = "SELECT count(*) FROM transfers WHERE kind = 'charge'"
        assert tx.execute(query).fetchone()[0] == 0


def test_settling_above_the_hold_draws_on_what_is_available(book: Book) -> None:
    hold = book.placed("4")
    book.placed("3")
    assert settle(book, hold, "6") == parse_usd("6")
    assert book.balance() == usd("4", "3")
    assert hold_row(book, hold)["shortfall_nanousd"] == 0


def test_what_is_not_there_becomes_the_operators_shortfall(book: Book) -> None:
    hold = book.placed("4")
    book.placed("5")
    assert settle(book, hold, "7.25") == parse_usd("5")
    assert book.balance() == usd("5", "5")
    row = hold_row(book, hold)
    assert (row["cost_nanousd"], row["charged_nanousd"], row["shortfall_nanousd"]) == usd(
        "7.25", "5", "2.25"
    )


def test_a_released_hold_costs_nothing(book: Book) -> None:
    hold = book.placed("4")
    with book.write() as tx:
        ledger.end_hold(tx, hold, ledger.released(book.outcome(), at_ms=NOW_MS + 5))
    assert book.balance() == usd("10", "0")
    assert hold_row(book, hold)["state"] == "released"


def test_a_hold_ends_only_once(book: Book) -> None:
    settled, released = book.placed("1"), book.placed("1")
    settle(book, settled, "1")
    with book.write() as tx:
        ledger.end_hold(tx, released, ledger.released(book.outcome(), at_ms=NOW_MS))
    before = book.balance()
    for hold in (settled, released):
        with pytest.raises(ledger.HoldEndedError):
            settle(book, hold, "1")
        with pytest.raises(ledger.HoldEndedError), book.write() as tx:
            ledger.end_hold(tx, hold, ledger.released(book.outcome(), at_ms=NOW_MS))
    assert book.balance() == before


def test_a_hold_that_was_never_placed_cannot_be_settled(book: Book) -> None:
    hold = book.hold("1")
    for cost in ("1", "2"):
        with pytest.raises(ledger.HoldEndedError, match=f"Hold {hold.id.hex()} is not open"):
            settle(book, hold, cost)
    assert book.balance() == usd("10", "0")


def test_end_if_open_ends_an_open_hold_and_ignores_all_others(book: Book) -> None:
    unplaced, placed, settled = book.hold("1"), book.placed("1"), book.placed("1")
    settle(book, settled, "1")
    with book.write() as tx:
        for hold in (unplaced, placed, settled, placed):
            ledger.end_if_open(tx, hold, ledger.released(book.outcome(), at_ms=NOW_MS))
    assert hold_row(book, unplaced) is None
    assert hold_row(book, placed)["state"] == "released"
    assert hold_row(book, settled)["state"] == "settled"


def test_a_charge_and_its_request_are_recorded_in_full(book: Book) -> None:
    hold = book.placed("2")
    book.placed("8")
    assert extend(book, hold, "0.5") is not None
    settle(book, hold, "2.5")
    with book.read() as tx:
        moved = tx.execute("SELECT * FROM transfers WHERE hold_id = ?", (hold.id,)).fetchone()
        request = tx.execute("SELECT * FROM requests").fetchone()
    assert (moved["amount_nanousd"], moved["actor"]) == (-parse_usd("2"), "proxy")
    assert (moved["created_at_ms"], moved["reason"]) == (NOW_MS + 5, None)
    outcome = msgspec.structs.asdict(costing(book.outcome(), parse_usd("2.5")))
    assert dict(request) == {
        **outcome,
        "id": hold.id,
        "api_key_id": 1,
        "endpoint": hold.endpoint,
        "created_at_ms": hold.created_at_ms,
        "hold_nanousd": parse_usd("2"),
        "state": "settled",
        "basis": "usage",
        "cost_nanousd": parse_usd("2.5"),
        "charged_nanousd": parse_usd("2"),
        "shortfall_nanousd": parse_usd("0.5"),
    }


def test_a_refused_request_leaves_a_row_and_moves_nothing(book: Book) -> None:
    with book.write() as tx:
        ledger.record_unheld(
            tx,
            bytes(16),
            api_key_id=1,
            endpoint="/v1/openai/chat/completions",
            outcome=msgspec.structs.replace(book.outcome(), status=402, reason="no credit"),
            now_ms=NOW_MS,
        )
        row = tx.execute("SELECT state, status, cost_nanousd FROM requests").fetchone()
    assert tuple(row) == ("refused", 402, 0)
    assert book.balance() == usd("10", "0")
