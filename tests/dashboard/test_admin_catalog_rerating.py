"""What a look at a new price shows of last week's requests, and that it keeps nobody waiting.

The requests are of 1,200 input, 800 cached and 350 output tokens at 2.50, 1.25 and 10 USD per
million: 3000 + 1000 + 3500 = 7500 µUSD. Sums by other prices are worked out by hand.
"""

import re
from concurrent.futures import ThreadPoolExecutor
from html import unescape

import httpx
import pytest

from llmproxy import rerating
from llmproxy.clock import Clock
from llmproxy.dashboard.admin import catalog_rerating
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import ADMIN, acts_count, assert_sound, operator
from tests.dashboard.rows import add_settled

DAY_MS = 86_400_000
NEW = {"provider": "openai", "in_price": "5", "out_price": "10"}
"""With the cached input at its half: 6000 + 2000 + 3500 = 11500 µUSD."""


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
        tx.execute("UPDATE requests SET usage = '{' WHERE model = 'gpt-odd'")
    text = unescape(look(olga, "gpt-odd").text)
    assert "Not among them: 1 request of 0.0075 USD in all: their usage cannot be read." in text


def test_of_many_users_those_with_the_largest_differences_are_shown(
    own_desk: Desk, olga: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("llmproxy.dashboard.admin.catalog.USERS_SHOWN_MAX", 1)
    at_ms, ann = Clock().now_ms() - 60_000, own_desk.books.user()[0]
    for name in (olga.name, ann, ann):
        add_settled(own_desk.books, name, at_ms=at_ms, model="gpt-many")
    html = look(olga, "gpt-many").text
    assert list(table(html)) == [ann, "All"]
    assert "And 1 user with smaller differences." in html


def test_a_refused_change_is_shown_with_it_again(own_desk: Desk, olga: Visitor) -> None:
    add_settled(own_desk.books, olga.name, at_ms=Clock().now_ms() - 60_000, model="gpt-twice")
    fields = {**NEW, "model": "gpt-twice", "cache_read": "2.5"}
    answer = olga.submit(f"{ADMIN}/catalog/set", **fields, seen="another")
    assert answer.status_code == 422
    assert "changed meanwhile" in answer.text
    assert table(answer.text)[olga.name] == ("1", "0.0075", "0.0115", "+0.004")


def test_other_pages_come_between_its_pages_and_what_takes_too_long_is_cut(
    own_desk: Desk, olga: Visitor, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A page of one request each, and rests until another page has been answered."""
    at_ms = Clock().now_ms() - 600_000
    for number in range(3):
        add_settled(own_desk.books, olga.name, at_ms=at_ms + number * 60_000, model="gpt-slow")
    owen = operator(own_desk)
    monkeypatch.setattr(rerating, "PAGE_ROWS", 1)
    with ThreadPoolExecutor(2) as pool:
        looked = [pool.submit(look, olga, "gpt-slow") for _ in range(2)]
        assert owen.get(f"{ADMIN}/catalog").status_code == 200
        assert [table(each.result().text)["All"][0] for each in looked] == ["3", "3"]
    monkeypatch.setattr(catalog_rerating, "RERATING_S_MAX", 0.0)
    cut = look(olga, "gpt-slow").text
    assert "Earlier ones are too many" in cut
