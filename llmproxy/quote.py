"""Owns the offer before a request is sent: what is held, and what the 402 says. Pure."""

from typing import NamedTuple

import msgspec

from llmproxy.catalog import Model
from llmproxy.dialects.base import RequestFacts
from llmproxy.errors import ApiError
from llmproxy.input_bound import input_bound, not_bounded
from llmproxy.ledger import Shortage
from llmproxy.money import affordable_tokens, cost_nanousd, format_usd
from llmproxy.pricing import Bound, bound, unpriced_mover

OUTPUT_TOKENS_MAX_DEFAULT = 128_000
"""For models whose catalog entry knows no maximum: as much as the largest usual one."""
WRITTEN_MAX_LOWEST = 1024
"""A smaller maximum is not written into a request that sets none (DESIGN section 5)."""


class HoldPolicy(NamedTuple):
    """How much is held for a request: what the operator has chosen."""

    is_strict: bool = False
    """Hold what no honest answer can pass, and refuse what has no such bound."""


class Quote(msgspec.Struct, frozen=True):
    """The upper bound of what a request can cost, in nano-USD, and how it came about."""

    facts: RequestFacts
    model: Model
    bound: Bound
    input_tokens: int
    output_tokens: int
    amount_nanousd: int
    user_multiplier_micro: int
    fitted_max: int | None = None
    """The maximum of output tokens, for each choice, that must be written into the request."""


def make_quote(
    facts: RequestFacts, model: Model, user_multiplier_micro: int, policy: HoldPolicy
) -> Quote:
    """Return the bound of a request's cost.

    Raises:
        ApiError: 400, when the request asks for a service tier, speed or region without a price,
            or when the policy is strict and there is no bound.
    """
    unpriced = unpriced_mover(model.prices, facts.movers)
    if unpriced is None and facts.searches and model.prices.rates.web_search is None:
        unpriced = "web search"
    if unpriced is not None:
        raise ApiError(
            400,
            "option_not_metered",
            f"{unpriced} has no price for {model.id} in the model catalog. Send the request "
            "without it.",
        )
    input_tokens = input_bound(facts, model, is_strict=policy.is_strict)
    request_bound = bound(
        model.prices,
        input_tokens=input_tokens,
        movers=facts.movers,
        may_write_cache=facts.may_write_cache,
        may_write_cache_1h=facts.may_write_cache_1h,
        searches=facts.searches,
        any_default=policy.is_strict,
    )
    output_max = _output_max(facts, model, policy)
    output_tokens = output_max * facts.choices + facts.output_tokens_extra
    amount = cost_nanousd(
        request_bound.rated(output_tokens), user_multiplier_micro, model.multiplier_micro
    )
    return Quote(
        facts, model, request_bound, input_tokens, output_tokens, amount, user_multiplier_micro
    )


def _output_max(facts: RequestFacts, model: Model, policy: HoldPolicy) -> int:
    """Return the most output tokens of one choice.

    Raises:
        ApiError: 400, when the policy is strict and nothing says how many there may be.
    """
    own, models = facts.output_max, model.max_output_tokens
    if own is not None:
        # A provider refuses or lowers a maximum above the model's own.
        return own if models is None else min(own, models)
    if models is not None:
        return models
    if policy.is_strict:
        raise not_bounded(
            f"neither the request nor the model catalog says how much {model.id} may answer",
            "Set a maximum of output tokens, such as `max_tokens`",
        )
    return OUTPUT_TOKENS_MAX_DEFAULT


def fit(quote: Quote, available_nanousd: int) -> Quote | None:
    """Return the quote with the largest maximum of output that an amount pays for, if any will do.

    A request that sets no maximum gets none so small that its answer would be cut off for sure.
    """
    fitting = _fitting_max(quote, available_nanousd)
    facts = quote.facts
    if fitting < (WRITTEN_MAX_LOWEST if facts.output_max is None else 1):
        return None
    output_tokens = fitting * facts.choices + facts.output_tokens_extra
    amount = cost_nanousd(
        quote.bound.rated(output_tokens),
        quote.user_multiplier_micro,
        quote.model.multiplier_micro,
    )
    return msgspec.structs.replace(
        quote, output_tokens=output_tokens, amount_nanousd=amount, fitted_max=fitting
    )


def _fitting_max(quote: Quote, available_nanousd: int) -> int:
    """Return the largest maximum of output tokens for each choice that an amount pays for."""
    tokens = affordable_tokens(
        available_nanousd,
        quote.bound.output_rate,
        quote.user_multiplier_micro,
        quote.model.multiplier_micro,
        besides=quote.bound.rated(quote.facts.output_tokens_extra),
    )
    return (tokens or 0) // quote.facts.choices


def insufficient_credit(quote: Quote, shortage: Shortage) -> ApiError:
    """Return the 402 for a quote that the wallet cannot hold, saying what would fit."""
    fitting = _fitting_max(quote, shortage.available_nanousd)
    needed, available = format_usd(quote.amount_nanousd), format_usd(shortage.available_nanousd)
    hint = f"max_tokens up to {fitting} would fit" if fitting else "no max_tokens would fit"
    message = (
        "Insufficient credit balance — top up or lower max_tokens. "
        f"Needed {needed} USD, available {available} USD; {hint}."
    )
    fields: dict[str, object] = {
        "needed_usd": needed,
        "available_usd": available,
        "held_usd": format_usd(shortage.held_nanousd),
        "max_tokens_affordable": fitting,
    }
    return ApiError(402, "insufficient_credit", message, fields=fields)
