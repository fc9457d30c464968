"""Owns the page of the pool: users' credit against what the operator holds at providers."""

from shlex import quote
from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler

from llmproxy import pool
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.formats import dollars
from llmproxy.dashboard.forms import read_form
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.errors import MoneyError, NotFoundError
from llmproxy.money import format_usd, parse_usd
from llmproxy.pool import Pool
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
POOL = "/admin/pool"
SAID = {"set": "What you hold there is saved. What answers cost from now on is taken off."}
"""What the page says after an act, by the word in its address."""


class Found(NamedTuple):
    """All that the page tells."""

    pool: Pool
    known: list[str]
    """The providers that funds can be told of."""


def pool_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of this page."""

    @route("/admin/pool", http_method=READING)
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        said = SAID.get(request.query_params.get("said", ""), "")
        return await _page(site, request, {}, "", said)

    @post("/admin/pool/set")
    async def tell(request: Request[Any, Any, Any]) -> Response[bytes]:
        form = await read_form(request)
        try:
            amount = parse_usd(form.get("usd", ""))
            signed_in, _ = await site.write_as_admin(
                request, _tell, form.get("provider", ""), amount
            )
        except (MoneyError, NotFoundError) as error:
            return await _page(site, request, form, str(error))
        return site.redirect(signed_in.visit, f"{POOL}?said=set")

    return [show, tell]


async def _page(
    site: Site,
    request: Request[Any, Any, Any],
    form: dict[str, str],
    problem: str,
    said: str = "",
) -> Response[bytes]:
    signed_in, found = await site.read_as_admin(request, _read)
    values = {
        "found": found,
        "pool": found.pool,
        "warning": warning_in_dollars(found.pool),
        "form": form,
        "problem": problem,
        "said": said,
    }
    status = 422 if problem else 200
    return admin_page(site, "admin_pool.html", signed_in, "Pool", values, status=status)


def warning_in_dollars(found: Pool) -> str:
    """Say that more was sold than is held, in amounts as pages show them; else nothing."""
    if not found.lacking_nanousd:
        return ""
    return (
        f"users hold ${dollars(found.sold_nanousd)} of credit, ${dollars(found.lacking_nanousd)} "
        f"more than the estimated ${dollars(found.left_nanousd)} that you hold at providers"
    )


def _read(tx: Tx, signed_in: SignedIn) -> Found:
    del signed_in
    return Found(pool.find_pool(tx), pool.known_providers(tx))


def _tell(tx: Tx, signed_in: SignedIn, provider: str, amount_nanousd: int) -> None:
    actor = f"dashboard:{signed_in.user.name}"
    pool.tell_funds(tx, provider, amount_nanousd, actor=actor, now_ms=signed_in.now_ms)
    signed_in.note(tx, "pool set", f"{quote(provider)} {format_usd(amount_nanousd)}")
