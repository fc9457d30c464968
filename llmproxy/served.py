"""Owns the question whether an answer came from another model of the catalog than was asked for.

The asked model's prices are charged all the same: they were quoted and held. Pure.
"""

from llmproxy.catalog import Catalog, Model


def other_entry(catalog: Catalog, provider: str, asked: str, served: str | None) -> Model | None:
    """Return the entry that an answer's model is a name of, if it is another than the asked one's.

    None also where the catalog does not know one of the two names, and where the provider itself
    says what an answer costs, whoever made it.
    """
    if served is None or served == asked:
        return None
    found, own = catalog.find(provider, served), catalog.find(provider, asked)
    if found is None or own is None or found is own or own.prices.is_cost_from_provider:
        return None
    return found


def costs_alike(one: Model, other: Model) -> bool:
    """Say whether two models have the same prices, whatever else differs."""
    return (one.prices, one.multiplier_micro) == (other.prices, other.multiplier_micro)
