"""Owns the route of the Credit page."""

from typing import Any

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler

from llmproxy.dashboard import credit
from llmproxy.dashboard.credit import Place
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.forms import read_query
from llmproxy.dashboard.site import Site

READING = [HttpMethod.GET, HttpMethod.HEAD]


def credit_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of this page."""

    @route("/credit", http_method=READING)
    async def list_credit(request: Request[Any, Any, Any]) -> Response[bytes]:
        place, problem = Place(None, None), ""
        try:
            place = credit.read_place(read_query(request))
        except FormError as error:
            problem = str(error)
        signed_in, found = await site.read_as_user(request, credit.read_credit, place)
        values = {
            "page": "credit",
            "found": found,
            "wallet": signed_in.user,
            "older": f"?before={found.older}" if found.older else "",
            "newer": f"?after={found.newer}" if found.newer else "",
            "problem": problem,
        }
        status = 422 if problem else 200
        return site.page("credit.html", signed_in.visit, values, status=status, signed_in=signed_in)

    return [list_credit]
