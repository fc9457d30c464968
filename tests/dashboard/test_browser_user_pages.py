"""The user's pages in a real browser: the Overview that follows, lists, receipts, by hand too."""

import asyncio
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

import pytest
from playwright.sync_api import Browser, expect

from llmproxy.clock import Clock
from tests.dashboard.browsing import PHONE, Watched
from tests.dashboard.helpers import Desk
from tests.dashboard.rows import add_refused, add_settled
from tests.support.answers import openai_chat
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

OLD_MS = 1_700_000_000_000


@contextmanager
def asking(desk: Desk, api_key: str) -> Iterator[threading.Event]:
    """A request whose provider answers when the event is set, or at the end."""
    may_end = threading.Event()

    async def hold_open(_: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(may_end.wait, 50)
        await out.json(200, openai_chat())

    seen = len(desk.site.stub.requests)
    desk.site.stub.handle = hold_open
    thread = threading.Thread(target=desk.ask, args=(api_key,))
    thread.start()
    try:
        wait_until(lambda: len(desk.site.stub.requests) > seen)
        yield may_end
    finally:
        may_end.set()
        thread.join()


def test_the_overview_follows_requests_while_they_run_and_end(watched: Watched, desk: Desk) -> None:
    name, key = watched.sign_in()
    page = watched.page
    with asking(desk, key) as first_may_end:
        watched.open("/dashboard")
        page.evaluate("window.isTheSamePage = true")
        expect(page.locator("#requests .state.open")).to_have_count(1)
        held = page.locator("#wallet dd").nth(1)
        expect(held).not_to_have_text("$0.00")
        page.get_by_role("link", name="All requests").focus()
        with asking(desk, key) as second_may_end:
            expect(page.locator("#requests .state.open")).to_have_count(2)
            second_may_end.set()
            expect(page.locator("#requests .state.settled")).to_have_count(1)
        first_may_end.set()
        expect(page.locator("#requests .state.settled")).to_have_count(2)
    expect(held).to_have_text("$0.00")
    # 5 USD less twice 0.00006.
    expect(page.locator("#wallet .amount")).to_have_text("$4.99")
    expect(page.locator("#wallet .amount")).to_have_attribute("title", "4.99988 USD")
    assert page.evaluate("window.isTheSamePage") is True
    # Four times the list was replaced, and the keyboard is where it was.
    expect(page.get_by_role("link", name="All requests")).to_be_focused()
    assert page.locator("[aria-live], [role=status], [role=alert]").count() == 0
    assert desk.books.settled_wallet(name) == 4_999_880_000

    page.locator("#requests tbody a").first.click()
    expect(page.get_by_role("heading", name="Receipt")).to_be_visible()


def test_an_overview_with_nothing_new_is_left_alone(watched: Watched, desk: Desk) -> None:
    _, key = watched.sign_in()
    page, answers = watched.page, []
    with asking(desk, key):
        page.on("response", lambda answer: answers.append(answer.status)
                if "/live" in answer.url else None)  # fmt: skip
        watched.open("/dashboard")
        page.evaluate("document.querySelector('#requests').isTheSame = true")
        for _ in range(2):
            page.wait_for_event("response", lambda answer: "/live" in answer.url)
        assert page.evaluate("document.querySelector('#requests').isTheSame") is True
    assert set(answers[:2]) == {204}


def test_an_open_overview_leads_to_the_sign_in_once_the_session_has_ended(
    watched: Watched, desk: Desk
) -> None:
    name, key = watched.sign_in()
    page = watched.page
    with asking(desk, key):
        watched.open("/dashboard")
        desk.run("users", "sign-out", name)
        page.wait_for_url("**/dashboard/sign-in")
        expect(page.get_by_role("heading", name="Sign in")).to_be_visible()


def test_a_request_is_found_by_filter_pages_and_id(watched: Watched, desk: Desk) -> None:
    name, _ = watched.sign_in()
    add_refused(desk.books, name, 30, at_ms=OLD_MS + 1000)
    settled = add_settled(desk.books, name, at_ms=OLD_MS)
    page = watched.page
    page.get_by_role("link", name="Requests", exact=True).click()
    expect(page.get_by_role("row")).to_have_count(26)
    page.get_by_role("link", name="Older").click()
    expect(page.get_by_role("row")).to_have_count(7)
    page.get_by_role("link", name="Newer").click()
    expect(page.get_by_role("row")).to_have_count(26)
    page.get_by_label("State").select_option("Settled")
    page.get_by_role("button", name="Filter").click()
    expect(page.get_by_role("row")).to_have_count(2)
    with page.expect_download() as download:
        page.get_by_role("link", name="CSV").click()
    assert re.fullmatch(
        r"llmproxy-requests-\d{4}-\d\d-\d\d\.csv", download.value.suggested_filename
    )
    assert settled in download.value.path().read_text()
    page.get_by_role("row").filter(has_text="openai/gpt-old").get_by_role("link").click()
    expect(page.locator("code").first).to_have_text(settled)
    page.locator(".trail").get_by_role("link", name="Requests").click()
    expect(page.get_by_role("row")).to_have_count(26)


def test_a_request_is_found_by_its_id_with_the_keyboard_alone(watched: Watched, desk: Desk) -> None:
    name, _ = watched.sign_in()
    settled = add_settled(desk.books, name, at_ms=OLD_MS)
    page = watched.open("/dashboard/requests")
    page.get_by_role("searchbox", name="Request id").focus()
    page.keyboard.type(settled[:16])
    page.keyboard.press("Enter")
    expect(page.locator("code").first).to_have_text(settled)
    expect(page.get_by_text("0.0075 USD was charged")).to_be_visible()
    page.keyboard.press("Tab")
    expect(page.get_by_text("Skip to content")).to_be_focused()


def test_a_filter_and_pages_work_without_scripts(browser: Browser, desk: Desk) -> None:
    with browser.new_context(java_script_enabled=False) as context:
        watched = Watched(context, desk)
        name, key = watched.sign_in()
        add_refused(desk.books, name, 30, at_ms=OLD_MS)
        page = watched.page
        expect(page.locator("#requests .state.refused")).to_have_count(0)
        page.get_by_role("link", name="Requests", exact=True).click()
        page.get_by_label("State").select_option("Refused")
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("link", name="Older").click()
        expect(page.get_by_role("row")).to_have_count(6)
        page.get_by_role("link", name="Models", exact=True).click()
        page.get_by_label("Name or alias").fill("gpt-4o-2024-08-06")
        page.get_by_role("button", name="Filter").click()
        page.get_by_role("link", name="openai/gpt-4o", exact=True).click()
        expect(page.get_by_role("heading", name="openai/gpt-4o")).to_be_visible()
        page.get_by_role("link", name="Credit", exact=True).click()
        expect(page.get_by_text("+5.00")).to_be_visible()
        assert desk.ask(key) == 200
        assert watched.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_page_is_wider_than_a_phone(
    watched: Watched, desk: Desk, scheme: Literal["light", "dark"]
) -> None:
    page = watched.page
    page.set_viewport_size(PHONE)
    page.emulate_media(color_scheme=scheme)
    name, _ = watched.sign_in()
    now_ms = Clock().now_ms() - 1000
    add_refused(desk.books, name, 30, at_ms=now_ms, model="W" * 200, reason="M" * 500)
    long = {"raw_usage": "{" + "x" * 3000, "model_served": "W" * 300}
    settled = add_settled(desk.books, name, at_ms=now_ms, model="w" * 150, outcome=long)
    for path in (
        *("", "/requests", f"/requests/{settled}", "/requests?state=expired", "/credit"),
        *("/requests?state=nothing", "/models", "/models?page=3", "/models?search=zzz"),
        *("/models/openai/gpt-4o", "/models/groq/meta-llama/llama-prompt-guard-2-22m"),
    ):
        watched.complaints.clear()  # a 422 is one
        watched.open(f"/dashboard{path}")
        for summary in page.locator("summary").all():
            summary.click()
        widths = page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1], path
        fits = page.evaluate(
            "[...document.querySelectorAll('nav a')].every((link) => "
            "link.getBoundingClientRect().right <= innerWidth)"
        )
        assert fits, path
    watched.complaints.clear()
