"""Owns what may not stand in text that a terminal or a spreadsheet is to show."""

import re

CONTROL = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
"""Characters, as a regular expression, that steer a terminal or reorder the letters of a line."""
_CONTROL = re.compile(CONTROL)
# A spreadsheet takes a cell that begins so for a formula; models and names come from users.
_FORMULA_STARTS = ("=", "+", "-", "@")
_NUMBER = re.compile(r"-\d+\.\d+", re.ASCII)


def clean(text: str) -> str:
    """Return text without characters that steer a terminal or reorder its letters."""
    return _CONTROL.sub("", text)


def safe_cell(text: str) -> str:
    """Return text without such characters, with a ' before what a spreadsheet would compute."""
    text = clean(text)
    is_formula = text.startswith(_FORMULA_STARTS) and not _NUMBER.fullmatch(text)
    return f"'{text}" if is_formula else text
