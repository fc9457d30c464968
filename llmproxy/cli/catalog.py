"""Commands `catalog …`: the models that have a price."""

from typing import Annotated

import typer

from llmproxy.cli import catalog_set, catalog_update, opening, output
from llmproxy.cli.catalog_views import full_json, model_json, print_model, tokens
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, examples, noun
from llmproxy.cli.output import Column

app = noun(
    "Look up models and prices, set your own, update.",
    "llmproxy catalog list --search 4o",
    "llmproxy catalog set ollama llama3.2 --in-price 0 --out-price 0",
)


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
    """List models with their prices. In USD per million tokens; * marks your own."""
    from llmproxy.money import format_multiplier, format_rate

    catalog = opening.catalog()
    wanted = (search or "").lower()
    found = [
        model
        for model in catalog.models(provider)
        if any(wanted in f"{model.provider}/{name}".lower() for name in (model.id, *model.aliases))
    ]
    models = output.only(found, limit)
    if as_json:
        output.print_json([model_json(model, is_own=catalog.is_own(model)) for model in models])
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
                f"{model.provider}/{model.id}" + (" *" if catalog.is_own(model) else ""),
                model.mode,
                format_rate(model.prices.rates.input),
                format_rate(model.prices.rates.output),
                format_rate(model.prices.rates.cache_read),
                format_multiplier(model.multiplier_micro),
                tokens(model.max_input_tokens),
                tokens(model.max_output_tokens),
            )
            for model in models
        ),
    )


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
    from llmproxy.catalog_nearest import find_nearest
    from llmproxy.errors import NotFoundError

    provider, _, wanted = name.partition("/")
    catalog = opening.catalog()
    model = catalog.find(provider, wanted)
    if model is None:
        near = find_nearest(catalog, provider, wanted, lambda model: True)
        found = [*near.elsewhere, *near.here]
        nearest = ", ".join(f"{each.provider}/{each.id}" for each in found)
        hint = f" Nearest: {nearest}." if nearest else " See: llmproxy catalog list"
        msg = f"{name!r:.120} is not in the model catalog.{hint}"
        raise NotFoundError(msg)
    if as_json:
        output.print_json(full_json(model, is_own=catalog.is_own(model)))
    else:
        print_model(model, is_own=catalog.is_own(model))


app.command("set", epilog=catalog_set.EXAMPLES)(catalog_set.set_entry)
app.command(epilog=catalog_update.CHECK_EXAMPLES)(catalog_update.check)
app.command(epilog=catalog_update.UPDATE_EXAMPLES)(catalog_update.update)
