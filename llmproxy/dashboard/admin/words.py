"""Owns what the operator's forms have in common: text as it is kept, acts as the command line."""

from collections.abc import Mapping
from shlex import quote

from llmproxy.dashboard.errors import FormError
from llmproxy.errors import MoneyError, NotFoundError, RefusedError, VaultError
from llmproxy.plain_text import clean

TEXT_CHARS_MAX = 300
TOLD = (FormError, MoneyError, NotFoundError, RefusedError, VaultError)
"""What is said above the form that was sent, with what was typed kept in it."""


def given(*arguments: str, **options: str | None) -> str:
    """Return arguments as one would type them; an option of None is not given."""
    words = [quote(argument) for argument in arguments]
    for name, value in options.items():
        if value is not None:
            words += [f"--{name.replace('_', '-')}", quote(value)]
    return " ".join(words)


def read_text(form: Mapping[str, str], field: str, label: str) -> str:
    """Return a line of text without what cannot be seen in it; it may be empty.

    Raises:
        FormError: it is too long.
    """
    text = clean(form.get(field, "")).strip()
    if len(text) > TEXT_CHARS_MAX:
        raise FormError(f"{label}: at most {TEXT_CHARS_MAX} characters.")
    return text
