"""The five operations that move money, on a real file."""

import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from llmproxy import accounts, ledger, ledger_check, recovery
from llmproxy.errors import RefusedError
from llmproxy.money import parse_usd
from tests.support.books import NOW_MS, Book


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A user with 10 USD. After each test the whole ledger is proven."""
    book = Book(tmp_path / "data" / "llmproxy.db")
    yield book
    with book.read() as tx:
        assert ledger_check.verify(tx).problems == []
    book.close()


def settle(book: Book, hold: ledger.Hold, cost: str, *, basis: str = "hold") -> int:
    with book.write() as tx:
        end = ledger.End("settled", basis, parse_usd(cost), book.outcome(), NOW_MS + 5)
        return ledger.end_hold(tx, hold, end)


def usd(*amounts: str) -> tuple[int, ...]:
    return tuple(parse_usd(amount) for amount in amounts)


def hold_row(book: Book, hold: ledger.Hold) -> sqlite3.Row:
    with book.read() as tx:
        row: sqlite3.Row = tx.execute("SELECT * FROM holds WHERE id = ?", (hold.id,)).fetchone()
    return row


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


def test_settling_below_the_hold_gives_the_rest_back(book: Book) -> None:
    hold = book.placed("4")
    assert settle(book, hold, "1.5") == parse_usd("1.5")
    assert book.balance() == usd("8.5", "0")
    row = hold_row(book, hold)
    assert (row["state"], row["basis"], row["ended_at_ms"]) == ("settled", "hold", NOW_MS + 5)
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


def extend(book: Book, hold: ledger.Hold, by: str) -> ledger.Standing | None:
    with book.write() as tx:
        return ledger.extend_hold(tx, hold, parse_usd(by))


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


def test_end_if_open_ends_an_open_hold_and_ignores_all_others(book: Book) -> None:
    unplaced, placed, settled = book.hold("1"), book.placed("1"), book.placed("1")
    settle(book, settled, "1")
    with book.write() as tx:
        for hold in (unplaced, placed, settled, placed):
            ledger.end_if_open(tx, hold, ledger.released(book.outcome(), at_ms=NOW_MS))
    assert hold_row(book, unplaced) is None
    assert hold_row(book, placed)["state"] == "released"
    assert hold_row(book, settled)["state"] == "settled"


def with_key(book: Book, key: bytes = b"k" * 32, asked: bytes = b"a" * 32) -> ledger.Hold:
    """A hold of 1 USD that has not been placed, of a request with an idempotency key."""
    return msgspec.structs.replace(book.hold("1"), idempotency_hash=key, body_hash=asked)


def holder(book: Book, hold: ledger.Hold) -> ledger.EarlierHold | None:
    with book.read() as tx:
        return ledger.find_earlier_hold(tx, hold)


def test_an_idempotency_key_belongs_to_the_first_hold_until_that_is_released(book: Book) -> None:
    first, second = with_key(book), with_key(book, asked=b"b" * 32)
    assert holder(book, first) is None
    with book.write() as tx:
        assert ledger.place_hold(tx, first) is None
    assert holder(book, second) == ledger.EarlierHold(first.id, b"a" * 32, "open", None)
    with book.write() as tx:
        ledger.end_hold(tx, first, ledger.released(book.outcome(), at_ms=NOW_MS))
    assert holder(book, second) is None
    with book.write() as tx:
        assert ledger.place_hold(tx, second) is None
    settle(book, second, "0.5")
    found = holder(book, with_key(book))
    assert found == ledger.EarlierHold(second.id, b"b" * 32, "settled", parse_usd("0.5"))
    assert holder(book, with_key(book, key=b"l" * 32)) is None
    assert holder(book, book.hold("1")) is None


def test_an_expired_hold_keeps_its_idempotency_key(book: Book) -> None:
    hold = with_key(book)
    with book.write() as tx:
        ledger.place_hold(tx, hold)
        ledger.note_seen(tx, hold, 7)
        recovery.expire_open_holds(tx, now_ms=NOW_MS)
    assert holder(book, with_key(book)) == ledger.EarlierHold(hold.id, b"a" * 32, "expired", 7)


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


def test_at_the_start_open_holds_end_by_what_was_durably_seen(book: Book) -> None:
    unseen, seen, above = book.placed("1"), book.placed("2"), book.placed("3")
    ended = book.placed("1")
    settle(book, ended, "1")
    with book.write() as tx:
        for hold, cost in ((seen, "0.5"), (above, "3.5")):
            ledger.note_seen(tx, hold, parse_usd(cost))
        assert recovery.expire_open_holds(tx, now_ms=NOW_MS + 9000) == 3
        assert recovery.expire_open_holds(tx, now_ms=NOW_MS + 9001) == 0
    rows = [hold_row(book, hold) for hold in (unseen, seen, above)]
    assert [(row["state"], row["basis"]) for row in rows] == [
        ("expired", "none"),
        ("expired", "estimate"),
        ("expired", "estimate"),
    ]
    assert tuple(row["charged_nanousd"] for row in rows) == usd("0", "0.5", "3")
    assert tuple(row["shortfall_nanousd"] for row in rows) == usd("0", "0", "0.5")
    assert book.balance() == usd("5.5", "0")
    with book.read() as tx:
        query = "SELECT actor FROM transfers WHERE hold_id = ?"
        assert tx.execute(query, (seen.id,)).fetchone()[0] == "recovery"


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
        ledger.credit(tx, bob.wallet_id, parse_usd("8"), **common)  # type: ignore[arg-type]
        bobs = msgspec.structs.replace(with_key(book), wallet_id=bob.wallet_id, api_key_id=2)
        assert ledger.place_hold(tx, bobs) is None
    anns = book.placed("2")
    hold = with_key(book)
    before = all_rows(book)
    assert holder(book, hold) is None
    with book.write() as tx:
        assert ledger.place_hold(tx, hold) is None
    with book.write() as tx:
        ledger.note_seen(tx, hold, 5)
        assert ledger.extend_hold(tx, hold, parse_usd("1")) is None
    assert settle(book, hold, "4") == parse_usd("4")
    with book.write() as tx:
        ledger.adjust(tx, book.wallet_id, -1, **common)  # type: ignore[arg-type]
    assert all_rows(book, hold.id) == before
    assert book.balance() == (parse_usd("6") - 1, parse_usd("2"))
    # What a hold can draw on is its own.
    assert settle(book, anns, "9") == parse_usd("6") - 1


def test_a_start_ends_the_holds_of_each_wallet_from_that_wallet(book: Book) -> None:
    with book.write() as tx:
        bob = accounts.create_user(tx, "bob", now_ms=NOW_MS, rate_multiplier_micro=0)
        accounts.create_api_key(tx, bob, "laptop", now_ms=NOW_MS)
        accounts.create_user(tx, "eve", now_ms=NOW_MS, rate_multiplier_micro=0)
        ledger.credit(tx, bob.wallet_id, parse_usd("8"), actor="test", reason=None, now_ms=NOW_MS)
        bobs = msgspec.structs.replace(book.hold("3"), wallet_id=bob.wallet_id, api_key_id=2)
        assert ledger.place_hold(tx, bobs) is None
        ledger.note_seen(tx, bobs, parse_usd("0.5"))
    anns = book.placed("1")
    with book.write() as tx:
        ledger.note_seen(tx, anns, parse_usd("0.25"))
        assert recovery.expire_open_holds(tx, now_ms=NOW_MS + 9000) == 2
        standings = [ledger.standing(tx, id_) for id_ in (book.wallet_id, bob.wallet_id)]
    assert standings == [
        ledger.Standing(parse_usd("9.75"), 0),
        ledger.Standing(parse_usd("7.5"), 0),
    ]


def test_what_a_start_ends_is_recorded_in_full(book: Book) -> None:
    hold = book.placed("2")
    now_ms = hold.created_at_ms + 9000
    # The clock may have been set back since the second.
    unseen = msgspec.structs.replace(book.hold("1"), created_at_ms=now_ms + 5)
    with book.write() as tx:
        ledger.place_hold(tx, unseen)
        ledger.note_seen(tx, hold, parse_usd("2.5"))
        recovery.expire_open_holds(tx, now_ms=now_ms)
        moved = tx.execute("SELECT * FROM transfers WHERE hold_id IS NOT NULL").fetchall()
        requests = tx.execute("SELECT * FROM requests ORDER BY id").fetchall()
    assert [hold_row(book, each)["ended_at_ms"] for each in (hold, unseen)] == [now_ms] * 2
    assert [(row["kind"], row["amount_nanousd"], row["actor"]) for row in moved] == [
        ("charge", -parse_usd("2"), "recovery")
    ]
    assert moved[0]["created_at_ms"] == now_ms
    first, second = (dict(row) for row in requests)
    known = {key: value for key, value in first.items() if value is not None}
    assert known == {
        "id": hold.id,
        "user_id": book.user_id,
        "api_key_id": 1,
        "endpoint": "/v1/openai/chat/completions",
        "provider": "openai",
        "model": "gpt-test",
        "created_at_ms": hold.created_at_ms,
        "is_stream": 1,
        "state": "expired",
        "basis": "estimate",
        "status": 0,
        "reason": "the proxy stopped while this request ran",
        "attempts": 0,
        "hold_nanousd": parse_usd("2"),
        "cost_nanousd": parse_usd("2.5"),
        "charged_nanousd": parse_usd("2"),
        "shortfall_nanousd": parse_usd("0.5"),
        "duration_ms": 9000,
    }
    assert (second["basis"], second["is_stream"], second["duration_ms"]) == ("none", 0, 0)


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
    outcome = msgspec.structs.asdict(book.outcome())
    assert dict(request) == {
        **outcome,
        "id": hold.id,
        "api_key_id": 1,
        "endpoint": hold.endpoint,
        "created_at_ms": hold.created_at_ms,
        "hold_nanousd": parse_usd("2"),
        "state": "settled",
        "basis": "hold",
        "cost_nanousd": parse_usd("2.5"),
        "charged_nanousd": parse_usd("2"),
        "shortfall_nanousd": parse_usd("0.5"),
    }


def test_credits_and_adjustments_say_who_when_and_why(book: Book) -> None:
    with book.write() as tx:
        ledger.credit(
            tx, book.wallet_id, 5, actor="op", reason="gift", now_ms=77, idempotency_key="k"
        )
        ledger.adjust(tx, book.wallet_id, -6, actor="op2", reason="oops", now_ms=78)
        rows = tx.execute(
            """SELECT kind, amount_nanousd, idempotency_key, actor, reason, created_at_ms
               FROM transfers ORDER BY id"""
        ).fetchall()
    assert [tuple(row) for row in rows[-2:]] == [
        ("credit", 5, "k", "op", "gift", 77),
        ("adjust", -6, None, "op2", "oops", 78),
    ]


def test_a_failure_within_a_transaction_leaves_nothing_of_it(book: Book) -> None:
    class PowerCutError(Exception):
        pass

    with pytest.raises(PowerCutError), book.write() as tx:  # noqa: PT012 - that is the point
        assert ledger.place_hold(tx, book.hold("1")) is None
        raise PowerCutError
    assert book.balance() == usd("10", "0")


def credit(book: Book, amount: str, key: str | None = None, wallet: int | None = None) -> object:
    with book.write() as tx:
        return ledger.credit(
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
    assert isinstance(first, ledger.Credited)
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
            ledger.adjust(tx, book.wallet_id, parse_usd("-6.01"), **take)  # type: ignore[arg-type]
        with pytest.raises(RefusedError, match="zero"):
            ledger.adjust(tx, book.wallet_id, 0, **take)  # type: ignore[arg-type]
        done = ledger.adjust(tx, book.wallet_id, parse_usd("-6"), **take)  # type: ignore[arg-type]
    assert done.balance_nanousd == parse_usd("4")
    assert book.balance() == usd("4", "4")


@pytest.mark.parametrize("reason", ["", "  "])
def test_an_adjustment_says_why(book: Book, reason: str) -> None:
    with pytest.raises(RefusedError, match="needs a reason"), book.write() as tx:
        ledger.adjust(tx, book.wallet_id, 1, actor="test", reason=reason, now_ms=NOW_MS)
    assert book.balance() == usd("10", "0")


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
