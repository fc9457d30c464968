"""Owns the page of the ledger: its standing, and the check that proves it."""

from typing import Any, NamedTuple

from litestar import HttpMethod, Request, Response, post, route
from litestar.handlers import HTTPRouteHandler

from llmproxy import reports
from llmproxy.dashboard.admin.page import admin_page
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.reports import Standing
from llmproxy.storage.database import DatabaseFiles, Tx

READING = [HttpMethod.GET, HttpMethod.HEAD]
LEDGER = "/admin/ledger"
PROBLEMS_SHOWN = 20
PROBLEM_CHARS_SHOWN = 160
REFRESH_S = 2
"""So often a browser asks again while a check runs."""


class Books(NamedTuple):
    """The ledger in a few numbers."""

    standing: Standing
    requests: int
    refused: int
    schema: int
    bytes: int
    """Of the database, with its write-ahead log."""


def ledger_routes(site: Site) -> list[HTTPRouteHandler]:
    """Return the routes of this page."""

    @route("/admin/ledger", http_method=READING)
    async def show(request: Request[Any, Any, Any]) -> Response[bytes]:
        checks = site.office.checks
        path = site.office.config.paths.database
        signed_in, books = await site.read_as_admin(request, _read_books, DatabaseFiles(path))
        values = {
            "books": books,
            "check": checks.last,
            "is_running": checks.is_running,
            "refresh_s": REFRESH_S if checks.is_running else None,
            "problems_max": PROBLEMS_SHOWN,
            "chars_max": PROBLEM_CHARS_SHOWN,
        }
        return admin_page(site, "admin_ledger.html", signed_in, "Ledger", values)

    @post("/admin/ledger/check")
    async def check(request: Request[Any, Any, Any]) -> Response[bytes]:
        signed_in = await site.require_admin(request)
        checks = site.office.checks
        # Only what begins is noted: nobody else's check may come between, nor a stop.
        if not site.office.is_stopping() and checks.reserve():
            try:
                await site.write_as_admin(request, _note_check)
                checks.start(signed_in.user.name)
            finally:
                checks.release()
        return site.redirect(signed_in.visit, LEDGER)

    return [show, check]


def _read_books(tx: Tx, signed_in: SignedIn, files: DatabaseFiles) -> Books:
    """Return what the page tells, without counting rows that may be millions."""
    del signed_in
    requests, refused = reports.count_requests(tx)
    schema = tx.execute("PRAGMA user_version").fetchone()[0]
    size = files.path.stat().st_size + (files.wal.stat().st_size if files.wal.exists() else 0)
    return Books(reports.standing(tx), requests, refused, schema, size)


def _note_check(tx: Tx, signed_in: SignedIn) -> None:
    signed_in.note(tx, "ledger verify", "")
