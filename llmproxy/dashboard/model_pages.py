"""Owns the pages of models and their prices: the list, and one model with all its prices."""

from typing import Any
from urllib.parse import urlencode

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy.catalog import FURTHER_PRICES
from llmproxy.dashboard import models
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.forms import read_query
from llmproxy.dashboard.models import Wanted
from llmproxy.dashboard.site import Site

READING = [HttpMethod.GET, HttpMethod.HEAD]


def model_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route("/models", http_method=READING)
    async def list_models(request: Request[Any, Any, Any]) -> Response[bytes]:
        query, problem, wanted = {}, "", Wanted("", "", 1)
        try:
            query = read_query(request)
            wanted = models.read_wanted(query)
        except FormError as error:
            problem = str(error)
        signed_in, found = await site.read_as_user(
            request, models.read_models, site.catalog(), wanted
        )
        fields = {name: query[name] for name in ("search", "provider") if query.get(name)}
        here = wanted.page

        def link(page: int) -> str:
            """Return the query of another page; none where there is no such page."""
            is_there = 1 <= page <= found.pages
            return "?" + urlencode({**fields, "page": page}) if is_there else ""

        values = {
            "page": "models",
            "found": found,
            "wallet": signed_in.user,
            "form": query,
            "is_filtered": bool(fields),
            "filter_query": "?" + urlencode(fields) if fields else "",
            "next": link(here + 1),
            "previous": link(min(here - 1, found.pages)),
            "problem": problem,
        }
        status = 422 if problem else 200
        return site.page("models.html", signed_in.visit, values, status=status, signed_in=signed_in)

    @route("/models/{name:path}", http_method=READING)
    async def show_model(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        signed_in, found = await site.read_as_user(
            request, models.read_model, site.catalog(), str(name).removeprefix("/")
        )
        values = {
            "page": "models",
            "found": found,
            "wallet": signed_in.user,
            "further": FURTHER_PRICES,
        }
        return site.page("model.html", signed_in.visit, values, signed_in=signed_in)

    return [list_models, show_model]
