"""What an operator's page refuses is told without the command that its message ends with.

No refusal of today that names one reaches these two pages; one is made here, without a server.
"""

import asyncio
from collections.abc import Mapping
from typing import Any, cast
from urllib.parse import urlencode

import pytest
from litestar import HttpMethod, Request, Response

from llmproxy import catalog_editing
from llmproxy.clock import Clock
from llmproxy.dashboard.admin import user_acts
from llmproxy.dashboard.admin.catalog import catalog_routes
from llmproxy.dashboard.admin.users import user_pages
from llmproxy.dashboard.site import Site
from llmproxy.dashboard.visit import ReachedAt
from llmproxy.errors import RefusedError
from llmproxy.live_catalog import LiveCatalog
from tests.dashboard.rooms import Rooms
from tests.dashboard.test_admin_catalog import GPT, set_form


def refuse(*_: object, **__: object) -> None:
    raise RefusedError("There are too many. Remove one", command="llmproxy things remove")


class Office:
    """What pages need of a server."""

    catalog = LiveCatalog(lambda: None)
    is_stopping = staticmethod(lambda: False)


class Writer:
    """Writes at once."""

    def __init__(self, rooms: Rooms) -> None:
        self._book = rooms.book

    async def submit(self, function: Any, *args: object) -> object:  # noqa: ANN401 - f(tx, …)
        with self._book.write() as tx:
            done: object = function(tx, *args)
        return done


class Sent(Request[Any, Any, Any]):
    """A form that has come."""

    fields: Mapping[str, str] = {}

    async def body(self) -> bytes:  # type: ignore[explicit-override]
        """Return the form as it was sent."""
        return urlencode(self.fields).encode()


class Pages:
    """The forms of a site without a server."""

    def __init__(self, rooms: Rooms) -> None:
        self._rooms = rooms
        address, writer, office = ReachedAt("", (), 0), cast("Any", Writer(rooms)), Office
        self.site = Site(address, rooms.reader, writer, Clock(), cast("Any", office))
        routes = [*catalog_routes(self.site), *user_pages(self.site)]
        self._forms = {
            path: route
            for route in routes
            for path in route.paths
            if HttpMethod.POST in route.http_methods
        }

    async def submit(self, path: str, **fields: str) -> tuple[int, str]:
        """Send a form as an operator; return the status and the page."""
        sent = Sent(self._rooms.signed_in().scope)
        sent.fields = fields
        answer: Response[bytes] = await cast("Any", self._forms[path].fn)(sent)
        return answer.status_code or 200, answer.content.decode()


def test_a_form_for_a_new_user_names_no_command(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(rooms)

    async def send() -> tuple[int, str]:
        await pages.site.prepare()
        return await pages.submit("/admin/users", name="one-too-many")

    monkeypatch.setattr(user_acts, "create", refuse)
    status, html = asyncio.run(send())
    assert (status, "Remove one.</p>" in html, "llmproxy things" in html) == (422, True, False)


def test_differences_that_cannot_be_applied_are_shown_again_without_a_command(
    rooms: Rooms, monkeypatch: pytest.MonkeyPatch
) -> None:
    pages = Pages(rooms)

    async def send() -> tuple[int, str]:
        await pages.site.prepare()
        status, html = await pages.submit("/admin/catalog/preview", **GPT, in_price="5")
        assert status == 200
        return await pages.submit("/admin/catalog/set", **set_form(html))

    monkeypatch.setattr(catalog_editing, "carry_out", refuse)
    status, html = asyncio.run(send())
    assert (status, "Remove one.</p>" in html, "llmproxy things" in html) == (422, True, False)
    assert set_form(html)["in_price"] == "5"
