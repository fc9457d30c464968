"""Operators at the pages of the books, and what every such page must hold."""

import httpx

from llmproxy import accounts
from llmproxy.clock import Clock
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.test_safety import TAGS_ALLOWED, Page

ADMIN = "/dashboard/admin"
PAGE_BYTES_MAX = 50_000


def operator(desk: Desk) -> Visitor:
    """An operator of a new name who has signed in."""
    name, key = desk.books.user()
    with desk.books.write() as tx:
        accounts.set_user(tx, name, now_ms=Clock().now_ms(), is_admin=True)
    visitor = desk.visitor(name)
    visitor.api_key = key
    assert visitor.submit(desk.link(name)).status_code == 303
    return visitor


def assert_sound(answer: httpx.Response) -> None:
    """A page has no script in it, no tag that is not known, and is not too long."""
    page = Page(answer.text)
    assert page.inline == [], answer.url
    assert page.tags <= TAGS_ALLOWED, page.tags - TAGS_ALLOWED
    assert all(each.startswith(("/dashboard", "#")) for each in page.addresses), page.addresses
    assert len(answer.content) < PAGE_BYTES_MAX, (answer.url, len(answer.content))


def last_act(desk: Desk) -> tuple[str, str, str]:
    """Actor, act and details of the newest row of the audit log."""
    with desk.books.database.read() as tx:
        row = tx.execute(
            "SELECT actor, act, details FROM audit_log ORDER BY id DESC LIMIT 1"
        ).fetchone()
    return row[0], row[1], row[2]


def acts_count(desk: Desk) -> int:
    """How many acts there are."""
    return desk.books.count("SELECT count(*) FROM audit_log")
