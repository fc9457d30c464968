"""Owns what the Models pages tell: models, and what each costs the user who looks.

A price of the catalog times the user's multiplier and the model's own is what tokens cost; it is
shown exactly, however many decimals it takes.
"""

import re
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from llmproxy import key_pool
from llmproxy.catalog import Catalog, Model, Rates, further_rates
from llmproxy.dashboard.errors import FormError, MissingError
from llmproxy.dashboard.signed_in import SignedIn
from llmproxy.money import format_rate_times
from llmproxy.storage.database import Tx

ROWS = 40
SEARCH_CHARS_MAX = 200
_PAGE = re.compile(r"[1-9]\d{0,3}", re.ASCII)


class Wanted(NamedTuple):
    """Which models are asked for; empty means any."""

    search: str
    provider: str
    page: int


class Rate(NamedTuple):
    """What a million tokens of each class cost a user, in USD."""

    when: str
    input: str
    cache_read: str
    cache_write_5m: str
    cache_write_1h: str
    output: str
    further: dict[str, str]
    """Prices that few models have, by their name in a catalog file (`catalog.FURTHER_PRICES`)."""


class ModelRow(NamedTuple):
    """A model, and its base prices for who is signed in."""

    model: Model
    name: str
    """Provider and id."""
    rate: Rate
    is_available: bool
    """Its provider has a key that works."""


class ModelPage(NamedTuple):
    """A page of models."""

    rows: list[ModelRow]
    providers: list[str]
    total: int
    pages: int


class ModelDetails(NamedTuple):
    """A model with everything that its price depends on."""

    row: ModelRow
    rates: list[Rate]
    geo_micro: dict[str, int]


def read_wanted(query: Mapping[str, str]) -> Wanted:
    """Return which models an address asks for.

    Raises:
        FormError: a value cannot be taken.
    """
    page = query.get("page", "") or "1"
    if not _PAGE.fullmatch(page):
        raise FormError("This page is not there. Begin again with the first.")
    search, provider = query.get("search", ""), query.get("provider", "")
    if max(len(search), len(provider)) > SEARCH_CHARS_MAX:
        raise FormError("Search for something shorter.")
    return Wanted(search, provider, int(page))


def read_models(tx: Tx, signed_in: SignedIn, catalog: Catalog, wanted: Wanted) -> ModelPage:
    """Return a page of models, those that are available first."""
    rows = list_models(tx, signed_in, catalog, wanted)
    first = (wanted.page - 1) * ROWS
    providers = sorted({model.provider for model in catalog.models()})
    return ModelPage(rows[first : first + ROWS], providers, len(rows), -(-len(rows) // ROWS))


def list_models(tx: Tx, signed_in: SignedIn, catalog: Catalog, wanted: Wanted) -> list[ModelRow]:
    """Return all models that are wanted, those that are available first."""
    usable, text = key_pool.list_usable_providers(tx), wanted.search.lower()
    found = [
        _row(model, signed_in, usable)
        for model in catalog.models()
        if wanted.provider in {"", model.provider}
        and any(text in f"{model.provider}/{name}".lower() for name in (model.id, *model.aliases))
    ]
    return sorted(found, key=lambda row: not row.is_available)


def read_model(tx: Tx, signed_in: SignedIn, catalog: Catalog, name: str) -> ModelDetails:
    """Return a model by provider and id or alias.

    Raises:
        MissingError: the catalog has none such.
    """
    provider, _, model_id = name.partition("/")
    model = catalog.find(provider, model_id)
    if model is None:
        raise MissingError
    row = _row(model, signed_in, key_pool.list_usable_providers(tx))
    user_micro = signed_in.user.rate_multiplier_micro
    rates = [_rate(when, rates, model, user_micro) for when, rates in _all_rates(model)]
    return ModelDetails(row, rates, model.prices.geo_micro)


def _all_rates(model: Model) -> Iterator[tuple[str, Rates]]:
    """Yield all rates of a model, and when each is the one that counts."""
    prices = model.prices
    yield "usually", prices.rates
    for tier in prices.tiers:
        yield f"input above {tier.above_input_tokens:,} tokens", tier.rates
    for variant in prices.variants:
        named = (("service tier", variant.service_tiers), ("speed", variant.speeds))
        when = ", ".join(f"{what} {' or '.join(each)}" for what, each in named if each)
        yield when, variant.rates
        for tier in variant.tiers:
            yield f"{when}, input above {tier.above_input_tokens:,} tokens", tier.rates


def _row(model: Model, signed_in: SignedIn, usable: set[str]) -> ModelRow:
    user_micro = signed_in.user.rate_multiplier_micro
    rate = _rate("usually", model.prices.rates, model, user_micro)
    return ModelRow(model, f"{model.provider}/{model.id}", rate, model.provider in usable)


def _rate(when: str, rates: Rates, model: Model, user_micro: int) -> Rate:
    def paid(rate: int) -> str:
        return format_rate_times(rate, user_micro, model.multiplier_micro)

    return Rate(
        when,
        paid(rates.input),
        paid(rates.cache_read),
        paid(rates.cache_write_5m),
        paid(rates.cache_write_1h),
        paid(rates.output),
        {name: paid(rate) for name, rate in further_rates(rates).items()},
    )
