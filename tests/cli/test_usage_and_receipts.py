"""Requests, receipts and the proof of the ledger, on the command line."""

import json
import re

import msgspec
import pytest

from llmproxy import ledger, recovery
from llmproxy.clock import request_id_text
from llmproxy.money import parse_usd
from llmproxy.storage.database import connect
from llmproxy.usage import Leg
from tests.cli.conftest import Program, Quick
from tests.support.books import NOW_MS, Book

ROW_FIELDS = [
    "id",
    "created_at",
    "user",
    "key",
    "provider",
    "endpoint",
    "model",
    "stream",
    "status",
    "state",
    "basis",
    "reason",
    "usage",
    "hold_usd",
    "cost_usd",
    "charged_usd",
    "shortfall_usd",
    "upstream_status",
    "ttfb_ms",
    "duration_ms",
]


def refuse(book: Book, request_id: bytes) -> None:
    with book.write() as tx:
        ledger.record_unheld(
            tx,
            request_id,
            api_key_id=1,
            endpoint="/v1/openai/chat/completions",
            outcome=msgspec.structs.replace(
                book.outcome(), status=402, reason="Insufficient credit", ttfb_ms=None
            ),
            now_ms=NOW_MS,
        )


def test_a_settled_request_is_listed_with_exact_money_and_all_classes(
    quick: Quick, book: Book
) -> None:
    hold = book.settled()
    (row,) = quick.json("usage", "requests")
    assert list(row) == ROW_FIELDS
    assert row == {
        "id": request_id_text(hold.id),
        "created_at": "2026-11-18T11:06:40.001Z",
        "user": "ann",
        "key": "laptop",
        "provider": "openai",
        "endpoint": "/v1/openai/chat/completions",
        "model": "gpt-test",
        "stream": True,
        "status": 200,
        "state": "settled",
        "basis": "usage",
        "reason": "the provider reported this usage",
        "usage": {
            "input": 1200,
            "cache_read": 800,
            "cache_write_5m": 0,
            "cache_write_1h": 0,
            "output": 350,
            "reasoning": 0,
            "web_searches": 0,
        },
        "hold_usd": "1.00",
        "cost_usd": "0.009",
        "charged_usd": "0.009",
        "shortfall_usd": "0.00",
        "upstream_status": 200,
        "ttfb_ms": 210,
        "duration_ms": 1234,
    }


def test_running_and_refused_requests_are_listed_too_newest_first(quick: Quick, book: Book) -> None:
    settled, running = book.settled(), book.placed("2")
    refused = book.hold()
    refuse(book, refused.id)
    rows = quick.json("usage", "requests")
    assert [(row["id"], row["state"]) for row in rows] == [
        (request_id_text(refused.id), "refused"),
        (request_id_text(running.id), "open"),
        (request_id_text(settled.id), "settled"),
    ]
    assert rows[1]["hold_usd"] == "2.00"
    assert (rows[1]["model"], rows[1]["usage"], rows[1]["duration_ms"]) == ("gpt-test", None, None)
    for state in ("open", "refused", "settled"):
        assert [row["state"] for row in quick.json("usage", "requests", "--state", state)] == [
            state
        ]
    quick.fails(2, "usage", "requests", "--state", "done")


def test_requests_are_chosen_by_user_model_and_time(quick: Quick, book: Book) -> None:
    book.settled()
    quick.ok("users", "create", "ben")
    assert quick.json("usage", "requests", "--user", "ben") == []
    assert len(quick.json("usage", "requests", "--user", "ann")) == 1
    assert quick.json("usage", "requests", "--model", "other") == []
    assert quick.json("usage", "requests", "--provider", "xai") == []
    assert len(quick.json("usage", "requests", "--since", "2026-11-18T11:06:40Z")) == 1
    assert quick.json("usage", "requests", "--since", "2026-11-18T11:06:41+00:00") == []
    assert quick.json("usage", "requests", "--until", "2026-11-18") == []
    quick.fails(3, "usage", "requests", "--user", "zoe")
    assert "is no time" in quick.fails(2, "usage", "requests", "--since", "yesterday")


def test_every_row_has_a_reason_and_a_cost_above_the_hold_is_told(quick: Quick, book: Book) -> None:
    above, running, refused = book.settled(amount="0.001"), book.placed("2"), book.hold()
    refuse(book, refused.id)
    flag = "the provider reported this usage; it cost more than the 0.001 USD that were held"
    reasons = ["Insufficient credit", "it is still running", flag]
    assert [row["reason"] for row in quick.json("usage", "requests")] == reasons
    exported = quick.ok("usage", "export", "--format", "jsonl").splitlines()
    assert [json.loads(line)["reason"] for line in exported] == reasons[::-1]
    assert f",settled,usage,{flag}," in quick.ok("usage", "export")
    assert quick.json("explain", request_id_text(above.id))["reason"] == flag
    out = quick.ok("explain", request_id_text(above.id))
    assert f"state     settled, basis usage\nwhy       {flag}\n" in out
    assert "why       it is still running\n" in quick.ok("explain", request_id_text(running.id))


def test_lists_of_requests_stop_at_the_limit(quick: Quick, book: Book) -> None:
    for _ in range(3):
        book.settled()
    book.placed()
    ran = quick.run("usage", "requests", "--limit", "2", "--json")
    assert [row["state"] for row in json.loads(ran.out)] == ["open", "settled"]
    assert ran.err.startswith("… more.")


def test_without_requests_the_list_says_so(quick: Quick) -> None:
    assert quick.run("usage", "requests").err.startswith("No requests yet.")
    assert quick.run("usage", "requests", "--state", "open").err == "No such requests.\n"


def test_a_receipt_is_multiplied_out(quick: Quick, book: Book) -> None:
    hold = book.settled()
    out = quick.ok("explain", request_id_text(hold.id))
    lines = [line.split() for line in out.splitlines()]
    assert ["input", "1,200", "×", "2.50", "/", "1M", "0.003"] in lines
    assert ["cache_read", "800", "×", "1.25", "/", "1M", "0.001"] in lines
    assert ["output", "350", "×", "10.00", "/", "1M", "0.0035"] in lines
    assert ["sum", "0.0075"] in lines
    assert ["×", "user", "×", "model", "multiplier", "×", "1.2", "×", "1", "0.009"] in lines
    assert "answered by gpt-test-2026-01-01" in out
    assert "first byte after 210 ms, 1,234 ms in all" in out


def test_a_receipt_as_json_holds_every_factor_and_agrees(quick: Quick, book: Book) -> None:
    hold = book.settled(Leg(input=1))
    receipt = quick.json("explain", request_id_text(hold.id))
    assert receipt["lines"] == [
        {
            "model": "gpt-test",
            "class": "input",
            "quantity": 1,
            "rate_usd": "2.50",
            "per": 1_000_000,
            "amount_usd": "0.0000025",
            "price_version": 1,
        }
    ]
    factors = ("lines_usd", "user_multiplier", "model_multiplier", "exact_cost_usd", "cost_usd")
    assert [receipt[name] for name in factors] == ["0.0000025", "1.2", "1", "0.000003", "0.000003"]
    assert receipt["agrees"] is True
    assert set(ROW_FIELDS) < set(receipt)


def test_the_beginning_of_an_id_suffices_while_it_is_the_only_one(quick: Quick, book: Book) -> None:
    first, second = book.settled(), book.settled()
    text = request_id_text(first.id)
    assert quick.json("explain", text[4:])["id"] == text
    assert quick.json("explain", text[:20])["id"] == text
    ambiguous = quick.fails(2, "explain", text[:13])
    assert request_id_text(second.id) in ambiguous
    assert "is no request id" in quick.fails(2, "explain", "req_12")
    assert "is no request id" in quick.fails(2, "explain", "not-an-id-at-all")
    quick.fails(3, "explain", "req_" + "0" * 32)
    quick.fails(3, "explain", "req_" + "0" * 20)


def test_running_refused_and_expired_requests_have_a_receipt_too(quick: Quick, book: Book) -> None:
    running, refused = book.placed("2"), book.hold()
    refuse(book, refused.id)
    out = quick.ok("explain", request_id_text(running.id))
    assert "open" in out
    assert out.splitlines()[-1].split() == ["held", "USD", "2.00"]
    out = quick.ok("explain", request_id_text(refused.id))
    assert "Insufficient credit" in out
    assert "status 402" in out
    with book.write() as tx:
        tx.execute("UPDATE holds SET seen_cost_nanousd = 5")
        recovery.expire_open_holds(tx, now_ms=NOW_MS + 60_000)
    receipt = quick.json("explain", request_id_text(running.id))
    assert (receipt["state"], receipt["basis"]) == ("expired", "estimate")
    assert (receipt["cost_usd"], receipt["exact_cost_usd"]) == ("0.000000005", None)
    assert receipt["reason"] == "the proxy stopped while this request ran"


def test_a_shortfall_stands_on_the_receipt_and_in_doctor(quick: Quick, book: Book) -> None:
    hold = book.placed("10")
    with book.write() as tx:
        end = ledger.End("settled", "hold", parse_usd("12.5"), book.outcome(), NOW_MS)
        ledger.end_hold(tx, hold, end)
    out = quick.ok("explain", request_id_text(hold.id))
    assert ["shortfall", "USD,", "the", "operator's", "2.50"] in [
        line.split() for line in out.splitlines()
    ]
    checks = {check["name"]: check for check in quick.json("doctor")["checks"]}
    assert checks["shortfalls"]["status"] == "warn"
    assert "2.50 USD in 1 request" in checks["shortfalls"]["message"]


def test_a_receipt_that_does_not_multiply_to_its_cost_is_called_out(
    quick: Quick, book: Book
) -> None:
    hold = book.settled()
    with book.write() as tx:
        tx.execute("UPDATE requests SET receipt = replace(receipt, '350', '351')")
    ran = quick.run("explain", request_id_text(hold.id), "--json")
    assert ran.code == 1
    assert json.loads(ran.out)["agrees"] is False
    assert "NOT what the lines multiply to" in ran.err


def test_a_sound_ledger_is_verified(quick: Quick, book: Book) -> None:
    book.settled()
    ran = quick.run("ledger", "verify")
    assert (ran.code, ran.out) == (0, "The ledger is right.\n")
    assert "usages repriced 1" in ran.err
    report = quick.json("ledger", "verify")
    assert report["ok"] is True
    assert report["problems"] == []
    assert report["checked"]["holds"] == 1


def test_where_there_is_no_database_nothing_is_called_right(quick: Quick) -> None:
    assert "There is no database" in quick.fails(5, "ledger", "verify")
    quick.fails(5, "db", "info")
    assert not quick.home.exists()


def test_a_damaged_row_breaks_its_own_receipt_only(quick: Quick, book: Book) -> None:
    hold = book.settled()
    with book.write() as tx:
        tx.execute("UPDATE requests SET usage = '{', receipt = '{'")
    assert quick.json("usage", "requests")[0]["usage"] is None
    assert "cannot be read" in quick.fails(5, "explain", request_id_text(hold.id))


def test_a_damaged_ledger_fails_and_names_the_rows(quick: Quick, book: Book) -> None:
    hold = book.settled()
    connection = connect(quick.database)
    connection.execute("UPDATE wallets SET balance_nanousd = balance_nanousd + 1")
    connection.execute("UPDATE requests SET cost_nanousd = 1")
    connection.close()
    ran = quick.run("ledger", "verify")
    assert ran.code == 1
    group = "API key laptop, openai/gpt-test, /v1/openai/chat/completions"
    sums = f"sums of user ann on 2026-11-18, {group}"
    assert ran.out.splitlines() == [
        "wallet of user ann: balance is 9.991000001, its transfers sum to 9.991",
        f"hold {request_id_text(hold.id)}: cost_nanousd is 9000000, its request says 1",
        f"{sums}: are not those of its requests: cost_nanousd by 8999999",
    ]
    ran = quick.run("ledger", "verify", "--json")
    assert (ran.code, json.loads(ran.out)["problems_found"]) == (1, 3)


@pytest.mark.parametrize("command", [("usage", "requests"), ("ledger", "verify")])
def test_on_a_terminal_tables_and_progress_are_drawn(
    program: Program, command: tuple[str, ...]
) -> None:
    book = Book(program.database)
    hold = book.settled()
    book.close()
    ran = program.run_in_terminal(*command)
    assert ran.code == 0
    assert "\x1b[" in ran.out
    if command[0] == "usage":
        assert request_id_text(hold.id)[:20] in ran.out
        assert request_id_text(hold.id) not in ran.out
    assert "\x1b[3" not in program.run_in_terminal(*command, NO_COLOR="1").out


def test_long_names_leave_a_narrow_table_readable(program: Program) -> None:
    book = Book(program.database)
    with book.write() as tx:
        tx.execute("UPDATE users SET name = 'somebody-from-a-lab-with-a-long-name'")
    hold = book.settled()
    book.close()
    ran = program.run_in_terminal("usage", "requests", COLUMNS="80")
    shown = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", ran.out).splitlines()
    assert max(len(line) for line in shown) <= 80
    assert shown[1].split()[0] == request_id_text(hold.id)[:20]
    assert shown[1].split()[-2:] == ["settled", "0.009"]
    assert "openai/gpt-t" in shown[1]
