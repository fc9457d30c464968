"""Owns what an operator must be told of a catalog that is right, and what to do about it. Pure.

Must not decide where it is told.
"""

from shlex import quote
from typing import NamedTuple

from llmproxy.catalog import Catalog, Contest


class CatalogWarning(NamedTuple):
    """What is so, and what to do about it."""

    provider: str
    message: str
    advice: str


def name_warnings(catalog: Catalog) -> list[CatalogWarning]:
    """Name each alias of an own entry that the catalog file has for another model."""
    return [_of_contest(one) for one in catalog.contests]


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
    return CatalogWarning(one.provider, message, advice)
