"""Owns the parameters of `GET /v1/usage`: what may be asked, and what to say to anything else."""

import re
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Literal, NamedTuple, TypeVar
from urllib.parse import parse_qsl

from llmproxy.clock import parse_request_id
from llmproxy.errors import ApiError, invalid_request
from llmproxy.reports import OWN_GROUPS
from llmproxy.shapes import Format

SPAN_DAYS = 30
"""How far back is looked unless `from` says otherwise."""
LIMIT = 100
LIMIT_MAX = 1000
Grouping = Literal["none", "day", "model", "endpoint"]
PARAMETERS = ("from", "to", "group", "format", "limit", "cursor")
GROUPS: tuple[Grouping, ...] = ("none", *OWN_GROUPS)
FORMATS: tuple[Format, ...] = ("json", "csv")
FIELDS_MAX = 20
CURSOR_CHARS_MAX = 300
T = TypeVar("T", bound=str)
_DAY_MS = 86_400_000
_HOUR, _SIXTY = "([01][0-9]|2[0-3])", "[0-5][0-9]"
TIME_PATTERN = (
    r"[0-9]{4}-(0[1-9]|1[0-2])-(0[1-9]|[12][0-9]|3[01])"
    rf"([T ]{_HOUR}:{_SIXTY}(:{_SIXTY}(\.[0-9]{{1,6}})?)?(Z|[+-]{_HOUR}:{_SIXTY})?)?"
)
"""In the words that JSON Schema's patterns and Python's have in common."""
_TIME = re.compile(TIME_PATTERN)


class UsageQuery(NamedTuple):
    """What is asked for; times in milliseconds, `group` one of GROUPS."""

    since_ms: int
    until_ms: int
    group: Grouping
    is_csv: bool
    limit: int
    cursor: str
    """Where the page before ended: a request id, or a group's name; empty for the first page."""


def read_usage_query(query: bytes, accept: bytes, *, now_ms: int) -> UsageQuery:
    """Read the parameters; `accept` is the header, which counts where no format is named.

    Raises:
        ApiError: 400, a parameter is unknown, given twice, or has a wrong value.
    """
    given = _fields(query)
    group = _choice(given, "group", GROUPS, "none")
    wanted: Format = "csv" if b"text/csv" in accept.lower() else "json"
    midnight_ms = now_ms - now_ms % _DAY_MS
    asked = UsageQuery(
        since_ms=_moment(given, "from", midnight_ms - (SPAN_DAYS - 1) * _DAY_MS),
        until_ms=_moment(given, "to", midnight_ms + _DAY_MS),
        group=group,
        is_csv=_choice(given, "format", FORMATS, wanted) == "csv",
        limit=_limit(given),
        cursor=given.get("cursor", ""),
    )
    is_id = group != "none" or parse_request_id(asked.cursor) is not None
    if asked.cursor and (not is_id or len(asked.cursor) > CURSOR_CHARS_MAX):
        raise _wrong("cursor", "Give `next_cursor` of the page before, with the same group.")
    if asked.since_ms >= asked.until_ms:
        raise _wrong("from", "It must be before `to`.")
    return asked


def _fields(query: bytes) -> dict[str, str]:
    try:
        pairs = parse_qsl(
            query.decode("ascii"),
            keep_blank_values=True,
            errors="strict",
            max_num_fields=FIELDS_MAX,
        )
    except ValueError as error:
        raise invalid_request("The query cannot be read. Write it as ?from=…&to=…") from error
    found: dict[str, str] = {}
    for name, value in pairs:
        if name == "key":
            continue  # the API key: one of the places where clients put it
        if name not in PARAMETERS:
            known = ", ".join(PARAMETERS)
            raise invalid_request(f'Unknown parameter "{name[:40]}". Known: {known}.', param=name)
        if name in found:
            raise _wrong(name, "Give it once.")
        found[name] = value
    return found


def _choice(given: Mapping[str, str], name: str, choices: tuple[T, ...], default: T) -> T:
    value = given.get(name, default)
    for choice in choices:
        if value == choice:
            return choice
    raise _wrong(name, f"Choose one of {', '.join(choices)}.")


def _limit(given: Mapping[str, str]) -> int:
    text = given.get("limit", str(LIMIT))
    if not re.fullmatch(r"[0-9]{1,6}", text) or not 1 <= int(text) <= LIMIT_MAX:
        raise _wrong("limit", f"Give a whole number from 1 to {LIMIT_MAX}.")
    return int(text)


def _moment(given: Mapping[str, str], name: str, default_ms: int) -> int:
    text = given.get(name)
    if text is None:
        return default_ms
    advice = (
        "Give a date or a time such as 2026-11-23 or 2026-11-23T09:30:00Z (UTC; in a URL a plus "
        "sign is written %2B)."
    )
    if not _TIME.fullmatch(text):
        raise _wrong(name, advice)
    try:
        moment = datetime.fromisoformat(text)
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=UTC)
        # Whole seconds first: no float may round the milliseconds.
        return int(moment.replace(microsecond=0).timestamp()) * 1000 + moment.microsecond // 1000
    except (ValueError, OverflowError) as error:
        raise _wrong(name, advice) from error


def _wrong(name: str, advice: str) -> ApiError:
    return invalid_request(f"`{name}` has a wrong value. {advice}", param=name)
