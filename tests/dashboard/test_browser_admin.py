"""The operator's pages in a real browser: what is done on them counts at once, for everybody."""

import itertools
import re
from collections.abc import Iterator
from typing import Literal

import pytest
from playwright.sync_api import Browser, Page, expect

from llmproxy import accounts, key_pool, limit_store
from llmproxy.clock import Clock
from tests.dashboard.browsing import PHONE, Watched
from tests.dashboard.helpers import Desk

ADMIN = "/dashboard/admin"
SECRET = "sk-added-in-a-browser-0123456789"


@pytest.fixture
def boss(browser: Browser, module_desk: Desk) -> Iterator[Watched]:
    """The window of an operator who has signed in; nothing in it may have gone wrong."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        watched = Watched(context, module_desk)
        watched.operator()
        yield watched
        assert watched.complaints == []


@pytest.fixture
def guest(browser: Browser, module_desk: Desk) -> Iterator[Watched]:
    """The window of somebody else."""
    with browser.new_context() as context:
        watched = Watched(context, module_desk)
        yield watched
        assert watched.complaints == []


def to_user(boss: Watched, name: str) -> Page:
    """Go to a user's page by the links."""
    page = boss.page
    page.get_by_role("link", name="Admin").click()
    page.get_by_role("link", name="Users").click()
    page.get_by_role("link", name=name, exact=True).click()
    expect(page.get_by_role("heading", name=name)).to_be_visible()
    return page


def test_what_follows_a_table_of_keys_keeps_off_it(boss: Watched) -> None:
    name, _ = boss.desk.books.user()
    page = to_user(boss, name)
    gap_px = """section => section.querySelector('table + p').getBoundingClientRect().top
                           - section.querySelector('table').getBoundingClientRect().bottom"""
    keys = page.get_by_role("region", name="API keys")
    assert keys.evaluate(gap_px) >= 10
    with boss.desk.books.write() as tx:
        user, now_ms = accounts.find_user(tx, name), Clock().now_ms()
        accounts.create_api_key(tx, user, "old", now_ms=now_ms)
        accounts.revoke_api_key(tx, user, "old", now_ms=now_ms)
    page.reload()
    expect(keys.get_by_text("Ended last: old")).to_be_visible()
    assert keys.evaluate(gap_px) >= 10


def test_credit_by_the_operator_is_on_the_users_page(boss: Watched, guest: Watched) -> None:
    name, _ = guest.sign_in()
    expect(guest.page.get_by_text("$5.00").first).to_be_visible()
    page = to_user(boss, name)
    page.get_by_label("Amount").fill("2.50")
    page.get_by_label("Reason").first.fill("invoice 17")
    page.get_by_role("button", name="Add credit").dblclick()
    expect(page.get_by_role("status")).to_have_text(
        re.compile("The credit is added|It was not added twice")
    )
    expect(page.get_by_text("$7.50").first).to_be_visible()
    row = page.get_by_role("row").filter(has_text="invoice 17")
    expect(row).to_contain_text("2.50")
    guest.open("/dashboard")
    expect(guest.page.get_by_text("$7.50").first).to_be_visible()


def test_a_user_is_made_and_comes_by_the_link(
    boss: Watched, guest: Watched, module_desk: Desk
) -> None:
    page = boss.open(f"{ADMIN}/users")
    page.get_by_role("link", name="Create user").click()
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("cleo")
    page.keyboard.press("Tab")
    page.keyboard.type("1.00")
    page.keyboard.press("Enter")
    key = page.locator("#secret").inner_text()
    assert module_desk.ask(key) == 200
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == key
    page.get_by_role("link", name="I have stored it").click()
    page.get_by_role("button", name="Make a sign-in link").click()
    link = page.locator("#secret").inner_text()
    page.get_by_role("button", name="Copy").click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    assert page.evaluate("navigator.clipboard.readText()") == link
    guest.page.goto(link)
    guest.page.get_by_role("button", name="Sign in as cleo").click()
    expect(guest.page.get_by_role("heading", name="Overview")).to_be_visible()


def test_pausing_refuses_the_next_request_and_resuming_lets_it_through(
    boss: Watched, module_desk: Desk
) -> None:
    _, key = module_desk.books.user()
    page = boss.open(f"{ADMIN}/providers")
    page.get_by_role("link", name="openai").click()
    page.get_by_text("Pause this provider").click()
    page.get_by_label("Reason").fill("invoice unpaid")
    page.get_by_role("button", name="Pause openai").click()
    expect(page.get_by_role("status")).to_contain_text("is paused")
    assert module_desk.ask(key) == 429
    page.get_by_role("link", name="Overview").last.click()
    notice = page.locator(".todo")
    expect(notice).to_contain_text("openai: invoice unpaid")
    notice.get_by_role("link").click()
    page.get_by_role("button", name="Resume openai").click()
    expect(page.get_by_role("status")).to_contain_text("let through again")
    assert module_desk.ask(key) == 200


def test_a_key_that_is_added_serves_the_next_request(boss: Watched, module_desk: Desk) -> None:
    _, key = module_desk.books.user()
    page = boss.open(f"{ADMIN}/providers/openai")
    page.get_by_role("button", name="Disable key-1").click()
    expect(page.get_by_role("status")).to_contain_text("not used any more")
    assert module_desk.ask(key) == 503
    field = page.get_by_label("It is stored sealed, and never shown again.")
    expect(field).to_have_attribute("type", "password")
    field.fill(SECRET)
    page.get_by_role("button", name="Add key").click()
    expect(page.get_by_role("status")).to_contain_text("stored, sealed")
    assert module_desk.ask(key) == 200
    sent = module_desk.site.last_request().header("authorization")
    assert sent == f"Bearer {SECRET}".encode()
    assert SECRET not in page.content()
    page.locator("summary", has_text="Remove").last.click()
    page.get_by_role("button", name="Remove key-2 for good").click()
    expect(page.get_by_role("status")).to_contain_text("is removed")
    assert module_desk.ask(key) == 503
    page.get_by_role("button", name="Enable key-1").click()
    expect(page.get_by_role("status")).to_be_visible()
    assert module_desk.ask(key) == 200


def test_disabling_a_user_ends_requests_and_the_session(
    boss: Watched, guest: Watched, module_desk: Desk
) -> None:
    name, key = guest.sign_in()
    assert module_desk.ask(key) == 200
    page = to_user(boss, name)
    page.get_by_text("Disable this user").click()
    page.get_by_role("button", name=f"Disable {name}").click()
    expect(page.get_by_role("status")).to_contain_text("disabled and signed out")
    assert module_desk.ask(key) == 403
    guest.open("/dashboard")
    expect(guest.page.get_by_role("heading", name="Sign in")).to_be_visible()
    page.get_by_role("button", name=f"Enable {name}").click()
    expect(page.get_by_role("status")).to_contain_text("again")
    assert module_desk.ask(key) == 200


def test_a_key_that_the_operator_revokes_is_refused(boss: Watched, module_desk: Desk) -> None:
    name, key = module_desk.books.user()
    page = to_user(boss, name)
    page.locator("summary", has_text="Revoke").click()
    page.get_by_role("button", name="Revoke test").click()
    expect(page.get_by_role("status")).to_contain_text("is revoked")
    assert module_desk.ask(key) == 401


def test_the_keyboard_alone_opens_what_is_folded_and_sends_it(
    boss: Watched, module_desk: Desk
) -> None:
    name, _ = module_desk.books.user()
    page = to_user(boss, name)
    page.get_by_label("Reason").first.focus()
    for _ in range(2):  # past the button, to what is folded
        page.keyboard.press("Tab")
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    page.keyboard.type("-1.25")
    page.keyboard.press("Tab")
    page.keyboard.type("paid out")
    page.keyboard.press("Enter")
    expect(page.get_by_role("status")).to_have_text("The balance is corrected.")
    assert module_desk.books.wallet(name) == (3_750_000_000, 0)


def test_a_wrong_amount_is_said_aloud_and_stays_in_the_form(
    boss: Watched, module_desk: Desk
) -> None:
    name, _ = module_desk.books.user()
    page = to_user(boss, name)
    page.get_by_label("Amount").fill("five")
    page.get_by_label("Reason").first.fill("invoice 17")
    page.get_by_role("button", name="Add credit").click()
    expect(page.get_by_role("alert")).to_contain_text("'five' is no amount")
    expect(page.get_by_label("Amount")).to_have_value("five")
    expect(page.get_by_label("Reason").first).to_have_value("invoice 17")
    boss.complaints.clear()  # the browser notes the 422 itself


def test_nothing_is_wider_than_a_phone(boss: Watched, module_desk: Desk) -> None:
    page, books, now_ms = boss.page, module_desk.books, Clock().now_ms()
    page.set_viewport_size(PHONE)
    name, key = books.user()
    assert module_desk.ask(key) == 200
    assert module_desk.ask(key, model="a-model-with-a-very-long-name-" * 5) == 400
    books.settled_wallet(name)
    with books.write() as tx:
        long = accounts.create_user(tx, "w" * 64, now_ms=now_ms)
        accounts.create_api_key(tx, long, "W" * 64, now_ms=now_ms)
        limits = limit_store.set_user_limits(tx, long.id, {"concurrent_max": 1})
        tx.execute("UPDATE api_keys SET limits_id = ? WHERE user_id = ?", (limits.id, long.id))
        limit_store.suspend(tx, limits.id, "r" * 300, now_ms)
        for provider in key_pool.list_provider_keys(tx):
            key_pool.set_key_state(
                tx, provider.id, "dead", reason="x" * 300, actor="proxy", now_ms=now_ms
            )
        key_pool.pause_provider(tx, "openai", reason="y" * 300, actor="proxy", now_ms=now_ms)
    paths = ["", "/users", "/users/new", "/providers", "/providers/openai", "/providers/xai"]
    paths += [f"/users/{module_desk.user_id(each)}" for each in (name, "w" * 64)]
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for scheme, path in itertools.product(schemes, paths):
        page.emulate_media(color_scheme=scheme)
        boss.open(ADMIN + path)
        for summary in page.locator("main summary").all():
            summary.click()
        boss.assert_fits()
        # The row of tabs stands above what it leads to.
        tabs = page.get_by_role("navigation", name="Admin").bounding_box()
        title = page.get_by_role("heading").first.bounding_box()
        assert tabs is not None
        assert title is not None
        assert tabs["y"] < title["y"]


def test_all_of_it_works_without_scripts(browser: Browser, module_desk: Desk) -> None:
    name, key = module_desk.books.user()
    with browser.new_context(java_script_enabled=False) as context:
        boss = Watched(context, module_desk)
        boss.operator()
        page = to_user(boss, name)
        page.get_by_label("Amount").fill("1")
        page.get_by_role("button", name="Add credit").click()
        expect(page.get_by_role("status")).to_have_text("The credit is added.")
        page.locator("summary", has_text="Revoke").click()
        page.get_by_role("button", name="Revoke test").click()
        expect(page.get_by_role("status")).to_contain_text("is revoked")
        assert module_desk.ask(key) == 401
        assert boss.complaints == []
