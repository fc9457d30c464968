"""Owns how a model of the catalog is shown: as JSON, and with all its prices as a table."""

from typing import TYPE_CHECKING

from llmproxy.cli import output
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.catalog import Model, Rates, Tier


def model_json(model: "Model", *, is_own: bool) -> dict[str, object]:
    """Return a model as the list shows it."""
    from llmproxy.shown import model_fields, other_prices

    return model_fields(model, {"prices": other_prices(model.prices.rates)}, is_own=is_own)


def _rates_json(rates: "Rates") -> dict[str, object]:
    from llmproxy.money import format_rate
    from llmproxy.shown import other_prices

    return {
        "in_price": format_rate(rates.input),
        "out_price": format_rate(rates.output),
        "prices": other_prices(rates),
    }


def _tiers_json(tiers: "tuple[Tier, ...]") -> list[dict[str, object]]:
    return [
        {"above_input_tokens": tier.above_input_tokens, **_rates_json(tier.rates)} for tier in tiers
    ]


def full_json(model: "Model", *, is_own: bool) -> dict[str, object]:
    """Return a model with everything that its price depends on."""
    from llmproxy.money import format_multiplier

    return {
        **model_json(model, is_own=is_own),
        "cost_from": "provider" if model.prices.is_cost_from_provider else "tokens",
        "reasoning": model.reasoning,
        "prices_until": model.prices_until,
        "tiers": _tiers_json(model.prices.tiers),
        "variants": [
            {
                "when": {
                    "service_tier": list(variant.service_tiers),
                    "speed": list(variant.speeds),
                },
                **_rates_json(variant.rates),
                "tiers": _tiers_json(variant.tiers),
            }
            for variant in model.prices.variants
        ],
        "geo_multiplier": {
            geo: format_multiplier(factor) for geo, factor in model.prices.geo_micro.items()
        },
    }


def print_model(model: "Model", *, is_own: bool) -> None:
    """Print a model with everything that its price depends on."""
    from llmproxy.money import format_multiplier

    prices = model.prices
    fields = [
        ("model", f"{model.provider}/{model.id}"),
        ("also called", ", ".join(model.aliases) or "–"),
        ("mode", model.mode + (", reasoning" if model.reasoning else "")),
        ("input up to", _up_to(model.max_input_tokens)),
        ("output up to", _up_to(model.max_output_tokens)),
        ("multiplier", format_multiplier(model.multiplier_micro)),
    ]
    if prices.is_cost_from_provider:
        fields.append(("cost", "what the provider reports; the prices are for what it does not"))
    if model.prices_until:
        fields.append(
            ("prices until", f"{model.prices_until}; after that day the provider charges others")
        )
    if is_own:
        fields.append(("set by", "yourself, over the catalog file"))
    fields += [
        (f"in region {geo}", "× " + format_multiplier(factor))
        for geo, factor in prices.geo_micro.items()
    ]
    output.print_fields(fields)
    output.print_line("")
    rows = [_price_row("base", prices.rates), *_tier_rows("base", prices.tiers)]
    for variant in prices.variants:
        when = " ".join((*variant.service_tiers, *variant.speeds))
        rows += [_price_row(when, variant.rates), *_tier_rows(when, variant.tiers)]
    output.print_table(
        (
            Column("USD PER MILLION TOKENS"),
            Column("INPUT", "money"),
            Column("CACHE READ", "money"),
            Column("WRITE 5 MIN", "money"),
            Column("WRITE 1 H", "money"),
            Column("OUTPUT", "money"),
        ),
        rows,
    )
    _print_further(prices.rates)


def _up_to(count: int | None) -> str:
    return "not said" if count is None else f"{tokens(count)} tokens"


def _print_further(rates: "Rates") -> None:
    from llmproxy.catalog import FURTHER_PRICES, further_rates
    from llmproxy.money import format_rate

    further = further_rates(rates)
    if not further:
        return
    output.print_line("")
    output.print_fields(
        [(FURTHER_PRICES[name][1], f"{format_rate(rate)} USD") for name, rate in further.items()]
    )


def tokens(count: int | None) -> str:
    """Return a number of tokens for a table."""
    return "–" if count is None else f"{count:,}"


def _tier_rows(when: str, tiers: "tuple[Tier, ...]") -> list[tuple[str, ...]]:
    return [
        _price_row(f"{when}, input above {tier.above_input_tokens:,}", tier.rates) for tier in tiers
    ]


def _price_row(title: str, rates: "Rates") -> tuple[str, ...]:
    from llmproxy.money import format_rate

    columns = (
        rates.input,
        rates.cache_read,
        rates.cache_write_5m,
        rates.cache_write_1h,
        rates.output,
    )
    return (title, *(format_rate(rate) for rate in columns))
