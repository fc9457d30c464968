"""Owns what can be downloaded: what the pages of requests, credit and models show, in full."""

from functools import partial
from typing import Any

import msgspec
from litestar import Request
from litestar.handlers import HTTPRouteHandler

from llmproxy import reports
from llmproxy.catalog import FURTHER_PRICES, Catalog
from llmproxy.clock import rfc3339
from llmproxy.dashboard import credit, models, request_query
from llmproxy.dashboard.downloads import Downloads, Rows, Table
from llmproxy.dashboard.forms import read_query
from llmproxy.dashboard.models import ModelRow, Wanted
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.money import format_usd
from llmproxy.reports import CreditEntry, RequestFilter
from llmproxy.storage.database import Tx

REQUESTS_AT_ONCE = 50
"""They take 3 ms, for which the interpreter does little else."""
CREDITS_AT_ONCE = 100
CREDIT_COLUMNS = ("created_at", "kind", "amount_usd", "reason")
MODEL_COLUMNS = (
    *("provider", "id", "aliases", "mode", "available", "in_price", "out_price", "cache_read"),
    *("cache_write", "cache_write_1h", *FURTHER_PRICES, "max_input_tokens", "max_output_tokens"),
)


def download_routes(site: Site, downloads: Downloads) -> list[HTTPRouteHandler]:
    """Return the routes of downloads; each takes the filter of its page."""
    return [
        *downloads.routes("/requests", _requests),
        *downloads.routes("/credit", _credit),
        *downloads.routes("/models", partial(_models, site)),
    ]


def _requests(request: Request[Any, Any, Any]) -> Table:
    wanted = request_query.read_filter(read_query(request)).wanted
    columns = reports.REQUEST_COLUMNS
    return Table("requests", columns, partial(_read_requests, wanted))


def _read_requests(wanted: RequestFilter, tx: Tx, signed_in: SignedIn, place: bytes | None) -> Rows:
    wanted = msgspec.structs.replace(wanted, user_id=signed_in.user.id)
    if place is not None:
        wanted = msgspec.structs.replace(wanted, before=place)
    found = reports.look_back(tx, wanted, limit=REQUESTS_AT_ONCE)
    return Rows([row.as_json() for row in found.rows], found.go_on)


def _credit(request: Request[Any, Any, Any]) -> Table:
    del request  # there is no filter
    return Table("credit", CREDIT_COLUMNS, _read_credit)


def _read_credit(tx: Tx, signed_in: SignedIn, place: int | None) -> Rows:
    found, is_all = credit.next_credits(tx, signed_in, place, limit=CREDITS_AT_ONCE)
    return Rows([_credit_row(each) for each in found], None if is_all else found[-1].id)


def _credit_row(entry: CreditEntry) -> dict[str, object]:
    return {
        "created_at": rfc3339(entry.created_at_ms),
        "kind": entry.kind,
        "amount_usd": format_usd(entry.amount_nanousd),
        "reason": entry.reason,
    }


def _models(site: Site, request: Request[Any, Any, Any]) -> Table:
    wanted = models.read_wanted(read_query(request))
    return Table("models", MODEL_COLUMNS, partial(_read_models, site.catalog(), wanted))


def _read_models(
    catalog: Catalog, wanted: Wanted, tx: Tx, signed_in: SignedIn, place: None
) -> Rows:
    del place  # a catalog is small: all of it comes at once
    rows = models.list_models(tx, signed_in, catalog, wanted)
    return Rows([_model_row(row) for row in rows], None)


def _model_row(row: ModelRow) -> dict[str, object]:
    """Return a model under the names of `catalog list --json`; prices as the user pays them."""
    model, rate = row.model, row.rate
    return {
        "provider": model.provider,
        "id": model.id,
        "aliases": list(model.aliases),
        "mode": model.mode,
        "available": row.is_available,
        "in_price": rate.input,
        "out_price": rate.output,
        "cache_read": rate.cache_read,
        "cache_write": rate.cache_write_5m,
        "cache_write_1h": rate.cache_write_1h,
        **{name: rate.further.get(name) for name in FURTHER_PRICES},
        "max_input_tokens": model.max_input_tokens,
        "max_output_tokens": model.max_output_tokens,
    }
