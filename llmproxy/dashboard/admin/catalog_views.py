"""Owns what the catalog's pages show of models: rows of the list, and everything of one model."""

from collections.abc import Iterator
from typing import Any, NamedTuple

from litestar import Request

from llmproxy.catalog import Catalog, Model, Rates, Tier
from llmproxy.catalog_changes import FieldChange, changed_fields
from llmproxy.dashboard.forms import read_page_number
from llmproxy.live_catalog import LiveCatalog

ROWS = 30
TEXT_CHARS_MAX = 200


class Wanted(NamedTuple):
    """Which models are looked for."""

    search: str
    provider: str
    is_own: bool
    page: int
    """Counted from 1."""


class Found(NamedTuple):
    """A page of the list."""

    models: list[Model]
    total: int
    page: int
    has_more: bool


class PriceRow(NamedTuple):
    """What a million tokens of each class cost under some condition, in nano-USD."""

    when: str
    rates: Rates


class Details(NamedTuple):
    """Everything of one model."""

    model: Model
    is_own: bool
    rows: list[PriceRow]
    file_model: Model | None
    """The catalog file's, which an own one stands in front of."""
    changes: list[FieldChange]
    """What is different from the file's entry, of an own one."""


def read_text(request: Request[Any, Any, Any], name: str) -> str:
    """Return a value of an address as text that can be written into a page; it may be empty."""
    text = str(request.query_params.get(name, "")).strip()[: 2 * TEXT_CHARS_MAX]
    return text.encode(errors="replace").decode()


def read_filter(request: Request[Any, Any, Any]) -> Wanted:
    """Return which models an address asks for; what makes no sense in it is left out."""
    return Wanted(
        search=read_text(request, "search")[:TEXT_CHARS_MAX],
        provider=read_text(request, "provider")[:TEXT_CHARS_MAX],
        is_own=bool(read_text(request, "own")),
        page=read_page_number(request),
    )


def search_models(catalog: Catalog, wanted: Wanted) -> list[Model]:
    """Return all models that are looked for, whatever the page."""
    text = wanted.search.lower()
    return [
        model
        for model in catalog.models(wanted.provider or None)
        if (catalog.is_own(model) or not wanted.is_own)
        and any(text in f"{model.provider}/{name}".lower() for name in (model.id, *model.aliases))
    ]


def find_models(catalog: Catalog, wanted: Wanted) -> Found:
    """Return a page of the models that are looked for; the last one where there are fewer."""
    found = search_models(catalog, wanted)
    pages = max(1, -(-len(found) // ROWS))
    page = min(wanted.page, pages)
    return Found(found[(page - 1) * ROWS : page * ROWS], len(found), page, page < pages)


def find_details(live: LiveCatalog, provider: str, name: str) -> Details | None:
    """Return everything of a model, found by its id or an alias; None when there is none."""
    catalog = live.current
    model = catalog.find(provider, name)
    if model is None:
        return None
    is_own, before = catalog.is_own(model), live.file.find(provider, model.id)
    changes = list(changed_fields(before, model)) if is_own and before else []
    return Details(model, is_own, list(_price_rows(model)), before, changes)


def _price_rows(model: Model) -> Iterator[PriceRow]:
    prices = model.prices
    yield PriceRow("Base", prices.rates)
    yield from _tier_rows("Base", prices.tiers)
    for variant in prices.variants:
        when = " ".join((*variant.service_tiers, *variant.speeds))
        yield PriceRow(when, variant.rates)
        yield from _tier_rows(when, variant.tiers)


def _tier_rows(when: str, tiers: tuple[Tier, ...]) -> Iterator[PriceRow]:
    for tier in tiers:
        yield PriceRow(f"{when}, input above {tier.above_input_tokens:,}", tier.rates)
