"""Owns what the Overview tells: a user's credit, what they spent and on what, and what ran last."""

import hashlib
from functools import partial
from typing import NamedTuple

from llmproxy import accounts, reports
from llmproxy.dashboard.bars import Bar, Share, draw_bars, first_day_ms, rank_shares
from llmproxy.dashboard.formats import DAY_MS
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.reports import OwnSums, Request, RequestFilter
from llmproxy.storage.database import Tx

GROUPS_MAX = 1000
REQUESTS_SHOWN = 10


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
    live: Live


def read_overview(tx: Tx, signed_in: SignedIn) -> Overview:
    """Return the Overview of who is signed in."""
    user, now_ms = signed_in.user, signed_in.now_ms
    sums = partial(
        reports.sum_own,
        *(tx, user.id),
        since_ms=first_day_ms(now_ms),
        until_ms=now_ms - now_ms % DAY_MS + DAY_MS,
        limit=GROUPS_MAX,
    )
    days, models = sums(group="day"), sums(group="model")
    bars = draw_bars({each.name: each for each in days}, now_ms)
    return Overview(
        bars=bars,
        models=rank_shares(_share(each) for each in models),
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


def _share(sums: OwnSums) -> Share:
    tokens = sums.tokens_in + sums.tokens_out
    return Share(sums.name, sums.charged_nanousd, sums.requests, tokens, 0.0)
