"""Owns what an operator must be told of a catalog that is right, and what to do about it. Pure.

Must not decide where it is told.
"""

from datetime import date
from shlex import quote
from typing import NamedTuple

from llmproxy.catalog import Catalog, Contest

PRICES_END_WITHIN_DAYS = 30


class CatalogWarning(NamedTuple):
    """What is so, and what to do about it; `name` is what it is about."""

    name: str
    provider: str
    message: str
    advice: str


def name_warnings(catalog: Catalog) -> list[CatalogWarning]:
    """Name each alias of an own entry that the catalog file has for another model."""
    return [_of_contest(one) for one in catalog.contests]


def date_warnings(catalog: Catalog, today: date) -> list[CatalogWarning]:
    """Name each provider's models whose prices end soon or have ended, by the day of their end."""
    ending: dict[tuple[str, str], list[str]] = {}
    for model in catalog.models():
        until = model.prices_until
        if until and (date.fromisoformat(until) - today).days <= PRICES_END_WITHIN_DAYS:
            name = f"{model.provider}/{model.id}" + " (your own entry)" * catalog.is_own(model)
            ending.setdefault((until, model.provider), []).append(name)
    return [
        _of_end(date.fromisoformat(until), provider, names, today)
        for (until, provider), names in sorted(ending.items())
    ]


def _of_end(until: date, provider: str, names: list[str], today: date) -> CatalogWarning:
    which = ", ".join(names)
    if until < today:
        message = f"prices have changed since {until}, and the old ones are charged: {which}"
        when = "now"
    else:
        message = f"prices hold until {until} only: {which}"
        when = "when a newer catalog has them"
    update = "llmproxy catalog update --from FILE|URL"
    by_hand = f"llmproxy catalog set {quote(provider)} MODEL --in-price USD --out-price USD"
    advice = (
        f"No price changes by itself. Take over the new ones {when}: {update}. "
        f"One alone, or that of your own entry: {by_hand}"
    )
    return CatalogWarning("price dates", provider, message, advice)


def _of_contest(one: Contest) -> CatalogWarning:
    name = f"{one.provider}/{one.name}"
    own = f"{one.provider}/{one.own_id}"
    provider = quote(one.provider)
    drop = f"llmproxy catalog set {provider} {quote(one.own_id)} --drop-alias {quote(one.name)}"
    if one.is_lost:
        message = (
            f"{name} is a model of the catalog now, and no other name of your own entry {own} "
            "any more: it costs what the catalog says"
        )
        price = f"llmproxy catalog set {provider} {quote(one.name)} --in-price USD --out-price USD"
        advice = f"For a price of your own: {price}. If it is right so: {drop}"
    else:
        message = (
            f"{name} stays another name of your own entry {own}, though the catalog has it for "
            f"{one.provider}/{one.file_id}"
        )
        advice = f"To leave the name to the catalog: {drop}"
    return CatalogWarning("names", one.provider, message, advice)
