"""Owns the pages on which users sign in and out.

A link shows a page with a button; only the button uses the link up, so that a chat that previews
links, which asks with GET, does not.
"""

from typing import Any

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler

from llmproxy import sessions
from llmproxy.dashboard.site import Site, set_session
from llmproxy.dashboard.visit import Visit

READING = [HttpMethod.GET, HttpMethod.HEAD]


def sign_in_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route("/sign-in", http_method=READING)
    async def ask_for_link(request: Request[Any, Any, Any]) -> Response[bytes]:
        return site.page("sign_in.html", site.visit(request), {})

    @route("/sign-in/{secret:str}", http_method=READING)
    async def show_link(request: Request[Any, Any, Any], secret: str) -> Response[bytes]:
        visit = site.visit(request)
        if not _may_try(site, visit):
            return _too_often(site, visit)
        name = await site.read(_find_link_user, secret, site.clock.now_ms())
        if name is None:
            return _ended(site, visit)
        return site.page("sign_in_link.html", visit, {"name": name, "secret": secret})

    @post("/sign-in/{secret:str}")
    async def use_link(request: Request[Any, Any, Any], secret: str) -> Response[bytes]:
        visit = site.visit(request)
        if not _may_try(site, visit):
            return _too_often(site, visit)
        session = await site.write(_use_link, secret, site.clock.now_ms(), visit.session)
        if session is None:
            return _ended(site, visit)
        response = site.redirect(visit, "")
        set_session(response, visit, session)
        return response

    @post("/sign-out")
    async def sign_out(request: Request[Any, Any, Any]) -> Response[bytes]:
        visit = site.visit(request)
        if visit.session:
            await site.write(sessions.end_session, visit.session)
        response = site.redirect(visit, "/sign-in")
        set_session(response, visit, "")
        return response

    return [ask_for_link, show_link, use_link, sign_out]


def _find_link_user(tx: Any, secret: str, now_ms: int) -> str | None:  # noqa: ANN401
    return sessions.find_link_user(tx, secret, now_ms=now_ms)


def _use_link(tx: Any, secret: str, now_ms: int, replaced: str) -> str | None:  # noqa: ANN401
    return sessions.use_link(tx, secret, now_ms=now_ms, replaced=replaced)


def _may_try(site: Site, visit: Visit) -> bool:
    return site.attempts.may_try(visit.peer, site.clock.monotonic_s())


def _too_often(site: Site, visit: Visit) -> Response[bytes]:
    message = "Too many links from this address that sign nobody in. Try again in a minute."
    values = {"title": "Too many attempts", "message": message}
    response = site.page("message.html", visit, values, status=429)
    response.headers["retry-after"] = "60"
    return response


def _ended(site: Site, visit: Visit) -> Response[bytes]:
    site.attempts.note_failure(visit.peer, site.clock.monotonic_s())
    message = (
        "It has been used, is older than 15 minutes, or was replaced by a newer one. Ask your "
        "operator for another."
    )
    values = {"title": "This link does not work any more", "message": message}
    return site.page("message.html", visit, values, status=404)
