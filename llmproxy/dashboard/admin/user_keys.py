"""Owns the operator's page of all API keys of a user, and the buttons that act on one."""

from collections.abc import Mapping
from functools import partial
from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy.accounts import User
from llmproxy.dashboard.admin import user_acts
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.admin.subject import Subject, Typed
from llmproxy.dashboard.formats import cost, number
from llmproxy.dashboard.key_form import AMOUNTS, COUNTS, LISTS
from llmproxy.dashboard.key_tables import AskedPages, KeyTables, read_asked_pages, read_tables
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.limits import Limits
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
LIVE_ROWS = 30
ENDED_ROWS = 50
LIMITS_CHARS_MAX = 200
SAID = {
    "revoke": "The API key is revoked. Running answers finish.",
    "resume": "The API key works again.",
}
"""What a page says after an act, by the word in its address."""


class UserKeys(NamedTuple):
    """A user and a page of each table of their API keys."""

    user: User
    keys: KeyTables


def read_keys(tx: Tx, signed_in: SignedIn, user_id: int, asked: AskedPages) -> UserKeys:
    """Return the API keys of a user.

    Raises:
        MissingError: there is no user with this id.
    """
    user, now_ms = user_acts.find_user(tx, user_id), signed_in.now_ms
    rows = {"live_max": LIVE_ROWS, "ended_max": ENDED_ROWS}
    return UserKeys(user, read_tables(tx, user, asked, now_ms=now_ms, **rows))


def key_pages(
    site: Site, path: str, tab: str, user_page: Subject[int, Any]
) -> list[HTTPRouteHandler]:
    """Return the routes of this page and of the buttons, below the path of the pages of users.

    The buttons stand on `user_page` too, and lead back to where they were pressed.
    """

    def all_keys(request: Request[Any, Any, Any]) -> Subject[int, UserKeys]:
        asked = read_asked_pages(request)
        return Subject[int, UserKeys](
            site,
            read=partial(read_keys, asked=asked),
            show=partial(_page, site, tab),
            address=lambda user_id: f"{path}/{user_id}/keys{asked.query()}",
            said=SAID,
        )

    @route(path + "/{user_id:int}/keys", http_method=READING)
    async def show_keys(request: Request[Any, Any, Any], user_id: FromPath[int]) -> Response[bytes]:
        return await all_keys(request).page(request, user_id)

    @post(path + "/{user_id:int}/keys/{key_id:int}/{act:str}")
    async def act_on_key(
        request: Request[Any, Any, Any],
        user_id: FromPath[int],
        key_id: FromPath[int],
        act: FromPath[str],
    ) -> Response[bytes]:
        # On the page of all keys, forms have its place in their address; on the user's they do not.
        subject = all_keys(request) if "page" in request.query_params else user_page
        return await subject.do(request, user_id, act, {}, user_acts.act_on_key, key_id, act)

    return [show_keys, act_on_key]


def _page(
    site: Site, tab: str, signed_in: SignedIn, found: UserKeys, said: str, typed: Typed | None
) -> Response[bytes]:
    values = {
        "whom": found.user,
        "keys": found.keys,
        "limits_in_words": limits_in_words,
        "said": said,
        "problem": typed.problem if typed else "",
    }
    status = 422 if typed else 200
    return admin_page(site, "admin_user_keys.html", signed_in, tab, values, status=status)


def limits_in_words(limits: Limits | None) -> str:
    """Return the limits of an API key in a line; none are an empty one."""

    def given(labels: Mapping[str, str]) -> list[tuple[str, Any]]:
        values = [(label, getattr(limits, field)) for field, label in labels.items()]
        return [(label, value) for label, value in values if value is not None]

    if limits is None:
        return ""
    parts = [f"{label}: ${cost(amount)}" for label, amount in given(AMOUNTS)]
    parts += [f"{label}: {number(count)}" for label, count in given(COUNTS)]
    parts += [f"{label}: {', '.join(map(str, members))}" for label, members in given(LISTS)]
    text = "; ".join(parts)
    return text if len(text) <= LIMITS_CHARS_MAX else text[: LIMITS_CHARS_MAX - 1] + "…"
