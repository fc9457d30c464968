"""What must be told of a catalog that is right: prices that end."""

from datetime import date

import pytest

from llmproxy.catalog_parser import load_catalog, parse_entry
from llmproxy.catalog_warnings import PRICES_END_WITHIN_DAYS, date_warnings
from tests.support.catalogs import entry, one, parse, refusal_of

UNTIL = entry(prices_until="2026-12-31")


def messages(today: str, models: dict[str, dict[str, object]]) -> list[str]:
    return [one.message for one in date_warnings(parse(models), date.fromisoformat(today))]


@pytest.mark.parametrize(
    ("today", "says"),
    [
        ("2026-11-30", None),
        ("2026-12-01", "prices hold until 2026-12-31 only: openai/m"),
        ("2026-12-31", "prices hold until 2026-12-31 only: openai/m"),
        (
            "2027-01-01",
            "prices have changed since 2026-12-31, and the old ones are charged: openai/m",
        ),
        (
            "2028-06-01",
            "prices have changed since 2026-12-31, and the old ones are charged: openai/m",
        ),
    ],
)
def test_prices_that_end_are_told_from_thirty_days_before(today: str, says: str | None) -> None:
    assert PRICES_END_WITHIN_DAYS == 30
    assert messages(today, {"openai/m": UNTIL, "openai/n": entry()}) == ([says] if says else [])


def test_they_are_told_by_day_and_provider() -> None:
    sooner = entry(prices_until="2026-12-30")
    models = {"openai/b": UNTIL, "openai/a": UNTIL, "xai/a": UNTIL, "openai/c": sooner}
    assert messages("2026-12-20", models) == [
        "prices hold until 2026-12-30 only: openai/c",
        "prices hold until 2026-12-31 only: openai/a, openai/b",
        "prices hold until 2026-12-31 only: xai/a",
    ]


def test_an_own_entry_is_called_so() -> None:
    catalog = parse({"openai/m": UNTIL}).overridden([parse_entry("openai", "m", UNTIL)], set())
    (told,) = date_warnings(catalog, date(2026, 12, 20))
    assert told.message.endswith(": openai/m (your own entry)")
    assert told.advice.endswith("catalog set openai MODEL --in-price USD --out-price USD")


def test_the_day_is_a_date_and_no_part_of_what_holds_pin() -> None:
    assert one(prices_until="2026-12-31").prices_until == "2026-12-31"
    assert one(prices_until="2026-12-31").prices == one().prices
    assert one().prices_until is None
    for wrong in ("2026-13-01", "tomorrow", "20261231", 2026, None):
        assert refusal_of(prices_until=wrong).endswith('must be a date such as "2026-11-23".')


def test_the_shipped_catalog_knows_that_gemini_doubles() -> None:
    model = load_catalog(None).find("gemini", "gemini-3.6-flash")
    assert model is not None
    assert model.prices_until == "2026-12-31"
