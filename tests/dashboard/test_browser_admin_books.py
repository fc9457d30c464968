"""The operator's pages of the books in a real browser, on a desk and on a phone."""

import re
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from llmproxy import accounts, audit
from llmproxy.clock import Clock
from tests.dashboard.browsing import PHONE, Watched
from tests.dashboard.helpers import Desk
from tests.dashboard.operators import ADMIN
from tests.dashboard.rows import add_settled

PAGES = (
    f"{ADMIN}/audit",
    f"{ADMIN}/catalog",
    f"{ADMIN}/catalog?own=1",
    f"{ADMIN}/catalog/model?name=openai/gpt-6.1-sol",
    f"{ADMIN}/catalog/new",
    f"{ADMIN}/pool",
    f"{ADMIN}/ledger",
)


@pytest.fixture(params=[True, False], ids=["scripts", "no scripts"])
def window(request: pytest.FixtureRequest, browser: Browser, own_desk: Desk) -> Iterator[Watched]:
    """A window of an operator who has signed in; nothing in it may have gone wrong in the end."""
    with browser.new_context(java_script_enabled=request.param) as context:
        watched = Watched(context, own_desk)
        sign_in(watched)
        yield watched
        assert watched.complaints == []


def sign_in(watched: Watched) -> str:
    """Sign a new operator in; return their name."""
    name, _ = watched.sign_in()
    with watched.desk.books.write() as tx:
        accounts.set_user(tx, name, now_ms=Clock().now_ms(), is_admin=True)
    return name


def tab(page: Page, name: str) -> None:
    """Go to one of the operator's pages by its tab."""
    page.get_by_label("Admin").get_by_role("link", name=name).click()
    expect(page.get_by_role("heading", name=name, level=1)).to_be_visible()


@pytest.fixture
def price(request: pytest.FixtureRequest) -> str:
    """One of its own for each window: the audit log has those of the others."""
    return "76" if "no scripts" in request.node.name else "75"


def test_a_price_is_changed_and_that_is_found_in_the_audit_log(window: Watched, price: str) -> None:
    name, _ = window.desk.books.user()
    add_settled(window.desk.books, name, at_ms=Clock().now_ms() - 60_000, model="gpt-4o")
    page = window.open(f"{ADMIN}/catalog")
    page.get_by_label("Search").fill("gpt-4o")
    page.get_by_label("Provider").select_option("openai")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="openai/gpt-4o", exact=True).click()
    expect(page.get_by_role("row").filter(has_text="Base")).to_contain_text("2.50")

    page.get_by_label("Input USD", exact=True).fill(price)
    page.get_by_role("button", name="Show what would change").click()
    expect(page.get_by_role("heading", name="What would change")).to_be_visible()
    week = page.get_by_role("region", name="What they would have cost")
    cells = week.get_by_role("row").filter(has_text=name).get_by_role("cell")
    assert cells.all_inner_texts()[1] == "1"
    expect(cells.last).to_contain_text("+")
    row = page.get_by_role("row").filter(has_text="in_price")
    expect(row).to_contain_text(f"{price}.00")
    expect(row).to_contain_text("jump")
    page.get_by_label("that is meant").check()
    page.get_by_role("button", name="Apply to openai/gpt-4o").click()
    expect(page.get_by_role("row").filter(has_text="Base")).to_contain_text(f"{price}.00")
    expect(page.get_by_text("your own entry, set by dashboard:")).to_be_visible()

    tab(page, "Audit log")
    expect(page.get_by_role("row").filter(has_text=f"--in-price {price}")).to_have_count(1)
    page.get_by_label("Search").fill(f"--in-price {price}")
    page.get_by_role("button", name="Search").click()
    expect(page.get_by_role("row")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert re.fullmatch(r"llmproxy-audit-[\d-]+\.csv", download.value.suggested_filename)

    tab(page, "Catalog")
    page.get_by_label("Prices").select_option("Only overridden")
    page.get_by_role("button", name="Filter").click()
    page.get_by_role("link", name="openai/gpt-4o", exact=True).click()
    page.get_by_text("Remove the override…").click()
    page.get_by_role("button", name="Remove the override").click()
    expect(page.get_by_role("row").filter(has_text="Base")).to_contain_text("2.50")


def test_the_pool_is_entered_and_the_ledger_checked(window: Watched) -> None:
    page = window.open(f"{ADMIN}/pool")
    page.locator("select[name=provider]").select_option("openai")
    page.get_by_label("You hold there now").fill("1")
    page.get_by_role("button", name="Save").click()
    expect(page.get_by_role("alert")).to_contain_text("More was sold than is held")
    expect(page.get_by_role("row").filter(has_text="openai")).to_contain_text("$1.00")

    tab(page, "Ledger")
    page.get_by_role("button", name="Check the ledger").click()
    expect(page.get_by_text("The ledger is right.")).to_be_visible()  # the page asks by itself


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(
    browser: Browser, own_desk: Desk, scheme: Literal["light", "dark"]
) -> None:
    with browser.new_context(viewport=PHONE, color_scheme=scheme) as context:
        watched = Watched(context, own_desk)
        sign_in(watched)
        run = own_desk.run
        run("catalog", "set", "openai", "gpt-4o", "--in-price", "77", "--alias", "x" * 150, "--yes")
        run("pool", "set", "openai", "1.000000001")
        with own_desk.books.write() as tx:
            audit.note(tx, actor="cli:" + "w" * 60, act="users set", details="W" * 400, now_ms=0)

        def assert_fits() -> None:
            widths = watched.page.evaluate("[document.documentElement.scrollWidth, innerWidth]")
            assert widths[0] <= widths[1], watched.page.url

        for path in (*PAGES, f"{ADMIN}/catalog/model?name=openai/gpt-4o"):
            page = watched.open(path)
            expect(page.get_by_role("heading", level=1)).to_be_visible()
            assert_fits()
        name, at_ms = own_desk.books.user()[0], Clock().now_ms() - 60_000
        add_settled(own_desk.books, name, at_ms=at_ms, model="gpt-4o")
        page = watched.open(f"{ADMIN}/catalog/model?name=openai/gpt-4o")
        page.get_by_label("Multiplier").fill("1.000001")
        page.get_by_label("Further names").fill("y" * 150)
        page.get_by_text("Caches, media, searches and limits").click()
        assert_fits()
        page.get_by_role("button", name="Show what would change").click()
        expect(page.get_by_role("heading", name="What would change")).to_be_visible()
        expect(page.get_by_role("row").filter(has_text=name)).to_be_visible()
        assert_fits()
        watched.open(f"{ADMIN}/ledger").get_by_role("button", name="Check the ledger").click()
        expect(page.get_by_text("The ledger is right.")).to_be_visible()
        assert_fits()
        assert watched.complaints == []
