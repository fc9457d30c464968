"""Owns the form in which a user asks for an API key: what may stand in it, and what it means."""

import re
from collections.abc import Mapping
from typing import NamedTuple

from llmproxy.catalog import Catalog
from llmproxy.dashboard.errors import FormError
from llmproxy.dashboard.formats import DAY_MS
from llmproxy.errors import MoneyError
from llmproxy.money import parse_usd

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
}
MODELS_MAX = 50
_COUNT = re.compile(r"[1-9]\d{0,11}", re.ASCII)
_MODEL = re.compile(r"[^\s,*]{1,200}\*?|\*")


class NewKey(NamedTuple):
    """An API key that is wanted; `limits` are by the names of the fields of `Limits`."""

    name: str
    expires_at_ms: int | None
    limits: dict[str, object]


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
    for field, label in COUNTS.items():
        if text := form.get(field):
            limits[field] = read_count(text, label)
    for field, label in AMOUNTS.items():
        if text := form.get(field):
            limits[field] = _amount(text, label)
    if text := form.get("models"):
        limits["models"] = _models(text, catalog)
    expires_at_ms = now_ms + int(life) * DAY_MS if life else None
    return NewKey(form["name"], expires_at_ms, limits)


def read_overlap(form: Mapping[str, str]) -> int:
    """Return for how long (ms) a key that is replaced works on.

    Raises:
        FormError: it is not one of those that are offered.
    """
    overlap = form.get("overlap", "0")
    if overlap not in OVERLAPS:
        raise FormError("Choose when the old key ends.")
    return int(overlap) * HOUR_MS


def read_count(text: str, label: str) -> int:
    """Return a whole number from 1.

    Raises:
        FormError: it is none; the message names the field by its label.
    """
    if not _COUNT.fullmatch(text):
        raise FormError(f"{label}: write a whole number from 1, or leave it empty.")
    return int(text)


def _amount(text: str, label: str) -> int:
    try:
        amount = parse_usd(text)
    except MoneyError as error:
        raise FormError(f"{label}: {error}") from error
    if amount < 0:
        raise FormError(f"{label}: it must not be below zero.")
    return amount


def _models(text: str, catalog: Catalog) -> tuple[str, ...]:
    """Return ids of the catalog and beginnings of them; an alias becomes its id."""
    members = list(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    wrong = [each for each in members if not _MODEL.fullmatch(each)]
    if wrong or not 0 < len(members) <= MODELS_MAX:
        raise FormError("Models: write ids with commas between, such as gpt-4o-mini, claude-*.")
    known = catalog.models()
    ids: list[str] = []
    for member in members:
        found = [model.id for model in known if member in {model.id, *model.aliases}]
        if not found and not member.endswith("*"):
            raise FormError(f"Models: {member!r:.80} is not in the model catalog.")
        ids += found or [member]
    return tuple(dict.fromkeys(ids))
