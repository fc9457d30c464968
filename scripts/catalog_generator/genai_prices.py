"""Reads names and prices from the objects of genai-prices. Must not know litellm or our entries."""

import datetime as dt
from decimal import Decimal
from typing import Any

# Objects of genai-prices, which is installed for the generator only and thus untyped here.
Clause = Any
ModelPrice = Any
TieredPrice = Any
ModelInfo = Any
Provider = Any


def exact_names(clause: Clause) -> set[str]:
    """Return the ids that a match clause names exactly; patterns are left out."""
    if hasattr(clause, "equals"):
        return {clause.equals}
    return {name for part in getattr(clause, "or_", ()) for name in exact_names(part)}


def is_own_name(name: str) -> bool:
    """Tell whether a name is one of the provider's own, not a router's spelling of it."""
    return ":" not in name and not name.startswith("x-ai/")


def prices_in_force(model: ModelInfo, day: dt.datetime) -> tuple[ModelPrice, str]:
    """Return the prices of a model on a day and a note when they depend on time.

    Of prices by time of day the dearest is taken: the catalog has one price for the whole day.
    """
    if not isinstance(model.prices, list):
        return model.prices, ""
    candidates = []
    for conditional in reversed(model.prices):
        if hasattr(conditional.constraint, "start_time"):
            candidates.append(conditional.prices)
        elif conditional.constraint is None or conditional.constraint.active(day):
            candidates.append(conditional.prices)
            break
    dearest = max(candidates, key=lambda prices: price_at(prices.input_mtok, 0) or 0)
    return dearest, "by time of day; the dearest was taken" if len(candidates) > 1 else ""


def last_day_of(model: ModelInfo, day: dt.datetime) -> dt.date | None:
    """Return the last day of the prices that are in force on a day, if it is known already."""
    dated = model.prices if isinstance(model.prices, list) else []
    variants = [one for one in model.price_variants or () if "processing" not in one.when]
    starts = [
        one.constraint.start_date
        for one in (*dated, *variants)
        if hasattr(one.constraint, "start_date")
    ]
    future = [start for start in starts if start > day.date()]
    return min(future) - dt.timedelta(days=1) if future else None


def price_at(price: TieredPrice, above: int) -> Decimal | None:
    """Return a price for an input just above a threshold (0: the base price)."""
    if price is None or isinstance(price, Decimal):
        return price
    found: Decimal = price.base
    for tier in price.tiers:
        if above and above >= tier.start:
            found = tier.price
    return found


def thresholds(prices: ModelPrice) -> list[int]:
    """Return the sizes of input above which any of the prices changes."""
    tiered = [price for price in vars(prices).values() if hasattr(price, "tiers")]
    return sorted({tier.start for price in tiered for tier in price.tiers})


def is_per_token(prices: ModelPrice) -> bool:
    """Tell whether tokens, and web searches, are all that is charged for."""
    keys = {key for key, value in vars(prices).items() if value is not None}
    searches = {"web_searches_kcount", "storage_searches_kcount"}
    return "input_mtok" in keys and all(key.endswith("_mtok") for key in keys - searches)


def dearest_price(
    prices: ModelPrice, above: int, text: str, image: str, *, media: bool
) -> Decimal | None:
    """Return the price for text, or with `media` the dearer of those for text and image."""
    price = price_at(getattr(prices, text), above)
    other = price_at(getattr(prices, image), above) if media else None
    return max((p for p in (price, other) if p is not None), default=None)
