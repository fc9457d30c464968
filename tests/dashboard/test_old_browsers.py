"""Browsers that leave out `Sec-Fetch-Site`: their forms count by `Origin` alone.

Old ones do everywhere, and all do over plain HTTP beyond their own machine. They may send the
strict cookie from a page by plain HTTP to the same host over TLS.
"""

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest
from playwright.sync_api import Browser, Request, Route, expect

from tests.dashboard.browsing import chromium
from tests.dashboard.helpers import KEYS, Desk, Visitor
from tests.proxy.helpers import Site

OURS = "https://llm.example.org"
OTHERS = (
    "http://llm.example.org",
    "https://llm.example.org:8443",
    "https://llm.example.org.evil.example",
    "https://evil.example",
    "https://user@llm.example.org",
    "null",
    "",
)


def is_taken(desk: Desk, visitor: Visitor, origin: str | None, **headers: str) -> bool:
    """Whether a form with this origin, or without any, makes an API key."""
    keys = desk.books.count("SELECT count(*) FROM api_keys")
    sent = {**headers, **({} if origin is None else {"origin": origin})}
    answer = visitor.post(KEYS, data={"name": f"key-{keys}"}, headers=sent)
    made = desk.books.count("SELECT count(*) FROM api_keys") - keys
    assert (answer.status_code, made) in {(200, 1), (403, 0)}
    return made == 1


def at_public_address(desk: Desk, host: str) -> Visitor:
    """Somebody signed in who says nothing but where a form is from."""
    name, _ = desk.books.user()
    visitor = desk.visitor(name, host=host)
    signed_in = visitor.post(desk.link(name), headers={"origin": OURS})
    # The client keeps the cookie to itself over plain HTTP, for it is for TLS alone.
    visitor.headers["cookie"] = signed_in.headers["set-cookie"].partition(";")[0]
    return visitor


def test_over_tls_only_a_page_by_tls_of_this_very_host_counts(site_at_public_address: Site) -> None:
    with Desk(site_at_public_address) as desk:
        ann = at_public_address(desk, "llm.example.org")
        assert is_taken(desk, ann, OURS)
        for origin in (*OTHERS, None):
            assert not is_taken(desk, ann, origin), origin
        # A header that says it is decides alone, whatever the origin.
        assert not is_taken(desk, ann, OURS, **{"sec-fetch-site": "same-site"})


def test_behind_a_server_that_names_another_host_the_public_address_counts(
    site_at_public_address: Site,
) -> None:
    with Desk(site_at_public_address) as desk:
        ann = at_public_address(desk, "inside:8000")
        assert is_taken(desk, ann, OURS)
        for origin in (*OTHERS, None):
            assert not is_taken(desk, ann, origin), origin


def test_where_a_trusted_proxy_says_tls_a_page_by_plain_http_does_not_count(desk: Desk) -> None:
    host = urlsplit(desk.site.proxy.url).netloc
    ann = desk.signed_in()
    ann.headers["cookie"] = f"__Host-llmproxy-session={ann.cookies['llmproxy-session']}"
    ann.cookies.clear()
    ann.headers["x-forwarded-proto"] = "https"
    assert is_taken(desk, ann, f"https://{host}")
    assert not is_taken(desk, ann, f"http://{host}")


def test_where_nobody_says_whether_it_came_by_tls_both_count(desk: Desk) -> None:
    host = urlsplit(desk.site.proxy.url).netloc
    ann = desk.signed_in()
    assert is_taken(desk, ann, f"http://{host}")
    assert is_taken(desk, ann, f"https://{host}")
    assert not is_taken(desk, ann, f"ftp://{host}")
    assert not is_taken(desk, ann, None)


@pytest.fixture
def far_browser() -> Iterator[Browser]:
    """A browser for which names lead to this machine, which it does not take for its own."""
    with chromium("--host-resolver-rules=MAP *.test 127.0.0.1") as browser:
        yield browser


def test_a_real_browser_over_plain_http_can_use_forms_and_another_site_cannot(
    far_browser: Browser, desk: Desk
) -> None:
    name, _ = desk.books.user()
    here = f"http://llm.test:{desk.site.proxy.port}"
    posts: list[Request] = []

    def show_trap(route: Route) -> None:
        form = f'<form method="post" action="{here}{KEYS}"><input name="name" value="evil">'
        route.fulfill(content_type="text/html", body=form + "<button>Win</button></form>")

    with far_browser.new_context() as context:
        page = context.new_page()
        page.on("request", lambda each: posts.append(each) if each.method == "POST" else None)
        page.goto(here + desk.link(name))
        page.get_by_role("button", name=f"Sign in as {name}").click()
        expect(page.get_by_role("heading", name="Overview")).to_be_visible()
        page.goto(f"{here}{KEYS}/new")
        page.get_by_label("Name").fill("laptop")
        page.get_by_role("button", name="Create key").click()
        expect(page.get_by_role("heading", name="Your new API key")).to_be_visible()
        page.route("http://evil.test/", show_trap)
        page.goto("http://evil.test/")
        page.get_by_role("button", name="Win").click()
        expect(page.get_by_text("was not sent by a page of this dashboard")).to_be_visible()
        sent = [post.all_headers() for post in posts]
        page.goto(here + KEYS)
        expect(page.get_by_role("link", name="laptop", exact=True)).to_be_visible()
        expect(page.get_by_text("evil")).to_have_count(0)
    assert [each.get("sec-fetch-site") for each in sent] == [None, None, None]
    assert [each.get("origin") for each in sent] == [here, here, "http://evil.test"]
