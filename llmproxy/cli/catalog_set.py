"""Command `catalog set`: prices of the operator's own, over those of the catalog file."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.catalog_views import full_json
from llmproxy.cli.completion import model_ids, provider_names
from llmproxy.cli.options import Json, Yes, examples

if TYPE_CHECKING:
    from llmproxy.catalog import Model
    from llmproxy.catalog_editing import Edit

EXAMPLES = examples(
    "llmproxy catalog set ollama llama3.2 --in-price 0 --out-price 0",
    "llmproxy catalog set openai gpt-4o --multiplier 1.2",
    "llmproxy catalog set openai gpt-4o --remove",
)


def _price(text: str) -> Any:  # noqa: ANN401 - Typer's own
    return typer.Option(metavar="USD", help=text)


def set_entry(
    provider: Annotated[
        str,
        typer.Argument(
            metavar="PROVIDER", help="The provider's name.", autocompletion=provider_names
        ),
    ],
    model: Annotated[
        str,
        typer.Argument(metavar="MODEL", help="The model's id.", autocompletion=model_ids),
    ],
    in_price: Annotated[str | None, _price("Of a million input tokens.")] = None,
    out_price: Annotated[str | None, _price("Of a million output tokens.")] = None,
    cache_read: Annotated[str | None, _price("Of a million tokens read from a cache.")] = None,
    cache_write: Annotated[str | None, _price("Of a million tokens written for 5 min.")] = None,
    cache_write_1h: Annotated[str | None, _price("Of a million tokens written for 1 h.")] = None,
    web_search_1k: Annotated[str | None, _price("Of a thousand web searches.")] = None,
    input_audio: Annotated[str | None, _price("Of a million input tokens of audio.")] = None,
    input_image: Annotated[str | None, _price("Of a million input tokens of images.")] = None,
    output_audio: Annotated[str | None, _price("Of a million output tokens of audio.")] = None,
    output_image: Annotated[str | None, _price("Of a million output tokens of images.")] = None,
    cache_read_audio: Annotated[str | None, _price("Of a million of audio from a cache.")] = None,
    image_1k: Annotated[str | None, _price("Of a thousand images, if billed by the image.")] = None,
    audio_hour: Annotated[str | None, _price("Of an hour of audio, if billed by time.")] = None,
    characters: Annotated[str | None, _price("Of a million characters to be spoken.")] = None,
    cost_from: Annotated[
        str | None,
        typer.Option(metavar="tokens|provider", help="What is billed, where both are reported."),
    ] = None,
    multiplier: Annotated[
        str | None, typer.Option(metavar="FACTOR", help="On everything that the model costs.")
    ] = None,
    max_input_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Most input that it takes.")
    ] = None,
    max_output_tokens: Annotated[
        int | None, typer.Option(metavar="N", help="Most output that it gives; held at most.")
    ] = None,
    reasoning: Annotated[
        bool | None,
        typer.Option("--reasoning/--no-reasoning", help="It bills output that is not shown."),
    ] = None,
    prices_until: Annotated[
        str | None,
        typer.Option(metavar="DATE", help="Last day of these prices, such as 2026-12-31."),
    ] = None,
    mode: Annotated[
        str | None,
        typer.Option(metavar="MODE", help="chat, embedding, image, audio or completion."),
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name; may be repeated.")
    ] = None,
    drop_alias: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="A name that it is to lose; may be repeated."),
    ] = None,
    flat: Annotated[
        bool, typer.Option("--flat", help="Drop prices by tier, speed, region and input size.")
    ] = False,
    remove: Annotated[
        bool, typer.Option("--remove", help="Forget your own entry: the catalog's counts again.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Set prices of your own, over those of the catalog.

    What is not named stays as it is in the catalog; a new model needs both
    prices. Your entry survives updates of the catalog. A running server has it
    at once. Prices that change more than 20 times need --yes.
    """
    from llmproxy.catalog_editing import Edit

    fields: dict[str, Any] = {
        "in_price": in_price,
        "out_price": out_price,
        "multiplier": multiplier,
        "max_input_tokens": max_input_tokens,
        "max_output_tokens": max_output_tokens,
        "reasoning": reasoning,
        "prices_until": prices_until,
        "mode": mode,
        "cost_from": cost_from,
    }
    prices = {
        "cache_read": cache_read,
        "cache_write": cache_write,
        "cache_write_1h": cache_write_1h,
        "web_search_1k": web_search_1k,
        "input_audio": input_audio,
        "input_image": input_image,
        "output_audio": output_audio,
        "output_image": output_image,
        "cache_read_audio": cache_read_audio,
        "image_1k": image_1k,
        "audio_hour": audio_hour,
        "characters": characters,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    named_prices = {name: text for name, text in prices.items() if text is not None}
    names = tuple(alias or ()), tuple(drop_alias or ())
    edit = Edit(fields, named_prices, *names, is_flat=flat)
    if remove == edit.is_any:
        msg = "Give what to set, such as --in-price and --out-price, or --remove alone."
        raise typer.BadParameter(msg)
    if remove:
        _remove(provider, model, as_json=as_json)
    else:
        _set(provider, model, edit, yes=yes, as_json=as_json)


def _set(provider: str, model_id: str, edit: "Edit", *, yes: bool, as_json: bool) -> None:
    from llmproxy import catalog_editing, key_pool
    from llmproxy.catalog_parser import load_document
    from llmproxy.errors import CatalogError
    from llmproxy.presets import PRESETS

    document = load_document(opening.catalog_path())
    with opening.writing() as tx:
        try:
            plan = catalog_editing.make_plan(tx, document, provider, model_id, edit)
        except catalog_editing.NewModelError as error:
            msg = "It is not in the catalog yet: give --in-price and --out-price."
            raise typer.BadParameter(msg) from error
        except CatalogError as error:
            raise typer.BadParameter(str(error)) from error
        if not yes:
            plan.refuse_jumps("If that is meant, add --yes.")
        catalog_editing.carry_out(tx, plan, actor=opening.actor(), now_ms=opening.now_ms())
        known = {*PRESETS, *(found.name for found in key_pool.list_providers(tx))}
    before, model = plan.before, plan.after
    if provider not in known:
        hint = f"llmproxy providers add {provider} --base-url URL --dialect openai"
        output.say(f"There is no provider {provider} yet. Set it up: {hint}")
    if as_json:
        output.print_json(full_json(model, is_own=True))
        return
    was = f" (before: {_two_prices(before)})" if before else ""
    output.print_line(f"{provider}/{model_id}, per million tokens: {_two_prices(model)}{was}.")
    if model.prices.tiers or model.prices.variants:
        output.say("Its prices by tier or size stay as they were; --flat would drop them.")


def _two_prices(model: "Model") -> str:
    from llmproxy.money import format_multiplier, format_rate

    rates = model.prices.rates
    factor = format_multiplier(model.multiplier_micro)
    times = "" if factor == "1" else f", times {factor}"
    both = f"{format_rate(rates.input)} in, {format_rate(rates.output)} out"
    return f"{both}{times}"


def _remove(provider: str, model_id: str, *, as_json: bool) -> None:
    from llmproxy.catalog_editing import take_back
    from llmproxy.catalog_parser import load_document

    document = load_document(opening.catalog_path())
    with opening.writing() as tx:
        model = take_back(tx, document, provider, model_id)
    if as_json:
        shown = None if model is None else full_json(model, is_own=False)
        output.print_json({"provider": provider, "id": model_id, "state": "removed", "now": shown})
    elif model is None:
        output.print_line(f"{provider}/{model_id} has no price any more and is refused.")
    else:
        output.print_line(f"{provider}/{model_id}, per million tokens: {_two_prices(model)} again.")
