"""Lists of API keys that are longer than a page, as users and operators see them."""

import re
from html import unescape
from itertools import chain
from typing import Any, cast

from llmproxy import accounts
from llmproxy.clock import Clock
from llmproxy.dashboard.admin.user_keys import ENDED_ROWS as ADMIN_ENDED_ROWS
from llmproxy.dashboard.admin.user_keys import LIVE_ROWS
from llmproxy.dashboard.key_form import NewKey
from llmproxy.dashboard.keys import ENDED_ROWS, LIVE_KEYS_MAX, create_key
from llmproxy.dashboard.signed_in import SignedIn
from tests.dashboard.helpers import KEYS, Desk, Visitor
from tests.dashboard.operators import ADMIN, assert_sound
from tests.support.books import NOW_MS, Book
from tests.support.planned import Planned


def make_keys(desk: Desk, name: str, *, live: int, ended: int) -> None:
    """Give a user so many further keys: live-0, …, and ended-0, … that ended in this order."""
    now_ms = Clock().now_ms()
    with desk.books.write() as tx:
        user = accounts.find_user(tx, name)
        for number in range(ended):
            accounts.create_api_key(tx, user, f"ended-{number}", now_ms=now_ms)
            ended_ms = now_ms - ended + number
            accounts.revoke_api_key(tx, user, f"ended-{number}", now_ms=ended_ms)
        for number in range(live):
            accounts.create_api_key(tx, user, f"live-{number}", now_ms=now_ms)


def tables(html: str) -> list[list[str]]:
    """The names in the first column of each table."""
    bodies = re.findall(r"<tbody>(.*?)</tbody>", html, re.DOTALL)
    cell = r'<td class="main">(?:<[^>]*>)*([^<]*)'
    return [[unescape(name) for name in re.findall(cell, body)] for body in bodies]


def follow(visitor: Visitor, path: str, which: str) -> list[list[list[str]]]:
    """The tables of each page of a list, as its links lead through it; `which` is its name."""
    found, query = [], ""
    while True:
        answer = visitor.get(path + query)
        assert answer.status_code == 200, query
        assert_sound(answer)
        found.append(tables(answer.text))
        following = re.search(rf'rel="next" href="{path}(\?{which}=\d+)"', answer.text)
        if following is None:
            return found
        query = following[1]


def newest_first(word: str, count: int) -> list[str]:
    return [f"{word}-{number}" for number in reversed(range(count))]


def test_users_page_through_their_keys_and_those_that_ended(desk: Desk) -> None:
    ann = desk.signed_in()
    live, ended = LIVE_KEYS_MAX + 9, 2 * ENDED_ROWS + 1
    make_keys(desk, ann.name, live=live, ended=ended)
    by_page = [page[0] for page in follow(ann, KEYS, "page")]
    assert [len(page) for page in by_page] == [LIVE_KEYS_MAX, 10]
    assert list(chain(*by_page)) == [*newest_first("live", live), "test"]
    by_page = [page[1] for page in follow(ann, KEYS, "ended")]
    assert [len(page) for page in by_page] == [ENDED_ROWS, ENDED_ROWS, 1]
    assert list(chain(*by_page)) == newest_first("ended", ended)
    first, second = ann.text(KEYS), ann.text(f"{KEYS}?ended=2")
    assert f"Ended keys ({ended})" in first
    assert f"1–{ENDED_ROWS} of {ended}" in first
    # Who turns its pages has it open.
    assert ('<details class="card" open>' in first, '<details class="card" open>' in second) == (
        False,
        True,
    )
    assert 'rel="prev" href="/dashboard/settings/api-keys?ended=1"' in second
    for query in ("page=0", "page=-1", "page=x", "page=²", "ended=", f"page={'9' * 30}"):
        assert tables(ann.text(f"{KEYS}?{query}")) == tables(first)
    assert len(tables(ann.text(f"{KEYS}?page=99999999"))[0]) == 10


def test_operators_page_through_the_keys_of_a_user(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = f"{ADMIN}/users/{desk.user_id(ann.name)}"
    live, ended = LIVE_ROWS + 4, ADMIN_ENDED_ROWS + 1
    make_keys(desk, ann.name, live=live, ended=ended)
    shown = boss.text(page)
    assert f'<a href="{page}/keys">All API keys</a>' in shown
    assert f"({live + 1} that work, {ended} that ended)" in shown
    assert "llmproxy keys list" not in shown
    by_page = follow(boss, f"{page}/keys", "page")
    assert list(chain(*(each[0] for each in by_page))) == [*newest_first("live", live), "test"]
    by_page = follow(boss, f"{page}/keys", "ended")
    assert list(chain(*(each[1] for each in by_page))) == newest_first("ended", ended)
    # A key that is on no first page is revoked where it stands.
    last = boss.text(f"{page}/keys?page=2")
    (revoke,) = re.findall(rf'action="({page}/keys/{ann_key(desk, ann)}/revoke)"', last)
    assert boss.submit(revoke).status_code == 303
    assert desk.ask(ann.api_key) == 401
    assert boss.get(f"{ADMIN}/users/999999/keys").status_code == 404


def ann_key(desk: Desk, ann: Visitor) -> int:
    """The id of her first key, `test`."""
    with desk.books.database.read() as tx:
        user, now_ms = accounts.find_user(tx, ann.name), Clock().now_ms()
        return accounts.find_live_keys(tx, user, "test", now_ms=now_ms)[0].id


def test_a_user_without_keys_is_told_so(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    keys = f"{ADMIN}/users/{desk.user_id(ann.name)}/keys"
    assert tables(boss.text(keys)) == [["test"]]
    with desk.books.write() as tx:
        user = accounts.find_user(tx, ann.name)
        accounts.revoke_api_key(tx, user, "test", now_ms=Clock().now_ms())
    assert tables(boss.text(keys)) == [["test"]]
    assert boss.text(keys).count("None.") == 1


def test_the_filter_of_requests_offers_keys_that_work_before_those_that_ended(desk: Desk) -> None:
    ann = desk.signed_in()
    make_keys(desk, ann.name, live=2, ended=70)
    html = ann.text("/dashboard/requests")
    select = html.partition('<select name="key">')[2].partition("</select>")[0]
    offered = [each for each in re.findall(r'<option value="([^"]*)"', select) if each]
    assert offered == ["live-1", "live-0", "test", *newest_first("ended", 70)[:57]]


def test_a_new_key_is_made_without_going_through_those_of_others(book: Book) -> None:
    """It is made in the serving loop."""
    wanted = NewKey("new", None, {"requests_per_minute": 5}, "")
    with book.write() as tx:
        planned = Planned(tx, book.path)
        ptx: Any = planned
        signed_in = SignedIn(accounts.find_user(tx, "ann"), cast("Any", None), NOW_MS)
        create_key(ptx, signed_in, wanted)
        planned.close()
    steps = [step for plan in planned.plans.values() for step in plan if " api_keys" in step]
    assert len(steps) >= 5
    assert [step for step in steps if not step.startswith("SEARCH api_keys USING ")] == []
