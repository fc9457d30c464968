"""What a start makes of the holds that a dead process has left open."""

import msgspec

from llmproxy import accounts, crediting, ledger, recovery
from llmproxy.money import parse_usd
from tests.ledger.helpers import hold_row, settle, usd
from tests.support.books import NOW_MS, Book


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


def test_a_start_ends_the_holds_of_each_wallet_from_that_wallet(book: Book) -> None:
    with book.write() as tx:
        bob = accounts.create_user(tx, "bob", now_ms=NOW_MS, rate_multiplier_micro=0)
        accounts.create_api_key(tx, bob, "laptop", now_ms=NOW_MS)
        accounts.create_user(tx, "eve", now_ms=NOW_MS, rate_multiplier_micro=0)
        crediting.credit(
            tx, bob.wallet_id, parse_usd("8"), actor="test", reason=None, now_ms=NOW_MS
        )
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
    # The clock may have been set back since the second, a stream of which nothing had come.
    unseen = msgspec.structs.replace(book.hold("1"), created_at_ms=now_ms + 5, is_stream=True)
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
        "is_stream": 0,
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
    assert (second["basis"], second["is_stream"], second["duration_ms"]) == ("none", 1, 0)


def test_what_an_older_version_left_open_counts_as_no_stream(book: Book) -> None:
    """It did not write down which it was."""
    hold = msgspec.structs.replace(book.hold("1"), is_stream=True)
    with book.write() as tx:
        ledger.place_hold(tx, hold)
        tx.execute("UPDATE holds SET is_stream = NULL")
        recovery.expire_open_holds(tx, now_ms=NOW_MS)
        assert tx.execute("SELECT is_stream FROM requests").fetchone()[0] == 0
