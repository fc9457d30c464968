"""Pages of errors: whoever is signed in still is."""

import asyncio
from typing import Any, cast

import httpx

from llmproxy.clock import Clock
from llmproxy.dashboard.site import Site
from llmproxy.dashboard.visit import ReachedAt
from llmproxy.server.app import _Dashboard
from llmproxy.server.description import Document
from tests.dashboard.helpers import Desk


def test_an_error_shows_who_is_signed_in(desk: Desk) -> None:
    ann, nobody = desk.signed_in(), desk.visitor()
    for path, status in (
        ("/dashboard/requests/1", 404),
        ("/dashboard/admin", 403),
    ):
        answer = ann.get(path)
        assert answer.status_code == status
        assert f'title="Signed in as {ann.name}"' in answer.text, path
        assert ">Sign in<" not in answer.text
    assert ">Sign in<" in nobody.get("/dashboard/nothing").text
    # Whose the cookie is was not looked up here: neither is said.
    for path in ("/dashboard/sign-in/used-long-ago", "/dashboard/nothing", "/dashboard/live/x"):
        answer = ann.get(path)
        assert answer.status_code == 404
        assert answer.headers["content-type"].startswith("text/html")
        assert ">Sign in<" not in answer.text
        assert ">Sign in<" in nobody.get(path).text


def test_the_first_visit_to_a_page_that_is_missing_gets_a_page() -> None:
    none = cast("Any", None)
    dashboard = _Dashboard(Site(ReachedAt("", (), 0), none, none, Clock(), none), Document([]))

    async def visit() -> httpx.Response:
        transport = httpx.ASGITransport(app=cast("Any", dashboard))
        async with httpx.AsyncClient(transport=transport, base_url="http://x") as client:
            return await client.get("/dashboard/nothing")

    answer = asyncio.run(visit())
    assert answer.status_code == 404
    assert answer.headers["content-type"].startswith("text/html")
    assert "There is nothing at this address." in answer.text
