"""The proof of the books finds each kind of damage. Each test damages a sound ledger by raw SQL."""

import shutil
import sqlite3
from pathlib import Path

import pytest

from llmproxy import ledger, ledger_check, recovery
from llmproxy.money import parse_usd
from llmproxy.storage.database import connect, transaction
from llmproxy.usage import Leg
from tests.support.books import NOW_MS, Book

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
    book.placed("0.5")
    short = book.placed("9")
    with book.write() as tx:
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
        # Charges.
        ("DELETE FROM transfers WHERE kind = 'charge'", "but has no transfer"),
        ("UPDATE transfers SET amount_nanousd = amount_nanousd - 1 WHERE kind = 'charge'", "is a"),
        ("UPDATE transfers SET wallet_id = 2 WHERE kind = 'charge'", "money of another wallet"),
        (CHARGE + "VALUES(1, 'charge', -1, zeroblob(16), 'x', 1)", "has no hold"),
        (CHARGE + "SELECT 1, 'credit', 5, id, 'x', 1 FROM holds", "but points to a hold"),
        (CHARGE + "SELECT 1, 'charge', -5, id, 'x', 1 FROM holds", "was charged 2 times"),
        # Reporting rows.
        ("UPDATE requests SET state = 'released' WHERE state = 'settled'", "its request says"),
        ("UPDATE requests SET cost_nanousd = cost_nanousd + 1", "cost_nanousd is"),
        ("UPDATE requests SET user_id = 9", "wallet_user_id is"),
        ("UPDATE requests SET model = 'other'", "asked_model is"),
        ("UPDATE requests SET charged_nanousd = 1 WHERE id = zeroblob(16)", "but no hold"),
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
        (
            "UPDATE price_versions SET prices = replace(prices, '10000000000', '9000000000')",
            "not those that it was stored with",
        ),
        ("UPDATE price_versions SET prices = '{}'", "Stored prices cannot be read"),
        # Rows that point nowhere.
        ("DELETE FROM price_versions", "a row of price_versions that does not exist"),
        ("UPDATE holds SET api_key_id = 99", "belong to different users"),
    ],
)
def test_each_kind_of_damage_is_found(
    damaged: sqlite3.Connection, statement: str, message: str
) -> None:
    damaged.execute("DROP INDEX transfers_hold")
    damaged.execute(statement)
    messages = [problem.message for problem in check(damaged).problems]
    assert any(message in found for found in messages), messages


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


def test_damage_to_the_file_itself_is_found(damaged: sqlite3.Connection) -> None:
    """The index says that a column is unique while the table does not keep to it."""
    damaged.execute("PRAGMA writable_schema=ON")
    damaged.execute(
        "UPDATE sqlite_schema SET sql = replace(sql, 'transfers(wallet_id, id)',"
        " 'transfers(id, wallet_id)') WHERE name = 'transfers_wallet'"
    )
    damaged.execute("PRAGMA writable_schema=RESET")
    assert any(problem.row == "database" for problem in check(damaged).problems)


def test_of_many_problems_the_first_are_kept_and_all_are_counted() -> None:
    report = ledger_check.Report()
    for number in range(1500):
        report.add(f"row {number}", "is wrong")
    assert (report.found, len(report.problems)) == (1500, ledger_check.PROBLEMS_SHOWN_MAX)
    assert report.as_json()["problems_found"] == 1500


def test_progress_adds_up_to_the_rows_that_were_promised(damaged: sqlite3.Connection) -> None:
    steps: list[int] = []
    with transaction(damaged) as tx:
        total = ledger_check.count_rows(tx)
        ledger_check.verify(tx, on_progress=steps.append)
    assert sum(steps) == total == 6
    damaged.close()
