"""Owns why a request ended as it did and cost what it did, in words, for every row there is.

What the row keeps comes first; the rest follows from its columns and is said when it is read.
"""

from llmproxy.money import format_usd

_OF_STATE = {
    "open": "it is still running",
    "released": "nothing was generated",
    "expired": "the proxy stopped while this request ran",
    "refused": "it was refused",
}
_OF_SETTLED_BASIS = {
    "usage": "the provider reported this usage",
    "estimate": "the provider reported no usage: estimated by what was seen",
    "hold": "what was generated could not be seen: the whole hold",
    "none": "it is free of charge",
}


def why(
    *,
    state: str,
    basis: str,
    stored: str | None,
    hold_nanousd: int,
    cost_nanousd: int,
    shortfall_nanousd: int,
) -> str:
    """Return the reason of a row; one that cost more than it held says so. Amounts in nano-USD."""
    reason = stored or (_OF_SETTLED_BASIS[basis] if state == "settled" else _OF_STATE[state])
    if state == "open" or cost_nanousd <= hold_nanousd:
        return reason
    reason += f"; it cost more than the {format_usd(hold_nanousd)} USD that were held"
    if shortfall_nanousd:
        reason += f", and {format_usd(shortfall_nanousd)} USD of that could not be paid"
    return reason
