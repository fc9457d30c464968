"""What `doctor` and `explain` say of answers that came from other models, and of an old catalog."""

import json
from pathlib import Path

import msgspec
import pytest

from llmproxy import ledger
from llmproxy.cli import opening
from llmproxy.clock import request_id_text
from llmproxy.usage import Leg, Usage
from tests.cli.conftest import Quick
from tests.support.books import NOW_MS, Book

DAY_MS = 86_400_000
CATALOG = {
    "openai/gpt-test": {"in_price": "2.5", "out_price": "10", "aliases": ["gpt-test-2026-01-01"]},
    "openai/gpt-cheap": {"in_price": "1", "out_price": "2", "aliases": ["gpt-cheap-1"]},
    "openai/gpt-twin": {"in_price": "2.5", "out_price": "10", "max_input_tokens": 9},
    "openai/gpt-router": {"in_price": "3", "out_price": "10", "cost_from": "provider"},
}


def write_catalog(path: Path, updated: str = "2026-11-01") -> None:
    head = {"schema": 1, "currency": "USD", "unit": "per 1M tokens", "updated": updated}
    path.write_text(json.dumps({**head, "models": CATALOG}))


@pytest.fixture
def book(book: Book, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Book:
    write_catalog(tmp_path / "catalog.json")
    monkeypatch.setenv("LLMPROXY_CATALOG_FILE", str(tmp_path / "catalog.json"))
    monkeypatch.setattr(opening, "now_ms", lambda: NOW_MS + 1000)
    return book


def served(book: Book, by: str | None, model: str = "gpt-test", days_ago: int = 0) -> str:
    """Settle a request whose answer named a model; return its id."""
    book.now_ms -= days_ago * DAY_MS
    hold = book.placed()
    outcome = msgspec.structs.replace(
        book.outcome(Usage((Leg(),))), model=model, model_served=by, receipt=None
    )
    with book.write() as tx:
        ledger.end_hold(tx, hold, ledger.End("settled", "usage", 0, outcome, book.now_ms))
    book.now_ms += days_ago * DAY_MS
    return request_id_text(hold.id)


def check(quick: Quick, name: str) -> dict[str, str] | None:
    checks = json.loads(quick.run("doctor", "--json").out)["checks"]
    return next((each for each in checks if each["name"] == name), None)


def test_answers_of_models_with_other_prices_are_named(quick: Quick, book: Book) -> None:
    served(book, "gpt-cheap")
    newest = served(book, "gpt-cheap")
    by_alias = served(book, "gpt-cheap-1")
    served(book, "gpt-twin")
    found = check(quick, "models")
    assert found is not None
    assert found["status"] == "warn"
    assert found["message"] == (
        "answered by a model of other prices in 7 days: "
        f"openai/gpt-test by gpt-cheap (2 times, such as {newest}); "
        f"openai/gpt-test by gpt-cheap (1 time, such as {by_alias})"
    )
    assert "update the catalog, or set its prices: llmproxy catalog set" in found["advice"]


def test_a_model_of_the_same_prices_is_no_warning(quick: Quick, book: Book) -> None:
    newest = served(book, "gpt-twin")
    found = check(quick, "models")
    assert found is not None
    assert found["status"] == "ok"
    assert found["message"] == (
        "answered by another model of the same prices in 7 days: "
        f"openai/gpt-test by gpt-twin (1 time, such as {newest})"
    )


def test_the_asked_model_by_its_other_names_and_unknown_ones_are_nothing_to_say(
    quick: Quick, book: Book
) -> None:
    for by in (None, "gpt-test", "gpt-test-2026-01-01", "gpt-unknown"):
        served(book, by)
    served(book, "gpt-cheap", model="gpt-gone")
    served(book, "gpt-cheap", model="gpt-router")  # what the provider bills is charged
    served(book, "gpt-cheap", days_ago=8)
    assert check(quick, "models") is None


def test_the_receipt_says_which_model_answered(quick: Quick, book: Book) -> None:
    other, same = served(book, "gpt-cheap-1"), served(book, "gpt-test-2026-01-01")
    ran = quick.run("explain", other)
    assert "openai/gpt-test, answered by gpt-cheap-1" in ran.out
    assert ran.err == (
        "The catalog has the model that answered as openai/gpt-cheap; charged are the prices of "
        "gpt-test, which was asked for.\n"
    )
    assert quick.json("explain", other)["served_entry"] == "gpt-cheap"
    assert quick.run("explain", same).err == ""
    assert quick.json("explain", same)["served_entry"] is None


def test_a_receipt_needs_no_catalog(quick: Quick, book: Book, tmp_path: Path) -> None:
    other = served(book, "gpt-cheap")
    (tmp_path / "catalog.json").write_text("{")
    assert quick.json("explain", other)["served_entry"] is None
    assert check(quick, "models") is None
    unpriced = check(quick, "prices")
    assert unpriced is not None


@pytest.mark.parametrize(("updated", "status"), [("2026-08-20", "ok"), ("2026-08-19", "warn")])
def test_a_catalog_of_more_than_ninety_days_is_old(
    quick: Quick, book: Book, tmp_path: Path, updated: str, status: str
) -> None:
    """It is the 18th of November 2026 by the books."""
    write_catalog(tmp_path / "catalog.json", updated)
    found = check(quick, "catalog")
    assert found is not None
    assert (found["status"], found["message"].endswith(": old")) == (status, status == "warn")
    assert ("llmproxy catalog update" in (found["advice"] or "")) == (status == "warn")
