"""Prices that end on a known day: where it is shown, who is warned, what own entries make of it."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest

from llmproxy.cli import opening
from tests.cli.conftest import Quick
from tests.cli.test_catalog_update import newer

MODEL = ("openai", "gpt-4o")
BEFORE = "prices hold until 2026-12-31 only: openai/gpt-4o"
AFTER = "prices have changed since 2026-12-31, and the old ones are charged: openai/gpt-4o"
OWN = " (your own entry)"


@pytest.fixture
def dated(quick: Quick, tmp_path: Path) -> Quick:
    """A catalog in which a price of OpenAI's ends, and a database."""
    file = newer(tmp_path / "dated.json", gpt_4o={"prices_until": "2026-12-31"})
    out = quick.ok("catalog", "update", "--from", str(file), "--yes")
    assert out.splitlines()[1].split() == ["openai/gpt-4o", "prices_until", "–", "2026-12-31"]
    quick.ok("users", "create", "ann")
    return quick


def be_on(monkeypatch: pytest.MonkeyPatch, day: str) -> None:
    now_ms = int(datetime.fromisoformat(day).replace(tzinfo=UTC).timestamp() * 1000)
    monkeypatch.setattr(opening, "now_ms", lambda: now_ms)


def checked(quick: Quick) -> list[str]:
    """What `catalog check` says of OpenAI's prices."""
    found = quick.json("catalog", "check")
    assert found["ok"] is True
    messages = [each["message"] for each in found["warnings"]]
    said = quick.run("catalog", "check").err
    assert all(message in said for message in messages)
    return [message for message in messages if "openai/" in message]


def doctored(quick: Quick) -> list[str]:
    checks = json.loads(quick.run("doctor", "--json").out)["checks"]
    told = [each for each in checks if each["name"] == "price dates"]
    assert all(each["status"] == "warn" and "catalog update" in each["advice"] for each in told)
    return [each["message"] for each in told]


def test_the_day_is_shown(dated: Quick) -> None:
    assert dated.json("catalog", "show", "openai/gpt-4o")["prices_until"] == "2026-12-31"
    shown = dated.ok("catalog", "show", "openai/gpt-4o")
    assert "2026-12-31; after that day the provider charges others" in shown
    assert dated.json("catalog", "show", "openai/o1")["prices_until"] is None
    assert "prices until" not in dated.ok("catalog", "show", "openai/o1")


def test_it_is_told_before_and_after(dated: Quick, monkeypatch: pytest.MonkeyPatch) -> None:
    for day, says in (("2026-11-30", []), ("2026-12-20", [BEFORE]), ("2027-01-20", [AFTER])):
        be_on(monkeypatch, day)
        assert checked(dated) == says
        # OpenAI is not set up: its prices concern nobody yet.
        assert doctored(dated) == []
    dated.ok("provider-keys", "add", "openai", stdin="sk-1234567890123456789012\n")
    for day, says in (("2026-11-30", []), ("2026-12-20", [BEFORE]), ("2027-01-20", [AFTER])):
        be_on(monkeypatch, day)
        assert doctored(dated) == says


def test_a_file_is_checked_for_it_too(
    quick: Quick, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_on(monkeypatch, "2026-12-20")
    file = newer(tmp_path / "dated.json", gpt_4o={"prices_until": "2026-12-31"})
    warned = quick.json("catalog", "check", str(file))["warnings"]
    assert BEFORE in [each["message"] for each in warned]


def test_an_own_price_has_no_end_but_a_multiplier_keeps_it(
    dated: Quick, monkeypatch: pytest.MonkeyPatch
) -> None:
    be_on(monkeypatch, "2026-12-20")
    dated.ok("catalog", "set", *MODEL, "--multiplier", "1.5")
    assert checked(dated) == [BEFORE + OWN]
    dated.ok("catalog", "set", *MODEL, "--prices-until", "2027-12-31")
    assert checked(dated) == []
    dated.ok("catalog", "set", *MODEL, "--prices-until", "2026-12-31", "--in-price", "3")
    assert checked(dated) == [BEFORE + OWN]
    shown = dated.json("catalog", "set", *MODEL, "--in-price", "4")
    assert (shown["in_price"], shown["prices_until"]) == ("4.00", None)
    assert checked(dated) == []
