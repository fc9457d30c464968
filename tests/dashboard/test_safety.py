"""S25: forms of other sites, what is written into pages, what answers tell the browser."""

import re
from html.parser import HTMLParser
from pathlib import Path

import httpx
import pytest
from typing_extensions import override

import llmproxy
from tests.dashboard.helpers import KEYS, Desk, Visitor
from tests.proxy.helpers import Site, chat
from tests.support.raw_client import RawClient

SOURCES = sorted((Path(llmproxy.__file__).parent / "dashboard").glob("*.py"))
ROUTES = {
    ("route", "/"),
    ("route", "/settings"),
    ("route", "/settings/api-keys"),
    ("post", "/settings/api-keys"),
    ("route", "/settings/api-keys/new"),
    ("route", "/settings/api-keys/{key_id:int}"),
    ("post", "/settings/api-keys/{key_id:int}/rotate"),
    ("post", "/settings/api-keys/{key_id:int}/revoke"),
    ("route", "/sign-in"),
    ("route", "/sign-in/{secret:str}"),
    ("post", "/sign-in/{secret:str}"),
    ("post", "/sign-out"),
    ("get", "/static/{name:str}"),
}
XSS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{7*7}}",
    "&lt;script&gt;",
)
TAGS_ALLOWED = {
    *("html", "head", "meta", "title", "link", "script", "body", "header", "nav", "main", "a"),
    *("section", "div", "p", "h1", "h2", "h3", "small", "span", "strong", "em", "code", "pre"),
    *("form", "label", "input", "select", "option", "button", "details", "summary", "time"),
    *("table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "img", "ul", "li"),
    *("svg", "g", "rect"),
}


class Page(HTMLParser):
    """What a browser makes of a page: its tags, and what would run or be styled in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.inline: list[str] = []
        self.addresses: set[str] = set()
        self._is_script = False
        self.feed(html)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._is_script = tag == "script"
        for name, value in attrs:
            if name.startswith("on") or name == "style":
                self.inline.append(f"{tag} {name}={value}")
            if name in {"href", "src", "action"}:
                self.addresses.add(value or "")

    @override
    def handle_data(self, data: str) -> None:
        if self._is_script and data.strip():
            self.inline.append(data)

    @override
    def handle_endtag(self, tag: str) -> None:
        self._is_script = False


def test_the_table_of_routes_is_exactly_this() -> None:
    source = "".join(path.read_text("utf-8") for path in SOURCES)
    found = re.findall(r'@(route|get|post|put|delete|patch|asgi|websocket)\("([^"]*)"', source)
    assert set(found) == ROUTES
    assert len(found) == len(ROUTES)


def every_page(desk: Desk, ann: Visitor) -> list[httpx.Response]:
    """Ask for each page that there is, those of errors too."""
    key_id = next(iter(ann.key_ids().values()))
    paths = ("/dashboard", KEYS, f"{KEYS}/new", f"{KEYS}/{key_id}", "/dashboard/settings")
    name, _ = desk.books.user()
    return [
        *(ann.get(path) for path in paths),
        ann.get("/dashboard/sign-in"),
        ann.get(desk.link(name)),
        ann.get("/dashboard/sign-in/nothing"),
        ann.get(f"{KEYS}/999999999"),
        ann.submit(KEYS, name="laptop"),
        ann.submit(KEYS, name="<b>"),
        ann.submit(f"{KEYS}/{key_id}/rotate", overlap="wrong"),
        ann.post(KEYS, data={"name": "x"}),
        ann.submit(KEYS, name="x" * 20_000),
        ann.get("/dashboard/static/style.css"),
        ann.get("/dashboard/static/copy.js"),
        ann.get("/dashboard/static/nothing"),
        ann.put(KEYS, headers={"sec-fetch-site": "same-origin"}),
        desk.visitor().get("/dashboard"),
        ann.submit("/dashboard/sign-out"),
    ]


def test_every_answer_tells_the_browser_to_be_strict(desk: Desk) -> None:
    answers = every_page(desk, desk.signed_in())
    assert {answer.status_code for answer in answers} == {200, 303, 403, 404, 405, 413, 422}
    for answer in answers:
        headers, where = answer.headers, f"{answer.request.method} {answer.url}"
        if answer.status_code == 405:  # refused before it came to the dashboard, as JSON
            assert headers["content-type"] == "application/json"
            continue
        policy = headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy, where
        assert {"script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        is_static = answer.status_code == 200 and "/static/" in str(answer.url)
        assert headers["cache-control"].startswith("public" if is_static else "no-store"), where
        assert "access-control-allow-origin" not in headers
        assert "server" not in headers


def test_no_page_has_script_or_style_in_it_or_loads_from_elsewhere(desk: Desk) -> None:
    for answer in every_page(desk, desk.signed_in()):
        if "html" not in answer.headers.get("content-type", ""):
            continue
        page = Page(answer.text)
        assert page.inline == [], answer.url
        assert page.tags <= TAGS_ALLOWED, page.tags - TAGS_ALLOWED
        assert all(each.startswith(("/dashboard", "#")) for each in page.addresses), page.addresses
        assert len(answer.content) < 50_000


@pytest.mark.parametrize("headers", [
    {},
    {"sec-fetch-site": "cross-site"},
    {"sec-fetch-site": "same-site"},
    {"sec-fetch-site": "none"},
    {"sec-fetch-site": "cross-site", "origin": "SELF"},
    {"origin": "null"},
    {"origin": "https://evil.example"},
    {"origin": "http://127.0.0.1:1"},
    {"origin": "http://127.0.0.1.evil.example"},
    {"origin": "", "referer": "SELF"},
], ids=str)  # fmt: skip
def test_a_form_of_another_site_changes_nothing(desk: Desk, headers: dict[str, str]) -> None:
    ann = desk.signed_in()
    key_id = ann.key_ids()["test"]
    sent = {name: value.replace("SELF", desk.site.proxy.url) for name, value in headers.items()}
    name, _ = desk.books.user()
    link = desk.link(name)
    for path in (
        *(KEYS, f"{KEYS}/{key_id}/rotate", f"{KEYS}/{key_id}/revoke", "/dashboard/sign-out", link),
    ):
        answer = ann.post(path, data={"name": "evil"}, headers=sent)
        assert answer.status_code == 403, path
        assert "set-cookie" not in answer.headers
    assert set(ann.key_ids()) == {"test"}
    assert desk.ask(ann.api_key) == 200
    assert desk.visitor().submit(link).status_code == 303


def test_a_form_of_ours_is_known_by_its_origin_where_the_browser_says_no_more(desk: Desk) -> None:
    ann = desk.signed_in()
    answer = ann.post(KEYS, data={"name": "laptop"}, headers={"origin": desk.site.proxy.url})
    assert answer.status_code == 200


@pytest.mark.parametrize("text", XSS)
def test_what_users_and_models_are_called_is_text_on_every_page(desk: Desk, text: str) -> None:
    ann = desk.signed_in()
    assert desk.ask(ann.api_key, model=text) == 400
    ann.submit(KEYS, name="starry", models="<img/src=x>*")
    # Names that no command would take, as if the rules for them had failed.
    with desk.books.write() as tx:
        user_id = tx.execute("SELECT id FROM users WHERE name = ?", (ann.name,)).fetchone()[0]
        tx.execute("UPDATE users SET name = ? WHERE id = ?", (text, user_id))
        tx.execute("UPDATE api_keys SET name = ? WHERE user_id = ? AND name = 'test'",
                   (text, user_id))  # fmt: skip
    try:
        key_ids = re.findall(rf'href="{KEYS}/(\d+)">', ann.text(KEYS))
        pages = [ann.text("/dashboard"), ann.text(KEYS), ann.text(f"{KEYS}/new")]
        pages += [ann.text(f"{KEYS}/{key_id}") for key_id in key_ids]
        pages += [ann.submit(KEYS, name=text, models=text, daily_budget_nanousd=text).text]
        for html in pages:
            page = Page(html)
            assert page.inline == []
            assert page.tags <= TAGS_ALLOWED
            assert not any("javascript:" in each for each in page.addresses)
            without_versions = re.sub(r"\?v=\w+", "", html)
            assert "49" not in without_versions or "{{7*7}}" not in text
    finally:
        with desk.books.write() as tx:
            tx.execute("UPDATE users SET name = ? WHERE id = ?", (ann.name, user_id))


@pytest.mark.parametrize("host", ['x"><script>alert(1)</script>', "a b", "evil.example/path?", ""])
def test_a_host_that_is_none_does_not_come_into_a_page(desk: Desk, host: str) -> None:
    ann = desk.signed_in()
    body = b"name=laptop"
    head = (
        f"POST {KEYS} HTTP/1.1\r\nhost: {host}\r\nsec-fetch-site: same-origin\r\n"
        f"cookie: llmproxy-session={ann.cookies['llmproxy-session']}\r\n"
        f"content-type: application/x-www-form-urlencoded\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    with RawClient(desk.site.proxy.port) as client:
        client.send(head.encode() + body)
        status, text = client.recv_head().status, client.body().decode()
    assert status in {200, 400}
    if status == 200:
        assert Page(text).inline == []
        assert "evil" not in text
        assert "http://localhost" in text


@pytest.mark.parametrize(
    "body", [b"\xff\xfe=1", b"name=%ff", b"&".join([b"a=1"] * 100), b"name", b"{}", b"\x00"]
)
def test_a_body_that_is_no_form_makes_no_key(desk: Desk, body: bytes) -> None:
    ann = desk.signed_in()
    answer = ann.post(KEYS, content=body, headers={"sec-fetch-site": "same-origin"})
    assert answer.status_code == 422
    assert set(ann.key_ids()) == {"test"}


def test_without_a_dashboard_its_paths_lead_nowhere(site_without_dashboard: Site) -> None:
    proxy, books = site_without_dashboard.proxy, site_without_dashboard.books
    name, key = books.user()
    with httpx.Client(base_url=proxy.url) as client:
        for _, path in ROUTES:
            full = "/dashboard" + path.replace("{key_id:int}", "1").replace("{secret:str}", "x")
            for method in ("GET", "POST"):
                assert client.request(method, full).status_code == 404
        assert client.get("/", headers={"accept": "text/html"}).status_code == 200
    assert proxy.post("/v1/openai/chat/completions", chat(), key).status == 200
    refused = proxy.try_run("users", "login-link", name)
    assert (refused.returncode, "switched off" in refused.stderr) == (4, True)


def test_a_browser_at_the_bare_address_is_led_to_the_dashboard_and_a_client_is_not(
    desk: Desk,
) -> None:
    visitor = desk.visitor()
    led = visitor.get("/", headers={"accept": "text/html,application/xhtml+xml"})
    assert (led.status_code, led.headers["location"]) == (303, "dashboard")
    assert visitor.get("/").status_code == 200


def test_behind_a_public_address_with_a_path_links_have_it(
    site_at_public_address: Site,
) -> None:
    with Desk(site_at_public_address) as desk:
        name, _ = desk.books.user()
        printed = desk.site.proxy.run("users", "login-link", name)
        assert printed.startswith("https://llm.example.org/proxy/dashboard/sign-in/")
        ann = desk.visitor(host="llm.example.org", origin="https://llm.example.org")
        answer = ann.post(desk.link(name))
        assert answer.headers["location"] == "/proxy/dashboard"
        first = answer.headers["set-cookie"].partition(";")[0]
        assert first.startswith("__Host-llmproxy-session=")
        page = ann.get("/dashboard", headers={"cookie": first}).text
        assert all(each.startswith(("/proxy/dashboard", "#")) for each in Page(page).addresses)
        made = ann.post(KEYS, data={"name": "x"}, headers={"cookie": first}).text
        assert "https://llm.example.org/proxy/v1/anthropic" in made
