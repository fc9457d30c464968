"""Owns the page of the audit log: a search through it, and downloads of what is found."""

import csv
import io
import json
from collections.abc import AsyncIterator, Callable
from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler
from litestar.response import Stream

from llmproxy import audit
from llmproxy.audit import Act
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.site import HEADERS, SignedIn, Site
from llmproxy.plain_text import safe_cell
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
ROWS = 25
DETAILS_CHARS_SHOWN = 240
"""Of more the page shows the beginning; downloads have all."""
TEXT_CHARS_MAX = 200
ROWS_AT_ONCE = 1000
"""Downloads are read in so many rows: no reading transaction lasts."""
COLUMNS = ("id", "created_at", "actor", "act", "details")


class Wanted(NamedTuple):
    """What is looked for; None means anything."""

    actor: str | None
    text: str | None
    before: int | None

    def query(self, **changes: object) -> str:
        """Return it as the query of a link, with some of it changed."""
        found = {**self._asdict(), **changes}
        return urlencode({name: value for name, value in found.items() if value is not None})


def audit_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of this page."""

    @route("/admin/audit", http_method=READING)
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        wanted = _read_wanted(request)
        signed_in, found = await site.read_as_admin(request, _read_acts, wanted, ROWS + 1)
        acts = found[:ROWS]
        values = {
            "acts": acts,
            "wanted": wanted,
            "chars_max": DETAILS_CHARS_SHOWN,
            "older": wanted.query(before=acts[-1].id) if len(found) > ROWS else None,
            "query": wanted.query(before=None),
        }
        return admin_page(site, "admin_audit.html", signed_in, "Audit log", values)

    @route("/admin/audit.csv", http_method=READING)
    async def as_csv(request: Request[Any, Any, Any]) -> Response[Any]:
        return await _download(site, request, "audit.csv", "text/csv", _csv)

    @route("/admin/audit.jsonl", http_method=READING)
    async def as_jsonl(request: Request[Any, Any, Any]) -> Response[Any]:
        return await _download(site, request, "audit.jsonl", "application/x-ndjson", _jsonl)

    return [show, as_csv, as_jsonl]


def _read_wanted(request: Request[Any, Any, Any]) -> Wanted:
    query = request.query_params
    before = str(query.get("before", ""))
    return Wanted(
        actor=_text(query.get("actor")),
        text=_text(query.get("text")),
        before=int(before)
        if before.isascii() and before.isdecimal() and len(before) < 18
        else None,
    )


def _text(given: object) -> str | None:
    """Return what is to be looked for; no text of the log has what the database cannot take."""
    text = str(given or "").strip()[:TEXT_CHARS_MAX]
    return text.encode(errors="replace").decode() or None


def _read_acts(tx: Tx, signed_in: SignedIn, wanted: Wanted, limit: int) -> list[Act]:
    del signed_in
    return _find(tx, wanted, limit)


def _find(tx: Tx, wanted: Wanted, limit: int) -> list[Act]:
    return audit.list_acts(
        tx, limit=limit, before=wanted.before, actor=wanted.actor, text=wanted.text
    )


async def _download(
    site: Site,
    request: Request[Any, Any, Any],
    name: str,
    media_type: str,
    write: Callable[[list[Act]], str],
) -> Response[Any]:
    """Return all that is found, however much, as a file of this name."""
    wanted = _read_wanted(request)._replace(before=None)
    _, first = await site.read_as_admin(request, _read_acts, wanted, ROWS_AT_ONCE)

    async def pages() -> AsyncIterator[str]:
        acts = first
        if name.endswith(".csv"):
            yield _csv_row(COLUMNS)
        while acts:
            yield write(acts)
            if len(acts) < ROWS_AT_ONCE:
                return
            acts = await site.read(_find, wanted._replace(before=acts[-1].id), ROWS_AT_ONCE)

    headers = {
        **HEADERS,
        "cache-control": "no-store",
        "content-disposition": f'attachment; filename="{name}"',
    }
    return Stream(pages(), media_type=f"{media_type}; charset=utf-8", headers=headers)


def _csv(acts: list[Act]) -> str:
    rows = (act.as_json() for act in acts)
    return "".join(_csv_row(tuple(safe_cell(str(row[name])) for name in COLUMNS)) for row in rows)


def _csv_row(cells: tuple[str, ...]) -> str:
    line = io.StringIO()
    csv.writer(line, lineterminator="\n").writerow(cells)
    return line.getvalue()


def _jsonl(acts: list[Act]) -> str:
    # Only ASCII, so that nothing in it can steer a terminal.
    return "".join(json.dumps(act.as_json(), separators=(",", ":")) + "\n" for act in acts)
