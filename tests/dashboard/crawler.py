"""Finds every page that can be reached by links, one of each route: whatever is added is found."""

import re
from collections.abc import Iterator
from html import unescape
from urllib.parse import urljoin, urlsplit

from tests.dashboard.helpers import Visitor
from tests.dashboard.table import routes

FILES = (".csv", ".jsonl")
"""What these addresses lead to may be a million rows."""
VARIANTS_MAX = 3
"""Pages of one route that are looked at: with and without a filter, say."""


def crawl(visitor: Visitor, *starts: str) -> list[str]:
    """Return the addresses of pages, from some on by links; those of files are left out."""
    waiting, seen, counts, found = [*starts], {*starts}, dict[str, int](), list[str]()
    while waiting:
        path = waiting.pop(0)
        route = route_of(urlsplit(path).path)
        if counts.get(route, 0) >= VARIANTS_MAX:
            continue
        counts[route] = counts.get(route, 0) + 1
        answer = visitor.get(path, follow_redirects=True)
        assert answer.status_code == 200, path
        found.append(path)
        for target in links(answer.text, str(answer.url.path)):
            if target not in seen and not urlsplit(target).path.endswith(FILES):
                seen.add(target)
                waiting.append(target)
    return found


def links(html: str, base: str) -> Iterator[str]:
    """Yield where a page's links lead, within the dashboard."""
    for href in re.findall(r'<a [^>]*?href="([^"]*)"', html):
        target = urljoin(base, unescape(href).partition("#")[0])
        if re.match(r"/dashboard(/|\?|$)", target):
            yield target


def route_of(path: str) -> str:
    """Return the route that answers a path."""
    pages = {route for method, route in routes() if method == "GET"}
    # The longer fixed beginning comes first, then what is longer: a parameter may be a path.
    for route in sorted(pages, key=lambda each: (-len(each.partition("{")[0]), -len(each))):
        if re.fullmatch(re.sub(r"{[^}]*}", ".+", route), path):
            return route
    raise AssertionError(f"a link leads to {path}, which is no page")
