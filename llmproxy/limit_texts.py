"""Owns how limits are written, on the command line and in forms alike.

A reading takes a text and returns a value of the field of `Limits` that has the same name.
"""

import re
from collections.abc import Callable, Iterable

from llmproxy.catalog import Catalog, Model
from llmproxy.errors import LlmproxyError
from llmproxy.limits import Network, parse_networks
from llmproxy.money import parse_usd

OPTIONS = {
    "requests_per_minute": "--rpm",
    "tokens_per_minute": "--tpm",
    "concurrent_max": "--concurrent",
    "daily_budget_nanousd": "--daily-budget",
    "monthly_budget_nanousd": "--monthly-budget",
    "spend_per_hour_nanousd": "--spend-per-hour",
    "models": "--models",
    "providers": "--providers",
    "networks": "--networks",
}
"""How the command line calls each limit."""
LISTED_MAX = 50
_COUNT = re.compile(r"[1-9]\d{0,11}", re.ASCII)
_PATTERN = re.compile(r"[^\s,*]{1,200}\*?|\*")
_PROVIDER = re.compile(r"[a-z0-9][a-z0-9._-]{0,63}")


class LimitTextError(LlmproxyError):
    """A text is no such limit; the message goes on behind the limit's name."""


def parse_limit(field: str, text: str) -> object:
    """Return the value of a limit.

    Args:
        field: which, by the name of its field in `Limits`.
        text: a whole number, an amount in USD, or a list with commas, as the limit has it.

    Raises:
        LimitTextError: it is none.
        MoneyError: the amount is none.
    """
    return _READINGS[field](text)


def _count(text: str) -> int:
    if not _COUNT.fullmatch(text):
        msg = f"must be a whole number from 1, not {text!r:.60}."
        raise LimitTextError(msg)
    return int(text)


def _amount(text: str) -> int:
    amount = parse_usd(text)
    if amount < 0:
        msg = "must not be below zero."
        raise LimitTextError(msg)
    return amount


def _members(text: str, pattern: re.Pattern[str], example: str) -> tuple[str, ...]:
    members = tuple(dict.fromkeys(each.strip() for each in text.split(",") if each.strip()))
    wrong = [each for each in members if not pattern.fullmatch(each)]
    if wrong or not 0 < len(members) <= LISTED_MAX:
        many = f"with at most {LISTED_MAX} members"
        msg = f"must be a list such as {example}, {many}, not {text!r:.60}."
        raise LimitTextError(msg)
    return members


def _models(text: str) -> tuple[str, ...]:
    return _members(text, _PATTERN, "gpt-4o-mini,claude-*")


def _providers(text: str) -> tuple[str, ...]:
    return _members(text, _PROVIDER, "openai,groq")


def _networks(text: str) -> tuple[Network, ...]:
    try:
        networks = parse_networks(text)
    except ValueError as error:
        msg = f"must be addresses or networks such as 10.0.0.0/8,::1: {error}."
        raise LimitTextError(msg) from error
    if not networks:
        msg = "must name at least one network."
        raise LimitTextError(msg)
    return networks


_READINGS: dict[str, Callable[[str], object]] = {
    "requests_per_minute": _count,
    "tokens_per_minute": _count,
    "concurrent_max": _count,
    "daily_budget_nanousd": _amount,
    "monthly_budget_nanousd": _amount,
    "spend_per_hour_nanousd": _amount,
    "models": _models,
    "providers": _providers,
    "networks": _networks,
}


def catalog_ids(members: Iterable[str], catalog: Catalog) -> tuple[tuple[str, ...], list[str]]:
    """Return models of a list by their ids, and those that the catalog does not have.

    An alias becomes the id that it stands for; beginnings of ids stay as they are.
    """
    ids: list[str] = []
    unknown: list[str] = []
    for member in members:
        found = [model.id for model in catalog.models() if _is_called(model, member)]
        if not found and not member.endswith("*"):
            unknown.append(member)
        ids += found or [member]
    return tuple(dict.fromkeys(ids)), unknown


def _is_called(model: Model, name: str) -> bool:
    return name == model.id or name in model.aliases
