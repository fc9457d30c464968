"""Commands `catalog …`: the models that have a price."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, examples, noun
from llmproxy.cli.output import Column

if TYPE_CHECKING:
    from llmproxy.catalog import Catalog, Model, Rates, Tier

app = noun("Look up models and their prices.")


def _load() -> "Catalog":
    from llmproxy.catalog_parser import load_catalog

    return load_catalog(opening.catalog_path())


def _model_json(model: "Model") -> dict[str, object]:
    from llmproxy.money import format_multiplier, format_rate

    rates = model.prices.rates
    return {
        "provider": model.provider,
        "id": model.id,
        "aliases": list(model.aliases),
        "mode": model.mode,
        "in_price": format_rate(rates.input),
        "out_price": format_rate(rates.output),
        "prices": _other_prices(rates),
        "multiplier": format_multiplier(model.multiplier_micro),
        "max_input_tokens": model.max_input_tokens,
        "max_output_tokens": model.max_output_tokens,
    }


def _other_prices(rates: "Rates") -> dict[str, str]:
    """Return the further prices under the names that the catalog file gives them."""
    from llmproxy.money import format_rate

    prices = {
        "cache_read": format_rate(rates.cache_read),
        "cache_write": format_rate(rates.cache_write_5m),
        "cache_write_1h": format_rate(rates.cache_write_1h),
    }
    if rates.web_search is not None:
        prices["web_search_1k"] = format_rate(rates.web_search)
    return prices


def _rates_json(rates: "Rates") -> dict[str, object]:
    from llmproxy.money import format_rate

    return {
        "in_price": format_rate(rates.input),
        "out_price": format_rate(rates.output),
        "prices": _other_prices(rates),
    }


def _tiers_json(tiers: "tuple[Tier, ...]") -> list[dict[str, object]]:
    return [
        {"above_input_tokens": tier.above_input_tokens, **_rates_json(tier.rates)} for tier in tiers
    ]


@app.command(
    "list",
    epilog=examples("llmproxy catalog list --provider openai", "llmproxy catalog list --search 4o"),
)
def list_models(
    provider: Annotated[
        str | None, typer.Option(metavar="NAME", help="Only this provider's models.")
    ] = None,
    search: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only ids and aliases with this in them.")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """List models with their prices. In USD per million tokens."""
    from llmproxy.money import format_multiplier, format_rate

    wanted = (search or "").lower()
    found = [
        model
        for model in _load().models(provider)
        if any(wanted in f"{model.provider}/{name}".lower() for name in (model.id, *model.aliases))
    ]
    models = output.only(found, limit)
    if as_json:
        output.print_json([_model_json(model) for model in models])
        return
    if not models:
        output.say("No model matches. See them all: llmproxy catalog list --limit 0")
        return
    output.print_table(
        (
            Column("MODEL", may_wrap=True),
            Column("MODE", "dim", is_optional=True),
            Column("INPUT", "money"),
            Column("OUTPUT", "money"),
            Column("CACHE READ", "money"),
            Column("MULTIPLIER", "number", is_optional=True),
            Column("INPUT MAX", "number", is_optional=True),
            Column("OUTPUT MAX", "number", is_optional=True),
        ),
        (
            (
                f"{model.provider}/{model.id}",
                model.mode,
                format_rate(model.prices.rates.input),
                format_rate(model.prices.rates.output),
                format_rate(model.prices.rates.cache_read),
                format_multiplier(model.multiplier_micro),
                _tokens(model.max_input_tokens),
                _tokens(model.max_output_tokens),
            )
            for model in models
        ),
    )


def _tokens(count: int | None) -> str:
    return "–" if count is None else f"{count:,}"


@app.command(
    epilog=examples(
        "llmproxy catalog show anthropic/claude-3-5-sonnet",
        "llmproxy catalog show openai/gpt-4o --json",
    )
)
def show(
    name: Annotated[str, typer.Argument(metavar="PROVIDER/MODEL", help="An id or an alias.")],
    as_json: Json = False,
) -> None:
    """Show one model with all its prices. That is everything its price depends on."""
    from llmproxy.errors import NotFoundError

    provider, _, wanted = name.partition("/")
    catalog = _load()
    model = catalog.find(provider, wanted)
    if model is None:
        nearest = ", ".join(
            found if "/" in found else f"{provider}/{found}"
            for found in catalog.nearest(provider, wanted)
        )
        hint = f" Nearest: {nearest}." if nearest else " See: llmproxy catalog list"
        msg = f"{name!r:.120} is not in the model catalog.{hint}"
        raise NotFoundError(msg)
    if as_json:
        output.print_json(_full_json(model))
    else:
        _print_model(model)


def _full_json(model: "Model") -> dict[str, object]:
    from llmproxy.money import format_multiplier

    return {
        **_model_json(model),
        "reasoning": model.reasoning,
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


def _print_model(model: "Model") -> None:
    from llmproxy.money import format_multiplier

    prices = model.prices
    fields = [
        ("model", f"{model.provider}/{model.id}"),
        ("also called", ", ".join(model.aliases) or "–"),
        ("mode", model.mode + (", reasoning" if model.reasoning else "")),
        ("input up to", _tokens(model.max_input_tokens) + " tokens"),
        ("output up to", _tokens(model.max_output_tokens) + " tokens"),
        ("multiplier", format_multiplier(model.multiplier_micro)),
    ]
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
    if prices.rates.web_search is not None:
        from llmproxy.money import format_rate

        output.print_line("")
        output.print_line(f"web searches  {format_rate(prices.rates.web_search)} USD per 1,000")


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
