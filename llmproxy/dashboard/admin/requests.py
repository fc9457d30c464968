"""Owns the operator's look at one request of anybody's: a search by its id, and its receipt."""

from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy import accounts, reports
from llmproxy.dashboard import requests
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.errors import MissingError
from llmproxy.dashboard.request_pages import receipt_values
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.errors import NotFoundError
from llmproxy.reports import Receipt
from llmproxy.storage.database import Tx

PATH = "/admin/requests"


class Found(NamedTuple):
    """A request, and whose it is."""

    receipt: Receipt
    user_id: int


def request_pages(site: Site) -> list[HTTPRouteHandler]:
    """Return the route of a receipt."""

    @route(PATH + "/{request_id:str}", http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def show_request(
        request: Request[Any, Any, Any], request_id: FromPath[str]
    ) -> Response[bytes]:
        signed_in, found = await site.read_as_admin(request, read_receipt, request_id)
        values = {"found": found, **receipt_values(found.receipt)}
        return admin_page(site, "admin_request.html", signed_in, "Users", values)

    return [show_request]


def search(tx: Tx, signed_in: SignedIn, text: str) -> str:
    """Return the id of the one request, of anybody, whose id is, or begins with, a text.

    Raises:
        FormError: it is no id, or there is none such, or more than one.
    """
    del signed_in
    limit = requests.FOUND_SHOWN
    return requests.pick_one(
        text, lambda digits: reports.find_request_ids(tx, digits, limit=limit), "There is"
    )


def read_receipt(tx: Tx, signed_in: SignedIn, text: str) -> Found:
    """Return the receipt of a request of anybody.

    Raises:
        MissingError: there is none with this id.
    """
    del signed_in
    try:
        receipt = reports.find_receipt(tx, requests.read_id(text))
    except NotFoundError as error:
        raise MissingError from error
    return Found(receipt, accounts.find_user(tx, receipt.request.user).id)
