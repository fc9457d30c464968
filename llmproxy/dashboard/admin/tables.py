"""Owns what an operator can download: users, providers with their keys, and the catalog, in full.

The fields are called as the command line's `--json` calls them; a provider key's secret is in none.
"""

from collections.abc import Iterator
from functools import partial
from typing import Any

from litestar import Request
from litestar.handlers import HTTPRouteHandler

from llmproxy import key_pool, reports
from llmproxy.catalog import FURTHER_PRICES, Catalog, Model
from llmproxy.clock import rfc3339
from llmproxy.dashboard.admin import catalog_views
from llmproxy.dashboard.admin.users import read_search
from llmproxy.dashboard.downloads import Downloads, Rows, Table
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.dashboard.site import Site
from llmproxy.key_pool import Provider, ProviderKey
from llmproxy.money import format_multiplier, format_usd
from llmproxy.provider_events import Statuses, last_statuses
from llmproxy.provider_states import state_of
from llmproxy.reports import UserRow
from llmproxy.shown import key_fields, model_fields, other_prices
from llmproxy.storage.database import Tx

USERS_AT_ONCE = 200
"""They take 2 ms, for which the interpreter does little else."""
USER_COLUMNS = (
    *("name", "balance_usd", "held_usd", "available_usd", "rate_multiplier", "disabled", "admin"),
    "created_at",
)
PROVIDER_COLUMNS = (
    *("provider", "provider_state", "provider_reason", "provider_since", "provider_until"),
    *("provider_by", "dialect", "base_url", "name", "masked", "state", "reason"),
    *("upstream_status", "since", "until", "by"),
)
CACHE_PRICES = ("cache_read", "cache_write", "cache_write_1h")
CATALOG_COLUMNS = (
    *("provider", "id", "aliases", "mode", "in_price", "out_price", *CACHE_PRICES),
    *(*FURTHER_PRICES, "multiplier", "max_input_tokens", "max_output_tokens"),
    "own",
)


def table_routes(site: Site, downloads: Downloads) -> list[HTTPRouteHandler]:
    """Return the routes of these downloads; each takes the filter of its page."""
    return [
        *downloads.routes("/admin/users", _users),
        *downloads.routes("/admin/providers", _providers),
        *downloads.routes("/admin/catalog", partial(_catalog, site)),
    ]


# --- users ---------------------------------------------------------------------------------------


def _users(request: Request[Any, Any, Any]) -> Table:
    read = partial(_read_users, read_search(request))
    return Table("users", USER_COLUMNS, read, is_for_admins=True)


def _read_users(text: str, tx: Tx, signed_in: SignedIn, place: str | None) -> Rows:
    del signed_in
    found = reports.list_user_rows(tx, text=text, limit=USERS_AT_ONCE, after=place or "")
    is_all = len(found) < USERS_AT_ONCE
    return Rows([_user_row(user) for user in found], None if is_all else found[-1].name)


def _user_row(user: UserRow) -> dict[str, object]:
    return {
        "name": user.name,
        "balance_usd": format_usd(user.balance_nanousd),
        "held_usd": format_usd(user.held_nanousd),
        "available_usd": format_usd(user.balance_nanousd - user.held_nanousd),
        "rate_multiplier": format_multiplier(user.rate_multiplier_micro),
        "disabled": user.is_disabled,
        "admin": user.is_admin,
        "created_at": rfc3339(user.created_at_ms),
    }


# --- providers and their keys --------------------------------------------------------------------


def _providers(request: Request[Any, Any, Any]) -> Table:
    del request  # there is no filter
    return Table("providers", PROVIDER_COLUMNS, _read_providers, is_for_admins=True)


def _read_providers(tx: Tx, signed_in: SignedIn, place: None) -> Rows:
    del signed_in, place  # they are set up by hand, so they are few: all come at once
    keys, statuses = key_pool.keys_by_provider(tx), last_statuses(tx)
    return Rows(
        [
            row
            for provider in key_pool.list_providers(tx)
            for row in _provider_rows(provider, keys.get(provider.name, []), statuses)
        ],
        None,
    )


def _provider_rows(
    provider: Provider, keys: list[ProviderKey], statuses: Statuses
) -> Iterator[dict[str, object]]:
    """Yield a row for each key, with what is to be said of the provider; one where it has none."""
    about = {
        "provider": provider.name,
        "provider_state": state_of(provider, keys).replace(" ", "_"),
        "provider_reason": provider.paused_reason,
        "provider_since": rfc3339(provider.paused_at_ms),
        "provider_until": rfc3339(provider.paused_until_ms),
        "provider_by": provider.paused_by,
        "dialect": provider.dialect,
        "base_url": provider.base_url,
    }
    for key in keys:
        yield {**about, **key_fields(key, statuses)}
    if not keys:
        yield {**about, **dict.fromkeys(PROVIDER_COLUMNS[len(about) :])}


# --- the catalog ---------------------------------------------------------------------------------


def _catalog(site: Site, request: Request[Any, Any, Any]) -> Table:
    read = partial(_read_catalog, site.catalog(), catalog_views.read_filter(request))
    return Table("catalog", CATALOG_COLUMNS, read, is_for_admins=True)


def _read_catalog(
    catalog: Catalog, wanted: catalog_views.Wanted, tx: Tx, signed_in: SignedIn, place: None
) -> Rows:
    del tx, signed_in, place  # a catalog is small: all of it comes at once
    found = catalog_views.search_models(catalog, wanted)
    return Rows([_model_row(model, is_own=catalog.is_own(model)) for model in found], None)


def _model_row(model: Model, *, is_own: bool) -> dict[str, object]:
    # A download has a column for each price, also for those that this model does not have.
    prices = dict.fromkeys((*CACHE_PRICES, *FURTHER_PRICES)) | other_prices(model.prices.rates)
    return model_fields(model, prices, is_own=is_own)
