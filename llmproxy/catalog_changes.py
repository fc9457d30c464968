"""Owns the difference between two catalogs, made for a person to review. Pure.

A price that jumps by more than `JUMP_MAX` times, up or down, is marked: it is a slip of a decimal
point more often than a new price. Must not decide what follows from that.
"""

from collections.abc import Callable, Iterator
from decimal import Decimal
from typing import NamedTuple

from llmproxy.catalog import FURTHER_PRICES, Catalog, Model, Rates, Variant
from llmproxy.money import MULTIPLIER_ONE, format_multiplier, format_rate

JUMP_MAX = 20

_CLASSES = (
    ("in_price", "input"),
    ("out_price", "output"),
    ("cache_read", "cache_read"),
    ("cache_write", "cache_write_5m"),
    ("cache_write_1h", "cache_write_1h"),
    *((name, field) for name, (field, _) in FURTHER_PRICES.items()),
)

_OTHER_FIELDS = (
    *("mode", "aliases", "max_input_tokens", "max_output_tokens", "reasoning"),
    "prices_until",
)


class FieldChange(NamedTuple):
    """One field of a model that differs; None stands for none."""

    name: str
    old: str | None
    new: str | None
    percent: str | None = None
    """Such as `+25 %`, for prices that were above zero."""
    is_jump: bool = False


class ModelChange(NamedTuple):
    """One model that is `new`, `gone` or `changed`."""

    provider: str
    model: str
    kind: str
    fields: list[FieldChange]

    @property
    def jumps(self) -> list[FieldChange]:
        """The prices that jump."""
        return [field for field in self.fields if field.is_jump]


def compare(old: Catalog, new: Catalog) -> list[ModelChange]:
    """Return every model that differs, sorted by provider and id."""
    old_models = {(model.provider, model.id): model for model in old.models()}
    new_models = {(model.provider, model.id): model for model in new.models()}
    changes = []
    for name in sorted(old_models.keys() | new_models.keys()):
        before, after = old_models.get(name), new_models.get(name)
        kind = "changed" if before and after else "new" if after else "gone"
        fields = list(changed_fields(before, after))
        if fields:
            changes.append(ModelChange(*name, kind, fields))
    return changes


def changed_fields(old: Model | None, new: Model | None) -> Iterator[FieldChange]:
    """Yield what differs between two versions of a model; of a new or gone one, its two prices."""
    if old is None or new is None:
        before, after = _base_prices(old), _base_prices(new)
        for name, _ in _CLASSES[:2]:
            yield FieldChange(name, before.get(name), after.get(name))
        return
    yield from _changed_prices(old, new)
    if old.multiplier_micro != new.multiplier_micro:
        yield _change("multiplier", old.multiplier_micro, new.multiplier_micro, format_multiplier)
    old_geo, new_geo = old.prices.geo_micro, new.prices.geo_micro
    for geo in sorted(old_geo.keys() | new_geo.keys()):
        before_micro, after_micro = old_geo.get(geo), new_geo.get(geo)
        if before_micro != after_micro:
            compared = (before_micro or MULTIPLIER_ONE, after_micro or MULTIPLIER_ONE)
            yield _change(f"region {geo}", *compared, format_multiplier)
    if old.prices.is_cost_from_provider != new.prices.is_cost_from_provider:
        yield FieldChange("cost_from", _cost_from(old), _cost_from(new))
    for name in _OTHER_FIELDS:
        before_value, after_value = getattr(old, name), getattr(new, name)
        if before_value != after_value:
            yield FieldChange(name, _text(before_value), _text(after_value))


def _cost_from(model: Model) -> str:
    return "provider" if model.prices.is_cost_from_provider else "tokens"


def _base_prices(model: Model | None) -> dict[str, str]:
    if model is None:
        return {}
    rates = model.prices.rates
    return {"in_price": format_rate(rates.input), "out_price": format_rate(rates.output)}


def _changed_prices(old: Model, new: Model) -> Iterator[FieldChange]:
    old_rates, new_rates = _rates_by_scope(old), _rates_by_scope(new)
    for scope in old_rates | new_rates:
        for name, field in _CLASSES:
            before, after = old_rates.get(scope), new_rates.get(scope)
            old_rate, new_rate = _rate(before, field), _rate(after, field)
            if old_rate == new_rate or (_is_fallback(before, field) and _is_fallback(after, field)):
                continue
            # What had no price of its own had that of the model, as far as there was one.
            known = _charged(before or old.prices.rates, field)
            reached = _charged(after or new.prices.rates, field)
            charged = (known, old.multiplier_micro), (reached, new.multiplier_micro)
            yield FieldChange(
                f"{scope}: {name}" if scope else name,
                None if old_rate is None else format_rate(old_rate),
                None if new_rate is None else format_rate(new_rate),
                _percent(old_rate, new_rate),
                is_jump=_jumps(known, reached) or _jumps(*(_times(*each) for each in charged)),
            )


def _scope(variant: Variant) -> str:
    speeds = (f"speed {speed}" for speed in variant.speeds)
    return " ".join((*variant.service_tiers, *speeds))


def _rates_by_scope(model: Model) -> dict[str, Rates]:
    """Return all rates of a model by what they apply to; "" is the base."""
    prices = model.prices
    scopes = [("", prices.rates, prices.tiers)]
    scopes += [(_scope(variant), variant.rates, variant.tiers) for variant in prices.variants]
    found: dict[str, Rates] = {}
    for scope, rates, tiers in scopes:
        found[scope] = rates
        for tier in tiers:
            found[f"{scope} above {tier.above_input_tokens:,}".strip()] = tier.rates
    return found


def _rate(rates: Rates | None, field: str) -> int | None:
    return None if rates is None else getattr(rates, field)


def _charged(rates: Rates, field: str) -> int | None:
    """Return what a class costs: audio and images without a price of their own, what text does."""
    rate: int | None = getattr(rates, field)
    if field == "cache_read_audio" and rate is None:
        return rates.cache_read
    if rate is not None or not field.startswith(("input_", "output_")):
        return rate
    return rates.input if field.startswith("input_") else rates.output


def _is_fallback(rates: Rates | None, field: str) -> bool:
    """Say whether a cache price is the input's: then that says it all."""
    if rates is None:
        return True
    is_of_all = field.startswith("cache") and field != "cache_read_audio"
    return is_of_all and getattr(rates, field) == rates.input


def _change(name: str, old: int, new: int, form: Callable[[int], str]) -> FieldChange:
    return FieldChange(name, form(old), form(new), _percent(old, new), is_jump=_jumps(old, new))


def _jumps(old: int | None, new: int | None) -> bool:
    """Say whether a price changes by more than the allowed factor; from or to zero always does."""
    if old is None or new is None or old == new:
        return False
    return max(old, new) > JUMP_MAX * min(old, new)


def _times(rate: int | None, multiplier_micro: int) -> int | None:
    return None if rate is None else rate * multiplier_micro


def _percent(old: int | None, new: int | None) -> str | None:
    if not old or new is None:
        return None
    percent = (Decimal(new - old) * 100 / Decimal(old)).quantize(Decimal("0.1"))
    return f"{percent:+,f} %".replace(".0 %", " %")


def _text(value: object) -> str | None:
    if isinstance(value, tuple):
        return ", ".join(value) or None
    if isinstance(value, bool):
        return "yes" if value else "no"
    return None if value is None else str(value)
