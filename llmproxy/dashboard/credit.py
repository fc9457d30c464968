"""Owns what the Credit page tells: a user's credits and adjustments, and what they come to now."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from llmproxy import reports
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.reports import CreditEntry
from llmproxy.storage.database import Tx

ROWS = 40
_ID = re.compile(r"[1-9]\d{0,17}", re.ASCII)


class Place(NamedTuple):
    """Which page is asked for: by the entry that it comes before, or after, in time."""

    before: int | None
    after: int | None


class CreditPage(NamedTuple):
    """A page of entries, newest first; the ids that the pages beside it begin behind."""

    rows: list[CreditEntry]
    older: int | None
    newer: int | None


def read_place(query: Mapping[str, str]) -> Place:
    """Return which page an address asks for.

    Raises:
        FormError: that is none.
    """
    return Place(_id(query.get("before", "")), _id(query.get("after", "")))


def _id(text: str) -> int | None:
    if text and not _ID.fullmatch(text):
        raise FormError("This page is not there. Begin again with the newest entries.")
    return int(text) if text else None


def read_credit(tx: Tx, signed_in: SignedIn, place: Place) -> CreditPage:
    """Return a page of the credits and adjustments of who is signed in."""
    wallet_id, before = signed_in.user.wallet_id, place.before
    if place.after is not None:
        ahead = reports.list_credits_after(tx, wallet_id, place.after, limit=ROWS + 1)
        if len(ahead) > ROWS:
            rows = ahead[ROWS - 1 :: -1]
            return CreditPage(rows, rows[-1].id, rows[0].id)
        before = None  # all that came later fits on the newest page
    rows, is_all = next_credits(tx, signed_in, before, limit=ROWS)
    newer = before
    if newer is not None and rows:
        newer = rows[0].id
    return CreditPage(rows, None if is_all else rows[-1].id, newer)


def next_credits(
    tx: Tx, signed_in: SignedIn, before: int | None, *, limit: int
) -> tuple[list[CreditEntry], bool]:
    """Return the newest entries below an id, and whether these are all that are left."""
    wallet_id = signed_in.user.wallet_id
    if before is None:
        rows = reports.list_credits(tx, wallet_id, limit=limit + 1)
    else:
        rows = reports.list_credits(tx, wallet_id, limit=limit + 1, before=before)
    return rows[:limit], len(rows) <= limit
