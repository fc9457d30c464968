"""Owns the page of the audit log: a search through it, and downloads of what is found."""

from functools import partial
from typing import Any, NamedTuple
from urllib.parse import urlencode

from litestar import HttpMethod, Request, Response, route
from litestar.handlers import HTTPRouteHandler

from llmproxy import audit
from llmproxy.audit import Look
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.downloads import Downloads, Rows, Table
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.storage.database import Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
ROWS = 20
DETAILS_CHARS_SHOWN = 240
"""Of more the page shows the beginning; downloads have all."""
TEXT_CHARS_MAX = 200
ROWS_AT_ONCE = 200
"""They take 2 ms of a download, for which the interpreter does little else."""
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


def audit_routes(site: Site, downloads: Downloads) -> list[HTTPRouteHandler]:
    """Return the routes of this page."""

    @route("/admin/audit", http_method=READING)
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        wanted = _read_wanted(request)
        signed_in, found = await site.read_as_admin(request, _read_acts, wanted, ROWS)
        values = {
            "acts": found.acts,
            "wanted": wanted,
            "chars_max": DETAILS_CHARS_SHOWN,
            "older": None if found.go_on is None else wanted.query(before=found.go_on),
            "looked_back_to_ms": found.back_to_ms,
            "query": wanted.query(before=None),
        }
        return admin_page(site, "admin_audit.html", signed_in, "Audit log", values)

    return [show, *downloads.routes("/admin/audit", _table)]


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


def _read_acts(tx: Tx, signed_in: SignedIn, wanted: Wanted, limit: int) -> Look:
    del signed_in
    return audit.look_back(
        tx, limit=limit, before=wanted.before, actor=wanted.actor, text=wanted.text
    )


def _table(request: Request[Any, Any, Any]) -> Table:
    """Return all that is found, from the newest act on, wherever the page stands."""
    wanted = _read_wanted(request)
    return Table("audit", COLUMNS, partial(_read_rows, wanted), is_for_admins=True)


def _read_rows(wanted: Wanted, tx: Tx, signed_in: SignedIn, place: int | None) -> Rows:
    found = _read_acts(tx, signed_in, wanted._replace(before=place), ROWS_AT_ONCE)
    return Rows([act.as_json() for act in found.acts], found.go_on)
