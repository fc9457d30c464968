"""The guide as pages, our endpoints as a page, and the guide's pictures."""

import re
from html import unescape
from pathlib import Path

import httpx
import pytest

from llmproxy.dashboard.api import read_operations
from llmproxy.dashboard.guide import PAGES, heading_id, load_pages
from tests.dashboard.helpers import NO_TLS, OWN, Desk
from tests.proxy.helpers import Site
from tests.support.raw_client import RawClient

DOCS = Path(__file__).parents[2] / "docs"
GUIDE = "/dashboard/guide"


def test_every_snippet_has_the_visitors_own_address(desk: Desk) -> None:
    url = desk.site.proxy.url
    page = unescape(desk.visitor().text(GUIDE))
    assert "127.0.0.1:8000" not in page
    assert f"export BASE_URL={url}" in page
    assert f'base_url = "{url}/v1/openai"' in page
    source = (DOCS / "user-guide.md").read_text("utf-8").replace("http://127.0.0.1:8000", url)
    fences = re.findall(r"^```\w*\n(.*?)^```", source, re.MULTILINE | re.DOTALL)
    shown = re.findall(r'<code id="snippet-\d+">(.*?)</code>', page, re.DOTALL)
    assert shown == fences


@pytest.mark.parametrize("name", PAGES)
def test_links_and_places_of_the_pages_exist(desk: Desk, name: str) -> None:
    visitor, pages = desk.visitor(), load_pages()
    html = visitor.text(f"{GUIDE}/{name}")
    article = html.partition("<article")[2].partition("</article>")[0]
    places = set(re.findall(r'id="([^"]+)"', html))
    for target in re.findall(r'href="([^"]+)"', article):
        path, _, place = unescape(target).partition("#")
        if path.startswith("http"):
            continue
        if not path:
            assert place in places, target
            continue
        assert path.startswith(GUIDE + "/"), target
        assert not place or f'id="{place}"' in pages[path.rpartition("/")[2]].html, target
        assert visitor.get(path).status_code == 200
    for picture in re.findall(r'<img src="([^"]+)"', article):
        answer = visitor.get(picture)
        assert answer.status_code == 200
        assert answer.headers["content-type"] == "image/png"


def test_ids_of_headings_are_those_that_links_in_markdown_name() -> None:
    assert heading_id("Sending a request only once") == "sending-a-request-only-once"
    assert heading_id("@anthropic-ai/sdk") == "anthropic-aisdk"


def test_the_guide_is_open_to_all_and_keeps_who_is_signed_in(desk: Desk) -> None:
    ann = desk.signed_in()
    assert ann.name in ann.text(GUIDE)
    nobody = desk.visitor().text(GUIDE)
    assert ann.name not in nobody
    assert "/dashboard/sign-in" in nobody
    assert desk.visitor().get(f"{GUIDE}/nothing").status_code == 404
    assert desk.visitor().get("/public/images/nothing.png").status_code == 404


def test_our_endpoints_stand_on_a_page_as_they_are_described(desk: Desk) -> None:
    visitor = desk.visitor()
    described = visitor.get("/openapi.json").json()
    page = unescape(visitor.text("/dashboard/api"))
    for path, item in described["paths"].items():
        for method, operation in item.items():
            assert f"{method.upper()} {path}</code>" in page
            for parameter in operation.get("parameters", ()):
                assert f"<code>{parameter['name']}</code>" in page
    assert "<code>usage_today.cost_usd</code>" in page
    assert "integer 1 to 1000 (default 100)" in page
    assert f'href="{desk.site.proxy.url}/openapi.json"' in page


def test_types_are_told_in_words() -> None:
    a_list = {"type": "array", "items": {"$ref": "#/components/schemas/Row"}}
    row = {"type": "object", "properties": {"a": {"oneOf": [{"type": "string"}, {"type": "null"}]}}}
    answer = {"type": "object", "properties": {"rows": a_list, "kind": {"const": "page"}}}
    response = {"description": "", "content": {"application/json": {"schema": answer}}}
    get = {"operationId": "x", "security": [{}], "responses": {"200": response}}
    document = {"paths": {"/x": {"get": get}}, "components": {"schemas": {"Row": row}}}
    (operation,) = read_operations(document)
    assert [tuple(field[:2]) for field in operation.fields] == [
        ("rows", "array of object"),
        ("rows[].a", "string or null"),
        ("kind", "“page”"),
    ]
    assert not operation.is_public


def test_with_a_port_of_its_own_the_dashboard_is_there_alone(site_with_two_ports: Site) -> None:
    proxy = site_with_two_ports.proxy
    name, _ = site_with_two_ports.books.user()
    link = proxy.run("users", "login-link", name).strip()
    own = httpx.URL(link).copy_with(path="/")
    assert own.port not in {proxy.port, None}
    with (
        httpx.Client(base_url=own, verify=NO_TLS) as pages,
        httpx.Client(base_url=proxy.url, verify=NO_TLS) as proxied,
    ):
        assert pages.get(GUIDE).status_code == 200
        assert f"export BASE_URL={proxy.url}\n" in unescape(pages.get(GUIDE).text)
        assert pages.get("/", headers={"accept": "text/html"}).status_code == 303
        assert pages.get("/public/images/api-key.png").status_code == 200
        signed_in = pages.post(link, headers=OWN)
        assert signed_in.status_code == 303
        assert pages.get("/dashboard").status_code == 200
        for path in ("/v1/key", "/healthz", "/openapi.json", "/metrics", "/dashboards", "/v1/"):
            assert pages.get(path).status_code == 404
        for path in ("/dashboard", GUIDE, "/public/images/api-key.png"):
            assert proxied.get(path).status_code == 404
        for path in ("/%64ashboard/sign-in", "//dashboard/sign-in", "/dashboard%2Fsign-in"):
            with RawClient(proxy.port) as client:
                client.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                assert client.recv_head().status == 404, path
        # The link that an operator makes there leads there too.
        proxy.run("users", "set", name, "--admin")
        pages.post(proxy.run("users", "login-link", name).strip(), headers=OWN)
        made = pages.post("/dashboard/admin/users/1/sign-in-link", headers=OWN)
        shown = re.search(r"http://[^<\s\"]+/dashboard/sign-in/[\w-]+", made.text)
        assert shown
        assert pages.get(shown[0]).status_code == 200
        assert proxied.get("/", headers={"accept": "text/html"}).status_code == 200
        assert proxied.get("/healthz").status_code == 200
        assert proxied.get("/v1/key").status_code == 401
