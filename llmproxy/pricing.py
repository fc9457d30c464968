"""Owns what an answer costs: (prices, usage) -> receipt lines and nano-USD. Pure.

The same rates serve the bound before a request and the price after it, so that a bound is never
below the price of anything within its quantities. Must not do I/O, round, or know dialects.
"""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import msgspec

from llmproxy.catalog import Catalog, Model, Prices, Rates, Tier, Variant
from llmproxy.money import MULTIPLIER_ONE, TOKENS_PER_RATE, cost_nanousd
from llmproxy.usage import Leg, Movers, Usage


class Unit(NamedTuple):
    """Something that is billed by its number, beside or instead of tokens."""

    counted: str
    """The field of `Leg` that has its number."""
    rate: str
    """The field of `Rates` that has its price."""
    per: int
    """How many of them that is the price of."""


UNITS = {
    "web_search": Unit("web_searches", "web_search", 1000),
    "image": Unit("images", "image", 1000),
    "audio_second": Unit("audio_seconds", "audio_hour", 3600),
    "character": Unit("characters", "character", TOKENS_PER_RATE),
}
"""By the class that stands in the receipt."""
INSTEAD_OF_TOKENS = frozenset({"image", "audio_second", "character"})
"""Those of them that are another measure of the same work: it is billed by the one or the other."""
PROVIDER_COST = "provider_cost"
"""The class of what the provider itself says that it bills: one, at a rate in 10⁻¹⁵ USD."""
_WITH_UNITS = frozenset({PROVIDER_COST, *UNITS})

BASE_SERVICE_TIERS = frozenset(
    {"auto", "default", "standard", "standard_only", "scale", "batch", "on_demand"}
)
"""Service tiers that cost the base price.

`on_demand` is what Groq calls its ordinary one; `batch` never reaches us, answers are not batches.
"""
_OPEN_TIERS = (None, "auto")
"""Service tiers of a request that leave the choice to the settings of the provider's account."""
BASE_SPEEDS = frozenset({"standard"})
BASE_GEOS = frozenset({"global", "not_available"})


class Line(msgspec.Struct, frozen=True):
    """One line of a receipt: `quantity` tokens at `rate` nano-USD per million.

    For the classes of `UNITS` the quantity is their number, and the rate is for as many as there.
    """

    model: str
    usage_class: str
    quantity: int
    rate: int
    price_version: int | None

    @property
    def rated_tokens(self) -> int:
        """Quantity × rate, in the unit that `money.cost_nanousd` takes."""
        if self.usage_class in UNITS:
            return _unit_rated(self.usage_class, self.quantity, self.rate)
        return self.quantity * self.rate


class Cost(msgspec.Struct, frozen=True):
    """The price of an answer in nano-USD, rounded up once, and the lines that explain it."""

    nanousd: int
    lines: tuple[Line, ...]

    @property
    def has_units(self) -> bool:
        """Say whether searches and other units are in it, be it as the provider says."""
        return any(line.usage_class in _WITH_UNITS for line in self.lines)


class PricedModel(msgspec.Struct, frozen=True):
    """A model's prices with the price version that pins them (None when none is pinned)."""

    id: str
    prices: Prices
    price_version: int | None


class LegModel(NamedTuple):
    """The catalog's entry by which a leg of another model is priced."""

    model: Model
    is_guess: bool
    """It has none of its own, and the dearest of the provider counts."""


def leg_model(name: str, asked: Model, catalog: Catalog) -> LegModel:
    """Return by which entry a leg is priced that names a model; `asked` was asked for."""
    if name in {asked.id, *asked.aliases}:
        return LegModel(asked, is_guess=False)
    model = catalog.find(asked.provider, name)
    if model is not None:
        return LegModel(model, is_guess=False)
    # The asked model too: it may have lost its entry since.
    known = [asked, *catalog.models(asked.provider)]
    return LegModel(max(known, key=lambda one: _dearness(one.prices.rates)), is_guess=True)


class Bound(msgspec.Struct, frozen=True):
    """The most a request can cost: its input side in rated tokens, and the dearest output rate."""

    input_rated: int
    output_rate: int

    def rated(self, output_tokens: int) -> int:
        """Return the bound for so many output tokens, in rated tokens."""
        return self.input_rated + output_tokens * self.output_rate


def unpriced_mover(prices: Prices, movers: Movers) -> str | None:
    """Return the option that these prices have no price for, such as `service_tier "flex"`."""
    tier, speed, geo = movers.service_tier, movers.speed, movers.geo
    if not (tier or speed or geo):
        return None
    priced_tiers = {name for variant in prices.variants for name in variant.service_tiers}
    priced_speeds = {name for variant in prices.variants for name in variant.speeds}
    if tier and tier not in BASE_SERVICE_TIERS | priced_tiers:
        return f'service_tier "{tier:.40}"'
    if speed and speed not in BASE_SPEEDS | priced_speeds:
        return f'speed "{speed:.40}"'
    if geo and geo not in BASE_GEOS and geo not in prices.geo_micro:
        return f'inference_geo "{geo:.40}"'
    return None


def price(
    usage: Usage,
    model: PricedModel,
    *,
    user_multiplier_micro: int,
    model_multiplier_micro: int,
    other_model: Callable[[str], PricedModel] | None = None,
) -> Cost:
    """Return what a usage costs, line by line.

    A leg that counts what is billed instead of tokens (`INSTEAD_OF_TOKENS`), and has a price, costs
    that alone: tokens that it has too are of an estimate, or another measure of the same.

    Args:
        usage: what the answer used.
        model: the model that was asked for; it prices every leg that names no other, and units.
        user_multiplier_micro: the user's rate multiplier, in millionths.
        model_multiplier_micro: the asked model's multiplier, in millionths; for all legs.
        other_model: prices of a leg that another model did.
    """
    if usage.provider_cost is not None and model.prices.is_cost_from_provider:
        lines = [Line(model.id, PROVIDER_COST, 1, usage.provider_cost, model.price_version)]
    else:
        lines = []
        for leg in usage.legs:
            leg_model = other_model(leg.model) if leg.model and other_model else model
            units: list[Line] = []
            if leg.web_searches or leg.images or leg.audio_seconds or leg.characters:
                units = _unit_lines(leg, model, usage)
            if not any(line.usage_class in INSTEAD_OF_TOKENS for line in units):
                lines += _leg_lines(leg, leg_model, usage)
            lines += units
    rated = sum(line.rated_tokens for line in lines)
    return Cost(cost_nanousd(rated, user_multiplier_micro, model_multiplier_micro), tuple(lines))


def _leg_lines(leg: Leg, model: PricedModel, usage: Usage) -> list[Line]:
    rates = _leg_rates(leg, model.prices, usage)
    geo_micro = model.prices.geo_micro.get(usage.geo or "", MULTIPLIER_ONE)
    fresh, cached, output = leg.input, leg.cache_read, leg.output
    media: tuple[tuple[str, int, int], ...] = ()
    if (
        leg.input_audio
        or leg.input_image
        or leg.output_audio
        or leg.output_image
        or (leg.cache_read_audio)
    ):
        media = _priced_media(leg, rates)
        fresh -= sum(quantity for name, quantity, _ in media if name.startswith("input"))
        cached -= sum(quantity for name, quantity, _ in media if name.startswith("cache"))
        output -= sum(quantity for name, quantity, _ in media if name.startswith("output"))
    counted = (
        ("input", fresh, rates.input),
        ("cache_read", cached, rates.cache_read),
        ("cache_write_5m", leg.cache_write_5m, rates.cache_write_5m),
        ("cache_write_1h", leg.cache_write_1h, rates.cache_write_1h),
        ("output", output, rates.output),
        *media,
    )
    return [
        Line(model.id, name, quantity, _in_geo(rate, geo_micro), model.price_version)
        for name, quantity, rate in counted
        if quantity
    ]


def _priced_media(leg: Leg, rates: Rates) -> tuple[tuple[str, int, int], ...]:
    """Return name, tokens and rate of the audio and images in a leg that do not cost as text."""
    counted = (
        ("input_audio", leg.input_audio, rates.input_audio),
        ("input_image", leg.input_image, rates.input_image),
        ("output_audio", leg.output_audio, rates.output_audio),
        ("output_image", leg.output_image, rates.output_image),
        ("cache_read_audio", leg.cache_read_audio, rates.cache_read_audio),
    )
    return tuple((name, count, rate) for name, count, rate in counted if count and rate is not None)


def _unit_lines(leg: Leg, asked: PricedModel, usage: Usage) -> list[Line]:
    """Return the lines of a leg's units, at the rates of the asked model whatever model it was.

    They are reported for the answer as a whole, and were held at those rates.
    """
    rates = _leg_rates(leg, asked.prices, usage)
    return [
        Line(asked.id, name, quantity, rate, asked.price_version)
        for name, unit in UNITS.items()
        if (quantity := getattr(leg, unit.counted)) and (rate := getattr(rates, unit.rate))
    ]


def _unit_rated(name: str, quantity: int, rate: int) -> int:
    """Return so many units at a rate in rated tokens; upwards, though most come out exact."""
    return -(-quantity * rate * TOKENS_PER_RATE // UNITS[name].per)


def _leg_rates(leg: Leg, prices: Prices, usage: Usage) -> Rates:
    rates, tiers = _variant(prices, Movers(usage.service_tier, usage.speed, usage.geo))
    for tier in tiers:
        if leg.tier_input > tier.above_input_tokens:
            rates = tier.rates
    return rates


def bound(  # noqa: PLR0913 - all that a request may cause
    prices: Prices,
    *,
    input_tokens: int,
    movers: Movers,
    may_write_cache: bool,
    may_write_cache_1h: bool = False,
    media: Sequence[str] = (),
    units: Sequence[tuple[str, int]] = (),
    any_default: bool = False,
) -> Bound:
    """Return the most that a request with at most `input_tokens` can cost.

    Each token is taken at the dearest rate it can reach: any tier below the input bound, any
    kind of cache write that the request may cause; with `any_default` also any service tier and
    region that the account's own settings may give to a request that names none. `media` are the
    classes of audio and image tokens that the request may cause, `units` its units: class and
    highest number.
    """
    input_rate = output_rate = 0
    unit_rates: dict[str, int] = {}
    for base, tiers in _variants_within(prices, movers, any_default=any_default):
        above = [tier.rates for tier in tiers if input_tokens > tier.above_input_tokens]
        for rates in (base, *above):
            # A cached token may, by an odd catalog, cost more than a fresh one.
            input_rate = max(input_rate, rates.input, rates.cache_read)
            if may_write_cache:
                input_rate = max(input_rate, rates.cache_write_5m)
            if may_write_cache_1h:
                input_rate = max(input_rate, rates.cache_write_1h)
            output_rate = max(output_rate, rates.output)
            for name in media:
                rate = getattr(rates, name) or 0
                if name == "input_audio":  # some of which may come from a cache
                    rate = max(rate, rates.cache_read_audio or 0)
                if name.startswith("input"):
                    input_rate = max(input_rate, rate)
                else:
                    output_rate = max(output_rate, rate)
            for name, _ in units:
                rate = getattr(rates, UNITS[name].rate) or 0
                unit_rates[name] = max(unit_rates.get(name, 0), rate)
    geo_micro = prices.geo_micro.get(movers.geo or "", MULTIPLIER_ONE)
    if any_default and not movers.geo:
        geo_micro = max([geo_micro, *prices.geo_micro.values()])
    return Bound(
        input_rated=input_tokens * _in_geo(input_rate, geo_micro)
        + sum(_unit_rated(name, quantity, unit_rates[name]) for name, quantity in units),
        output_rate=_in_geo(output_rate, geo_micro),
    )


def _variants_within(
    prices: Prices, movers: Movers, *, any_default: bool
) -> list[tuple[Rates, tuple[Tier, ...]]]:
    """Return the rates and tiers that a request with these wishes may be served at."""
    found = [_variant(prices, movers)]
    if found[0][0] is not prices.rates:
        # What asks for another service tier may all the same be served as an ordinary one.
        found.append((prices.rates, prices.tiers))
    if any_default and movers.service_tier in _OPEN_TIERS:
        found += _variants_like(prices, movers, any_tier=True)
    return found


def _variant(prices: Prices, movers: Movers) -> tuple[Rates, tuple[Tier, ...]]:
    """Return the rates and tiers for a service tier and speed.

    A request for one without a price is refused beforehand (`unpriced_mover`); an answer that
    reports one all the same is taken at the dearest that has a price. Where none has, neither has
    this one: Anthropic's Priority Tier costs the ordinary rates, whatever its fast mode costs.
    """
    tier, speed = movers.service_tier, movers.speed
    if tier is None and speed is None:
        return prices.rates, prices.tiers
    for variant in prices.variants:
        if _applies(variant, movers):
            return variant.rates, variant.tiers
    dearest = prices.rates, prices.tiers
    is_odd_tier = bool(tier) and tier not in BASE_SERVICE_TIERS
    is_odd_speed = bool(speed) and speed not in BASE_SPEEDS
    if prices.variants and (is_odd_tier or is_odd_speed):
        for like in _variants_like(prices, movers, any_tier=is_odd_tier, any_speed=is_odd_speed):
            if _dearness(like[0]) > _dearness(dearest[0]):
                dearest = like
    return dearest


def _dearness(rates: Rates) -> tuple[int, int]:
    return rates.output, rates.input


def _variants_like(
    prices: Prices, movers: Movers, *, any_tier: bool = False, any_speed: bool = False
) -> list[tuple[Rates, tuple[Tier, ...]]]:
    """Return the rates and tiers of what has a price for the tier, or speed, when it may be any."""
    return [
        (variant.rates, variant.tiers)
        for variant in prices.variants
        if ((any_tier and variant.service_tiers) or (any_speed and variant.speeds))
        and (any_tier or not variant.service_tiers or movers.service_tier in variant.service_tiers)
        and (any_speed or not variant.speeds or movers.speed in variant.speeds)
    ]


def _applies(variant: Variant, movers: Movers) -> bool:
    if variant.service_tiers and movers.service_tier not in variant.service_tiers:
        return False
    if variant.speeds and movers.speed not in variant.speeds:
        return False
    return bool(variant.service_tiers or variant.speeds)


def _in_geo(rate: int, geo_micro: int) -> int:
    """Return a rate in a priced region; upwards, though real rates and factors come out exact."""
    return -(-rate * geo_micro // MULTIPLIER_ONE)
