"""How amounts and times are shown, and where the printed link leads."""

import re

import msgspec
import pytest

from llmproxy.dashboard.address import dashboard_url, says_where, told_proxy, told_where
from llmproxy.dashboard.bars import Share, draw_bars, rank_shares
from llmproxy.dashboard.formats import cost, dollars, used_on
from llmproxy.reports import OwnSums
from llmproxy.settings import Settings

DAY_MS = 86_400_000


@pytest.mark.parametrize(
    ("nanousd", "shown"),
    [
        (0, "0.00"),
        (999, "0.00"),
        (1_999, "0.000001"),
        (99_999_999, "0.099999"),
        (100_000_000, "0.10"),
        (4_999_999_999, "4.99"),
        (1_234_567_000_000_000, "1,234,567.00"),
    ],
)
def test_credit_is_never_shown_as_more_than_it_is(nanousd: int, shown: str) -> None:
    assert dollars(nanousd) == shown


@pytest.mark.parametrize(
    ("nanousd", "shown"),
    [
        (0, "0.00"),
        (1, "<0.000001"),
        (60_000, "0.000060"),
        (999_999_999, "1.000000"),
        (13_249_066_000, "13.25"),
        (1_234_000_000_000, "1,234.00"),
    ],
)
def test_costs_are_shown_to_the_millionth_below_a_dollar(nanousd: int, shown: str) -> None:
    assert cost(nanousd) == shown


def test_the_day_of_last_use_is_told_in_words() -> None:
    now_ms = 100 * DAY_MS + 5
    shown = [used_on(day * DAY_MS, now_ms) for day in (100, 99, 98, 70, 69)]
    assert shown == ["today", "yesterday", "2 days ago", "30 days ago", "11 Mar 1970"]
    assert used_on(None, now_ms) == "never"


def test_a_day_with_any_cost_can_be_seen_and_a_month_without_one_is_flat() -> None:
    sums = {
        "1970-01-01": OwnSums("", 1, 0, 0, 1, 1),
        "1970-01-30": OwnSums("", 2, 0, 0, 10**9, 10**9),
    }
    now_ms = 29 * DAY_MS + 5
    bars = draw_bars(sums, now_ms)
    assert [bar.height for bar in bars] == [2.0, *[0.0] * 28, 100.0]
    assert {bar.height for bar in draw_bars({}, now_ms)} == {0.0}


def test_the_models_that_cost_most_come_first_and_the_rest_together() -> None:
    shares = rank_shares(Share(f"m{n}", n, 1, 15, 0.0) for n in range(9))
    assert [share.name for share in shares] == ["m8", "m7", "m6", "m5", "m4", "m3", "3 others"]
    assert (shares[0].percent, shares[-1].charged_nanousd, shares[-1].tokens) == (100.0, 3, 45)
    assert rank_shares([]) == []
    assert [share.percent for share in rank_shares([Share("free", 0, 1, 2, 0.0)])] == [0.0]


@pytest.mark.parametrize(
    ("changes", "base", "is_at"),
    [
        ({}, "http://127.0.0.1:76", "http://127.0.0.1:8000/dashboard"),
        ({"host": "0.0.0.0", "port": 9}, "http://127.0.0.1:76", "http://127.0.0.1:9/dashboard"),
        ({"host": "::"}, "http://[::1]:76", "http://[::1]:8000/dashboard"),
        (
            {"public_url": "https://a.example/llm"},
            *("https://a.example/llm", "https://a.example/llm/dashboard"),
        ),
        (
            {"public_url": "https://a.example", "dashboard_port": 9},
            *("https://a.example", "http://127.0.0.1:9/dashboard"),
        ),
    ],
)
def test_the_link_leads_to_the_address_that_users_type(
    changes: dict[str, object], base: str, is_at: str
) -> None:
    settings = msgspec.structs.replace(Settings(), **changes)
    assert dashboard_url(settings) == is_at
    holder = f"pid 41, since 2026-11-23T09:00:00Z, {says_where(settings, 76, 77)}"
    told = told_where(holder)
    assert told == (is_at if "a.example" in is_at else re.sub(r":\d+/", ":77/", is_at))
    assert told_proxy(holder) == base
    assert told_where("pid 41, since 2026-11-23T09:00:00Z") is None
    assert told_proxy("pid 41, since 2026-11-23T09:00:00Z") is None
