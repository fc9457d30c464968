"""Owns the pages on which users sign in and out.

A link shows a page with a button; only the button uses the link up, so that a chat that previews
links, which asks with GET, does not. A password signs in those who have set one.
"""

from typing import Any

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy import accounts, passwords, sessions
from llmproxy.dashboard.forms import read_form
from llmproxy.dashboard.sign_in_attempts import AT_USER_MAX
from llmproxy.dashboard.site import NO_SESSION, Site, set_session
from llmproxy.dashboard.visit import Visit
from llmproxy.errors import NotFoundError
from llmproxy.sessions import NewSession
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
DAY_MS = 86_400_000


def sign_in_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route("/sign-in", http_method=READING)
    async def ask_for_link(request: Request[Any, Any, Any]) -> Response[bytes]:
        values = {"name": "", "problem": ""}
        return site.page("sign_in.html", site.visit(request), values)

    @post("/sign-out")
    async def sign_out(request: Request[Any, Any, Any]) -> Response[bytes]:
        visit = site.visit(request)
        if visit.session:
            now_ms = site.clock.now_ms()
            is_one = await site.read_for_stranger(visit, _is_session, visit.session, now_ms)
            if is_one:
                await site.write(sessions.end_session, visit.session)
        response = site.redirect(visit, "/sign-in")
        set_session(response, visit, NO_SESSION)
        return response

    return [ask_for_link, sign_out, *_link_routes(site), _password_route(site)]


def _link_routes(site: Site) -> list[HTTPRouteHandler]:
    @route("/sign-in/{secret:str}", http_method=READING)
    async def show_link(request: Request[Any, Any, Any], secret: FromPath[str]) -> Response[bytes]:
        visit = site.visit(request)
        if not _may_try(site, visit):
            return _too_often(site, visit)
        user = await _link_user(site, visit, secret)
        if user is None:
            return _ended(site, visit)
        days = sessions.session_life_ms(user) // DAY_MS
        values = {"name": user.name, "secret": secret, "days": days}
        return site.page("sign_in_link.html", visit, values)

    @post("/sign-in/{secret:str}")
    async def use_link(request: Request[Any, Any, Any], secret: FromPath[str]) -> Response[bytes]:
        visit = site.visit(request)
        if not _may_try(site, visit):
            return _too_often(site, visit)
        # Read first: what is made up does not come before the writer.
        session = None
        if await _link_user(site, visit, secret) is not None:
            session = await site.write(_use_link, secret, site.clock.now_ms(), visit.session)
        if session is None:
            return _ended(site, visit)
        response = site.redirect(visit, "")
        set_session(response, visit, session)
        return response

    return [show_link, use_link]


def _password_route(site: Site) -> HTTPRouteHandler:
    @post("/sign-in")
    async def use_password(request: Request[Any, Any, Any]) -> Response[bytes]:
        visit, form = site.visit(request), await read_form(request, verbatim=("password",))
        name, password = form.get("name", "").lower(), form.get("password", "")
        if not _may_try(site, visit, name):
            return _too_often(site, visit)
        # Counted before it is known to be wrong: while one is compared, others must not be tried.
        counted, at_s = (visit.household, _of_user(name)), site.clock.monotonic_s()
        for who in counted:
            site.attempts.note_failure(who, at_s)
        stored = await site.read_for_stranger(visit, passwords.find_password_hash, name)
        if not await site.slowly(passwords.is_right, password, stored):
            values = {"name": name, "problem": _NOT_RIGHT}
            return site.page("sign_in.html", visit, values, status=401)
        now_ms = site.clock.now_ms()
        session = await site.write(begin_session, name, stored, now_ms, visit.session)
        if session is None:  # disabled, or another password since
            values = {"name": name, "problem": _NOT_RIGHT}
            return site.page("sign_in.html", visit, values, status=401)
        # This one alone: with an account of one's own one must not buy guesses at others'.
        for who in counted:
            site.attempts.take_back(who, at_s)
        response = site.redirect(visit, "")
        set_session(response, visit, session)
        return response

    return use_password


_NOT_RIGHT = "That name and password do not belong together."


def _of_user(name: str) -> str:
    """Return by what attempts at one user are counted, from wherever they come."""
    return f"user {name[:64]}"


def begin_session(
    tx: Tx, name: str, stored: str | None, now_ms: int, replaced: str
) -> NewSession | None:
    """Begin a session, if the password that was right still is theirs."""
    if passwords.find_password_hash(tx, name) != stored:
        return None
    try:
        user = accounts.find_user(tx, name)
    except NotFoundError:
        return None
    return sessions.begin_session(tx, user, now_ms=now_ms, replaced=replaced)


async def _link_user(site: Site, visit: Visit, secret: str) -> accounts.User | None:
    """Return whom a link signs in; None when it does not, or not any more."""
    return await site.read_for_stranger(visit, _find_link_user, secret, site.clock.now_ms())


def _is_session(tx: Tx, secret: str, now_ms: int) -> bool:
    return sessions.find_session_user(tx, secret, now_ms=now_ms) is not None


def _find_link_user(tx: Tx, secret: str, now_ms: int) -> accounts.User | None:
    return sessions.find_link_user(tx, secret, now_ms=now_ms)


def _use_link(tx: Tx, secret: str, now_ms: int, replaced: str) -> NewSession | None:
    return sessions.use_link(tx, secret, now_ms=now_ms, replaced=replaced)


def _may_try(site: Site, visit: Visit, name: str | None = None) -> bool:
    now_s = site.clock.monotonic_s()
    return site.attempts.may_try(visit.household, now_s) and (
        name is None or site.attempts.may_try(_of_user(name), now_s, AT_USER_MAX)
    )


def _too_often(site: Site, visit: Visit) -> Response[bytes]:
    message = "Too many attempts that signed nobody in. Try again in a minute."
    values = {"title": "Too many attempts", "message": message}
    response = site.page("message.html", visit, values, status=429)
    response.headers["retry-after"] = "60"
    return response


def _ended(site: Site, visit: Visit) -> Response[bytes]:
    site.attempts.note_failure(visit.household, site.clock.monotonic_s())
    message = (
        "It has been used, is older than 15 minutes, or was replaced by a newer one. Ask your "
        "operator for another."
    )
    values = {"title": "This link does not work any more", "message": message}
    return site.page("message.html", visit, values, status=404)
