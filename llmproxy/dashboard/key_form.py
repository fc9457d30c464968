"""Owns the form in which a user asks for an API key: what may stand in it, and what it means."""

from collections.abc import Mapping
from shlex import quote
from typing import NamedTuple

from llmproxy.catalog import Catalog
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.formats import DAY_MS
from llmproxy.errors import MoneyError
from llmproxy.limit_texts import OPTIONS, LimitTextError, catalog_ids, parse_limit

HOUR_MS = 3_600_000
LIVES = {"": "Never", "7": "In 7 days", "30": "In 30 days", "90": "In 90 days", "365": "In a year"}
OVERLAPS = {"0": "at once", "1": "in an hour", "24": "in a day", "168": "in a week"}
COUNTS = {
    "requests_per_minute": "Requests per minute",
    "tokens_per_minute": "Tokens per minute",
    "concurrent_max": "Requests at once",
}
AMOUNTS = {
    "daily_budget_nanousd": "Budget per day",
    "monthly_budget_nanousd": "Budget per month",
    "spend_per_hour_nanousd": "Spend per hour",
}
LISTS = {"models": "Models", "providers": "Providers", "networks": "Networks"}
LIST_HINTS = {
    "models": "Ids with commas between, such as gpt-4o-mini, claude-*",
    "providers": "Such as openai, anthropic",
    "networks": "Where programs with this key are, such as 10.0.0.0/8",
}


class NewKey(NamedTuple):
    """An API key that is wanted; `limits` are by the names of the fields of `Limits`."""

    name: str
    expires_at_ms: int | None
    limits: dict[str, object]
    words: str
    """Its end and limits as the command line's options, with a space before them."""


def read_new_key(form: Mapping[str, str], catalog: Catalog, *, now_ms: int) -> NewKey:
    """Return what a form asks for.

    Raises:
        FormError: a field cannot be taken.
    """
    if not form.get("name"):
        raise FormError("Give the key a name, such as the program that will use it.")
    life = form.get("expires", "")
    if life not in LIVES:
        raise FormError("Choose when the key ends.")
    limits: dict[str, object] = {}
    for field, label in (COUNTS | AMOUNTS | LISTS).items():
        if text := form.get(field):
            limits[field] = read_limit(field, text, label)
    models = limits.get("models")
    if isinstance(models, tuple):
        limits["models"] = _known_models(models, catalog)
    expires_at_ms = now_ms + int(life) * DAY_MS if life else None
    options = {"--expires": f"{life}d" if life else ""}
    options |= {OPTIONS[field]: form[field] for field in limits}
    words = "".join(f" {name} {quote(text)}" for name, text in options.items() if text)
    return NewKey(form["name"], expires_at_ms, limits, words)


def read_overlap(form: Mapping[str, str]) -> int:
    """Return for how long (ms) a key that is replaced works on.

    Raises:
        FormError: it is not one of those that are offered.
    """
    overlap = form.get("overlap", "0")
    if overlap not in OVERLAPS:
        raise FormError("Choose when the old key ends.")
    return int(overlap) * HOUR_MS


def read_limit(field: str, text: str, label: str) -> object:
    """Return the value of a limit, by the name of its field in `Limits`.

    Raises:
        FormError: it is none; the message names it by its label.
    """
    try:
        return parse_limit(field, text)
    except LimitTextError as error:
        raise FormError(f"{label}: it {error}") from error
    except MoneyError as error:
        raise FormError(f"{label}: {error}") from error


def _known_models(members: tuple[str, ...], catalog: Catalog) -> tuple[str, ...]:
    ids, unknown = catalog_ids(members, catalog)
    if unknown:
        raise FormError(f"Models: {unknown[0]!r:.80} is not in the model catalog.")
    return ids
