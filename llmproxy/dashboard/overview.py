"""Owns what the Overview tells: a user's credit, what they spent and on what, and what ran last."""

import hashlib
from functools import partial
from typing import NamedTuple

from llmproxy import accounts, reports
from llmproxy.dashboard.formats import DAY_MS, iso_day
from llmproxy.dashboard.site import SignedIn
from llmproxy.reports import OwnSums, Request, RequestFilter
from llmproxy.storage.database import Tx

DAYS = 30
MODELS_SHOWN = 6
GROUPS_MAX = 1000
REQUESTS_SHOWN = 10
CHART_HEIGHT = 100


class Bar(NamedTuple):
    """A day of the chart; its height is in units of the drawing."""

    day_ms: int
    charged_nanousd: int
    requests: int
    height: float


class Share(NamedTuple):
    """A model's share of what was spent; `percent` is of the largest."""

    name: str
    charged_nanousd: int
    requests: int
    tokens: int
    percent: float


class Live(NamedTuple):
    """What the page keeps up to date while it is open: the last requests, beside the wallet."""

    requests: list[Request]
    has_keys: bool
    is_running: bool
    """A request of the user's runs: the page looks again soon."""
    digest: str
    """Changes with whatever of it is shown, and with the wallet."""


class Overview(NamedTuple):
    """All that the page tells beside the user's wallet; money in nano-USD."""

    bars: list[Bar]
    models: list[Share]
    total_nanousd: int
    total_requests: int
    today_nanousd: int
    live: Live


def read_overview(tx: Tx, signed_in: SignedIn) -> Overview:
    """Return the Overview of who is signed in."""
    user, now_ms = signed_in.user, signed_in.now_ms
    today_ms = now_ms - now_ms % DAY_MS
    first_ms = today_ms - (DAYS - 1) * DAY_MS
    sums = partial(
        reports.sum_own,
        *(tx, user.id),
        since_ms=first_ms,
        until_ms=today_ms + DAY_MS,
        limit=GROUPS_MAX,
    )
    days, models = sums(group="day"), sums(group="model")
    bars = _bars({each.name: each for each in days}, first_ms)
    return Overview(
        bars=bars,
        models=_shares(models),
        total_nanousd=sum(bar.charged_nanousd for bar in bars),
        total_requests=sum(bar.requests for bar in bars),
        today_nanousd=bars[-1].charged_nanousd,
        live=read_live(tx, signed_in),
    )


def read_live(tx: Tx, signed_in: SignedIn) -> Live:
    """Return what of the Overview changes while a request runs; no sums, so that it is cheap."""
    user = signed_in.user
    requests = reports.list_requests(tx, RequestFilter(user_id=user.id), limit=REQUESTS_SHOWN)
    has_keys = bool(accounts.list_api_keys(tx, user, limit=1))
    is_running = user.held_nanousd > 0 or any(each.state == "open" for each in requests)
    rows = [(each.id, each.state, each.cost_nanousd, each.why) for each in requests]
    wallet = user.balance_nanousd, user.held_nanousd, user.rate_multiplier_micro
    shown = repr((rows, wallet, has_keys)).encode()
    return Live(requests, has_keys, is_running, hashlib.sha256(shown).hexdigest()[:16])


def _bars(days: dict[str, OwnSums], first_ms: int) -> list[Bar]:
    nothing = OwnSums("", 0, 0, 0, 0, 0)
    found = []
    for number in range(DAYS):
        day_ms = first_ms + number * DAY_MS
        found.append((day_ms, days.get(iso_day(day_ms), nothing)))
    most = max(sums.charged_nanousd for _, sums in found)
    return [
        Bar(day_ms, sums.charged_nanousd, sums.requests, _height(sums.charged_nanousd, most))
        for day_ms, sums in found
    ]


def _height(amount: int, most: int) -> float:
    """Return a bar's height; a day with any cost at all can be seen."""
    if not amount:
        return 0.0
    return max(2.0, round(CHART_HEIGHT * amount / most, 1))


def _shares(models: list[OwnSums]) -> list[Share]:
    """Return the models that cost most, and the rest together."""
    ranked = sorted(models, key=lambda sums: (-sums.charged_nanousd, -sums.requests, sums.name))
    most = ranked[0].charged_nanousd if ranked else 0
    shares = [
        Share(
            sums.name,
            sums.charged_nanousd,
            sums.requests,
            sums.tokens_in + sums.tokens_out,
            round(100 * sums.charged_nanousd / most, 1) if most else 0.0,
        )
        for sums in ranked
    ]
    shown, rest = shares[:MODELS_SHOWN], shares[MODELS_SHOWN:]
    if rest:
        charged = sum(each.charged_nanousd for each in rest)
        percent = round(min(100.0, 100 * charged / most), 1) if most else 0.0
        counts = sum(each.requests for each in rest), sum(each.tokens for each in rest)
        shown.append(Share(f"{len(rest)} others", charged, *counts, percent))
    return shown
