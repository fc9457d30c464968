"""The audit log on the dashboard: found, paged through, downloaded; text in it stays text."""

import csv
import io
import json
import os
import re
import signal
from html import unescape

import pytest

from llmproxy import audit
from llmproxy.clock import Clock
from llmproxy.dashboard.downloads import DOWNLOADS_OF_USER_MAX, MEDIA_TYPES
from tests.dashboard.helpers import Desk, Visitor
from tests.dashboard.operators import ADMIN, assert_sound, operator
from tests.dashboard.test_safety import XSS
from tests.support.raw_client import RawClient
from tests.support.waiting import wait_until

LOG = f"{ADMIN}/audit"
LARGE_ACTS = 40_000
"""Of 500 characters each: more than the buffers between here and there can take."""


@pytest.fixture
def olga(desk: Desk) -> Visitor:
    return operator(desk)


def note(desk: Desk, *details: str, actor: str = "cli:test", act: str = "credits add") -> None:
    with desk.books.write() as tx:
        for each in details:
            audit.note(tx, actor=actor, act=act, details=each, now_ms=Clock().now_ms())


def shown(html: str) -> list[str]:
    """The details of each act on a page."""
    found = re.findall(r'<td class="what"><strong>[^<]*</strong> ([^<]*)</td>', html)
    return [unescape(each) for each in found]


def test_the_newest_acts_come_first_and_older_ones_behind_them(desk: Desk, olga: Visitor) -> None:
    actor = f"cli:{olga.name}"
    note(desk, *(f"ann {number}" for number in range(60)), actor=actor)
    html, seen = olga.text(f"{LOG}?actor={actor}"), []
    while True:
        seen += shown(html)
        older = re.search(r'rel="next" href="([^"]*)"', html)
        if older is None:
            break
        html = olga.text(unescape(older[1]))
    assert seen == [f"ann {number}" for number in reversed(range(60))]


def test_the_log_is_searched_by_text_and_by_who_acted(desk: Desk, olga: Visitor) -> None:
    mark = f"mark-{olga.name}"
    note(desk, f"{mark} one", actor="cli:root")
    note(desk, f"{mark} two", actor="dashboard:ann", act="users disable")
    assert shown(olga.text(f"{LOG}?text={mark.upper()}")) == [f"{mark} two", f"{mark} one"]
    assert shown(olga.text(f"{LOG}?text=disable+{mark}")) == [f"{mark} two"]
    assert shown(olga.text(f"{LOG}?text={mark}&actor=cli:root")) == [f"{mark} one"]
    assert shown(olga.text(f"{LOG}?text={mark}&actor=cli")) == []
    assert "Nothing like that was changed." in olga.text(f"{LOG}?text={mark}+three")


def test_a_search_stops_after_many_acts_and_goes_on_behind_them(module_desk: Desk) -> None:
    olga = operator(module_desk)
    note(module_desk, "rare 1")
    note(module_desk, *(["often"] * (audit.LOOKED_AT_MAX + 10)))
    for query in ("text=RARE", "actor=cli:test&text=rare"):
        html = olga.text(f"{LOG}?{query}")
        assert shown(html) == []
        assert "Looked through the log back to" in html
        assert "Nothing like that" not in html
        older = re.search(r'rel="next" href="([^"]*)"', html)
        assert older
        html = olga.text(unescape(older[1]))
        assert shown(html) == ["rare 1"]
        assert "Looked through" not in html
    (line,) = olga.get(f"{LOG}.jsonl?text=rare").text.splitlines()
    assert json.loads(line)["details"] == "rare 1"


@pytest.mark.parametrize("kind", ["csv", "jsonl"])
def test_what_is_found_is_downloaded_whole(desk: Desk, olga: Visitor, kind: str) -> None:
    mark = f"mark-{olga.name}"
    note(desk, "else", *(f"{mark} {number}" for number in range(2500)))
    answer = olga.get(f"{LOG}.{kind}?text={mark}&before=3")
    assert answer.status_code == 200
    assert 'attachment; filename="llmproxy-audit-20' in answer.headers["content-disposition"]
    assert answer.headers["content-type"] == MEDIA_TYPES[kind]
    assert answer.headers["cache-control"] == "no-store"
    if kind == "csv":
        rows = list(csv.DictReader(io.StringIO(answer.text)))
    else:
        rows = [json.loads(line) for line in answer.text.splitlines()]
    assert [row["details"] for row in rows] == [f"{mark} {n}" for n in reversed(range(2500))]
    assert rows[0].keys() == {"id", "created_at", "actor", "act", "details"}


@pytest.fixture(scope="module")
def filled_desk(module_desk: Desk) -> Desk:
    """A dashboard with very many acts of 500 characters."""
    note(module_desk, *(["x" * 500] * LARGE_ACTS))
    return module_desk


def begin(desk: Desk, olga: Visitor) -> RawClient:
    """Ask for the whole log and take nothing of it yet."""
    client = RawClient(desk.site.proxy.port, timeout_s=20)
    cookie = f"llmproxy-session={olga.cookies['llmproxy-session']}"
    client.send(f"GET {LOG}.csv HTTP/1.1\r\nhost: x\r\ncookie: {cookie}\r\n\r\n".encode())
    return client


def test_who_is_no_operator_any_more_gets_no_more_of_it(filled_desk: Desk) -> None:
    olga = operator(filled_desk)
    with begin(filled_desk, olga) as client:
        assert client.recv_head().status == 200
        with filled_desk.books.write() as tx:
            tx.execute("UPDATE users SET is_admin = 0 WHERE name = ?", (olga.name,))
        text = client.body().decode()
        assert not client.clean_end
    assert 0 < len(text.splitlines()) < LARGE_ACTS
    assert "NotAllowedError" in filled_desk.site.proxy.log.read_text()


def test_downloads_of_it_are_counted_with_all_others_and_keep_no_stop(filled_desk: Desk) -> None:
    """It stops the server: no test below has its own."""
    olga, proxy = operator(filled_desk), filled_desk.site.proxy
    clients = [begin(filled_desk, olga) for _ in range(DOWNLOADS_OF_USER_MAX)]
    assert [client.recv_head().status for client in clients] == [200] * DOWNLOADS_OF_USER_MAX
    assert olga.get(f"{LOG}.jsonl").status_code == 503
    assert olga.get("/dashboard/credit.csv").status_code == 503
    os.kill(proxy.pid, signal.SIGTERM)
    for client in clients:
        client.body()
        assert not client.clean_end
        client.close()
    wait_until(lambda: proxy.exit_code == 0)


def test_no_cell_of_a_download_is_a_formula_or_steers_a_terminal(desk: Desk, olga: Visitor) -> None:
    actor = f"cli:{olga.name}"
    texts = ("=cmd|' /C calc'!A0", "+1", "-1", "@SUM(1)", "\t=1", "a\x1b[31m\u202ered", 'a,"b"\nc')
    note(desk, *texts, actor=actor)
    answer = olga.get(f"{LOG}.csv?actor={actor}")
    rows = list(csv.DictReader(io.StringIO(answer.text)))
    cells = [row["details"] for row in reversed(rows)]
    assert cells == ["'=cmd|' /C calc'!A0", "'+1", "'-1", "'@SUM(1)", "'=1", "a[31mred", 'a,"b"c']
    lines = olga.get(f"{LOG}.jsonl?actor={actor}")
    assert lines.content.isascii()
    assert [json.loads(line)["details"] for line in lines.text.splitlines()] == [*texts[::-1]]


@pytest.mark.parametrize("text", XSS)
def test_what_stands_in_it_is_text(desk: Desk, olga: Visitor, text: str) -> None:
    note(desk, text, actor=text, act=text)
    for query in ({}, {"text": text}, {"actor": text}):
        answer = olga.get(LOG, params=query)
        assert answer.status_code == 200
        assert_sound(answer)
        assert not any("javascript:" in each for each in re.findall(r'href="([^"]*)"', answer.text))
        assert text in unescape(answer.text)


def test_a_page_of_the_longest_acts_is_still_short(desk: Desk, olga: Visitor) -> None:
    note(desk, *(["'\"<" * 300] * 60), actor="cli:" + "\"'" * 30, act="provider-keys disable")
    answer = olga.get(LOG, params={"text": "'\"" * 100})
    assert answer.status_code == 200
    assert_sound(olga.get(LOG))


@pytest.mark.parametrize(
    "query",
    [
        *("before=x", "before=-1", f"before={'9' * 30}", "before=٣"),
        *("text=%ff%fe", "text=%00", "actor=%ed%a0%80"),
    ],
)
def test_no_query_breaks_it(olga: Visitor, query: str) -> None:
    for path in (LOG, f"{LOG}.csv", f"{LOG}.jsonl"):
        assert olga.get(f"{path}?{query}").status_code == 200


def test_what_users_do_with_their_keys_stands_in_it(desk: Desk, olga: Visitor) -> None:
    ann = desk.signed_in()
    ann.create_key("laptop")
    html = olga.text(f"{LOG}?actor=dashboard:{ann.name}")
    assert shown(html) == [f"{ann.name} --name laptop"]
