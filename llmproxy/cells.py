"""Owns text from users as cells of CSV: no spreadsheet computes it, and no terminal obeys it."""

import re

CONTROL = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]")
"""Characters that steer a terminal, or reorder the letters around them."""
# A spreadsheet takes a cell that begins so for a formula; models and names come from users.
_FORMULA_STARTS = ("=", "+", "-", "@")


def safe_cell(text: str) -> str:
    """Return text without control characters, with a ' before what would be a formula."""
    cleaned = CONTROL.sub("", text)
    return f"'{cleaned}" if cleaned.startswith(_FORMULA_STARTS) else cleaned
