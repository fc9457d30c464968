"""Owns the operator's overview: what is wrong, what happens now, and what was spent."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler

from llmproxy import reports
from llmproxy.dashboard.admin.attention import Notice, read_attention
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.admin.spending import Spending
from llmproxy.dashboard.bars import CHART_HEIGHT, Bar, Share, draw_bars, rank_shares
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.reports import Recent, Standing, Totals
from llmproxy.storage.database import Tx

TAB = "Overview"
RECENT_MS = 300_000


class AdminOverview(NamedTuple):
    """All that the page tells; money in nano-USD."""

    attention: list[Notice]
    recent: Recent
    standing: Standing
    bars: list[Bar]
    users: list[Share]
    providers: list[Share]

    @property
    def requests(self) -> int:
        """How many requests have come lately, and ended."""
        return sum(each.requests for each in self.recent.providers)

    @property
    def per_second(self) -> str:
        """How many of them came each second, to be read at a glance."""
        return f"{self.requests * 1000 / self.recent.span_ms:.2f}"

    @property
    def minutes(self) -> str:
        """How far back that goes, in words."""
        seconds = self.recent.span_ms // 1000
        return f"{seconds // 60} minutes" if seconds >= 120 else f"{seconds} seconds"


def overview_pages(site: Site) -> list[HTTPRouteHandler]:
    """Return the route of this page."""
    spending = Spending()

    @route("/admin", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def overview(request: Request[Any, Any, Any]) -> Response[bytes]:
        catalog = site.catalog()
        signed_in, found = await site.read_as_admin(
            request,
            read_overview,
            spending,
            site.office.config.settings.total_timeout_s,
            lambda provider, model: catalog.find(provider, model) is not None,
        )
        values = {"found": found, "height": CHART_HEIGHT}
        return admin_page(site, "admin_overview.html", signed_in, TAB, values)

    return [overview]


def read_overview(
    tx: Tx,
    signed_in: SignedIn,
    spending: Spending,
    total_timeout_s: int,
    is_priced: Callable[[str, str], bool],
) -> AdminOverview:
    """Return the operator's overview."""
    now_ms, standing = signed_in.now_ms, reports.standing(tx)
    attention = read_attention(
        tx, standing, now_ms=now_ms, total_timeout_s=total_timeout_s, is_priced=is_priced
    )
    spent = spending.read(tx, now_ms)
    return AdminOverview(
        attention=attention,
        recent=reports.recent_activity(tx, now_ms=now_ms, span_ms=RECENT_MS),
        standing=standing,
        bars=draw_bars(spent.days, now_ms),
        users=_shares(spent.users),
        providers=_shares(spent.providers),
    )


def _shares(named: Mapping[str, Totals]) -> list[Share]:
    return rank_shares(
        Share(name, totals.charged_nanousd, totals.requests, 0, 0.0)
        for name, totals in named.items()
        if totals.requests
    )
