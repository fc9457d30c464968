"""Owns what the pages of a user's own requests tell: the list, a search by id, one receipt.

A request is looked for among the user's own: another's is as missing as one that never was.
"""

from collections.abc import Callable, Mapping
from typing import NamedTuple

import msgspec

from llmproxy import key_lists, reports
from llmproxy.clock import arrival_ms, parse_request_id, request_id_text
from llmproxy.dashboard.errors import FormError, MissingError
from llmproxy.dashboard.formats import DAY_MS
from llmproxy.dashboard.request_query import Asked
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.reports import Receipt, Request
from llmproxy.storage.database import Tx

ROWS = 25
MODELS_SINCE_DAYS = 90
MODELS_OFFERED = 60
KEYS_OFFERED = 60
ENDED_KEYS_LOOKED_AT = 200
FOUND_SHOWN = 5


class Page(NamedTuple):
    """A page of requests, newest first, and where the pages beside it begin."""

    rows: list[Request]
    older: bytes | None = None
    """The id before which the next page begins; None: there is none."""
    newer: bytes | None = None
    """The id after which the page before this one begins; None: this is the newest."""
    looked_back_to_ms: int | None = None
    """Set where the page is not full though older requests are left to be looked at."""


class RequestList(NamedTuple):
    """A page of requests, and what the filter offers to choose from."""

    page: Page
    pruned_before_ms: int | None
    """Set on the last page, where older requests have been pruned."""
    models: list[str]
    keys: list[str]
    is_new: bool
    """The user has no request at all."""


def read_requests(tx: Tx, signed_in: SignedIn, asked: Asked | None) -> RequestList:
    """Return a page of the requests of who is signed in; of what is asked wrongly, an empty one."""
    page = Page([]) if asked is None else _read_page(tx, signed_in, asked)
    any_of_them = reports.RequestFilter(user_id=signed_in.user.id)
    return RequestList(
        page,
        reports.pruned_before_ms(tx) if page.older is None else None,
        _models(tx, signed_in),
        _key_names(tx, signed_in),
        is_new=not page.rows and not reports.list_requests(tx, any_of_them, limit=1),
    )


def _read_page(tx: Tx, signed_in: SignedIn, asked: Asked) -> Page:
    wanted = msgspec.structs.replace(asked.wanted, user_id=signed_in.user.id)
    if asked.after is not None:
        ahead = reports.look_ahead(tx, wanted, asked.after, limit=ROWS)
        if ahead.go_on is not None:
            rows = ahead.rows[::-1]
            return Page(rows, rows[-1].id if rows else reports.id_after(asked.after), ahead.go_on)
        # All that came later fits on the newest page.
        wanted = msgspec.structs.replace(wanted, before=None)
    back = reports.look_back(tx, wanted, limit=ROWS)
    newer = wanted.before
    if newer is not None and back.rows:
        newer = back.rows[0].id
    back_to_ms = None
    if back.go_on is not None and len(back.rows) < ROWS:
        back_to_ms = arrival_ms(back.go_on)
    return Page(back.rows, back.go_on, newer, back_to_ms)


def _models(tx: Tx, signed_in: SignedIn) -> list[str]:
    since_ms = signed_in.now_ms - MODELS_SINCE_DAYS * DAY_MS
    found = reports.used_models(tx, signed_in.user.id, since_ms=since_ms, limit=MODELS_OFFERED)
    return [f"{provider}/{model}" for provider, model in found]


def _key_names(tx: Tx, signed_in: SignedIn) -> list[str]:
    """Return the names of the newest keys that work, then of those that ended last."""
    user, now_ms = signed_in.user, signed_in.now_ms
    live = key_lists.page_of_live_keys(tx, user, 1, now_ms=now_ms, rows_max=KEYS_OFFERED)
    ended = key_lists.page_of_ended_keys(tx, user, 1, now_ms=now_ms, rows_max=ENDED_KEYS_LOOKED_AT)
    names = (key.name for key in (*live.keys, *ended.keys))
    return list(dict.fromkeys(names))[:KEYS_OFFERED]


def search(tx: Tx, signed_in: SignedIn, text: str) -> str:
    """Return the id of the one request of who is signed in whose id is, or begins with, a text.

    Raises:
        FormError: it is no id, or there is none such, or more than one.
    """
    user_id = signed_in.user.id
    return pick_one(
        text,
        lambda digits: reports.find_own_ids(tx, user_id, digits, limit=FOUND_SHOWN),
        "You have",
    )


def pick_one(text: str, find: Callable[[str], list[bytes]], there_is: str) -> str:
    """Return the id of the one request that a text names, among those that `find` gives.

    Args:
        text: an id, or its beginning.
        find: returns the first ids that begin with these hex digits.
        there_is: how a sentence begins that says that there is none.

    Raises:
        FormError: it is no id, or there is none such, or more than one.
    """
    digits = reports.id_digits(text)
    if digits is None:
        raise FormError(
            f"{text!r:.60} is no request id; one looks like req_ and 32 hex digits, of which the "
            "first 8 suffice."
        )
    ids = find(digits)
    if not ids:
        raise FormError(f"{there_is} no request {text!r:.60}.")
    if len(ids) > 1:
        which = ", ".join(request_id_text(each) for each in ids)
        raise FormError(f"Several requests begin so; give more of the id: {which}")
    return request_id_text(ids[0])


def read_receipt(tx: Tx, signed_in: SignedIn, text: str) -> Receipt:
    """Return the receipt of one request of who is signed in.

    Raises:
        MissingError: they have none with this id.
    """
    request_id = read_id(text)
    if not reports.is_own(tx, signed_in.user.id, request_id):
        raise MissingError
    return reports.find_receipt(tx, request_id)


def read_id(text: str) -> bytes:
    """Return the id that an address names.

    Raises:
        MissingError: it is none.
    """
    request_id = parse_request_id(text)
    if request_id is None or len(request_id) != 16:
        raise MissingError
    return request_id


def fate(receipt: Receipt) -> Mapping[str, bool]:
    """Say which sentences about the money of a request are true."""
    request = receipt.request
    return {
        "is_running": request.state == "open",
        "held_nothing": request.hold_nanousd == 0,
        "gave_back": request.charged_nanousd < request.hold_nanousd,
        "took_more": request.charged_nanousd > request.hold_nanousd,
        "fell_short": request.shortfall_nanousd > 0,
    }
