"""Owns what may stand in the address of the Requests page, and what it means.

All of a filter stands in the address, so that a page of it can be kept as a bookmark.
"""

import re
from collections.abc import Mapping
from datetime import UTC, date, datetime
from typing import NamedTuple

from llmproxy.clock import parse_request_id
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.formats import DAY_MS
from llmproxy.reports import RequestFilter

STATES = {
    "": "Any",
    "open": "Running",
    "settled": "Settled",
    "released": "Released",
    "expired": "Expired",
    "refused": "Refused",
}
FIELDS = ("model", "key", "state", "since", "until")
TEXT_CHARS_MAX = 300
_DAY = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)


class Asked(NamedTuple):
    """Which of a user's requests are asked for."""

    wanted: RequestFilter
    after: bytes | None
    """Set where the page is asked for that comes before, in time after, another one."""


def filter_fields(query: Mapping[str, str]) -> dict[str, str]:
    """Return what of an address is the filter; what is empty is left out."""
    return {name: query[name] for name in FIELDS if query.get(name)}


def read_filter(query: Mapping[str, str]) -> Asked:
    """Return what an address asks for, of nobody yet.

    Raises:
        FormError: a value cannot be taken.
    """
    if any(len(value) > TEXT_CHARS_MAX for value in query.values()):
        raise FormError("The filter is too long.")
    state = query.get("state", "")
    if state not in STATES:
        raise FormError(f"State: choose one of {', '.join(filter(None, STATES))}.")
    provider, model = _model(query.get("model", ""))
    since, until = _day(query, "since", "From"), _day(query, "until", "To")
    if since is not None and until is not None and since > until:
        raise FormError("From must not lie behind To.")
    wanted = RequestFilter(
        key=query.get("key") or None,
        provider=provider,
        model=model,
        state=state or None,
        since_ms=since,
        until_ms=None if until is None else until + DAY_MS,
        before=_id(query, "before"),
    )
    return Asked(wanted, _id(query, "after"))


def _model(text: str) -> tuple[str | None, str | None]:
    """Return provider and model; either may be left open: `openai/`, `gpt-4o`."""
    provider, slash, model = text.partition("/")
    return (provider or None, model or None) if slash else (None, text or None)


def _day(query: Mapping[str, str], name: str, label: str) -> int | None:
    """Return the beginning of a day (UTC) in milliseconds, None when none is given."""
    text = query.get(name, "")
    if not text:
        return None
    try:
        day = date.fromisoformat(text if _DAY.fullmatch(text) else "")
    except ValueError as error:
        raise FormError(f"{label}: write a day such as 2026-11-23.") from error
    return int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp()) * 1000


def _id(query: Mapping[str, str], name: str) -> bytes | None:
    text = query.get(name, "")
    found = parse_request_id(text) if text else None
    if text and (found is None or len(found) != 16):
        raise FormError("This page is not there. Begin again with the newest requests.")
    return found
