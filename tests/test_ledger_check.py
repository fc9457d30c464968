"""The proof of the books finds each kind of damage. Each test damages a sound ledger by raw SQL."""

import re
import shutil
import sqlite3
from pathlib import Path

import msgspec
import pytest

from llmproxy import accounts, ledger, ledger_check, recovery
from llmproxy.clock import request_id_text
from llmproxy.money import parse_usd
from llmproxy.storage.database import connect, transaction
from llmproxy.usage import Leg
from tests.support.books import NOW_MS, Book

ROW = re.compile(
    r"database|[a-z_]+ row \d+|(wallet of )?user ann"
    r"|(price version|transfer) \d+|(hold|request) req_\w+"
    r"|sums of user \w+( on [-\d]{10})?(, API key \w+, openai(/gpt-test|/other)?, [/\w]+)?"
)
"""How a problem names its row."""
TRIGGERS = "SELECT name FROM sqlite_schema WHERE type = 'trigger'"


@pytest.fixture(scope="module")
def sound_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A ledger with a hold of every kind: settled, short, released, expired, open, refused."""
    path = tmp_path_factory.mktemp("sound") / "data" / "llmproxy.db"
    book = Book(path)
    book.settled()
    book.settled(Leg(input=5_000), Leg(output=7))
    released, expired = book.placed("1"), book.placed("2")
    with book.write() as tx:
        ledger.end_hold(tx, released, ledger.released(book.outcome(), at_ms=NOW_MS))
        tx.execute("UPDATE holds SET seen_cost_nanousd = 5 WHERE id = ?", (expired.id,))
        recovery.expire_open_holds(tx, now_ms=NOW_MS)
    with_key = msgspec.structs.replace(
        book.hold("0.5"), idempotency_hash=b"k" * 32, body_hash=b"a" * 32
    )
    short = book.placed("9")
    with book.write() as tx:
        ledger.place_hold(tx, with_key)
        end = ledger.End("settled", "hold", parse_usd("20"), book.outcome(), NOW_MS)
        ledger.end_hold(tx, short, end)
        ledger.record_unheld(
            tx, bytes(16), api_key_id=1, endpoint="/", outcome=book.outcome(), now_ms=NOW_MS
        )
    book.close()
    return path


@pytest.fixture
def damaged(sound_file: Path, tmp_path: Path) -> sqlite3.Connection:
    """A copy of the sound ledger with every defence switched off."""
    copy = tmp_path / "copy.db"
    shutil.copy(sound_file, copy)
    connection = connect(copy)
    for (name,) in connection.execute(TRIGGERS).fetchall():
        connection.execute(f"DROP TRIGGER {name}")
    connection.execute("PRAGMA foreign_keys=OFF")
    connection.execute("PRAGMA ignore_check_constraints=ON")
    return connection


def check(connection: sqlite3.Connection) -> ledger_check.Report:
    with transaction(connection) as tx:
        report = ledger_check.verify(tx)
    connection.close()
    return report


def test_a_sound_ledger_has_no_problems_and_everything_is_counted(
    damaged: sqlite3.Connection,
) -> None:
    report = check(damaged)
    assert report.problems == []
    assert report.is_ok
    assert report.checked == {
        "wallets": 1,
        "price_versions": 1,
        "holds": 6,
        "receipts": 2,
        "usages_repriced": 2,
        "transfers": 5,
        "requests": 6,
        "sums_by_day": 2,
    }


SETTLED = "state = 'settled' AND basis = 'usage'"
CHARGE = "INSERT INTO transfers(wallet_id, kind, amount_nanousd, hold_id, actor, created_at_ms) "


@pytest.mark.parametrize(
    ("statement", "message"),
    [
        # Wallets.
        ("UPDATE wallets SET balance_nanousd = balance_nanousd + 1", "its transfers sum to"),
        ("UPDATE wallets SET held_nanousd = held_nanousd - 1", "its open holds sum to"),
        ("UPDATE wallets SET held_nanousd = balance_nanousd + 1", "is not between 0 and"),
        ("UPDATE wallets SET held_nanousd = -1", "is not between 0 and"),
        ("DELETE FROM wallets", "has no wallet"),
        # How holds end.
        ("UPDATE holds SET cost_nanousd = 1 WHERE state = 'open'", "is open, but has cost"),
        ("UPDATE holds SET ended_at_ms = 1 WHERE state = 'open'", "is open, but has ended_at_ms"),
        (f"UPDATE holds SET state = 'open' WHERE {SETTLED}", "is open, but its request is settled"),
        (f"UPDATE holds SET ended_at_ms = NULL WHERE {SETTLED}", "its end is not complete"),
        (f"UPDATE holds SET shortfall_nanousd = 1 WHERE {SETTLED}", "is not charged"),
        ("UPDATE holds SET cost_nanousd = 1 WHERE state = 'released'", "is released, but cost"),
        (
            f"UPDATE holds SET charged_nanousd = 3 * amount_nanousd WHERE {SETTLED}",
            "above what it held and what the answer cost",
        ),
        (
            f"""UPDATE holds SET shortfall_nanousd = 1, cost_nanousd = cost_nanousd + 1
                WHERE {SETTLED}""",
            "leaves a shortfall",
        ),
        (
            "UPDATE holds SET seen_cost_nanousd = 4 WHERE state = 'expired'",
            "are not by what had been seen: 0.000000004",
        ),
        (
            "UPDATE holds SET amount_nanousd = 4 WHERE state = 'expired'",
            "are not by what had been seen: 0.000000005",
        ),
        (f"UPDATE holds SET basis = 'none' WHERE {SETTLED}", "is settled, but its basis is none"),
        ("UPDATE holds SET basis = 'usage' WHERE state = 'released'", "its basis is usage"),
        ("UPDATE holds SET basis = 'none' WHERE state = 'expired'", "its basis is none"),
        ("UPDATE holds SET seen_cost_nanousd = -1 WHERE state = 'open'", "is below zero"),
        ("UPDATE holds SET amount_nanousd = -1 WHERE state = 'open'", "is below zero"),
        (
            "INSERT INTO boots(pid, version, started_at_ms) VALUES(2, 'x', 1)",
            "belongs to an earlier start of the server",
        ),
        # Idempotency keys.
        ("UPDATE holds SET body_hash = NULL", "has only one of the hashes"),
        (f"UPDATE holds SET body_hash = zeroblob(32) WHERE {SETTLED}", "only one of the hashes"),
        (
            f"""UPDATE holds SET body_hash = zeroblob(32), idempotency_hash =
                  (SELECT idempotency_hash FROM holds WHERE state = 'open') WHERE {SETTLED}""",
            "is one of 3 of its wallet with its idempotency key",
        ),
        (
            """INSERT INTO transfers(wallet_id, kind, amount_nanousd, idempotency_key, actor,
                                     created_at_ms)
               VALUES(1, 'credit', 1, 'a', 'x', 1), (1, 'credit', 1, 'a', 'x', 1)""",
            "is one of 2 with its idempotency key",
        ),
        # Charges.
        ("DELETE FROM transfers WHERE kind = 'charge'", "but has no transfer"),
        ("UPDATE transfers SET amount_nanousd = amount_nanousd - 1 WHERE kind = 'charge'", "is a"),
        ("UPDATE transfers SET wallet_id = 2 WHERE kind = 'charge'", "money of another wallet"),
        (CHARGE + "VALUES(1, 'charge', -1, zeroblob(16), 'x', 1)", "has no hold"),
        (CHARGE + "SELECT 1, 'credit', 5, id, 'x', 1 FROM holds", "but points to a hold"),
        (CHARGE + "SELECT 1, 'charge', -5, id, 'x', 1 FROM holds", "was charged 2 times"),
        ("UPDATE transfers SET amount_nanousd = -1 WHERE kind = 'credit'", "is a credit of -"),
        ("UPDATE transfers SET amount_nanousd = 1 WHERE kind = 'charge'", "is a charge of 0.0"),
        ("UPDATE transfers SET kind = 'adjust', amount_nanousd = 0", "is a adjust of 0.00"),
        ("UPDATE transfers SET kind = 'adjust' WHERE kind = 'credit'", "without a reason"),
        # Reporting rows.
        ("UPDATE requests SET state = 'released' WHERE state = 'settled'", "its request says"),
        ("UPDATE requests SET cost_nanousd = cost_nanousd + 1", "cost_nanousd is"),
        ("UPDATE requests SET user_id = 9", "wallet_user_id is"),
        ("UPDATE requests SET model = 'other'", "asked_model is"),
        ("UPDATE requests SET created_at_ms = 1 WHERE state = 'settled'", "created_at_ms is"),
        ("UPDATE requests SET hold_nanousd = hold_nanousd + 1", "amount_nanousd is"),
        ("UPDATE requests SET charged_nanousd = 1 WHERE id = zeroblob(16)", "but no hold"),
        ("UPDATE requests SET basis = 'usage' WHERE id = zeroblob(16)", "refused by usage, but"),
        (
            "UPDATE requests SET state = 'expired' WHERE id = zeroblob(16)",
            "is expired by none, but",
        ),
        ("UPDATE requests SET user_id = 7 WHERE id = zeroblob(16)", "belongs to another user"),
        ("UPDATE requests SET api_key_id = 7 WHERE id = zeroblob(16)", "belongs to another user"),
        # Prices.
        (
            f"UPDATE holds SET user_multiplier_micro = 1300000 WHERE {SETTLED}",
            "but its receipt sums to",
        ),
        (
            "UPDATE requests SET usage = replace(usage, '350', '351')",
            "but its usage prices to",
        ),
        (
            "UPDATE requests SET receipt = replace(receipt, '350', '351')",
            "but its receipt sums to",
        ),
        (
            """UPDATE requests SET receipt = replace(receipt, '"output"', '"input"')""",
            "other lines than its usage",
        ),
        ("UPDATE requests SET receipt = NULL", "but has no receipt"),
        ("UPDATE requests SET usage = '{'", "cannot be read"),
        ("UPDATE requests SET usage = NULL", "is settled by usage, but no usage is kept"),
        (
            "UPDATE requests SET receipt = replace(receipt, 'gpt-test', 'gpt-tset')",
            "other lines than its usage",
        ),
        (
            "UPDATE price_versions SET prices = replace(prices, '10000000000', '9000000000')",
            "not those that it was stored with",
        ),
        ("UPDATE price_versions SET prices = '{}'", "Stored prices cannot be read"),
        # Rows that point nowhere.
        ("DELETE FROM price_versions", "a row of price_versions that does not exist"),
        ("UPDATE holds SET api_key_id = 99", "belong to different users"),
        # Sums by day.
        ("DELETE FROM requests", "are not those of its requests: requests by 5, "),
        ("DELETE FROM requests_by_day", "are not those of its requests: requests by -5, "),
        ("DELETE FROM requests_by_day", "are not those of its holds: cost_nanousd by -"),
        ("DELETE FROM requests_by_day", "are not those of the transfers: charges differ by -"),
        ("UPDATE requests_by_day SET refused = 2 WHERE refused = 1", "its requests: refused by 1"),
        ("UPDATE requests_by_day SET day = day + 1", "its requests: requests by 5, "),
        ("UPDATE requests_by_day SET output = output - 1", "its requests: output by -1"),
    ],
)
def test_each_kind_of_damage_is_found(
    damaged: sqlite3.Connection, statement: str, message: str
) -> None:
    # What the file's own defences would have refused, or found.
    for index in ("transfers_hold", "transfers_idempotency", "holds_idempotency"):
        damaged.execute(f"DROP INDEX {index}")
    damaged.execute(statement)
    problems = check(damaged).problems
    messages = [problem.message for problem in problems]
    assert any(message in found for found in messages), messages
    assert [each.row for each in problems if not ROW.fullmatch(each.row)] == []


@pytest.mark.parametrize(
    ("where", "damage"),
    [
        ("holds WHERE state = 'expired'", "seen_cost_nanousd = 4"),
        ("holds WHERE state = 'released'", "basis = 'hold'"),
        ("holds WHERE idempotency_hash IS NOT NULL", "body_hash = NULL"),
        ("holds WHERE state = 'open'", "boot_id = 77"),
        ("requests WHERE basis = 'hold'", "created_at_ms = 1"),
        ("requests WHERE state = 'refused'", "user_id = 7"),
        ("transfers WHERE kind = 'credit'", "amount_nanousd = 0"),
    ],
)
def test_the_row_that_is_wrong_is_named(
    damaged: sqlite3.Connection, where: str, damage: str
) -> None:
    table = where.partition(" ")[0]
    (row_id,) = damaged.execute(f"SELECT id FROM {where}").fetchone()
    damaged.execute(f"UPDATE {table} SET {damage} WHERE id = ?", (row_id,))
    name = f"transfer {row_id}"
    if table != "transfers":
        kind = "request" if row_id == bytes(16) else "hold"
        name = f"{kind} {request_id_text(row_id)}"
    assert name in {problem.row for problem in check(damaged).problems}


def test_a_price_that_changed_with_its_hash_is_found_by_pricing_again(
    damaged: sqlite3.Connection,
) -> None:
    """Someone who rewrites prices and their SHA-256 still has every cost against them."""
    damaged.create_function(
        "sha256", 1, lambda text: __import__("hashlib").sha256(text.encode()).digest()
    )
    damaged.execute(
        "UPDATE price_versions SET prices = replace(prices, '10000000000', '9000000000')"
    )
    damaged.execute("UPDATE price_versions SET sha256 = sha256(prices)")
    messages = [problem.message for problem in check(damaged).problems]
    assert len(messages) == 2
    assert all("but its usage prices to" in message for message in messages)


def test_a_hold_that_points_nowhere_is_named_for_each_row_that_is_missing(
    damaged: sqlite3.Connection,
) -> None:
    """SQLite's own check finds them, but does not say which: holds have no row ids."""
    holds = damaged.execute("SELECT id FROM holds ORDER BY id LIMIT 2").fetchall()
    names = [f"hold {request_id_text(row[0])}" for row in holds]
    damaged.execute("UPDATE holds SET wallet_id = 77, boot_id = 77 WHERE id = ?", holds[0])
    damaged.execute(
        "UPDATE holds SET api_key_id = 77, price_version_id = 77 WHERE id = ?", holds[1]
    )
    damaged.execute("UPDATE transfers SET wallet_id = 77 WHERE kind = 'credit'")
    nowhere = re.compile("points to a row of (.*) that does not exist")
    found = [(each.row, nowhere.fullmatch(each.message)) for each in check(damaged).problems]
    assert {(row, match[1]) for row, match in found if match} == {
        (names[0], "wallets"),
        (names[0], "boots"),
        (names[1], "api_keys"),
        (names[1], "price_versions"),
        ("transfers row 1", "wallets"),
    }


def test_damage_to_the_file_itself_is_found(damaged: sqlite3.Connection) -> None:
    """The index says that a column is unique while the table does not keep to it."""
    damaged.execute("PRAGMA writable_schema=ON")
    damaged.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'requests(user_id, id)',"
        " 'requests(id, user_id)') WHERE name = 'requests_user'"
    )
    damaged.execute("PRAGMA writable_schema=RESET")
    found = {(problem.row, problem.message) for problem in check(damaged).problems}
    assert ("database", "row 1 missing from index requests_user") in found, found


def test_of_many_problems_the_first_are_kept_and_all_are_counted() -> None:
    report = ledger_check.Report()
    for number in range(1500):
        report.add(f"row {number}", "is wrong")
    assert (report.found, len(report.problems)) == (1500, ledger_check.PROBLEMS_SHOWN_MAX)
    assert report.as_json()["problems_found"] == 1500


def test_a_report_as_json_says_what_was_checked_and_what_is_wrong() -> None:
    report = ledger_check.Report()
    assert report.as_json() == {"ok": True, "checked": {}, "problems_found": 0, "problems": []}
    report.count("holds", 2)
    report.add("hold 1", "is wrong")
    assert report.as_json() == {
        "ok": False,
        "checked": {"holds": 2},
        "problems_found": 1,
        "problems": [{"row": "hold 1", "message": "is wrong"}],
    }


def test_progress_adds_up_to_the_rows_that_were_promised(damaged: sqlite3.Connection) -> None:
    steps: list[int] = []
    with transaction(damaged) as tx:
        total = ledger_check.count_rows(tx)
        ledger_check.verify(tx, on_progress=steps.append)
    assert sum(steps) == total == 6
    damaged.close()


def test_a_hold_of_nothing_and_a_charge_of_all_that_was_held_are_sound(tmp_path: Path) -> None:
    book = Book(tmp_path / "data" / "llmproxy.db")
    nothing, everything = book.placed("0"), book.placed("10")
    with book.write() as tx:
        for hold, cost in ((nothing, 0), (everything, parse_usd("12"))):
            end = ledger.End("settled", "hold", cost, book.outcome(), NOW_MS)
            ledger.end_hold(tx, hold, end)
        assert ledger_check.verify(tx).problems == []
    book.close()


def test_requests_are_a_report_and_may_be_gone(damaged: sqlite3.Connection) -> None:
    damaged.execute("DELETE FROM requests")
    damaged.execute("INSERT INTO prunes(before_day, actor, created_at_ms) VALUES(99999, 'x', 1)")
    assert check(damaged).problems == []


def test_every_user_without_a_wallet_is_found(damaged: sqlite3.Connection) -> None:
    with transaction(damaged) as tx:
        for name in ("bob", "eve"):
            accounts.create_user(tx, name, now_ms=NOW_MS, rate_multiplier_micro=0)
        tx.execute("DELETE FROM wallets")
    found = {problem.row for problem in check(damaged).problems}
    assert found >= {"user ann", "user bob", "user eve"}


def test_what_was_settled_by_an_estimate_is_priced_again_as_well(
    damaged: sqlite3.Connection,
) -> None:
    for table in ("holds", "requests"):
        damaged.execute(f"UPDATE {table} SET basis = 'estimate' WHERE basis = 'usage'")
    with transaction(damaged) as tx:
        report = ledger_check.verify(tx)
    assert (report.problems, report.checked["usages_repriced"]) == ([], 2)
    damaged.execute("UPDATE requests SET usage = NULL WHERE basis = 'estimate'")
    *messages, sums = [problem.message for problem in check(damaged).problems]
    assert messages == ["is settled by estimate, but no usage is kept"] * 2
    assert sums.startswith("are not those of its requests: input by 6200, ")


def test_of_a_request_without_a_hold_only_what_is_wrong_is_said(
    damaged: sqlite3.Connection,
) -> None:
    damaged.execute("UPDATE requests SET cost_nanousd = 1 WHERE state = 'refused'")
    messages = [problem.message for problem in check(damaged).problems]
    assert messages == [
        "has amounts, but no hold",
        "are not those of its requests: cost_nanousd by -1",
    ]


PRUNED = "INSERT INTO prunes(before_day, actor, created_at_ms) VALUES(99999, 'x', 1)"


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        ("output = output - 1", "are not those of its requests: output by -1"),
        ("cost_nanousd = cost_nanousd + 1", "are not those of its holds: cost_nanousd by 1"),
        ("charged_nanousd = charged_nanousd + 1", "are not those of its holds: charged_nanousd by"),
        (
            "charged_nanousd = charged_nanousd - 1",
            "are not those of the transfers: charges differ by -0.000000001",
        ),
        ("shortfall_nanousd = 0", "are not those of its holds: shortfall_nanousd by -"),
    ],
)
def test_what_was_charged_on_days_that_were_pruned_is_proven_still(
    damaged: sqlite3.Connection, damage: str, message: str
) -> None:
    damaged.execute(PRUNED)
    damaged.execute("DELETE FROM requests WHERE basis = 'none'")
    with transaction(damaged) as tx:
        assert ledger_check.verify(tx).problems == []
    damaged.execute(f"UPDATE requests_by_day SET {damage} WHERE model <> ''")
    messages = [problem.message for problem in check(damaged).problems]
    assert any(message in found for found in messages), messages
