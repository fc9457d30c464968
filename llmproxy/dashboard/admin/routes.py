"""Owns the table of the operator's pages. Each reads and writes `as_admin`, which refuses users."""

from litestar.handlers import HTTPRouteHandler

from llmproxy.dashboard.admin.audit import audit_routes
from llmproxy.dashboard.admin.catalog import catalog_routes
from llmproxy.dashboard.admin.ledger import ledger_routes
from llmproxy.dashboard.admin.overview import overview_pages
from llmproxy.dashboard.admin.pool import pool_routes
from llmproxy.dashboard.admin.providers import provider_pages
from llmproxy.dashboard.admin.requests import request_pages
from llmproxy.dashboard.admin.tables import table_routes
from llmproxy.dashboard.admin.users import user_pages
from llmproxy.dashboard.downloads import Downloads
from llmproxy.dashboard.site import Site


def admin_routes(site: Site, downloads: Downloads) -> list[HTTPRouteHandler]:
    """Return the routes of these pages."""
    return [
        *overview_pages(site),
        *user_pages(site),
        *request_pages(site),
        *provider_pages(site),
        *audit_routes(site, downloads),
        *catalog_routes(site),
        *ledger_routes(site),
        *pool_routes(site),
        *table_routes(site, downloads),
    ]
