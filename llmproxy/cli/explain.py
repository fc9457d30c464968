"""Command `explain`: one request's receipt, multiplied out in front of the reader."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import Json, examples

if TYPE_CHECKING:
    from llmproxy.reports import Receipt, Request
    from llmproxy.storage.database import Tx

EXAMPLES = examples(
    "llmproxy explain req_0193578c2d4e7a3f8d1c5b6a79808f9e",
    "llmproxy explain req_0193578c2d4e7a3f --json",
)

_AMBIGUOUS_SHOWN_MAX = 5


def explain(
    request_id: Annotated[
        str, typer.Argument(metavar="REQUEST_ID", help="Its id; the beginning of it suffices.")
    ],
    as_json: Json = False,
) -> None:
    """Show what a request cost, and why. Tokens × price × multipliers, line by line.

    Of a request that was pruned there is left what it held, cost and was charged, and when.
    Exits with 1 when the stored cost is not what the lines multiply to.
    """
    from llmproxy import reports

    with opening.reading() as tx:
        receipt = reports.find_receipt(tx, _find_id(tx, request_id))
    other = _other_model(receipt.request)
    if as_json:
        output.print_json({**receipt_json(receipt), "served_entry": other})
    else:
        _print_receipt(receipt)
        if other is not None:
            provider, asked = receipt.request.provider, receipt.request.model
            output.say(
                f"The catalog has the model that answered as {provider}/{other}; charged are the "
                f"prices of {asked}, which was asked for."
            )
    if not receipt.agrees:
        output.say("The stored cost is NOT what the lines multiply to. See: llmproxy ledger verify")
        raise typer.Exit(1)


def _other_model(request: "Request") -> str | None:
    """Return the id of the catalog's entry that answered, if it is not the one asked for."""
    from llmproxy.errors import CatalogError
    from llmproxy.served import other_entry

    if request.model_served in {None, request.model}:
        return None
    try:
        catalog = opening.catalog()
    except CatalogError:  # a receipt does not depend on the catalog of today
        return None
    found = other_entry(catalog, request.provider, request.model, request.model_served)
    return None if found is None else found.id


def _find_id(tx: "Tx", text: str) -> bytes:
    """Return the id that the text is, or the one that begins with it."""
    from llmproxy import reports
    from llmproxy.clock import request_id_text
    from llmproxy.errors import NotFoundError

    digits = reports.id_digits(text)
    if digits is None:
        msg = f"{text!r:.60} is no request id; one looks like req_ and 32 hex digits."
        raise typer.BadParameter(msg)
    if len(digits) == reports.ID_DIGITS:
        return bytes.fromhex(digits)
    ids = reports.find_request_ids(tx, digits, limit=_AMBIGUOUS_SHOWN_MAX)
    if not ids:
        msg = f"There is no request {text!r}. See: llmproxy usage requests"
        raise NotFoundError(msg)
    if len(ids) > 1:
        which = ", ".join(request_id_text(each) for each in ids)
        msg = f"{text!r} begins several ids: {which}"
        raise typer.BadParameter(msg)
    return ids[0]


def receipt_json(receipt: "Receipt") -> dict[str, object]:
    """Return the receipt as `explain --json` shows it; money as exact decimal strings of USD."""
    from llmproxy.clock import rfc3339
    from llmproxy.money import format_multiplier
    from llmproxy.reports import exact_cost, exact_usd, rate_unit, rate_usd

    request, user, model = (
        receipt.request,
        receipt.user_multiplier_micro,
        receipt.model_multiplier_micro,
    )
    return {
        **request.as_json(),
        "model_served": request.model_served,
        "attempts": request.attempts,
        "ended_at": rfc3339(receipt.ended_at_ms),
        "price_version": receipt.price_version,
        "lines": [
            {
                "model": line.model,
                "class": line.usage_class,
                "quantity": line.quantity,
                "rate_usd": rate_usd(line),
                "per": rate_unit(line),
                "amount_usd": exact_usd(line.rated_tokens),
                "price_version": line.price_version,
            }
            for line in receipt.lines
        ],
        "lines_usd": exact_usd(receipt.rated_tokens),
        "user_multiplier": None if user is None else format_multiplier(user),
        "model_multiplier": None if model is None else format_multiplier(model),
        "exact_cost_usd": exact_cost(receipt),
        "agrees": receipt.agrees,
        "pruned": receipt.is_pruned,
        "raw_usage": receipt.raw_usage,
    }


def _print_receipt(receipt: "Receipt") -> None:
    from llmproxy.reports import line_rows, sum_rows

    request = receipt.request
    fields = _heading(request)
    if receipt.is_pruned:
        ended = output.short_time(receipt.ended_at_ms)
        fields += [("ended", f"{ended} UTC"), ("details", "pruned (llmproxy usage prune)")]
    output.print_fields(fields)
    output.print_line("")
    rows = [*line_rows(receipt), *sum_rows(receipt)]
    decimals = max(len(row.amount.partition(".")[2]) for row in rows)
    amounts = [row.amount + " " * (decimals - len(row.amount.partition(".")[2])) for row in rows]
    label, quantity, factor = (max(len(row[column]) for row in rows) for column in (1, 2, 3))
    for row, amount in zip(rows, amounts, strict=True):
        text = f"{row.label.ljust(label)}  {row.quantity.rjust(quantity)}"
        text += f"  {row.factor.ljust(factor)}  {amount.rjust(max(map(len, amounts)))}"
        output.print_line(text.rstrip())


def _heading(request: "Request") -> list[tuple[str, str]]:
    from llmproxy.clock import request_id_text

    served = request.model_served
    model = request.full_model
    basis = "" if request.basis == "none" else f", basis {request.basis}"
    fields = [
        ("request", request_id_text(request.id)),
        ("state", request.state + basis),
        ("why", request.why),
        ("user", f"{request.user}, key {request.api_key}"),
        (
            "model",
            model + (f", answered by {served}" if served not in {None, request.model} else ""),
        ),
        ("endpoint", request.endpoint + (", streamed" if request.is_stream else "")),
        ("time", output.short_time(request.created_at_ms) + " UTC"),
        ("answer", _answer(request)),
    ]
    return [(label, value) for label, value in fields if value]


def _answer(request: "Request") -> str:
    parts = []
    if request.status:
        parts.append(f"status {request.status}")
    if request.upstream_status and request.upstream_status != request.status:
        parts.append(f"the provider's was {request.upstream_status}")
    if request.ttfb_ms is not None:
        parts.append(f"first byte after {request.ttfb_ms:,} ms")
    if request.duration_ms is not None:
        parts.append(f"{request.duration_ms:,} ms in all")
    if request.attempts and request.attempts > 1:
        parts.append(f"{request.attempts} attempts")
    return ", ".join(parts)
