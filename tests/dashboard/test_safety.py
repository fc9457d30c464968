"""S25: forms of other sites, what is written into pages, what answers tell the browser."""

import re
from html.parser import HTMLParser

import httpx
import pytest
from typing_extensions import override

from llmproxy import accounts, crediting
from tests.dashboard.helpers import KEYS, NO_TLS, Desk, Visitor
from tests.dashboard.rows import add_refused, add_settled
from tests.dashboard.table import routes
from tests.proxy.helpers import Site, chat
from tests.support.raw_client import RawClient

ROUTES = {
    ("GET", "/dashboard"),
    ("GET", "/dashboard/admin"),
    ("GET", "/dashboard/admin/audit"),
    ("GET", "/dashboard/admin/audit.csv"),
    ("GET", "/dashboard/admin/audit.jsonl"),
    ("GET", "/dashboard/admin/catalog"),
    ("GET", "/dashboard/admin/catalog.csv"),
    ("GET", "/dashboard/admin/catalog.jsonl"),
    ("GET", "/dashboard/admin/catalog/model"),
    ("GET", "/dashboard/admin/catalog/new"),
    ("POST", "/dashboard/admin/catalog/preview"),
    ("POST", "/dashboard/admin/catalog/remove"),
    ("POST", "/dashboard/admin/catalog/set"),
    ("GET", "/dashboard/admin/ledger"),
    ("POST", "/dashboard/admin/ledger/check"),
    ("GET", "/dashboard/admin/pool"),
    ("POST", "/dashboard/admin/pool/set"),
    ("GET", "/dashboard/admin/providers"),
    ("GET", "/dashboard/admin/providers.csv"),
    ("GET", "/dashboard/admin/providers.jsonl"),
    ("GET", "/dashboard/admin/providers/{name}"),
    ("POST", "/dashboard/admin/providers/{name}/check"),
    ("POST", "/dashboard/admin/providers/{name}/keys"),
    ("POST", "/dashboard/admin/providers/{name}/keys/{key_id}/{act}"),
    ("POST", "/dashboard/admin/providers/{name}/pause"),
    ("POST", "/dashboard/admin/providers/{name}/resume"),
    ("GET", "/dashboard/admin/requests/{request_id}"),
    ("GET", "/dashboard/admin/users"),
    ("POST", "/dashboard/admin/users"),
    ("GET", "/dashboard/admin/users.csv"),
    ("GET", "/dashboard/admin/users.jsonl"),
    ("GET", "/dashboard/admin/users/new"),
    ("GET", "/dashboard/admin/users/{user_id}"),
    ("POST", "/dashboard/admin/users/{user_id}/adjust"),
    ("POST", "/dashboard/admin/users/{user_id}/credit"),
    ("POST", "/dashboard/admin/users/{user_id}/do/{act}"),
    ("GET", "/dashboard/admin/users/{user_id}/keys"),
    ("POST", "/dashboard/admin/users/{user_id}/keys/{key_id}/{act}"),
    ("POST", "/dashboard/admin/users/{user_id}/rates"),
    ("POST", "/dashboard/admin/users/{user_id}/sign-in-link"),
    ("GET", "/dashboard/api"),
    ("GET", "/dashboard/credit"),
    ("GET", "/dashboard/credit.csv"),
    ("GET", "/dashboard/credit.jsonl"),
    ("GET", "/dashboard/guide"),
    ("GET", "/dashboard/guide/{name}"),
    ("GET", "/dashboard/live"),
    ("GET", "/dashboard/models"),
    ("GET", "/dashboard/models.csv"),
    ("GET", "/dashboard/models.jsonl"),
    ("GET", "/dashboard/models/{name}"),
    ("GET", "/dashboard/requests"),
    ("GET", "/dashboard/requests.csv"),
    ("GET", "/dashboard/requests.jsonl"),
    ("GET", "/dashboard/requests/{request_id}"),
    ("GET", "/dashboard/settings"),
    ("GET", "/dashboard/settings/api-keys"),
    ("POST", "/dashboard/settings/api-keys"),
    ("GET", "/dashboard/settings/api-keys/new"),
    ("GET", "/dashboard/settings/api-keys/{key_id}"),
    ("POST", "/dashboard/settings/api-keys/{key_id}/revoke"),
    ("POST", "/dashboard/settings/api-keys/{key_id}/rotate"),
    ("GET", "/dashboard/settings/password"),
    ("POST", "/dashboard/settings/password"),
    ("POST", "/dashboard/settings/sign-out-others"),
    ("GET", "/dashboard/sign-in"),
    ("POST", "/dashboard/sign-in"),
    ("GET", "/dashboard/sign-in/{secret}"),
    ("POST", "/dashboard/sign-in/{secret}"),
    ("POST", "/dashboard/sign-out"),
    ("GET", "/dashboard/static/{name}"),
    ("GET", "/public/images/{name}"),
}
XSS = (
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'><svg/onload=alert(1)>",
    "</title><script>alert(1)</script>",
    "javascript:alert(1)",
    "{{1234567*3}}",
    "&lt;script&gt;",
)
TAGS_ALLOWED = {
    *("html", "head", "meta", "title", "link", "script", "body", "header", "nav", "main", "a"),
    *("section", "div", "p", "h1", "h2", "h3", "small", "span", "strong", "em", "code", "pre"),
    *("form", "label", "input", "select", "option", "button", "details", "summary", "time"),
    *("table", "thead", "tbody", "tr", "th", "td", "dl", "dt", "dd", "img"),
    *("svg", "g", "rect", "article", "ul", "ol", "li", "br"),
}


class Page(HTMLParser):
    """What a browser makes of a page: its tags, and what would run or be styled in it."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.inline: list[str] = []
        self.addresses: set[str] = set()
        self.loaded: set[str] = set()
        """What is loaded without being asked for, and where forms go."""
        self._is_script = False
        self.feed(html)

    @override
    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self._is_script = tag == "script"
        for name, value in attrs:
            if name.startswith(("on", "hx-on")) or name == "style":
                self.inline.append(f"{tag} {name}={value}")
            if name in {"href", "src", "action", "hx-get"}:
                self.addresses.add(value or "")
                if tag != "a":
                    self.loaded.add(value or "")

    @override
    def handle_data(self, data: str) -> None:
        if self._is_script and data.strip():
            self.inline.append(data)

    @override
    def handle_endtag(self, tag: str) -> None:
        self._is_script = False


def test_the_table_of_routes_is_exactly_this() -> None:
    assert routes() == ROUTES


def lists_and_details(desk: Desk, ann: Visitor) -> list[str]:
    """The pages on which what users and models are called stands, and what they load."""
    (request_id,) = add_refused(desk.books, ann.name, 1, at_ms=1_700_000_000_000, model="<b>")
    return [
        *("/dashboard/live", "/dashboard/requests", f"/dashboard/requests/{request_id}"),
        *("/dashboard/requests?state=settled", "/dashboard/requests?state=nothing"),
        *("/dashboard/credit", "/dashboard/credit?before=1", "/dashboard/credit?after=x"),
        *("/dashboard/models", "/dashboard/models?page=2", "/dashboard/models?search=zzz"),
        *("/dashboard/models/openai/gpt-4o", "/dashboard/models/nobody/nothing"),
    ]


def test_an_origin_that_is_none_is_refused(desk: Desk) -> None:
    for origin in ("http://[", "//", "http://a b", "\xff"):
        headers = [(b"origin", origin.encode("latin-1"))]
        answer = desk.visitor().post("/dashboard/sign-in", data={"name": "x"}, headers=headers)
        assert answer.status_code == 403, origin


def every_page(desk: Desk, ann: Visitor) -> list[httpx.Response]:
    """Ask for each page that there is, those of errors too."""
    key_id = next(iter(ann.key_ids().values()))
    paths = (
        *("/dashboard", KEYS, f"{KEYS}/new", f"{KEYS}/{key_id}", "/dashboard/settings"),
        *lists_and_details(desk, ann),
    )
    open_to_all = ("/dashboard/guide", "/dashboard/guide/errors", "/dashboard/api")
    name, _ = desk.books.user()
    return [
        *(ann.get(path) for path in paths),
        *(visitor.get(path) for path in open_to_all for visitor in (ann, desk.visitor())),
        ann.get("/dashboard/settings/password"),
        ann.submit("/dashboard/settings/password", new="short", again="short"),
        ann.get("/public/images/api-key.png"),
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
        ann.get("/dashboard/static/htmx.min.js"),
        ann.get("/dashboard/static/README.md"),
        ann.get("/dashboard/requests.csv"),
        ann.get("/dashboard/models.jsonl"),
        ann.get("/dashboard/requests.csv?state=nothing"),
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
        policy = headers["content-security-policy"].split("; ")
        assert "default-src 'none'" in policy, where
        assert {"script-src 'self'", "style-src 'self'", "frame-ancestors 'none'"} <= set(policy)
        assert "unsafe" not in headers["content-security-policy"]
        assert headers["x-content-type-options"] == "nosniff"
        assert headers["x-frame-options"] == "DENY"
        assert headers["referrer-policy"] == "same-origin"
        is_file = "/static/" in str(answer.url) or "/public/" in str(answer.url)
        is_static = answer.status_code == 200 and is_file
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
        assert all(each.startswith(("/dashboard", "/public")) for each in page.loaded), page.loaded
        # Only what we have written ourselves leads elsewhere: the guide, and the page of endpoints.
        if not re.search("/(guide|api)", answer.url.path):
            assert all(each.startswith(("/dashboard", "#")) for each in page.addresses)
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
    at_ms = 1_700_000_000_000
    (refused,) = add_refused(
        desk.books, ann.name, 1, at_ms=at_ms, model=text, provider=text, reason=text
    )
    told = {"raw_usage": text, "model_served": text, "model": text}
    settled = add_settled(desk.books, ann.name, at_ms=at_ms, model=text, outcome=told)
    ann.submit(KEYS, name="starry", models="<img/src=x>*")
    # Names that no command would take, as if the rules for them had failed.
    with desk.books.write() as tx:
        user_id = tx.execute("SELECT id FROM users WHERE name = ?", (ann.name,)).fetchone()[0]
        tx.execute("UPDATE users SET name = ? WHERE id = ?", (text, user_id))
        tx.execute("UPDATE api_keys SET name = ? WHERE user_id = ? AND name = 'test'",
                   (text, user_id))  # fmt: skip
        wallet_id = accounts.find_user(tx, text).wallet_id
        crediting.adjust(tx, wallet_id, 1, actor=text, reason=text, now_ms=at_ms)
    try:
        key_ids = re.findall(rf'href="{KEYS}/(\d+)">', ann.text(KEYS))
        pages = [ann.text("/dashboard"), ann.text(KEYS), ann.text(f"{KEYS}/new")]
        pages += [ann.text(f"/dashboard/{name}") for name in ("live", "requests", "credit")]
        pages += [ann.text(f"/dashboard/requests/{each}") for each in (refused, settled)]
        for path, names in (("requests", ("model", "key", "state", "since", "id", "before")),
                            ("models", ("search", "provider", "page")),
                            ("credit", ("before", "after"))):  # fmt: skip
            pages += [ann.get(f"/dashboard/{path}", params={name: text}).text for name in names]
        pages += [ann.text(f"{KEYS}/{key_id}") for key_id in key_ids]
        pages += [ann.submit(KEYS, name=text, models=text, daily_budget_nanousd=text).text]
        for html in pages:
            page = Page(html)
            assert page.inline == []
            assert page.tags <= TAGS_ALLOWED
            assert not any("javascript:" in each for each in page.addresses)
            assert "3703701" not in html or "{{1234567*3}}" not in text
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
    with httpx.Client(base_url=proxy.url, verify=NO_TLS) as client:
        for _, path in ROUTES:
            for method in ("GET", "POST"):
                assert client.request(method, re.sub("{.*?}", "1", path)).status_code == 404
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
        printed = desk.run("users", "login-link", name)
        assert printed.startswith("https://llm.example.org/proxy/dashboard/sign-in/")
        ann = desk.visitor(host="llm.example.org", origin="https://llm.example.org")
        answer = ann.post(desk.link(name))
        assert answer.headers["location"] == "/proxy/dashboard"
        first = answer.headers["set-cookie"].partition(";")[0]
        assert first.startswith("__Host-llmproxy-session=")
        for path in ("", "/live", "/requests", "/credit", "/models", "/models/openai/gpt-4o"):
            page = ann.get(f"/dashboard{path}", headers={"cookie": first}).text
            assert all(each.startswith(("/proxy/dashboard", "#")) for each in Page(page).addresses)
        left = ann.get("/dashboard/live", headers={"hx-request": "true"})
        assert left.headers["hx-redirect"] == "/proxy/dashboard/sign-in"
        made = ann.post(KEYS, data={"name": "x"}, headers={"cookie": first}).text
        assert "https://llm.example.org/proxy/v1/anthropic" in made
