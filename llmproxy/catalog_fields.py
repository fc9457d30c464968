"""Owns reading the JSON objects of the catalog strictly: kinds, patterns, exact decimals. Pure.

Must not know which fields a model has (catalog_parser.py).
"""

import re
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from typing import Any

from llmproxy import money
from llmproxy.errors import MoneyError

WORD = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
MODEL_NAME = re.compile(r"[!-~]{1,200}")


class Fields:
    """One JSON object of the file: reads its fields, and notes what is wrong with them.

    What is wrong comes back as nothing, so that the rest can be looked at too.
    """

    def __init__(self, value: dict[str, Any], where: str, problems: list[str]) -> None:
        """Take an object, how to call it, and the list that its problems go to."""
        self.value = value
        self.where = where
        self._problems = problems

    def note(self, what: str, name: str | None = None) -> None:
        """Note what is wrong with it, or with one of its fields."""
        field = "" if name is None else f', field "{name}"'
        self._problems.append(f"{self.where}{field}: {what}.")

    def only(self, known: frozenset[str], name: str | None = None) -> None:
        """Note fields that are not known; `name` is the field that this object stands in."""
        for unknown in sorted(self.value.keys() - known):
            self.note(f'unknown field "{unknown:.200}"; known are {", ".join(sorted(known))}', name)

    def inside(self, value: dict[str, Any], what: str) -> "Fields":
        """Return the fields of an object in this one."""
        return Fields(value, f"{self.where}, {what}", self._problems)

    def members(self, name: str) -> dict[str, Any]:
        """Return an object in this one, empty when there is none."""
        item = self.value.get(name, {})
        if not isinstance(item, dict):
            self.note("must be a JSON object", name)
            return {}
        return item

    def words(self, name: str) -> dict[str, Any]:
        """Return an object in this one whose members have plain words for names."""
        members = self.members(name)
        for key in members:
            if not WORD.fullmatch(key):
                self.note(f"{key!a:.80} is no plain word such as us", name)
        return {key: value for key, value in members.items() if WORD.fullmatch(key)}

    def date(self, name: str, default: str) -> str:
        """Return a date as it is written, such as 2026-11-23."""
        text = self.value.get(name, default)
        try:
            is_date = isinstance(text, str) and date.fromisoformat(text).isoformat() == text
        except ValueError:
            is_date = False
        if not is_date:
            self.note('must be a date such as "2026-11-23"', name)
            return default
        return str(text)

    def objects(self, name: str, what: str) -> list["Fields"]:
        """Return the fields of each object in a list, called `what` 1, 2, …."""
        items = self.value.get(name, [])
        if not isinstance(items, list) or not all(isinstance(item, dict) for item in items):
            self.note("must be a list of JSON objects", name)
            return []
        return [self.inside(item, f"{what} {number}") for number, item in enumerate(items, 1)]

    def strings(self, name: str) -> tuple[str, ...]:
        """Return a list of names, empty when there is none."""
        items = self.value.get(name, [])
        if not isinstance(items, list) or not all(
            isinstance(item, str) and MODEL_NAME.fullmatch(item) for item in items
        ):
            self.note("must be a list of strings without spaces", name)
            return ()
        return tuple(items)

    def count(self, name: str) -> int | None:
        """Return a whole number above 0, None when there is none."""
        number = self.value.get(name)
        if number is None:
            return None
        if isinstance(number, bool) or not isinstance(number, int) or number < 1:
            self.note("must be a whole number above 0", name)
            return None
        return number

    def text(self, name: str, default: str, pattern: re.Pattern[str], what: str) -> str:
        """Return a text of this pattern; `what` describes it."""
        text = self.value.get(name, default)
        if not isinstance(text, str) or not pattern.fullmatch(text):
            self.note(f"must be a {what}", name)
            return default
        return text

    def exact(self, value: object, name: str, parse: Callable[[str], int], what: str) -> int:
        """Return a decimal string as the integer that `parse` makes of it."""
        if not isinstance(value, str):
            self.note(f"{what}, not {_json_kind(value)}", name)
            return 0
        try:
            return parse(value)
        except MoneyError as error:
            self.note(str(error).removesuffix("."), name)
            return 0

    def multiplier(self, value: object, name: str) -> int:
        """Return a decimal string as a multiplier in millionths."""
        what = "multipliers are decimal strings such as '1.1'"
        return self.exact(value, name, money.parse_multiplier, what)


def _json_kind(value: object) -> str:
    if value is None:
        return "null"
    if isinstance(value, bool):
        return "true or false"
    return "a JSON number" if isinstance(value, int | Decimal) else "a list or an object"
