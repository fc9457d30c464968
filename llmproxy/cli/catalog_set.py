"""Command `catalog set`: prices of the operator's own, over those of the catalog file."""

from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.catalog_views import full_json
from llmproxy.cli.completion import model_ids, provider_names
from llmproxy.cli.options import Json, Yes, examples

if TYPE_CHECKING:
    from llmproxy.catalog import Catalog, Model
    from llmproxy.catalog_parser import Document
    from llmproxy.storage.database import Tx

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
    mode: Annotated[
        str | None, typer.Option(metavar="MODE", help="chat, embedding, image or completion.")
    ] = None,
    alias: Annotated[
        list[str] | None, typer.Option(metavar="NAME", help="A further name; may be repeated.")
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
    fields: dict[str, Any] = {
        "in_price": in_price,
        "out_price": out_price,
        "multiplier": multiplier,
        "max_input_tokens": max_input_tokens,
        "max_output_tokens": max_output_tokens,
        "reasoning": reasoning,
        "mode": mode,
    }
    prices = {
        "cache_read": cache_read,
        "cache_write": cache_write,
        "cache_write_1h": cache_write_1h,
        "web_search_1k": web_search_1k,
    }
    fields = {name: value for name, value in fields.items() if value is not None}
    named_prices = {name: text for name, text in prices.items() if text is not None}
    edit = _Edit(fields, named_prices, alias or [], flat=flat)
    if remove == edit.is_any:
        msg = "Give what to set, such as --in-price and --out-price, or --remove alone."
        raise typer.BadParameter(msg)
    if remove:
        _remove(provider, model, as_json=as_json)
    else:
        _set(provider, model, edit, yes=yes, as_json=as_json)


class _Edit:
    """What is to be different about an entry."""

    def __init__(
        self, fields: dict[str, Any], prices: dict[str, str], aliases: list[str], *, flat: bool
    ) -> None:
        self._fields = fields
        self._prices = prices
        self._aliases = aliases
        self._flat = flat
        self.is_any = bool(fields or prices or aliases or flat)

    def applied_to(self, base: dict[str, Any] | None) -> dict[str, Any]:
        """Return the new entry.

        Raises:
            typer.BadParameter: there is nothing to edit, and a price is missing.
        """
        from llmproxy.catalog_overrides import edited_entry

        if base is None and not {"in_price", "out_price"} <= self._fields.keys():
            msg = "It is not in the catalog yet: give --in-price and --out-price."
            raise typer.BadParameter(msg)
        dropped = {"tiers", "variants", "geo_multiplier"} if self._flat else set()
        kept = {name: value for name, value in (base or {}).items() if name not in dropped}
        fields = dict(self._fields)
        if self._aliases:
            fields["aliases"] = list(dict.fromkeys([*kept.get("aliases", []), *self._aliases]))
        return edited_entry(kept, fields, self._prices)


def _set(provider: str, model_id: str, edit: _Edit, *, yes: bool, as_json: bool) -> None:
    from llmproxy import catalog_overrides, key_pool
    from llmproxy.catalog_parser import load_document, parse_entry
    from llmproxy.errors import CatalogError
    from llmproxy.presets import PRESETS

    document = load_document(opening.catalog_path())
    with opening.writing() as tx:
        catalog = _in_force(tx, document)
        before = catalog.find(provider, model_id)
        _refuse_alias(before, model_id)
        own = catalog_overrides.find_override(tx, provider, model_id)
        entry = edit.applied_to(own or document.entries.get(f"{provider}/{model_id}"))
        try:
            model = parse_entry(provider, model_id, entry)
        except CatalogError as error:
            raise typer.BadParameter(str(error)) from error
        _refuse_taken_names(catalog, model)
        if not yes:
            _refuse_jumps(before, model)
        catalog_overrides.set_override(
            tx, model, entry, actor=opening.actor(), now_ms=opening.now_ms()
        )
        known = {*PRESETS, *(found.name for found in key_pool.list_providers(tx))}
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


def _in_force(tx: "Tx", document: "Document") -> "Catalog":
    from llmproxy.catalog_overrides import read_overrides, with_overrides

    return with_overrides(document.catalog(), read_overrides(tx))


def _two_prices(model: "Model") -> str:
    from llmproxy.money import format_multiplier, format_rate

    rates = model.prices.rates
    factor = format_multiplier(model.multiplier_micro)
    times = "" if factor == "1" else f", times {factor}"
    both = f"{format_rate(rates.input)} in, {format_rate(rates.output)} out"
    return f"{both}{times}"


def _refuse_alias(found: "Model | None", name: str) -> None:
    from llmproxy.errors import RefusedError

    if found is not None and found.id != name:
        msg = (
            f"{name} is another name of {found.provider}/{found.id}. Set that one: "
            f"llmproxy catalog set {found.provider} {found.id}"
        )
        raise RefusedError(msg)


def _refuse_taken_names(catalog: "Catalog", model: "Model") -> None:
    from llmproxy.errors import RefusedError

    for name in model.aliases:
        other = catalog.find(model.provider, name)
        if other is not None and other.id != model.id:
            msg = f"The name {name!r:.120} belongs to {other.provider}/{other.id} already."
            raise RefusedError(msg)


def _refuse_jumps(before: "Model | None", after: "Model") -> None:
    from llmproxy.catalog_changes import JUMP_MAX, changed_fields
    from llmproxy.errors import RefusedError

    if before is None:
        return
    jumps = [field for field in changed_fields(before, after) if field.is_jump]
    if jumps:
        first = jumps[0]
        msg = (
            f"{first.name} of {after.provider}/{after.id} would change from {first.old} to "
            f"{first.new}, more than {JUMP_MAX} times. If that is meant, add --yes."
        )
        raise RefusedError(msg)


def _remove(provider: str, model_id: str, *, as_json: bool) -> None:
    from llmproxy.catalog_overrides import remove_override
    from llmproxy.catalog_parser import load_document

    document = load_document(opening.catalog_path())
    with opening.writing() as tx:
        remove_override(tx, provider, model_id)
        model = _in_force(tx, document).find(provider, model_id)
    if as_json:
        shown = None if model is None else full_json(model, is_own=False)
        output.print_json({"provider": provider, "id": model_id, "state": "removed", "now": shown})
    elif model is None:
        output.print_line(f"{provider}/{model_id} has no price any more and is refused.")
    else:
        output.print_line(f"{provider}/{model_id}, per million tokens: {_two_prices(model)} again.")
