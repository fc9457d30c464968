"""Owns the dashboard's table of routes, and what holds for all of them.

A form that no page of ours has sent is refused before anything of it is read; an error becomes a
page that says what to do.
"""

import logging
from typing import Any

from litestar import Request, Response, Router, get
from litestar.exceptions import HTTPException, NotFoundException
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy.clock import RequestIds, request_id_text
from llmproxy.dashboard.address import PREFIX
from llmproxy.dashboard.admin.routes import admin_routes
from llmproxy.dashboard.api import Describe, api_route
from llmproxy.dashboard.credit_pages import credit_routes
from llmproxy.dashboard.download_tables import download_routes
from llmproxy.dashboard.downloads import Downloads
from llmproxy.dashboard.errors import (
    BusyError,
    FormError,
    MissingError,
    NotAllowedError,
    NotSignedInError,
)
from llmproxy.dashboard.guide import guide_routes, pictures_route
from llmproxy.dashboard.model_pages import model_routes
from llmproxy.dashboard.pages import user_routes
from llmproxy.dashboard.password import password_routes
from llmproxy.dashboard.request_pages import request_routes
from llmproxy.dashboard.sign_in import sign_in_routes
from llmproxy.dashboard.site import HEADERS, STATIC_TYPES, Site
from llmproxy.dashboard.visit import is_own_form
from llmproxy.errors import DatabaseError

FORM_BYTES_MAX = 16 * 1024
STATIC_LIFE_S = 365 * 86_400
"""The address of a static file names its version."""
_SAFE_METHODS = frozenset({"GET", "HEAD", "OPTIONS"})

_log = logging.getLogger("llmproxy.dashboard")


def dashboard_routes(site: Site, describe: Describe) -> list[Router | HTTPRouteHandler]:
    """Return everything under `/dashboard`, and the pictures of the guide.

    Args:
        site: what pages show and change.
        describe: returns the OpenAPI description of the proxy's own endpoints.
    """

    async def prepare(request: Request[Any, Any, Any]) -> Response[bytes] | None:
        if request.method in _SAFE_METHODS:
            return None
        visit = site.visit(request)
        if is_own_form(request.headers, visit, site.address.public_url):
            return None
        message = "This form was not sent by a page of this dashboard. Nothing was changed."
        values = {"title": "Refused", "message": message}
        return site.page("message.html", visit, values, status=403)

    def answer(request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
        return answer_error(site, request, error)

    downloads = Downloads(site)
    pages = Router(
        path=PREFIX,
        route_handlers=[
            *sign_in_routes(site),
            *user_routes(site),
            *password_routes(site),
            *guide_routes(site),
            api_route(site, describe),
            *request_routes(site),
            *credit_routes(site),
            *model_routes(site),
            *download_routes(site, downloads),
            *admin_routes(site, downloads),
            _static_route(site),
        ],
        before_request=prepare,
        exception_handlers={Exception: answer},
        request_max_body_size=FORM_BYTES_MAX,
    )
    return [pages, pictures_route()]


def _static_route(site: Site) -> HTTPRouteHandler:
    @get("/static/{name:str}")
    async def static(name: FromPath[str]) -> Response[bytes]:
        body = site.static.get(name)
        if body is None:
            raise MissingError
        media_type = STATIC_TYPES["." + name.rpartition(".")[2]]
        headers = {**HEADERS, "cache-control": f"public, max-age={STATIC_LIFE_S}, immutable"}
        return Response(body, media_type=media_type, headers=headers)

    return static


def answer_error(site: Site, request: Request[Any, Any, Any], error: Exception) -> Response[bytes]:
    """Return the page for an error, also of an address or a method that no route has."""
    visit = site.visit(request)
    headers: dict[str, str] = {}
    if isinstance(error, NotSignedInError):
        if request.headers.get("hx-request") == "true":
            return site.leave_for(visit, "/sign-in")
        if request.method in _SAFE_METHODS:
            return site.redirect(visit, "/sign-in")
        status, title, message = 401, "Signed out", "Sign in again. Nothing was changed."
    elif isinstance(error, NotAllowedError):
        status, title, message = 403, "For operators", "This page is for operators of the proxy."
    elif isinstance(error, (MissingError, NotFoundException)):
        status, title, message = 404, "Not found", "There is nothing at this address."
    elif isinstance(error, FormError):
        status, title, message = 422, "That did not work", str(error)
    elif isinstance(error, (BusyError, DatabaseError)):
        _log.warning("a page could not be answered: %s", error)
        status, title, message = 503, "Not now", "Try again in a moment."
    elif isinstance(error, HTTPException) and error.status_code < 500:
        status, title = error.status_code, "That did not work"
        message = "The request could not be served."
        headers = error.headers or {}
    else:
        request_id = request_id_text(RequestIds().new(site.clock.now_ms()))
        _log.error("%s: internal error", request_id, exc_info=error)
        status, title = 500, "That went wrong"
        message = f"An error of the dashboard itself. The operator's log has it as {request_id}."
    values = {"title": title, "message": message}
    signed_in = request.state.get("signed_in")
    page = site.page("message.html", visit, values, status=status, signed_in=signed_in)
    page.headers.update(headers)
    return page
