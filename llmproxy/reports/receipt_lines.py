"""Owns a receipt as people read it: quantity × rate = amount, line by line, and what that sums to.

Both the command line and the dashboard show these rows: neither multiplies by itself. Amounts are
exact decimals of USD.
"""

from typing import NamedTuple

from llmproxy.money import exact_decimal, format_multiplier, format_rate, format_usd
from llmproxy.pricing import PROVIDER_COST, UNITS, Line
from llmproxy.reports.receipts import Receipt

_RATED_DECIMALS = 15
"""A rated token is 10⁻⁶ nano-USD: 10⁻¹⁵ USD."""
_PER = {1_000_000: "1M", 3600: "1h", 1000: "1k"}
"""What a price is for, in short."""


class ReceiptRow(NamedTuple):
    """A row of a receipt; what is not said is empty."""

    kind: str
    """The class of usage, or `sum`, `multipliers`, `seen`, `cost`, `charged`, …"""
    label: str
    quantity: str
    factor: str
    amount: str


def exact_usd(rated_tokens: int, factors: int = 0) -> str:
    """Return rated tokens as exact USD; `factors` multipliers in millionths are inside already."""
    return exact_decimal(rated_tokens, _RATED_DECIMALS + 6 * factors)


def rate_unit(line: Line) -> int:
    """Return how many of a line's class its rate is for: a million tokens, a thousand searches."""
    if line.usage_class == PROVIDER_COST:
        return 1
    unit = UNITS.get(line.usage_class)
    return 1_000_000 if unit is None else unit.per


def rate_usd(line: Line) -> str:
    """Return a line's rate as exact USD for as many as `rate_unit` says."""
    is_cost = line.usage_class == PROVIDER_COST
    return exact_usd(line.rate) if is_cost else format_rate(line.rate)


def _factor(line: Line) -> str:
    if line.usage_class == PROVIDER_COST:
        return "as the provider says"
    return f"× {format_rate(line.rate)} / {_PER[rate_unit(line)]}"


def exact_cost(receipt: Receipt) -> str | None:
    """Return the cost before rounding, in USD; None when there is nothing to multiply."""
    user, model = receipt.user_multiplier_micro, receipt.model_multiplier_micro
    if not receipt.lines or user is None or model is None:
        return None
    return exact_usd(receipt.rated_tokens * user * model, factors=2)


def line_rows(receipt: Receipt) -> list[ReceiptRow]:
    """Return a row for each class of usage of each model that billed something."""
    return [
        ReceiptRow(
            kind=line.usage_class,
            label=line.usage_class
            + (f" ({line.model})" if line.model != receipt.request.model else ""),
            quantity=f"{line.quantity:,}",
            factor=_factor(line),
            amount=exact_usd(line.rated_tokens),
        )
        for line in receipt.lines
    ]


def sum_rows(receipt: Receipt) -> list[ReceiptRow]:
    """Return what the lines sum and multiply to, and what of that was held and paid."""
    request = receipt.request
    rows: list[ReceiptRow] = []
    exact = exact_cost(receipt)
    if exact is not None:
        user = format_multiplier(receipt.user_multiplier_micro or 0)
        model = format_multiplier(receipt.model_multiplier_micro or 0)
        factor = f"× {user} × {model}"
        rows += [
            ReceiptRow("sum", "sum", "", "", exact_usd(receipt.rated_tokens)),
            ReceiptRow("multipliers", "× user × model multiplier", "", factor, exact),
        ]
    if request.state == "open":
        rows.append(_usd("seen", "seen so far", request.cost_nanousd))
    else:
        rounded = "USD, rounded up to 10⁻⁹" if exact is not None else "USD"
        rows.append(_usd("cost", "cost", request.cost_nanousd, rounded))
        rows.append(_usd("charged", "charged", request.charged_nanousd))
    if request.shortfall_nanousd:
        rows.append(
            _usd("shortfall", "shortfall", request.shortfall_nanousd, "USD, the operator's")
        )
    if request.state != "refused":
        rows.append(_usd("held", "held", request.hold_nanousd))
    return rows


def _usd(kind: str, label: str, amount_nanousd: int, unit: str = "USD") -> ReceiptRow:
    return ReceiptRow(kind, label, "", unit, format_usd(amount_nanousd))
