"""Lists of API keys that are longer than a page, as users and operators see them."""

import re
from html import unescape
from itertools import chain
from typing import Any, cast
from urllib.parse import urlsplit

from llmproxy import accounts, limit_store
from llmproxy.clock import Clock
from llmproxy.dashboard.admin.user_keys import ENDED_ROWS as ADMIN_ENDED_ROWS
from llmproxy.dashboard.admin.user_keys import LIVE_ROWS
from llmproxy.dashboard.key_form import NewKey
from llmproxy.dashboard.keys import ENDED_ROWS, LIVE_KEYS_MAX, create_key
from llmproxy.dashboard.signed_in import SignedIn
from tests.dashboard.helpers import KEYS, Desk, Visitor
from tests.dashboard.operators import ADMIN, assert_sound
from tests.support.books import NOW_MS, Book
from tests.support.limits import limit_key
from tests.support.planned import Planned

OPEN = '<details class="card" id="ended" open>'


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


def link(html: str, which: str, place: str) -> str:
    """Where a link below a table leads: "prev", "next" or "first"; "" where there is none.

    `place` is "ended" for the table of keys that ended, which is where the link leads to.
    """
    mark = 'class="first"' if which == "first" else f'rel="{which}"'
    found = [unescape(each) for each in re.findall(rf'<a [^>]*{mark} href="([^"]*)"', html)]
    led = [each for each in found if urlsplit(each).fragment == place]
    assert len(led) <= 1, led
    return led[0] if led else ""


def follow(visitor: Visitor, path: str, place: str) -> list[list[list[str]]]:
    """The tables of each page of a list, as the links below one of them lead through it."""
    found = []
    while path:
        answer = visitor.get(path)
        assert answer.status_code == 200, path
        assert_sound(answer)
        found.append(tables(answer.text))
        path = link(answer.text, "next", place)
    return found


def newest_first(word: str, count: int) -> list[str]:
    return [f"{word}-{number}" for number in reversed(range(count))]


def test_users_page_through_their_keys_and_those_that_ended(desk: Desk) -> None:
    ann = desk.signed_in()
    live, ended = LIVE_KEYS_MAX + 9, 2 * ENDED_ROWS + 1
    make_keys(desk, ann.name, live=live, ended=ended)
    by_page = [page[0] for page in follow(ann, KEYS, "")]
    assert [len(page) for page in by_page] == [LIVE_KEYS_MAX, 10]
    assert list(chain(*by_page)) == [*newest_first("live", live), "test"]
    by_page = [page[1] for page in follow(ann, KEYS, "ended")]
    assert [len(page) for page in by_page] == [ENDED_ROWS, ENDED_ROWS, 1]
    assert list(chain(*by_page)) == newest_first("ended", ended)
    first, second = ann.text(KEYS), ann.text(f"{KEYS}?ended=2")
    assert f"Ended keys ({ended})" in first
    assert f"1–{ENDED_ROWS} of {ended}" in first
    # Who turns its pages has it open, on the first of them too.
    back = ann.text(link(second, "prev", "ended"))
    assert tables(back) == tables(first)
    assert [OPEN in html for html in (first, second, back)] == [False, True, True]
    assert OPEN not in ann.text(link(first, "next", ""))
    for query in ("page=0", "page=-1", "page=x", "page=²", "page=", "ended=x"):
        assert tables(ann.text(f"{KEYS}?{query}")) == tables(first)
    for number in ("99999999", "100000000", "1000000000", "9" * 30, "9" * 5000, "00000000002"):
        assert len(tables(ann.text(f"{KEYS}?page={number}"))[0]) == 10, number


def test_to_turn_the_pages_of_one_table_leaves_the_other_where_it_is(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    make_keys(desk, ann.name, live=2 * LIVE_KEYS_MAX, ended=3 * ADMIN_ENDED_ROWS)
    for visitor, path in (
        (ann, KEYS),
        (boss, f"{ADMIN}/users/{desk.user_id(ann.name)}/keys"),
    ):
        pages = [visitor.text(f"{path}?page={number}&ended={number}") for number in (1, 2, 3)]
        (live_1, ended_1), (live_2, ended_2), (live_3, ended_3) = map(tables, pages)
        led = {
            (which, place): tables(visitor.text(link(pages[1], which, place)))
            for which in ("prev", "next", "first")
            for place in ("", "ended")
        }
        assert led == {
            ("prev", ""): [live_1, ended_2],
            ("next", ""): [live_3, ended_2],
            ("first", ""): [live_1, ended_2],
            ("prev", "ended"): [live_2, ended_1],
            ("next", "ended"): [live_2, ended_3],
            ("first", "ended"): [live_2, ended_1],
        }
        # A link leads down to the table whose it is, not to the top above fifty other keys.
        assert pages[1].count(' id="ended"') == 1
        assert pages[1].index(' id="ended"') > pages[1].index("</table>")


def test_operators_page_through_the_keys_of_a_user(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = f"{ADMIN}/users/{desk.user_id(ann.name)}"
    live, ended = LIVE_ROWS + 4, ADMIN_ENDED_ROWS + 1
    make_keys(desk, ann.name, live=live, ended=ended)
    shown = boss.text(page)
    assert f'<a href="{page}/keys">All API keys</a>' in shown
    assert f"({live + 1} that work, {ended} that ended)" in shown
    assert "llmproxy keys list" not in shown
    by_page = follow(boss, f"{page}/keys", "")
    assert list(chain(*(each[0] for each in by_page))) == [*newest_first("live", live), "test"]
    by_page = follow(boss, f"{page}/keys", "ended")
    assert list(chain(*(each[1] for each in by_page))) == newest_first("ended", ended)
    # A key that is on no first page is revoked where it stands.
    last = boss.text(f"{page}/keys?page=2")
    (revoke,) = re.findall(rf'action="({page}/keys/{ann_key(desk, ann)}/revoke[^"]*)"', last)
    assert boss.submit(unescape(revoke)).status_code == 303
    assert desk.ask(ann.api_key) == 401
    assert boss.get(f"{ADMIN}/users/999999/keys").status_code == 404


def test_a_button_about_a_key_leads_back_to_where_it_was_pressed(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    page = f"{ADMIN}/users/{desk.user_id(ann.name)}"
    make_keys(desk, ann.name, live=2 * LIVE_ROWS, ended=ADMIN_ENDED_ROWS + 1)
    limit_key(desk.books, ann.name, "live-1", requests_per_minute=1000)
    with desk.books.write() as tx:
        user = accounts.find_user(tx, ann.name)
        (key,) = accounts.find_live_keys(tx, user, "live-1", now_ms=Clock().now_ms())
        assert key.limits is not None
        limit_store.suspend(tx, key.limits.id, "it spent too fast", Clock().now_ms())
    here = f"{page}/keys?page=2&ended=2"
    for act, said in (("resume", "works again"), ("revoke", "is revoked")):
        action = f"{page}/keys/{key.id}/{act}?page=2&amp;ended=2"
        assert f'action="{action}"' in boss.text(here)
        led = boss.submit(unescape(action))
        assert (led.status_code, led.headers["location"]) == (303, f"{here}&said={act}")
        shown = boss.text(led.headers["location"])
        assert said in re.findall(r'role="status">([^<]*)', shown)[0]
        assert tables(shown)[0][:2] == ["live-29", "live-28"]
    # What cannot be done is told there as well; and nobody else's page is shown for it.
    again = boss.submit(f"{page}/keys/{key.id}/revoke?page=2&ended=2")
    assert (again.status_code, "has ended already" in again.text) == (422, True)
    assert tables(again.text) == tables(boss.text(here))
    assert_sound(again)
    other = boss.submit(f"{ADMIN}/users/{desk.user_id(boss.name)}/keys/{key.id}/revoke?page=2")
    assert other.status_code == 404
    # On the user's own page it leads back to that, as before.
    newest = ann.key_ids()["live-59"]
    assert f'action="{page}/keys/{newest}/revoke"' in boss.text(page)
    led = boss.submit(f"{page}/keys/{newest}/revoke")
    assert led.headers["location"] == f"{page}?said=revoke"


def test_who_revokes_a_key_of_theirs_lands_where_they_came_from(desk: Desk) -> None:
    ann = desk.signed_in()
    make_keys(desk, ann.name, live=LIVE_KEYS_MAX + 1, ended=ENDED_ROWS + 1)
    here = f"{KEYS}?page=2&ended=2"
    assert tables(ann.text(here))[0] == ["live-0", "test"]
    for name in ("live-0", "test"):
        led = ann.submit(pressed(ann, here, name))
        assert (led.status_code, led.headers["location"]) == (303, here)
        if name == "live-0":
            assert tables(ann.text(here))[0] == ["test"]
    # That was the last on its page: the last page that there is stands in its place.
    landed = ann.text(here)
    assert tables(landed)[0] == newest_first("live", LIVE_KEYS_MAX + 1)[:-1]
    assert link(landed, "next", "") == link(landed, "prev", "") == ""
    assert desk.ask(ann.api_key) == 401
    # Whoever came from the front lands there, by an address without anything.
    led = ann.submit(pressed(ann, KEYS, "live-7"))
    assert (led.status_code, led.headers["location"]) == (303, KEYS)


def pressed(visitor: Visitor, path: str, name: str) -> str:
    """Where the button leads that revokes a key, which stands on the page behind its name."""
    (manage,) = re.findall(rf'<td class="main"><a href="([^"]*)">{name}</a>', visitor.text(path))
    page = visitor.text(unescape(manage))
    (back,) = re.findall(r'<p class="trail">.*<a href="([^"]*)">API Keys', page)
    assert unescape(back) == path
    (action,) = re.findall(r'action="([^"]*/revoke[^"]*)"', page)
    return unescape(action)


def test_the_last_key_of_a_page_leaves_operators_on_the_page_before(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    make_keys(desk, ann.name, live=LIVE_ROWS, ended=0)
    keys = f"{ADMIN}/users/{desk.user_id(ann.name)}/keys"
    led = boss.submit(f"{keys}/{ann_key(desk, ann)}/revoke?page=2")
    assert led.headers["location"] == f"{keys}?page=2&said=revoke"
    assert tables(boss.text(led.headers["location"])) == [newest_first("live", LIVE_ROWS), ["test"]]


def test_the_page_of_all_keys_says_whose_they_are(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    html = boss.text(f"{ADMIN}/users/{desk.user_id(ann.name)}/keys")
    assert re.findall(r"<h1>(.*?)</h1>", html) == [f"API keys of {ann.name}"]


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
