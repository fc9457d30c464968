"""`catalog update` shows what the last week's requests would have cost, before anything counts."""

from pathlib import Path

import pytest

from llmproxy import accounts, crediting
from llmproxy.cli import catalog_rerating, opening
from llmproxy.usage import Leg
from tests.cli.conftest import Program, Quick
from tests.cli.test_catalog_update import newer
from tests.support.books import NOW_MS, Book

DAY_MS = 86_400_000


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A newer catalog, in which the model of the books has a price of twice its own."""
    return newer(tmp_path / "newer.json", gpt_test={"in_price": "5", "out_price": "20"})


@pytest.fixture
def book(book: Book, monkeypatch: pytest.MonkeyPatch) -> Book:
    """Two requests of ann's in the week, 1000 and 500 tokens in, and one from before it."""
    for days, tokens in ((-1, 9999), (1, 1000), (2, 500)):
        book.now_ms = NOW_MS + days * DAY_MS
        book.settled(Leg(input=tokens))
    monkeypatch.setattr(opening, "now_ms", lambda: NOW_MS + 7 * DAY_MS)
    return book


def test_the_difference_of_each_user_is_shown_and_no_charge_changed(
    quick: Quick, book: Book, file: Path
) -> None:
    dry_run = ("catalog", "update", "--from", str(file), "--dry-run")
    before = book.balance()
    ran = quick.run(*dry_run)
    table = [line.split() for line in ran.out.splitlines()]
    # 1500 tokens × 2.50 or 5 USD per million × 1.2
    assert table[table.index(["USER", "REQUESTS", "COST", "WOULD", "BE", "DIFFERENCE"]) + 1 :] == [
        ["ann", "2", "0.0045", "0.009", "+0.0045"],
        ["all", "2", "0.0045", "0.009", "+0.0045"],
    ]
    assert "By these prices, 2 requests of the last 7 days would have cost:" in ran.err
    assert "Nothing was changed." in ran.err
    sums = {"requests": 2, "old_usd": "0.0045", "new_usd": "0.009", "difference_usd": "0.0045"}
    assert quick.json(*dry_run)["last_days"] == {
        "days": 7,
        **sums,
        "users": [{"user": "ann", **sums}],
        "not_rated": [],
    }
    assert book.balance() == before
    quick.ok("ledger", "verify")


def test_entries_of_the_operators_own_count_here_too(quick: Quick, book: Book, file: Path) -> None:
    own = ("catalog", "set", "openai", "gpt-test", "--in-price", "2.5", "--out-price", "10")
    quick.ok(*own)
    ran = quick.run("catalog", "update", "--from", str(file), "--dry-run")
    assert "would have cost:\nthe same for every user.\n" in ran.err


def test_what_cannot_be_rated_is_said(quick: Quick, book: Book, tmp_path: Path) -> None:
    """The catalog in force does not have the model either: it was taken back meanwhile."""
    other = newer(tmp_path / "other.json", o1={"in_price": "16"})
    ran = quick.run("catalog", "update", "--from", str(other), "--dry-run")
    assert (
        "Not among them: 2 requests of 0.0045 USD in all: the other catalog has no such model: "
        "they would be refused." in ran.err
    )
    shown = quick.json("catalog", "update", "--from", str(other), "--dry-run")["last_days"]
    assert shown["not_rated"] == [{"reason": "no_model", "requests": 2, "cost_usd": "0.0045"}]
    assert (shown["requests"], shown["users"]) == (0, [])


def test_it_is_shown_before_it_is_asked_and_where_nobody_is_asked_too(
    quick: Quick, book: Book, file: Path
) -> None:
    update = ("catalog", "update", "--from", str(file))
    ran = quick.run(*update)
    assert ran.code == 2
    assert "would have cost:" in ran.err.partition("add --yes")[0]
    before = book.balance()
    ran = quick.run(*update, "--yes")
    assert ran.code == 0
    assert "would have cost:" in ran.err
    assert ["ann", "2", "0.0045", "0.009", "+0.0045"] in [x.split() for x in ran.out.splitlines()]
    assert ran.out.splitlines()[-1].endswith("is in force now.")
    assert book.balance() == before
    # The same catalog again changes nothing.
    assert quick.json(*update, "--yes")["last_days"] is None


def test_a_script_that_applies_it_gets_the_difference_too(
    quick: Quick, book: Book, file: Path
) -> None:
    shown = quick.json("catalog", "update", "--from", str(file), "--yes")
    assert shown["applied"] is True
    assert shown["last_days"]["users"] == [
        {
            "user": "ann",
            "requests": 2,
            "old_usd": "0.0045",
            "new_usd": "0.009",
            "difference_usd": "0.0045",
        }
    ]


def test_without_requests_it_says_so_and_without_a_database_nothing(
    quick: Quick, file: Path
) -> None:
    dry_run = ("catalog", "update", "--from", str(file), "--dry-run")
    assert quick.json(*dry_run)["last_days"] is None
    assert not quick.database.exists()
    quick.ok("users", "create", "ann")
    assert "No request of the last 7 days cost anything." in quick.run(*dry_run).err


def test_of_many_users_those_with_the_largest_differences_are_shown(
    quick: Quick, book: Book, file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalog_rerating, "USERS_SHOWN_MAX", 1)
    book.now_ms = NOW_MS + 3 * DAY_MS
    with book.write() as tx:
        bob = accounts.create_user(tx, "bob", now_ms=NOW_MS, rate_multiplier_micro=1_000_000)
        accounts.create_api_key(tx, bob, "desk", now_ms=NOW_MS)
        crediting.credit(tx, bob.wallet_id, 10**9, actor="test", reason=None, now_ms=NOW_MS)
    book.wallet_id = bob.wallet_id
    book.settled(Leg(input=1))
    ran = quick.run("catalog", "update", "--from", str(file), "--dry-run")
    shown = ran.out[ran.out.index("USER") :]
    assert ("ann" in shown, "bob" in shown) == (True, False)
    assert "And 1 user with smaller differences; --json shows all." in ran.err
    users = quick.json("catalog", "update", "--from", str(file), "--dry-run")["last_days"]["users"]
    assert [each["user"] for each in users] == ["ann", "bob"]


def test_there_is_a_bar_on_a_terminal(program: Program, tmp_path: Path, file: Path) -> None:
    book = Book(program.database)
    book.close()
    ran = program.run_in_terminal("catalog", "update", "--from", str(file), "--dry-run")
    assert ran.code == 0
    assert "Rating again" in ran.out
