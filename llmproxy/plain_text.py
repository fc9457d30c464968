"""Owns what may not stand in text that a terminal or a spreadsheet is to show."""

import re

CONTROL = "[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff]"
"""Characters, as a regular expression, that steer a terminal or reorder the letters of a line."""
_CONTROL = re.compile(CONTROL)


def clean(text: str) -> str:
    """Return text without characters that steer a terminal or reorder its letters."""
    return _CONTROL.sub("", text)
