"""What must hold for every page that there is, as an operator finds them by links."""

from typing import Any, Literal

import pytest
from playwright.sync_api import Browser

from tests.clients.environments import node_project, why_no_node
from tests.dashboard.browsing import PHONE, Watched
from tests.dashboard.crawler import crawl, route_of
from tests.dashboard.helpers import KEYS, Desk, Visitor
from tests.dashboard.table import routes

PAGE_BYTES_MAX = 50_000
OPEN_ALL = "for (const each of document.querySelectorAll('details')) each.open = true"
NOT_BY_LINKS = {
    "/dashboard/settings",
    "/dashboard/sign-in",
    "/dashboard/sign-in/{secret}",
    "/dashboard/static/{name}",
    "/public/images/{name}",
}
"""Routes that no link of a page leads to: what is not linked to is not found by anybody."""


@pytest.fixture
def operator(desk: Desk) -> Visitor:
    """An operator of a proxy in which there is something of everything."""
    visitor = desk.operator()
    for model in ("gpt-4o", "gpt-4o", "no-such-model"):
        desk.ask(visitor.api_key, model)
    desk.books.settled_wallet(visitor.name)
    return visitor


def every_page(desk: Desk, operator: Visitor) -> list[str]:
    """Return every page, by links from the Overview and from the operator as a user."""
    user = f"/dashboard/admin/users/{desk.user_id(operator.name)}"
    return crawl(operator, user, "/dashboard")


def test_every_page_can_be_reached_by_links_and_is_small(operator: Visitor, desk: Desk) -> None:
    found = every_page(desk, operator)
    readable = {path for method, path in routes() if method == "GET"}
    files = {path for path in readable if path.endswith((".csv", ".jsonl", "/live"))}
    assert {route_of(path.partition("?")[0]) for path in found} == readable - files - NOT_BY_LINKS
    for path in found:
        assert len(operator.get(path).content) < PAGE_BYTES_MAX, path


def test_every_page_fits_a_phone_without_complaints(
    operator: Visitor, desk: Desk, browser: Browser
) -> None:
    paths = every_page(desk, operator)
    with browser.new_context(viewport=PHONE) as context:
        watched = Watched(context, desk)
        watched.sign_in_as(operator.name)
        for path in paths:
            watched.open(path)
            watched.assert_fits()
            assert watched.complaints == [], path


@pytest.mark.clients
@pytest.mark.timeout(300)
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_no_serious_fault(
    operator: Visitor, desk: Desk, browser: Browser, scheme: Literal["light", "dark"]
) -> None:
    """https://github.com/dequelabs/axe-core, with all its rules."""
    if why := why_no_node():
        pytest.skip(why)
    axe = (node_project() / "node_modules/axe-core/axe.min.js").read_text("utf-8")
    paths = [*every_page(desk, operator), "/dashboard/settings/nothing"]
    with browser.new_context(color_scheme=scheme) as context:
        watched = Watched(context, desk)
        watched.sign_in_as(operator.name)
        faults: list[Any] = []
        for path in paths:
            page = watched.open(path)
            page.evaluate(OPEN_ALL)
            page.evaluate(axe)
            found = page.evaluate("axe.run()")
            faults += [
                (path, each["id"], [node["html"][:200] for node in each["nodes"]])
                for each in found["violations"]
                if each["impact"] in {"serious", "critical"}
            ]
        assert faults == []


@pytest.mark.clients
def test_axe_finds_a_fault_where_there_is_one(browser: Browser) -> None:
    if why := why_no_node():
        pytest.skip(why)
    axe = (node_project() / "node_modules/axe-core/axe.min.js").read_text("utf-8")
    with browser.new_context() as context:
        page = context.new_page()
        page.set_content("<html><body><img src='x.png'><input></body></html>")
        page.evaluate(axe)
        found = page.evaluate("axe.run()")
        assert {"image-alt", "label"} <= {each["id"] for each in found["violations"]}


def test_a_page_of_keys_is_small_even_when_there_are_as_many_as_may_be(operator: Visitor) -> None:
    for n in range(49):
        operator.create_key(f"key {n:02d} {'W' * 50}")
    assert len(operator.get(KEYS).content) < PAGE_BYTES_MAX
