"""Every page of the operator's is closed to everybody else: by the router's own table.

No later page can be forgotten: what the table has is what is asked for.
"""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from llmproxy import accounts, key_pool, limit_store
from llmproxy.clock import Clock
from tests.dashboard.helpers import OWN, Desk, Visitor
from tests.dashboard.table import routes
from tests.dashboard.test_safety import TAGS_ALLOWED, XSS, Page
from tests.proxy.conftest import running_site
from tests.service.helpers import either
from tests.support.proxy import PROVIDER_KEY

ADMIN = "/dashboard/admin"
FORM = {
    "name": "evil",
    "amount": "1",
    "reason": "evil",
    "once": "evil-1",
    "rate_multiplier": "2",
    "secret": "sk-evil-0123456789abcdef",
}


def table() -> list[tuple[str, str]]:
    """Return every method and path of the operator's pages."""
    own = [(method, path) for method, path in routes() if f"{path}/".startswith(f"{ADMIN}/")]
    return sorted([*own, *(("HEAD", path) for method, path in own if method == "GET")])


TABLE = table()
POSTS = [path for method, path in TABLE if method == "POST"]


class Doors:
    """A path of each route that leads to something, were one let in."""

    def __init__(self, desk: Desk, ann: Visitor) -> None:
        with desk.books.database.read() as tx:
            self._provider_key = key_pool.list_provider_keys(tx, "openai")[0].id
        self.user, self._key = desk.user_id(ann.name), ann.key_ids()["test"]

    def path(self, route: str) -> str:
        is_provider = route.startswith(f"{ADMIN}/providers")
        act = "disable" if is_provider or "/do/" in route else "revoke"
        values = {
            "user_id": self.user,
            "key_id": self._provider_key if is_provider else self._key,
            "name": "openai",
            "provider": "openai",
            "act": act,
        }
        return re.sub(r"\{([^}]*)\}", lambda found: str(values.get(found[1], "1")), route)


def ask(visitor: Visitor, method: str, path: str, headers: dict[str, str]) -> httpx.Response:
    data = FORM if method == "POST" else None
    return visitor.request(method, path, data=data, headers=headers)


def state_of(desk: Desk) -> list[tuple[Any, ...]]:
    """Return everything that an operator's page could have changed."""
    statements = (
        "SELECT name, rate_multiplier_micro, disabled_at_ms, is_admin, limits_id FROM users",
        "SELECT user_id, name, revoked_at_ms FROM api_keys",
        "SELECT wallet_id, amount_nanousd FROM transfers WHERE kind <> 'charge'",
        "SELECT name, paused_at_ms, resumed_at_ms, base_url FROM providers",
        "SELECT name, state FROM provider_keys",
        "SELECT actor, act, details FROM audit_log",
        "SELECT hash FROM sessions",
        "SELECT hash FROM login_links",
    )
    with desk.books.database.read() as tx:
        return [tuple(row) for each in statements for row in tx.execute(each)]


def test_the_table_has_the_pages_that_there_are() -> None:
    assert ("GET", ADMIN) in TABLE
    assert {"GET", "HEAD", "POST"} == {method for method, _ in TABLE}
    sections = {path.split("/")[3] for _, path in TABLE if path != ADMIN}
    assert {"users", "providers"} <= sections
    assert len(POSTS) >= 12
    names = {name for _, path in TABLE for name in re.findall(r"\{([^}]*)\}", path)}
    assert {"user_id", "key_id", "name", "act"} <= names


def test_nobody_is_led_to_sign_in(desk: Desk) -> None:
    doors, stranger = Doors(desk, desk.signed_in()), desk.visitor()
    before = state_of(desk)
    for method, route in TABLE:
        answer = ask(stranger, method, doors.path(route), OWN)
        if method == "POST":
            assert (answer.status_code, "Signed out" in answer.text) == (401, True), route
        else:
            assert answer.status_code == 303, (method, route)
            assert answer.headers["location"] == "/dashboard/sign-in"
            assert answer.text == ""
    assert state_of(desk) == before


def test_a_user_is_refused(desk: Desk) -> None:
    ann, ben = desk.signed_in(), desk.signed_in()
    doors, before = Doors(desk, ben), state_of(desk)
    for method, route in TABLE:
        answer = ask(ann, method, doors.path(route), OWN)
        assert answer.status_code == 403, (method, route)
        assert ben.name not in answer.text
        assert "openai" not in answer.text
    assert state_of(desk) == before
    assert 'href="/dashboard/admin"' not in ann.text("/dashboard")
    assert 'href="/dashboard/admin"' in desk.operator().text("/dashboard")


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"sec-fetch-site": "cross-site"},
        {"sec-fetch-site": "same-site"},
        {"sec-fetch-site": "none"},
        {"origin": "null"},
        {"origin": "https://evil.example"},
    ],
    ids=str,
)
def test_a_form_of_another_site_is_refused_to_an_operator_too(
    desk: Desk, headers: dict[str, str]
) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    doors, before = Doors(desk, ann), state_of(desk)
    for route in POSTS:
        answer = ask(boss, "POST", doors.path(route), headers)
        assert answer.status_code == 403, route
        assert "was not sent by a page of this dashboard" in answer.text
    assert state_of(desk) == before


def test_whoever_is_no_operator_any_more_is_refused_at_once(desk: Desk) -> None:
    boss, now_ms = desk.operator(), Clock().now_ms()
    assert boss.get(ADMIN).status_code == 200
    # The session goes on, as if it had not been ended with the part.
    with desk.books.write() as tx:
        accounts.set_user(tx, boss.name, now_ms=now_ms, is_admin=False)
    doors = Doors(desk, desk.signed_in())
    for method, route in TABLE:
        assert ask(boss, method, doors.path(route), OWN).status_code == 403, (method, route)


def test_no_page_takes_another_method(desk: Desk) -> None:
    boss = desk.operator()
    doors, before = Doors(desk, desk.signed_in()), state_of(desk)
    for route in {path for _, path in TABLE}:
        for method in ("PUT", "PATCH", "DELETE"):
            assert ask(boss, method, doors.path(route), OWN).status_code == 405, route
    assert state_of(desk) == before


@pytest.fixture
def poisoned(tmp_path: Path) -> Iterator[tuple[Desk, Visitor]]:
    """A dashboard of one's own, with a user; what is written in it may be anything."""
    with running_site(tmp_path, {}) as site, Desk(site) as desk:
        site.stub.handle = either
        yield desk, desk.signed_in()


def test_what_anybody_wrote_is_text_on_every_page(poisoned: tuple[Desk, Visitor]) -> None:
    desk, ann = poisoned
    boss, now_ms = desk.operator(), Clock().now_ms()
    doors = Doors(desk, ann)
    pages = [doors.path(path) for method, path in TABLE if method == "GET"]
    for text in XSS:
        assert desk.ask(ann.api_key, model=text) == 400
    for number, text in enumerate(XSS):
        page = doors.path(f"{ADMIN}/users/{{user_id}}")
        boss.submit(f"{page}/credit", amount="1", reason=text, once=f"{number}{text}")
        shown = boss.text(page).rpartition('name="once" value="')[2].partition('"')[0]
        assert boss.submit(f"{page}/adjust", amount="-1", reason=text, once=shown).is_redirect
        boss.submit(f"{ADMIN}/providers/anthropic/pause", reason=text)
        # Names and reasons that nothing would take, as if the rules for them had failed.
        with desk.books.write() as tx:
            limits_id = limit_store.set_user_limits(
                tx, doors.user, {"requests_per_minute": 10_000}
            ).id
            tx.execute("UPDATE users SET name = ? WHERE id = ?", (text, doors.user))
            tx.execute("UPDATE api_keys SET name = ?, masked = ?, limits_id = ? WHERE user_id = ?",
                       (text, text, limits_id, doors.user))  # fmt: skip
            limit_store.suspend(tx, limits_id, text, now_ms)
            tx.execute("UPDATE providers SET base_url = ? WHERE name = 'anthropic'", (text,))
            tx.execute("UPDATE provider_keys SET masked = ?", (text,))
            tx.execute("UPDATE provider_keys SET name = ? WHERE id = 2", (text,))
            for key in key_pool.list_provider_keys(tx):
                key_pool.set_key_state(tx, key.id, "dead", reason=text, actor=text, now_ms=now_ms)
            tx.execute(
                """INSERT INTO providers(name, dialect, base_url, injects_usage, created_at_ms)
                   VALUES(?, 'openai', 'https://x.example', 1, ?)""",
                (text, now_ms),
            )
        answers = [boss.get(path) for path in [*pages, f"{ADMIN}/providers/anthropic"]]
        answers += [
            boss.submit(f"{ADMIN}/users", **dict.fromkeys(("name", "credit", "key"), text)),
            boss.submit(f"{page}/credit", amount=text, reason=text),
            boss.submit(f"{page}/adjust", amount=text, reason=text),
            boss.submit(f"{page}/rates", rate_multiplier=text, concurrent_max=text),
            boss.submit(f"{ADMIN}/providers/openai/keys", secret=text, name=text),
            boss.submit(f"{ADMIN}/providers/anthropic/check"),
            boss.get(f"{ADMIN}/users", params={"q": text, "page": text}),
            boss.get(f"{ADMIN}/users", params={"said": text}),
        ]
        for answer in answers:
            if "html" not in answer.headers.get("content-type", ""):
                continue
            where = f"{answer.request.method} {answer.url}: {text}"
            assert answer.status_code in {200, 404, 422}, where
            html = Page(answer.text)
            assert html.inline == [], where
            assert html.tags <= TAGS_ALLOWED, (where, html.tags - TAGS_ALLOWED)
            assert all(each.startswith(("/dashboard", "#")) for each in html.addresses), where
            assert "3703701" not in answer.text or "{{1234567*3}}" not in text, where
            assert len(answer.content) < 50_000, where
            assert PROVIDER_KEY not in answer.text
    # What a receipt would say of these requests is right all the same; names are put back.
    with desk.books.write() as tx:
        tx.execute("UPDATE users SET name = ? WHERE id = ?", (ann.name, doors.user))


def test_every_page_tells_the_browser_to_be_strict(desk: Desk) -> None:
    boss, ann = desk.operator(), desk.signed_in()
    doors = Doors(desk, ann)
    for method, route in TABLE:
        if method == "POST":
            continue
        answer = boss.request(method, doors.path(route))
        assert answer.status_code in {200, 303, 404}, (route, answer.status_code)
        headers = answer.headers
        assert "default-src 'none'" in headers["content-security-policy"]
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["cache-control"] == "no-store", route
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
