"""Owns the pages of a signed-in user's requests: the list with its filter, and one receipt."""

from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy import reports
from llmproxy.clock import request_id_text
from llmproxy.dashboard import request_query, requests
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.forms import read_query
from llmproxy.dashboard.requests import RequestList
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.reports import Receipt

READING = [HttpMethod.GET, HttpMethod.HEAD]
CLASSES = {
    "input": "Input",
    "cache_read": "Cached input",
    "cache_write_5m": "Cache write, 5 minutes",
    "cache_write_1h": "Cache write, 1 hour",
    "output": "Output",
    "input_audio": "Audio input",
    "input_image": "Image input",
    "output_audio": "Audio output",
    "output_image": "Image output",
    "cache_read_audio": "Cached audio input",
    "web_search": "Web searches",
    "image": "Images",
    "audio_second": "Seconds of audio",
    "character": "Characters",
    "provider_cost": "Billed by the provider",
}


def request_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route("/requests", http_method=READING)
    async def list_requests(request: Request[Any, Any, Any]) -> Response[bytes]:
        query, problem, asked = {}, "", None
        try:
            query = read_query(request)
            if query.get("id"):
                signed_in, which = await site.read_as_user(request, requests.search, query["id"])
                return site.redirect(signed_in.visit, f"/requests/{which}")
            asked = request_query.read_filter(query)
        except FormError as error:
            problem = str(error)
        signed_in, found = await site.read_as_user(request, requests.read_requests, asked)
        return _list(site, signed_in, query, found, problem)

    @route("/requests/{request_id:str}", http_method=READING)
    async def show_request(
        request: Request[Any, Any, Any], request_id: FromPath[str]
    ) -> Response[bytes]:
        signed_in, receipt = await site.read_as_user(request, requests.read_receipt, request_id)
        values = {"page": "requests", **receipt_values(receipt)}
        return site.page("request.html", signed_in.visit, values, signed_in=signed_in)

    return [list_requests, show_request]


def receipt_values(receipt: Receipt) -> dict[str, object]:
    """Return what `receipt.html` shows."""
    return {
        "receipt": receipt,
        "request": receipt.request,
        "lines": reports.line_rows(receipt),
        "sums": reports.sum_rows(receipt),
        "fate": requests.fate(receipt),
        "classes": CLASSES,
    }


def _list(
    site: Site, signed_in: SignedIn, query: Mapping[str, str], found: RequestList, problem: str
) -> Response[bytes]:
    fields = request_query.filter_fields(query)

    def link(**place: bytes | None) -> str:
        """Return the query of another page; none where there is no such page."""
        ids = {name: request_id_text(value) for name, value in place.items() if value is not None}
        return "?" + urlencode({**fields, **ids}) if len(ids) == len(place) else ""

    values = {
        "page": "requests",
        "found": found,
        "form": query,
        "is_filtered": bool(fields),
        "filter_query": link() if fields else "",
        "older": link(before=found.page.older),
        "newer": link(after=found.page.newer),
        "problem": problem,
        "states": request_query.STATES,
    }
    status = 422 if problem else 200
    return site.page("requests.html", signed_in.visit, values, status=status, signed_in=signed_in)
