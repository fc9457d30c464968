"""What a look at a new price shows of last week's requests, and that it keeps nobody waiting.

The requests are of 1,200 input, 800 cached and 350 output tokens at 2.50, 1.25 and 10 USD per
million: 3000 + 1000 + 3500 = 7500 µUSD. Sums by other prices are worked out by hand.
"""

import asyncio
import re
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from html import unescape
from typing import Any, cast

import httpx
import pytest
from jinja2 import Environment, PackageLoader, StrictUndefined

from llmproxy import rerating
from llmproxy.catalog import Catalog
from llmproxy.catalog_parser import parse_entry
from llmproxy.clock import Clock
from llmproxy.dashboard.admin.catalog_rerating import (
    USERS_SHOWN_MAX,
    Week,
    WeekByPrice,
    go_through,
)
from llmproxy.dashboard.formats import FILTERS
from llmproxy.dashboard.site import Site
from llmproxy.dashboard.slots import Slots
from llmproxy.dashboard.visit import ReachedAt
from llmproxy.rerating import Span
from llmproxy.storage.reader import Reader
from llmproxy.usage import Leg
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import ADMIN, acts_count, assert_sound, operator
from tests.dashboard.rooms import NONE, Rooms
from tests.dashboard.rows import add_settled
from tests.support.books import NOW_MS, Book

DAY_MS = 86_400_000
NEW = {"provider": "openai", "in_price": "5", "out_price": "10"}
"""With the cached input at its half: 6000 + 2000 + 3500 = 11500 µUSD."""
NO_TEXT = "CAST(x'ff' AS TEXT)"
"""What a damaged file may have in the place of a text: to read it fails."""


@pytest.fixture
def olga(own_desk: Desk) -> Visitor:
    return operator(own_desk)


def look(olga: Visitor, model: str, **fields: str) -> httpx.Response:
    """Ask what a new price would change."""
    prices = {**NEW, "cache_read": "2.5", **fields}
    answer = olga.submit(f"{ADMIN}/catalog/preview", model=model, **prices)
    assert_sound(answer)
    return answer


def table(html: str) -> dict[str, tuple[str, ...]]:
    """Requests, billed, would be and difference, by the users."""
    section = html.partition('aria-labelledby="week"')[2].partition("</section>")[0]
    rows = re.findall(r"<tr[^>]*>\s*<td class=\"main\">(.*?)</tr>", section, re.DOTALL)
    found = {}
    for row in rows:
        name, *cells = re.findall(r"(?:^|<td[^>]*>)([^<]*)</td>", row)
        found[unescape(name)] = tuple(unescape(each) for each in cells)
    return found


def test_each_user_is_shown_with_what_was_billed_and_what_would_be(
    own_desk: Desk, olga: Visitor
) -> None:
    now_ms, books = Clock().now_ms(), own_desk.books
    ann, ben = books.user()[0], books.user()[0]
    for name, days, model in (
        (ann, 1, "gpt-week"),
        (ann, 6, "gpt-week"),
        (ben, 0, "gpt-week"),
        (ann, 8, "gpt-week"),  # before the week
        (ann, 1, "gpt-else"),  # another model's
    ):
        add_settled(books, name, at_ms=now_ms - days * DAY_MS - 60_000, model=model)
    before, acts = books.wallet(ann), acts_count(own_desk)
    answer = look(olga, "gpt-week")
    assert answer.status_code == 200
    assert table(answer.text) == {
        ann: ("2", "0.015", "0.023", "+0.008"),
        ben: ("1", "0.0075", "0.0115", "+0.004"),
        "All": ("3", "0.0225", "0.0345", "+0.012"),
    }
    assert "the 3 requests of the last 7 days in which openai/gpt-week had a part" in answer.text
    # Half of the first price: 1500 + 500 + 1750 = 3750 µUSD
    less = look(olga, "gpt-week", in_price="1.25", cache_read="0.625", out_price="5")
    assert table(less.text)[ann] == ("2", "0.015", "0.0075", "−0.0075")
    assert (books.wallet(ann), acts_count(own_desk)) == (before, acts)


def test_what_changes_for_nobody_and_what_nobody_asked_for_is_said(
    own_desk: Desk, olga: Visitor
) -> None:
    assert "In no request of the last 7 days" in look(olga, "gpt-never").text
    add_settled(own_desk.books, olga.name, at_ms=Clock().now_ms() - 60_000, model="gpt-same")
    same = look(olga, "gpt-same", in_price="2.5", cache_read="1.25")
    assert "It is the same for every user." in same.text
    assert table(same.text) == {}


def test_what_cannot_be_rated_is_said(own_desk: Desk, olga: Visitor) -> None:
    add_settled(own_desk.books, olga.name, at_ms=Clock().now_ms() - 60_000, model="gpt-odd")
    with own_desk.books.write() as tx:
        usages = tx.execute("SELECT usage FROM requests WHERE model = 'gpt-odd'")
        kept = usages.fetchone()[0]
        tx.execute("UPDATE requests SET usage = '{' WHERE model = 'gpt-odd'")
    try:
        text = unescape(look(olga, "gpt-odd").text)
    finally:  # the site's books must be right at the end
        with own_desk.books.write() as tx:
            tx.execute("UPDATE requests SET usage = ? WHERE model = 'gpt-odd'", (kept,))
    assert "Not among them: 1 request of 0.0075 USD in all: their usage cannot be read." in text


def test_a_price_is_looked_at_and_set_where_the_week_cannot_be_read(
    own_desk: Desk, olga: Visitor
) -> None:
    add_settled(own_desk.books, olga.name, at_ms=Clock().now_ms() - 60_000, model="gpt-torn")
    with own_desk.books.write() as tx:
        kept = tx.execute("SELECT usage FROM requests WHERE model = 'gpt-torn'").fetchone()[0]
        tx.execute(f"UPDATE requests SET usage = {NO_TEXT} WHERE model = 'gpt-torn'")
    try:
        answer = look(olga, "gpt-torn")
    finally:  # the site's books must be right at the end
        with own_desk.books.write() as tx:
            tx.execute("UPDATE requests SET usage = ? WHERE model = 'gpt-torn'", (kept,))
    assert answer.status_code == 200
    assert "The requests of the last 7 days could not be read now" in answer.text
    assert "In no request" not in answer.text
    hidden = re.findall(r'<input type="hidden" name="(\w+)" value="([^"]*)"', answer.text)
    done = olga.submit(f"{ADMIN}/catalog/set", **{name: unescape(text) for name, text in hidden})
    assert (done.status_code, done.headers["location"][-9:]) == (303, "&said=set")


def test_of_many_users_those_with_the_largest_differences_are_shown(
    own_desk: Desk, olga: Visitor
) -> None:
    at_ms = Clock().now_ms() - 60_000
    names = [own_desk.books.user()[0] for _ in range(USERS_SHOWN_MAX)]
    for name in (olga.name, *names, *names):
        add_settled(own_desk.books, name, at_ms=at_ms, model="gpt-many")
    html = look(olga, "gpt-many").text
    assert list(table(html)) == [*sorted(names), "All"]
    assert table(html)["All"][0] == "41"
    assert "And 1 user with smaller differences." in html


def test_a_refused_change_is_shown_with_it_again(own_desk: Desk, olga: Visitor) -> None:
    add_settled(own_desk.books, olga.name, at_ms=Clock().now_ms() - 60_000, model="gpt-twice")
    fields = {**NEW, "model": "gpt-twice", "cache_read": "2.5"}
    answer = olga.submit(f"{ADMIN}/catalog/set", **fields, seen="another")
    assert answer.status_code == 422
    assert "changed meanwhile" in answer.text
    assert table(answer.text)[olga.name] == ("1", "0.0075", "0.0115", "+0.004")


def test_two_who_look_at_once_both_get_theirs_and_others_their_pages(
    own_desk: Desk, olga: Visitor
) -> None:
    add_settled(own_desk.books, olga.name, at_ms=Clock().now_ms() - 60_000, model="gpt-both")
    visitors = (olga, operator(own_desk))
    with ThreadPoolExecutor(2) as pool:
        looked = [pool.submit(look, each, "gpt-both") for each in visitors]
        assert operator(own_desk).get(f"{ADMIN}/catalog").status_code == 200
        assert [table(each.result().text)["All"][0] for each in looked] == ["1", "1"]


# --- the time that it takes and what goes wrong, without a server --------------------------------

MODEL = parse_entry("openai", "gpt-test", {"in_price": "5", "out_price": "20"})


def span_of_the_books() -> Span:
    """A day of the book's requests, by a new price."""
    catalog = Catalog("2027-01-01", [MODEL])
    return Span(catalog, since_ms=NOW_MS, until_ms=NOW_MS + DAY_MS, only=MODEL)


@pytest.mark.parametrize(
    ("seconds_max", "is_stopping", "pages"), [(60.0, False, 3), (0.0, False, 1), (60.0, True, 1)]
)
def test_it_ends_when_there_is_no_more_time_or_the_server_stops(
    book: Book,
    monkeypatch: pytest.MonkeyPatch,
    seconds_max: float,
    is_stopping: bool,
    pages: int,
) -> None:
    monkeypatch.setattr(rerating, "PAGE_ROWS", 1)
    for _ in range(2):
        book.settled(Leg(input=1000))
    span, read = span_of_the_books(), 0

    async def go(reader: Reader) -> None:
        async def rate_page(span: Span) -> None:
            nonlocal read
            read += 1
            await reader.read(span.rate_page)

        await go_through(span, rate_page, Clock(), lambda: is_stopping, seconds_max)

    with closing(Reader(book.path)) as reader:
        asyncio.run(go(reader))
    assert (read, span.is_done) == (pages, pages == 3)
    assert span.rerating.total.requests == min(pages, 2)


def test_whoever_waits_for_others_for_too_long_is_told_so(rooms: Rooms) -> None:
    """The first one waits for the reader, which is at another question, and keeps its turn."""
    may_go_on = threading.Event()

    class Server:
        """What a look needs of a server."""

        is_stopping = staticmethod(lambda: False)

    site = Site(ReachedAt("", (), 0), rooms.reader, NONE, Clock(), cast("Any", Server))
    week, catalog = WeekByPrice(site, wait_s_max=0.01), Catalog("2027-01-01", [MODEL])

    async def look_twice() -> tuple[Week, Week, Week]:
        requests = [rooms.signed_in() for _ in range(2)]
        for request in requests:
            await site.require_admin(request)
        question = asyncio.create_task(rooms.reader.read(lambda _: may_go_on.wait(20)))
        await asyncio.sleep(0)
        first = asyncio.create_task(week.rate(requests[0], catalog, MODEL))
        await asyncio.sleep(0)
        try:
            second = await asyncio.wait_for(week.rate(requests[1], catalog, MODEL), 10)
            assert not first.done()
        finally:
            may_go_on.set()
        assert await question
        return await first, second, await week.rate(requests[1], catalog, MODEL)

    first, second, third = asyncio.run(look_twice())
    assert (second.had_to_wait, second.has_begun) == (True, False)
    for done in (first, third):
        assert (done.had_to_wait, done.could_be_read, done.span.is_done) == (False, True, True)
    html = week_html(second.span, could_be_read=False, had_to_wait=True)
    assert "Other operators were looking at new prices all the while" in html
    assert "could not be read" not in html
    assert "In no request" not in html


def week_html(span: Span, *, could_be_read: bool, had_to_wait: bool = False) -> str:
    """What the page of a new price has of a week."""
    templates = Environment(
        loader=PackageLoader("llmproxy.dashboard"), autoescape=True, undefined=StrictUndefined
    )
    templates.filters.update(FILTERS)
    week = Week(span, could_be_read, had_to_wait)
    values = {"week": week, "name": "openai/gpt-test", "days": 7}
    return templates.get_template("admin_model_week.html").render(users_max=20, **values)


@pytest.mark.parametrize("is_busy", [False, True])
def test_what_was_read_before_it_failed_is_kept_without_half_a_page(
    book: Book, monkeypatch: pytest.MonkeyPatch, is_busy: bool
) -> None:
    """Pages of two, the newest first; the second one begins well and ends with what is no text."""
    monkeypatch.setattr(rerating, "PAGE_ROWS", 2)
    for _ in range(4):
        book.settled(Leg(input=1000))
    span, slots = span_of_the_books(), Slots("pages", of_all=1, of_one=1)
    if not is_busy:
        with book.write() as tx:
            second = "(SELECT id FROM holds ORDER BY id LIMIT 1 OFFSET 1)"
            tx.execute(f"UPDATE requests SET usage = {NO_TEXT} WHERE id = {second}")

    async def go(reader: Reader) -> bool:
        async def rate_page(span: Span) -> None:
            slots.take("olga")
            await reader.read(span.rate_page)
            if not is_busy:
                slots.give_back("olga")

        return await go_through(span, rate_page, Clock(), lambda: False, 60.0)

    with closing(Reader(book.path)) as reader:
        assert not asyncio.run(go(reader))
    assert (span.is_done, span.rerating.total.requests) == (False, 2)
    html = week_html(span, could_be_read=False)
    assert "the 2 requests since 18 Nov 2026 11:06:40 UTC" in html
    assert "Earlier ones could not be read now" in html
    assert "too many" not in html
    assert "Earlier ones are too many" in week_html(span, could_be_read=True)
