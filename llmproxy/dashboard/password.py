"""Owns the page on which a signed-in user sets, changes or removes their password.

Passwords are compared and hashed in a thread, between two transactions: the second one looks
whether what the first one saw still holds.
"""

from typing import Any

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler

from llmproxy import passwords, sessions
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.forms import read_form
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.errors import RefusedError
from llmproxy.storage.database import Tx

PASSWORD = "/settings/password"  # noqa: S105 - a path
FIELDS = ("current", "new", "again")
SAID = {
    "set": "The password is set. You are signed out everywhere else.",
    "removed": "The password is removed: links alone sign you in. You are signed out elsewhere.",
    "signed-out": "You are signed out everywhere else.",
}
"""What the page says after an act, by the word in its address."""


def password_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of this page."""

    @route(PASSWORD, http_method=[HttpMethod.GET, HttpMethod.HEAD])
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in, devices = await site.read_as_user(request, _count_others)
        said = SAID.get(request.query_params.get("said", ""), "")
        return _page(site, signed_in, devices, said=said)

    @post(PASSWORD)
    async def change(request: Request[Any, Any, Any]) -> Response[bytes]:
        form = await read_form(request, verbatim=FIELDS)
        try:
            signed_in = await _change(site, request, form)
        except (FormError, RefusedError) as error:
            signed_in, devices = await site.read_as_user(request, _count_others)
            return _page(site, signed_in, devices, problem=str(error))
        said = "removed" if form.get("do") == "remove" else "set"
        return site.redirect(signed_in.visit, f"{PASSWORD}?said={said}")

    @post("/settings/sign-out-others")
    async def sign_out_others(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in, devices = await site.read_as_user(request, _count_others)
        if devices:
            signed_in, _ = await site.write_as_user(request, _sign_out_others)
        return site.redirect(signed_in.visit, f"{PASSWORD}?said=signed-out")

    return [show, change, sign_out_others]


async def _change(site: Site, request: Request[Any, Any, Any], form: dict[str, str]) -> SignedIn:
    """Do what the form asks for, and return who asked.

    Raises:
        FormError: the present password is not right, or the new one was typed in two ways.
        RefusedError: the new one may be none.
    """
    signed_in, stored = await site.read_as_user(request, _find_hash)
    _require_may_try(site, signed_in)
    # Each attempt counts, one that succeeds too: it takes time, and leaves a row for good.
    site.attempts.note_failure(_counted(signed_in), site.clock.monotonic_s())
    if stored is not None and not await site.slowly(
        passwords.is_right, form.get("current", ""), stored
    ):
        raise FormError("That is not your present password.")
    hashed = None
    if form.get("do") != "remove":
        if form.get("new", "") != form.get("again", ""):
            raise FormError("The new password was typed in two ways. Type it again.")
        hashed = await site.slowly(
            passwords.hash_password, form.get("new", ""), signed_in.user.name
        )
    signed_in, _ = await site.write_as_user(request, _store, stored, hashed)
    return signed_in


def _require_may_try(site: Site, signed_in: SignedIn) -> None:
    if not site.attempts.may_try(_counted(signed_in), site.clock.monotonic_s()):
        raise FormError("Too many attempts. Try again in a minute.")


def _counted(signed_in: SignedIn) -> str:
    return f"password of {signed_in.user.name}"


def _page(
    site: Site, signed_in: SignedIn, devices: int, *, problem: str = "", said: str = ""
) -> Response[bytes]:
    values = {
        "page": "settings",
        "problem": problem,
        "said": said,
        "has_password": signed_in.user.has_password,
        "devices": devices,
        "chars_min": passwords.CHARS_MIN,
        "chars_max": passwords.CHARS_MAX,
    }
    status = 422 if problem else 200
    return site.page("password.html", signed_in.visit, values, status=status, signed_in=signed_in)


def _find_hash(tx: Tx, signed_in: SignedIn) -> str | None:
    return passwords.find_password_hash(tx, signed_in.user.name)


def _store(tx: Tx, signed_in: SignedIn, stored: str | None, hashed: str | None) -> None:
    if hashed is None and stored is None:
        raise FormError("There is no password to be removed.")
    if _find_hash(tx, signed_in) != stored:
        raise FormError("The password was changed elsewhere meanwhile. Nothing was changed here.")
    passwords.store_password(tx, signed_in.user, hashed)
    sessions.end_other_sessions(tx, signed_in.user, signed_in.visit.session)
    act = "users set-password" if hashed else "users remove-password"
    signed_in.note(tx, act, signed_in.user.name)


def _count_others(tx: Tx, signed_in: SignedIn) -> int:
    return sessions.count_sessions(tx, signed_in.user, now_ms=signed_in.now_ms) - 1


def _sign_out_others(tx: Tx, signed_in: SignedIn) -> None:
    sessions.end_other_sessions(tx, signed_in.user, signed_in.visit.session)
    signed_in.note(tx, "users sign-out", f"{signed_in.user.name} (elsewhere)")
