"""Owns the tables of a user's API keys, as the user and operators see them, page by page."""

from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import Request

from llmproxy import key_lists, reports
from llmproxy.accounts import ApiKey, User
from llmproxy.dashboard.formats import used_on
from llmproxy.dashboard.forms import read_page_number
from llmproxy.key_lists import KeyPage
from llmproxy.storage.database import Tx


class AskedPages(NamedTuple):
    """Which pages of its tables an address asks for, by the address's own names, from 1."""

    page: int = 1
    """Of the keys that work; of a list without those that ended, of all."""
    ended: int | None = None
    """None where it does not ask for those: the first is there for whoever unfolds them."""

    def query(self, **other: int) -> str:
        """Return the end of an address that asks for these pages, or `other` ones by their names.

        It names a page in any case: by that a button knows on which list it was pressed.
        """
        pages = {name: number for name, number in self._asdict().items() if number is not None}
        return f"?{urlencode(pages | other)}"

    @property
    def place(self) -> str:
        """The end of an address that leads back here; empty where it would do without."""
        return "" if self == AskedPages() else self.query()


class KeyRow(NamedTuple):
    """An API key of a table."""

    key: ApiKey
    state: str
    used: str
    """When it was last used, in words."""


class KeyTable(NamedTuple):
    """A page of API keys."""

    rows: list[KeyRow]
    page: KeyPage[ApiKey]


class KeyTables(NamedTuple):
    """A user's API keys: those that work, newest first, and those that ended, the last first."""

    live: KeyTable
    ended: KeyTable
    pages: AskedPages
    """What was asked for; the last page where there are not so many."""


def read_asked_pages(request: Request[Any, Any, Any]) -> AskedPages:
    """Return which pages an address asks for: `?page=2` of the keys that work, `?ended=2`."""
    ended = read_page_number(request, "ended") if "ended" in request.query_params else None
    return AskedPages(read_page_number(request, "page"), ended)


def read_tables(
    tx: Tx, user: User, asked: AskedPages, *, now_ms: int, live_max: int, ended_max: int
) -> KeyTables:
    """Return a page of each table, of at most so many rows."""
    days = reports.last_used_days(tx, user.id)

    def table(page: KeyPage[ApiKey]) -> KeyTable:
        return KeyTable([make_row(key, days, now_ms) for key in page.keys], page)

    live = key_lists.page_of_live_keys(tx, user, asked.page, now_ms=now_ms, rows_max=live_max)
    number = 1 if asked.ended is None else asked.ended
    ended = key_lists.page_of_ended_keys(tx, user, number, now_ms=now_ms, rows_max=ended_max)
    pages = AskedPages(live.number, None if asked.ended is None else ended.number)
    return KeyTables(table(live), table(ended), pages)


def make_row(key: ApiKey, days: dict[int, int], now_ms: int) -> KeyRow:
    """Return the row of a key; `days` are those of the last use, by the keys' ids."""
    return KeyRow(key, key.state(now_ms), used_on(days.get(key.id), now_ms))
