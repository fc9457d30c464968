"""Owns the user guide as pages: the files of docs/ that users need, with this server's address.

Anybody may read them. They are made from Markdown at the first visit, in a thread, and kept.
"""

import asyncio
import re
from collections.abc import Mapping
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.params import FromPath

from llmproxy.client_settings import BASE_URL
from llmproxy.dashboard.address import PICTURES, PREFIX
from llmproxy.dashboard.errors import MissingError, NotSignedInError
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import HEADERS, Site

if TYPE_CHECKING:
    from markdown_it.token import Token

READING = [HttpMethod.GET, HttpMethod.HEAD]
FOLDER = Path(__file__).parent / "guide_pages"
"""Links to the files of docs/: the package gets the files themselves."""
PAGES = {
    "user-guide": "Guide",
    "clients": "Clients",
    "api": "Your figures by script",
    "what-gets-charged": "What gets charged",
    "limits": "Limits",
    "endpoints": "Endpoints",
    "errors": "Errors",
}
_AT, _ROOT = "/-at-/", "/-root-/"
"""Stand in the pages for where the dashboard, and the server, are: asked for at each visit."""


class GuidePage(NamedTuple):
    """One page, ready but for addresses; `contents` are its headings by their ids."""

    title: str
    html: str
    contents: dict[str, str]


def guide_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""
    made: dict[str, GuidePage] = {}
    making = asyncio.Lock()

    async def find(name: FromPath[str]) -> GuidePage:
        async with making:
            if not made:
                made.update(await asyncio.to_thread(load_pages))
        if name not in made:
            raise MissingError
        return made[name]

    async def show(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        found, visit = await find(name), site.visit(request)
        # The files name that address, in whose place the visitor's own is put.
        html = found.html.replace(BASE_URL, escape(visit.base_url))
        html = html.replace(_AT, visit.root + PREFIX + "/").replace(_ROOT, visit.root + "/")
        values = {"page": "guide", "guide": found, "html": html, "pages": PAGES, "here": name}
        return await page_for_all(site, request, "guide.html", values)

    @route("/guide", http_method=READING)
    async def guide(request: Request[Any, Any, Any]) -> Response[bytes]:
        return await show(request, "user-guide")

    @route("/guide/{name:str}", http_method=READING)
    async def further(request: Request[Any, Any, Any], name: FromPath[str]) -> Response[bytes]:
        return await show(request, name)

    return [guide, further]


async def page_for_all(
    site: Site, request: Request[Any, Any, Any], template: str, values: Mapping[str, object]
) -> Response[bytes]:
    """Return a page that anybody may read; who is signed in keeps their navigation."""
    signed_in: SignedIn | None
    try:
        signed_in = await site.require_user(request)
    except NotSignedInError:
        signed_in = None
    visit = site.visit(request)
    values = {**values, "base": visit.base_url}
    return site.page(template, visit, values, signed_in=signed_in)


def pictures_route() -> HTTPRouteHandler:
    """Return the route of the guide's pictures, where the guide says that they are."""
    pictures = {path.name: path.read_bytes() for path in sorted(FOLDER.glob("*.png"))}

    @route(PICTURES + "/{name:str}", http_method=READING)
    async def picture(name: FromPath[str]) -> Response[bytes]:
        body = pictures.get(name)
        headers = {**HEADERS, "cache-control": "public, max-age=86400"}
        if body is None:
            return Response(b"", status_code=404, media_type="text/plain", headers=headers)
        return Response(body, media_type="image/png", headers=headers)

    return picture


def load_pages() -> dict[str, GuidePage]:
    """Return all pages by their names."""
    return {name: _load(FOLDER / f"{name}.md") for name in PAGES}


def _load(path: Path) -> GuidePage:
    from markdown_it import MarkdownIt  # noqa: PLC0415 - only who reads the guide needs it

    markdown = MarkdownIt("commonmark", {"html": False}).enable("table")
    tokens = markdown.parse(path.read_text("utf-8"))
    contents, title, snippets = {}, "", 0
    for at, token in enumerate(tokens):
        if token.type == "heading_open":
            text = tokens[at + 1].content.replace("`", "")
            token.attrSet("id", heading_id(text))
            if token.tag == "h1":
                title = text
            elif token.tag == "h2":
                contents[heading_id(text)] = text
        elif token.type == "fence":
            snippets += 1
            token.meta["number"] = snippets
        _lead_on(token.children or [])
    markdown.add_render_rule("fence", _fence)
    markdown.add_render_rule("table_open", lambda *_: '<div class="scroll"><table>\n')
    markdown.add_render_rule("table_close", lambda *_: "</table></div>\n")
    return GuidePage(title, markdown.renderer.render(tokens, markdown.options, {}), contents)


def heading_id(text: str) -> str:
    """Return the id of a heading, as links in Markdown name it."""
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")


def _lead_on(tokens: list["Token"]) -> None:
    """Let links lead to pages here, and pictures to where they are; what else there is, is text."""
    leads_nowhere = False
    for token in tokens:
        if token.type == "image":
            name = str(token.attrGet("src")).rpartition("/")[2]
            token.attrSet("src", f"{_ROOT}{PICTURES.strip('/')}/{name}")
        elif token.type == "link_open":
            target = _target(str(token.attrGet("href")))
            leads_nowhere = target is None
            token.attrSet("href", target or "")
        if leads_nowhere and token.type in {"link_open", "link_close"}:
            leads_nowhere = token.type == "link_open"
            token.type, token.content = "text", ""


def _target(href: str) -> str | None:
    """Return where a link of docs/ leads here; None for the operator's pages."""
    name, _, place = href.partition("#")
    page = name.removesuffix(".md")
    if page in PAGES:
        return f"{_AT}guide/{page}" + (f"#{place}" if place else "")
    return None if name.endswith(".md") else href


def _fence(_renderer: object, tokens: list["Token"], at: int, *_: object) -> str:
    """Return a snippet with its copy button, which the script shows."""
    token = tokens[at]
    name, text = f"snippet-{token.meta['number']}", escape(token.content)
    button = f'<button type="button" class="quiet" data-copy="{name}" hidden>Copy</button>'
    return (
        f'<div class="snippet">{button}'
        f'<pre tabindex="0"><code id="{name}">{text}</code></pre></div>\n'
    )
