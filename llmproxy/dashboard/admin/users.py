"""Owns the operator's pages about users: the list, a new one, and one user with all they have."""

import secrets
from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy import reports, sessions
from llmproxy.accounts import User
from llmproxy.dashboard.address import PREFIX
from llmproxy.dashboard.admin import requests, user_acts, user_forms, user_keys
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.admin.subject import Subject, Typed
from llmproxy.dashboard.admin.words import TOLD
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.forms import read_form, read_page_number
from llmproxy.dashboard.key_form import COUNTS
from llmproxy.dashboard.key_tables import AskedPages, KeyTables, read_tables
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.reports import CreditEntry, RequestFilter, UserRow
from llmproxy.reports import Request as ProxyRequest
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
TAB = "Users"
PATH = "/admin/users"
ROWS = 50
NAME_CHARS_MAX = 64
PAGES_MAX = 10_000
KEYS_SHOWN = 30
ENDED_SHOWN = 5
REQUESTS_SHOWN = 10
CREDITS_SHOWN = 20
SAID = {
    **user_keys.SAID,
    "credit": "The credit is added.",
    "repeat": "This credit was added already. It was not added twice.",
    "adjust": "The balance is corrected.",
    "rates": "It counts for requests from now on.",
    "disable": "The user is disabled and signed out. Running answers finish.",
    "enable": "The user can make requests again.",
    "admin": "An operator now. They have been signed out: the next time they sign in it counts.",
    "no-admin": "No operator any more, and signed out.",
    "no-password": "The password is forgotten, and the user signed out: links alone sign in.",
    "sign-out": "Signed out everywhere. A sign-in link that was not used yet has ended.",
}
"""What a page says after an act, by the word in its address."""


class UserList(NamedTuple):
    """One page of the list."""

    rows: list[UserRow]
    total: int
    text: str
    number: int
    """Of the page, from 1."""

    @property
    def first(self) -> int:
        """The place of the first row."""
        return (self.number - 1) * ROWS + 1

    @property
    def has_next(self) -> bool:
        """Say whether more follow."""
        return self.number * ROWS < self.total


class UserPage(NamedTuple):
    """One user with all that the operator asks of them."""

    user: User
    keys: KeyTables
    """The first of them."""
    requests: list[ProxyRequest]
    credits: list[CreditEntry]
    devices: int
    is_self: bool


def read_search(request: Request[Any, Any, Any]) -> str:
    """Return the part of a name that an address looks for; it may be empty."""
    text = str(request.query_params.get("q", "")).strip().lower()[:NAME_CHARS_MAX]
    return text.encode(errors="replace").decode()


def read_list(tx: Tx, signed_in: SignedIn, text: str, number: int) -> UserList:
    """Return a page of the users in whose name a text stands."""
    del signed_in
    total = reports.count_users(tx, text=text)
    number = max(1, min(number, PAGES_MAX, -(-total // ROWS)))
    rows = reports.list_user_rows(tx, text=text, limit=ROWS, offset=(number - 1) * ROWS)
    return UserList(rows, total, text, number)


def read_page(tx: Tx, signed_in: SignedIn, user_id: int) -> UserPage:
    """Return one user.

    Raises:
        MissingError: there is none with this id.
    """
    user, now_ms = user_acts.find_user(tx, user_id), signed_in.now_ms
    shown = {"live_max": KEYS_SHOWN, "ended_max": ENDED_SHOWN}
    return UserPage(
        user=user,
        keys=read_tables(tx, user, AskedPages(), now_ms=now_ms, **shown),
        requests=reports.list_requests(tx, RequestFilter(user_id=user.id), limit=REQUESTS_SHOWN),
        credits=reports.list_credits(tx, user.wallet_id, limit=CREDITS_SHOWN),
        devices=sessions.count_sessions(tx, user, now_ms=now_ms),
        is_self=user.id == signed_in.user.id,
    )


def user_pages(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""

    @route(PATH, http_method=READING)
    async def list_users(request: Request[Any, Any, Any]) -> Response[bytes]:
        asked, problem = request.query_params, ""
        if asked.get("id"):
            try:
                signed_in, which = await site.read_as_admin(request, requests.search, asked["id"])
                return site.redirect(signed_in.visit, f"{requests.PATH}/{which}")
            except FormError as error:
                problem = str(error)
        signed_in, found = await site.read_as_admin(
            request, read_list, read_search(request), read_page_number(request)
        )
        values = {"found": found, "problem": problem, "request_id": asked.get("id", "")}
        status = 422 if problem else 200
        return admin_page(site, "admin_users.html", signed_in, TAB, values, status=status)

    @route(PATH + "/new", http_method=READING)
    async def new_user(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in = await site.require_admin(request)
        return _new_form(site, signed_in, {"rate_multiplier": "1", "key": "default"}, "")

    @post(PATH)
    async def create_user(request: Request[Any, Any, Any]) -> Response[bytes]:
        form = await read_form(request)
        try:
            wanted, words = user_forms.read_new_user(form)
            signed_in, (user, api_key) = await site.write_as_admin(
                request, user_acts.create, wanted, words
            )
        except TOLD as error:
            signed_in = await site.require_admin(request)
            return _new_form(site, signed_in, form, error.without_command)
        if api_key is None:
            return site.redirect(signed_in.visit, f"{PATH}/{user.id}")
        base = signed_in.visit.base_url
        values = {"made": user, "key": wanted.key, "secret": api_key, "base": base}
        return admin_page(site, "admin_user_made.html", signed_in, TAB, values)

    subject = Subject[int, UserPage](
        site,
        read=read_page,
        show=partial(_user_page, site),
        address=lambda user_id: f"{PATH}/{user_id}",
        said=SAID,
    )

    @route(PATH + "/{user_id:int}", http_method=READING)
    async def show_user(request: Request[Any, Any, Any], user_id: FromPath[int]) -> Response[bytes]:
        return await subject.page(request, user_id)

    keys = user_keys.key_pages(site, PATH, TAB, subject)
    forms = [*_money_forms(site, subject), *_buttons(site, subject)]
    return [list_users, new_user, create_user, show_user, *keys, *forms]


def _money_forms(site: Site, subject: Subject[int, UserPage]) -> list[HTTPRouteHandler]:
    @post(PATH + "/{user_id:int}/credit")
    async def add_credit(
        request: Request[Any, Any, Any], user_id: FromPath[int]
    ) -> Response[bytes]:
        form = await read_form(request)
        try:
            signed_in, _ = await site.write_as_admin(request, user_acts.add_credit, user_id, form)
        except user_acts.RepeatError:
            return subject.done(await site.require_admin(request), user_id, "repeat")
        except TOLD as error:
            return await subject.again(
                request, user_id, Typed("credit", form, error.without_command)
            )
        return subject.done(signed_in, user_id, "credit")

    @post(PATH + "/{user_id:int}/adjust")
    async def adjust(request: Request[Any, Any, Any], user_id: FromPath[int]) -> Response[bytes]:
        form = await read_form(request)
        return await subject.do(request, user_id, "adjust", form, user_acts.adjust, form)

    @post(PATH + "/{user_id:int}/rates")
    async def change_rates(
        request: Request[Any, Any, Any], user_id: FromPath[int]
    ) -> Response[bytes]:
        form = await read_form(request)
        return await subject.do(request, user_id, "rates", form, user_acts.change_rates, form)

    return [add_credit, adjust, change_rates]


def _buttons(site: Site, subject: Subject[int, UserPage]) -> list[HTTPRouteHandler]:
    @post(PATH + "/{user_id:int}/sign-in-link")
    async def make_link(request: Request[Any, Any, Any], user_id: FromPath[int]) -> Response[bytes]:
        try:
            signed_in, (user, secret) = await site.write_as_admin(
                request, user_acts.make_link, user_id
            )
        except TOLD as error:
            return await subject.again(request, user_id, Typed("link", {}, error.without_command))
        url = f"{signed_in.visit.here}{PREFIX}/sign-in/{secret}"
        return admin_page(site, "admin_link.html", signed_in, TAB, {"whose": user, "url": url})

    @post(PATH + "/{user_id:int}/do/{act:str}")
    async def act_on(
        request: Request[Any, Any, Any], user_id: FromPath[int], act: FromPath[str]
    ) -> Response[bytes]:
        return await subject.do(request, user_id, act, {}, user_acts.act_on, act)

    return [make_link, act_on]


def _user_page(
    site: Site, signed_in: SignedIn, found: UserPage, said: str, typed: Typed | None
) -> Response[bytes]:
    values = {
        "found": found,
        "said": said,
        "typed": typed or Typed("", {}, ""),
        "rates": user_forms.rate_fields(found.user),
        "counts": COUNTS,
        "limits_in_words": user_keys.limits_in_words,
        "last_entry": user_acts.last_entry(found.credits),
        "once": f"page-{secrets.token_urlsafe(16)}",
    }
    status = 422 if typed else 200
    return admin_page(site, "admin_user.html", signed_in, TAB, values, status=status)


def _new_form(
    site: Site, signed_in: SignedIn, form: Mapping[str, str], problem: str
) -> Response[bytes]:
    values = {"form": form, "problem": problem}
    status = 422 if problem else 200
    return admin_page(site, "admin_user_new.html", signed_in, TAB, values, status=status)
