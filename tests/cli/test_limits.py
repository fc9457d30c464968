"""Limits on the command line: set, shown, lifted; keys that are resumed."""

import json
import re
import sqlite3

import pytest

from llmproxy import limit_store
from llmproxy.clock import Clock
from tests.cli.conftest import Program, Quick
from tests.support.books import Book

ALL = (
    *("--rpm", "60", "--tpm", "100000", "--concurrent", "4", "--daily-budget", "5"),
    *("--monthly-budget", "50", "--spend-per-hour", "2", "--models", "gpt-4o-mini,claude-*"),
    *("--providers", "openai,anthropic", "--networks", "10.0.0.0/8, ::1"),
)
SHOWN = {
    "requests_per_minute": 60,
    "tokens_per_minute": 100_000,
    "concurrent_max": 4,
    "daily_budget_usd": "5.00",
    "monthly_budget_usd": "50.00",
    "spend_per_hour_usd": "2.00",
    "models": ["gpt-4o-mini", "claude-*"],
    "providers": ["openai", "anthropic"],
    "networks": ["10.0.0.0/8", "::1/128"],
}


@pytest.fixture
def ann(quick: Quick) -> Quick:
    quick.ok("users", "create", "ann", "--credit", "5", "--key", "laptop")
    return quick


def test_all_limits_of_a_key_are_set_shown_and_lifted_one_by_one(ann: Quick) -> None:
    assert ann.json("keys", "show", "ann", "laptop")["limits"] == {}
    assert ann.json("keys", "set", "ann", "laptop", *ALL)["limits"] == SHOWN
    assert ann.json("keys", "list")[0]["limits"] == SHOWN
    text = ann.ok("keys", "show", "ann", "laptop")
    for part in (
        *("60 per minute, 0 now", "100,000 per minute, 0 now", "4 requests, 0 now"),
        *("5.00 USD, 0.00 today", "50.00 USD, 0.00 this month", "2.00 USD, 0.00 in ten minutes"),
        *("gpt-4o-mini, claude-*", "openai, anthropic", "10.0.0.0/8, ::1/128"),
    ):
        assert part in text
    left = dict(SHOWN)
    for option, name in zip(ALL[::2], SHOWN, strict=True):
        del left[name]
        assert ann.json("keys", "set", "ann", "laptop", option, "none")["limits"] == left
    assert "none" in ann.ok("keys", "show", "ann", "laptop").splitlines()[-1]


def test_a_key_is_made_with_its_limits(ann: Quick) -> None:
    ann.ok("keys", "create", "ann", "--name", "ci", *ALL, "--expires", "1d")
    assert ann.json("keys", "show", "ann", "ci")["limits"] == SHOWN
    assert ann.json("keys", "show", "ann", "laptop")["limits"] == {}


def test_users_have_limits_of_their_own(ann: Quick) -> None:
    set_ = ann.json("users", "set", "ann", "--rpm", "120", "--concurrent", "8")
    assert set_["limits"] == {"requests_per_minute": 120, "concurrent_max": 8}
    assert set_["rate_multiplier"] == "1"
    assert ann.json("users", "set", "ann", "--rate-multiplier", "2")["limits"] == set_["limits"]
    ann.ok("users", "set", "ann", "--rpm", "none", "--tpm", "5")
    assert ann.json("users", "show", "ann")["limits"] == {
        "tokens_per_minute": 5,
        "concurrent_max": 8,
    }
    assert "8 requests" in ann.ok("users", "show", "ann")
    assert ann.json("users", "list")[0]["limits"] == {"tokens_per_minute": 5, "concurrent_max": 8}


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--rpm", "0", "whole number from 1"),
        ("--rpm", "1.5", "whole number from 1"),
        ("--tpm", "many", "whole number from 1"),
        ("--concurrent", "-1", "whole number from 1"),
        ("--daily-budget", "-1", "not be below zero"),
        ("--monthly-budget", "1e3", "1e3"),
        ("--spend-per-hour", "", ""),
        ("--models", ",", "a list such as"),
        ("--models", "a*b", "a list such as"),
        ("--providers", "Open AI", "a list such as"),
        ("--networks", "10.0.0.1/8", "has host bits set"),
        ("--networks", "home", "10.0.0.0/8"),
        ("--networks", " ", "at least one network"),
    ],
)
def test_what_is_no_limit_is_wrong_usage_and_changes_nothing(
    ann: Quick, option: str, value: str, said: str
) -> None:
    assert said in ann.fails(2, "keys", "set", "ann", "laptop", f"{option}={value}")
    assert ann.json("keys", "show", "ann", "laptop")["limits"] == {}


def test_nothing_to_set_says_what_there_is(ann: Quick) -> None:
    assert "--rpm" in ann.fails(2, "keys", "set", "ann", "laptop")
    assert "--rpm" in ann.fails(2, "users", "set", "ann")
    assert "no live API key" in ann.fails(3, "keys", "set", "ann", "phone", "--rpm", "1")
    assert "no live API key" in ann.fails(3, "keys", "resume", "ann", "phone")


def test_an_alias_is_stored_as_the_id_it_stands_for_and_a_stranger_is_named(ann: Quick) -> None:
    models = ann.json("catalog", "list", "--limit", "0")
    model = next(each for each in models if each["aliases"])
    ran = ann.run(
        "keys", "set", "ann", "laptop", "--models", f"{model['aliases'][0]},x-1", "--json"
    )
    assert model["id"] in json.loads(ran.out)["limits"]["models"]
    assert ran.err == "Note: 'x-1' is not in the model catalog.\n"


def test_a_suspended_key_is_seen_and_resumed(ann: Quick) -> None:
    ann.ok("keys", "set", "ann", "laptop", "--spend-per-hour", "2")
    with sqlite3.connect(ann.database) as database:
        database.execute("PRAGMA foreign_keys = ON")
        limit_store.suspend(database, 1, "too fast", 2_000_000_000_000)
    database.close()
    assert ann.json("keys", "list")[0]["state"] == "suspended"
    shown = ann.json("keys", "show", "ann", "laptop")
    assert (shown["state"], shown["suspended_reason"]) == ("suspended", "too fast")
    assert "llmproxy keys resume ann laptop" in ann.ok("keys", "show", "ann", "laptop")
    resumed = ann.json("keys", "resume", "ann", "laptop")
    assert resumed == {"user": "ann", "name": "laptop", "was_suspended": True, "state": "live"}
    assert ann.json("keys", "list")[0]["state"] == "live"
    assert "was not suspended" in ann.ok("keys", "resume", "ann", "laptop")


def test_it_fits_a_terminal_of_80_columns(program: Program) -> None:
    program.run("users", "create", "ann", "--key", "laptop")
    program.run("keys", "set", "ann", "laptop", *ALL)
    for words in (("keys", "list"), ("keys", "show", "ann", "laptop"), ("users", "show", "ann")):
        ran = program.run_in_terminal(*words, COLUMNS="80", NO_COLOR="1")
        assert ran.code == 0
        shown = re.sub(r"\x1b\[[0-9;]*m", "", ran.out)
        assert max(len(line) for line in shown.splitlines()) <= 80


def test_a_key_that_is_rotated_keeps_its_limits(ann: Quick) -> None:
    ann.ok("keys", "set", "ann", "laptop", *ALL)
    ann.ok("keys", "rotate", "ann", "laptop", "--overlap", "1h")
    assert [key["limits"] for key in ann.json("keys", "list")] == [SHOWN, SHOWN]
    ann.ok("keys", "set", "ann", "laptop", "--rpm", "61")
    both = [key["limits"]["requests_per_minute"] for key in ann.json("keys", "list")]
    assert both == [61, 61]


def test_the_speed_of_spending_is_looked_for_as_far_back_as_an_answer_may_take(
    quick: Quick, book: Book, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each costs (1200 × 2.50 + 800 × 1.25 + 350 × 10) × 1.2 = 9,000 µUSD, and ended just now."""
    quick.ok("keys", "set", "ann", "laptop", "--spend-per-hour", "2")
    now_ms = Clock().now_ms()
    for minutes in (50, 115):
        book.now_ms = now_ms - minutes * 60_000
        hold = book.settled()
        with book.write() as tx:
            lasted_ms = (minutes - 5) * 60_000
            tx.execute("UPDATE requests SET duration_ms = ? WHERE id = ?", (lasted_ms, hold.id))

    def spent() -> object:
        return quick.json("keys", "show", "ann", "laptop")["limits_used"]["spent_10_minutes_usd"]

    assert spent() == "0.009"
    monkeypatch.setenv("LLMPROXY_TOTAL_TIMEOUT_S", "7200")
    assert spent() == "0.018"
    # What is set wrongly leaves nothing out.
    monkeypatch.setenv("LLMPROXY_TOTAL_TIMEOUT_S", "long")
    assert spent() == "0.018"
