"""Command `explain`: one request's receipt, multiplied out in front of the reader."""

from decimal import Decimal
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import Json, examples

if TYPE_CHECKING:
    from llmproxy.pricing import Line
    from llmproxy.reports import Receipt, Request
    from llmproxy.storage.database import Tx

EXAMPLES = examples(
    "llmproxy explain req_0193578c2d4e7a3f8d1c5b6a79808f9e",
    "llmproxy explain req_0193578c2d4e7a3f --json",
)

_NANOUSD_MICRO_EXPONENT = -15
"""A rated token is 10⁻⁶ nano-USD: 10⁻¹⁵ USD."""
_AMBIGUOUS_SHOWN_MAX = 5


def exact_usd(rated_tokens: int, factors: int = 0) -> str:
    """Return rated tokens as exact USD; `factors` multipliers in millionths are inside already."""
    exponent = _NANOUSD_MICRO_EXPONENT - 6 * factors
    digits = f"{Decimal(rated_tokens).scaleb(exponent):f}" if rated_tokens else "0"
    whole, _, decimals = digits.partition(".")
    return f"{whole}.{decimals.rstrip('0').ljust(2, '0')}"


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
    if as_json:
        output.print_json(receipt_json(receipt))
    else:
        _print_receipt(receipt)
    if not receipt.agrees:
        output.say("The stored cost is NOT what the lines multiply to. See: llmproxy ledger verify")
        raise typer.Exit(1)


def _find_id(tx: "Tx", text: str) -> bytes:
    """Return the id that the text is, or the one that begins with it."""
    from llmproxy import reports
    from llmproxy.clock import parse_request_id, request_id_text
    from llmproxy.errors import NotFoundError

    found = parse_request_id(text)
    if found is not None:
        return found
    prefix = text.removeprefix("req_").lower()
    if not reports.ID_PREFIX_DIGITS_MIN <= len(prefix) < 32 or set(prefix) - set(
        "0123456789abcdef"
    ):
        msg = f"{text!r:.60} is no request id; one looks like req_ and 32 hex digits."
        raise typer.BadParameter(msg)
    ids = reports.find_request_ids(tx, prefix, limit=_AMBIGUOUS_SHOWN_MAX)
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
    from llmproxy.money import format_multiplier, format_rate

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
                "rate_usd": format_rate(line.rate),
                "per": _unit(line),
                "amount_usd": exact_usd(line.rated_tokens),
                "price_version": line.price_version,
            }
            for line in receipt.lines
        ],
        "lines_usd": exact_usd(receipt.rated_tokens),
        "user_multiplier": None if user is None else format_multiplier(user),
        "model_multiplier": None if model is None else format_multiplier(model),
        "exact_cost_usd": _exact_cost(receipt),
        "agrees": receipt.agrees,
        "pruned": receipt.is_pruned,
        "raw_usage": receipt.raw_usage,
    }


def _unit(line: "Line") -> int:
    """Return what a rate is the price of: a million tokens, or a thousand searches."""
    return 1000 if line.usage_class == "web_search" else 1_000_000


def _exact_cost(receipt: "Receipt") -> str | None:
    """Return the cost before rounding, in USD."""
    user, model = receipt.user_multiplier_micro, receipt.model_multiplier_micro
    if not receipt.lines or user is None or model is None:
        return None
    return exact_usd(receipt.rated_tokens * user * model, factors=2)


def _print_receipt(receipt: "Receipt") -> None:
    request = receipt.request
    fields = _heading(request)
    if receipt.is_pruned:
        ended = output.short_time(receipt.ended_at_ms)
        fields += [("ended", f"{ended} UTC"), ("details", "pruned (llmproxy usage prune)")]
    output.print_fields(fields)
    output.print_line("")
    rows = [*_line_rows(receipt), *_sum_rows(receipt)]
    decimals = max(len(row[3].partition(".")[2]) for row in rows)
    amounts = [row[3] + " " * (decimals - len(row[3].partition(".")[2])) for row in rows]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    for (label, quantity, rate, _), amount in zip(rows, amounts, strict=True):
        text = f"{label.ljust(widths[0])}  {quantity.rjust(widths[1])}  {rate.ljust(widths[2])}"
        output.print_line(f"{text}  {amount.rjust(max(map(len, amounts)))}".rstrip())


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


Row = tuple[str, str, str, str]


def _line_rows(receipt: "Receipt") -> list[Row]:
    from llmproxy.money import format_rate

    request = receipt.request
    return [
        (
            line.usage_class + (f" ({line.model})" if line.model != request.model else ""),
            f"{line.quantity:,}",
            f"× {format_rate(line.rate)} / {'1k' if _unit(line) == 1000 else '1M'}",
            exact_usd(line.rated_tokens),
        )
        for line in receipt.lines
    ]


def _sum_rows(receipt: "Receipt") -> list[Row]:
    from llmproxy.money import format_multiplier, format_usd

    request = receipt.request
    rows: list[Row] = []
    exact = _exact_cost(receipt)
    if exact is not None:
        user = format_multiplier(receipt.user_multiplier_micro or 0)
        model = format_multiplier(receipt.model_multiplier_micro or 0)
        rows += [
            ("sum", "", "", exact_usd(receipt.rated_tokens)),
            ("× user × model multiplier", "", f"× {user} × {model}", exact),
        ]
    if request.state == "open":
        rows.append(("seen so far", "", "USD", format_usd(request.cost_nanousd)))
    else:
        rounded = "USD, rounded up to 10⁻⁹" if exact is not None else "USD"
        rows += [
            ("cost", "", rounded, format_usd(request.cost_nanousd)),
            ("charged", "", "USD", format_usd(request.charged_nanousd)),
        ]
    if request.shortfall_nanousd:
        rows.append(("shortfall", "", "USD, the operator's", format_usd(request.shortfall_nanousd)))
    if request.state != "refused":
        rows.append(("held", "", "USD", format_usd(request.hold_nanousd)))
    return rows
