"""Owns the drawings of spending: bars by day, and shares of what was spent. Money is nano-USD."""

from collections.abc import Iterable, Mapping
from typing import NamedTuple, Protocol

from llmproxy.dashboard.formats import DAY_MS, iso_day

DAYS = 30
CHART_HEIGHT = 100
SHARES_SHOWN = 6


class Sums(Protocol):
    """What is drawn: the sums over some requests."""

    @property
    def requests(self) -> int:
        """How many."""

    @property
    def charged_nanousd(self) -> int:
        """What was spent on them."""


class Bar(NamedTuple):
    """A day of the chart; its height is in units of the drawing."""

    day_ms: int
    charged_nanousd: int
    requests: int
    height: float


class Share(NamedTuple):
    """A share of what was spent; `percent` is of the largest."""

    name: str
    charged_nanousd: int
    requests: int
    tokens: int
    percent: float


def first_day_ms(now_ms: int) -> int:
    """Return when the first of the days that are drawn began (UTC)."""
    return now_ms - now_ms % DAY_MS - (DAYS - 1) * DAY_MS


def draw_bars(days: Mapping[str, Sums], now_ms: int) -> list[Bar]:
    """Return a bar for each of the last DAYS days, the present one last; days by their names."""
    first_ms = first_day_ms(now_ms)
    moments = [first_ms + number * DAY_MS for number in range(DAYS)]
    found = [(day_ms, days.get(iso_day(day_ms))) for day_ms in moments]
    most = max(sums.charged_nanousd if sums else 0 for _, sums in found)
    return [
        Bar(day_ms, sums.charged_nanousd, sums.requests, _height(sums.charged_nanousd, most))
        if sums
        else Bar(day_ms, 0, 0, 0.0)
        for day_ms, sums in found
    ]


def _height(amount: int, most: int) -> float:
    """Return a bar's height; a day with any cost at all can be seen."""
    if not amount:
        return 0.0
    return max(2.0, round(CHART_HEIGHT * amount / most, 1))


def rank_shares(shares: Iterable[Share]) -> list[Share]:
    """Return those that cost most, and the rest together, each with its percent."""
    ranked = sorted(shares, key=lambda each: (-each.charged_nanousd, -each.requests, each.name))
    shown, rest = ranked[:SHARES_SHOWN], ranked[SHARES_SHOWN:]
    if rest:
        charged = sum(each.charged_nanousd for each in rest)
        counts = sum(each.requests for each in rest), sum(each.tokens for each in rest)
        shown.append(Share(f"{len(rest)} others", charged, *counts, 0.0))
    most = ranked[0].charged_nanousd if ranked else 0
    return [each._replace(percent=_percent(each.charged_nanousd, most)) for each in shown]


def _percent(amount: int, most: int) -> float:
    return round(min(100.0, 100 * amount / most), 1) if most else 0.0
