"""A real browser, and whatever it complains of."""

import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from playwright.sync_api import (
    Browser,
    BrowserContext,
    Page,
    Request,
    ViewportSize,
    expect,
    sync_playwright,
)

from tests.dashboard.helpers import Desk

PHONE: ViewportSize = {"width": 360, "height": 740}


@contextmanager
def chromium(*options: str) -> Iterator[Browser]:
    """The browser of this machine, with options of its own; without one the test is left out."""
    path = shutil.which("chromium") or shutil.which("chromium-browser")
    if path is None:
        pytest.skip("needs a browser: apt-get install chromium")
    # As root, in a container, Chromium has no sandbox to offer.
    arguments = [*options, *(["--no-sandbox"] if os.geteuid() == 0 else [])]
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=arguments)
        yield browser
        browser.close()


class Watched:
    """A browser's window, and whatever it has complained of."""

    def __init__(self, context: BrowserContext, desk: Desk) -> None:
        self.complaints: list[str] = []
        self.desk = desk
        self.page = context.new_page()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("requestfailed", self._note_failure)
        self.page.set_default_timeout(15_000)

    def _note_failure(self, request: Request) -> None:
        # What a page was still loading when the test went on is given up.
        if request.failure != "net::ERR_ABORTED":
            self.complaints.append(f"{request.url}: {request.failure}")

    def open(self, path: str) -> Page:
        self.page.goto(self.desk.site.proxy.url + path)
        return self.page

    def sign_in(self) -> tuple[str, str]:
        """Sign a new user in by a link; return their name and the API key that they have."""
        name, key = self.desk.books.user()
        page = self.open(self.desk.link(name))
        page.get_by_role("button", name=f"Sign in as {name}").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        return name, key

    def sign_in_as(self, name: str) -> Page:
        """Sign somebody in by a link."""
        page = self.open(self.desk.link(name))
        page.get_by_role("button", name=f"Sign in as {name}").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        return page

    def operator(self) -> str:
        """Sign an operator of a new name in; return the name."""
        name, _ = self.desk.books.user()
        self.desk.make_operator(name)
        self.sign_in_as(name)
        return name

    def assert_fits(self) -> None:
        """Nothing is wider than the window."""
        widths = self.page.evaluate("[document.documentElement.scrollWidth, window.innerWidth]")
        assert widths[0] <= widths[1], self.page.url
