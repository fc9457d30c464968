"""The dashboard in a real browser: the path of the user guide, on a desk and on a phone."""

import re
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from tests.dashboard.browsing import PHONE, Watched
from tests.dashboard.helpers import KEYS, Desk


def test_the_path_of_the_guide_from_signing_in_to_a_request_and_its_end(
    watched: Watched, desk: Desk
) -> None:
    name, _ = watched.sign_in()
    page = watched.page
    expect(page.get_by_text("$5.00").first).to_be_visible()

    page.get_by_role("link", name="Settings").click()
    expect(page.get_by_role("heading", name="API Keys")).to_be_visible()
    page.get_by_role("link", name="Create new key").click()
    page.get_by_label("Name").fill("laptop")
    page.get_by_role("button", name="Create key").click()
    expect(page.get_by_role("heading", name="Your new API key")).to_be_visible()
    page.get_by_role("button", name="Copy", exact=True).first.click()
    expect(page.get_by_role("button", name="Copied")).to_be_visible()
    key = page.evaluate("navigator.clipboard.readText()")
    assert re.fullmatch(r"llmp_\w{49}", key)

    assert desk.ask(key) == 200
    desk.books.settled_wallet(name)
    page.get_by_role("link", name="Overview").click()
    row = page.get_by_role("row").filter(has_text="laptop")
    expect(row).to_contain_text("openai/gpt-4o")
    expect(row).to_contain_text("settled")
    expect(page.locator(".sum")).to_contain_text("1 request")

    page.get_by_role("link", name="Settings").click()
    page.get_by_role("link", name="Manage laptop").click()
    page.get_by_text("Revoke this key").click()
    page.get_by_role("button", name="Revoke laptop").click()
    expect(page.get_by_text("Ended keys (1)")).to_be_visible()
    assert desk.ask(key) == 401

    page.get_by_role("button", name="Sign out").click()
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()
    watched.open("/dashboard")
    expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_all_of_it_works_without_scripts(browser: Browser, desk: Desk) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        watched = Watched(context, desk)
        watched.sign_in()
        page = watched.open(f"{KEYS}/new")
        page.get_by_label("Name").fill("laptop")
        page.get_by_role("button", name="Create key").click()
        key = page.locator("#secret").inner_text()
        assert desk.ask(key) == 200
        expect(page.get_by_role("button", name=re.compile("Copy"))).to_have_count(0)
        page.get_by_role("link", name="I have stored it").click()
        page.get_by_role("link", name="Manage laptop").click()
        page.get_by_role("button", name="Rotate key").click()
        newer = page.locator("#secret").inner_text()
        assert (desk.ask(key), desk.ask(newer)) == (401, 200)
        page.get_by_role("link", name="API Keys").click()
        page.get_by_role("link", name="Manage laptop").click()
        page.get_by_text("Revoke this key").click()
        page.get_by_role("button", name="Revoke laptop").click()
        expect(page.get_by_text("Ended keys (2)")).to_be_visible()
        assert desk.ask(newer) == 401
        assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_nothing_is_wider_than_a_phone(
    watched: Watched, desk: Desk, scheme: Literal["light", "dark"]
) -> None:
    page = watched.page
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)
    name, key = watched.sign_in()
    assert desk.ask(key) == 200
    assert desk.ask(key, model="a-model-with-a-very-long-name-" * 5) == 400
    desk.books.settled_wallet(name)

    def assert_fits() -> None:
        widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1], page.url

    for path in ("/dashboard", KEYS, f"{KEYS}/new"):
        watched.open(path)
        assert_fits()
    page.get_by_label("Name").fill("W" * 64)
    page.get_by_text("Limits of this key").click()
    page.get_by_label("Models").fill("gpt-4o-mini, claude-*, " + "x" * 150 + "*")
    assert_fits()
    page.get_by_role("button", name="Create key").click()
    expect(page.locator("#secret")).to_be_visible()
    assert_fits()
    for path in (KEYS, "/dashboard/sign-in", desk.link(name)):
        watched.open(path)
        assert_fits()
    watched.open(KEYS).get_by_role("link", name="Manage WWW").click()
    page.get_by_text("Revoke this key").click()
    assert_fits()


def test_a_form_is_sent_with_the_keyboard_alone(watched: Watched) -> None:
    watched.sign_in()
    page = watched.open(f"{KEYS}/new")
    expect(page.get_by_label("Name")).to_be_focused()
    page.keyboard.type("by hand")
    page.keyboard.press("Enter")
    expect(page.locator("#secret")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()
