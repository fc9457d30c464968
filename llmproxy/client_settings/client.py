"""Owns what is known of a client: one row of the table, its text as the documentation has it."""

from typing import NamedTuple

BASE_URL = "http://127.0.0.1:8000"
"""The address that every text names, in whose place another server's is put."""
KEY = "llmp_…"
"""Stands where an API key belongs."""
KEY_VARIABLE = "APP_API_KEY"
"""The variable from which code takes the API key, so that no key stands in a program."""


class Client(NamedTuple):
    """A client and its setting.

    `text` works as it stands with a server at `BASE_URL`; where it needs the API key it has `KEY`,
    or takes the variable `KEY_VARIABLE`. `model` is the one that it names, of `provider`.
    """

    name: str
    title: str
    language: str
    text: str
    provider: str = ""
    model: str = ""
    text_with_model: str = ""
    """For a key that may not use every model, where the client else chooses one by itself."""
    place: str = ""
    """The file that the text belongs in, if it is no program."""
    notes: tuple[str, ...] = ()
    tested: str = "run"
    """How it is tested: it is `run` itself, its requests are `replayed`, or `not` at all."""


class Setting(NamedTuple):
    """The setting of one client for one server, ready to paste."""

    name: str
    title: str
    language: str
    text: str
    place: str
    notes: tuple[str, ...]
