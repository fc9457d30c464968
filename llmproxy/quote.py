"""Owns the offer before a request is sent: what is held, and what the 402 says. Pure."""

from typing import NamedTuple

import msgspec

from llmproxy.catalog import Model
from llmproxy.clock import rfc3339
from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.dialects.json_gate import with_output_max, with_output_max_within
from llmproxy.errors import ApiError, NotAllowedError
from llmproxy.input_bound import input_bound, not_bounded
from llmproxy.ledger import Standing
from llmproxy.meters import Room
from llmproxy.money import affordable_tokens, cost_nanousd, format_usd
from llmproxy.pricing import INSTEAD_OF_TOKENS, UNITS, Bound, bound, unpriced_mover
from llmproxy.usage import Usage

OUTPUT_TOKENS_MAX_DEFAULT = 128_000
"""For models whose catalog entry knows no maximum: as much as the largest usual one."""
WRITTEN_MAX_LOWEST = 1024
"""A smaller maximum is not written into a request that sets none (DESIGN section 5)."""


class HoldPolicy(NamedTuple):
    """How much is held for a request: what the operator has chosen."""

    stream_output_tokens: int = 4096
    """Of a stream that can be seen through, so many tokens at first; its hold grows with it."""
    is_strict: bool = False
    """Hold what no honest answer can pass, and refuse what has no such bound."""


class Quote(msgspec.Struct, frozen=True):
    """The upper bound of what a request can cost, in nano-USD, and how it came about."""

    facts: RequestFacts
    model: Model
    bound: Bound
    input_tokens: int
    output_tokens: int
    """The most tokens of output that the answer can have."""
    held_output_tokens: int
    """As many of them are held before the request is sent."""
    user_multiplier_micro: int
    fitted_max: int | None = None
    """The maximum of output tokens, for each choice, that must be written into the request."""

    @property
    def grows(self) -> bool:
        """Say whether the hold must be extended for an answer of full length."""
        return self.held_output_tokens < self.output_tokens

    @property
    def amount_nanousd(self) -> int:
        """What is held before the request is sent, in nano-USD."""
        return self.cost_nanousd(self.held_output_tokens)

    def cost_nanousd(self, output_tokens: int) -> int:
        """Return the most that an answer of so many tokens can cost, in nano-USD."""
        rated = self.bound.rated(output_tokens)
        return cost_nanousd(rated, self.user_multiplier_micro, self.model.multiplier_micro)

    def affordable_output_tokens(self, amount_nanousd: int) -> int:
        """Return how many tokens of output, up to all, an amount pays for besides the input."""
        tokens = affordable_tokens(
            amount_nanousd,
            self.bound.output_rate,
            self.user_multiplier_micro,
            self.model.multiplier_micro,
            besides=self.bound.input_rated,
        )
        return self.output_tokens if tokens is None else min(tokens, self.output_tokens)


def make_quote(
    facts: RequestFacts, model: Model, user_multiplier_micro: int, policy: HoldPolicy
) -> Quote:
    """Return the bound of a request's cost.

    All of it is held, but for a stream whose every billed token of output can be seen passing:
    neither may the model think unseen, or make images, nor the request ask for what is billed and
    not shown. A
    strict server holds all of it always: how many tokens a text is, is the provider's to say.

    Raises:
        ApiError: 400, when the request asks for a service tier, speed or region without a price,
            or when the policy is strict and there is no bound, as where the cost is the provider's.
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
    _refuse_uncounted(facts, model)
    if policy.is_strict and model.prices.is_cost_from_provider:
        raise not_bounded(
            f"of {model.id} the provider says only with the answer what it costs",
            "Use another model",
        )
    if policy.is_strict and facts.unbounded is not None:
        raise not_bounded(*facts.unbounded)
    input_tokens = input_bound(facts, model, is_strict=policy.is_strict)
    request_bound = bound(
        model.prices,
        input_tokens=input_tokens,
        movers=facts.movers,
        may_write_cache=facts.may_write_cache,
        may_write_cache_1h=facts.may_write_cache_1h,
        media=_media(facts, model),
        units=_units(facts),
        any_default=policy.is_strict,
    )
    output_max = _output_max(facts, model, policy, has_price=request_bound.output_rate > 0)
    output_tokens = output_max * facts.choices + facts.output_tokens_extra
    held_output_tokens = output_tokens
    is_seen_through = facts.is_stream and not (
        model.reasoning or facts.hides_output or may_make_images(facts, model)
    )
    if is_seen_through and not policy.is_strict:
        held_output_tokens = min(output_tokens, policy.stream_output_tokens)
    return Quote(
        facts=facts,
        model=model,
        bound=request_bound,
        input_tokens=input_tokens,
        output_tokens=output_tokens,
        held_output_tokens=held_output_tokens,
        user_multiplier_micro=user_multiplier_micro,
    )


def may_make_images(facts: RequestFacts, model: Model) -> bool:
    """Say whether an answer may have images, whose bytes do not tell their tokens."""
    has_price = model.prices.rates.output_image is not None
    return "output_image" in _media(facts, model) and (has_price or model.mode == "image")


def _media(facts: RequestFacts, model: Model) -> tuple[str, ...]:
    """Return the classes of tokens besides text: a model for images makes them unasked."""
    if model.mode != "image" or facts.names_output:
        return facts.media
    return (*facts.media, "output_image")


def _refuse_uncounted(facts: RequestFacts, model: Model) -> None:
    """Refuse a model that is billed by what no answer of this endpoint can tell: it would be free.

    Raises:
        ApiError: 400.
    """
    counted = {name for name, _ in facts.units}
    rates = model.prices.rates
    for name in sorted(INSTEAD_OF_TOKENS):
        if name not in counted and getattr(rates, UNITS[name].rate) is not None:
            what = UNITS[name].counted.replace("_", " ")
            raise ApiError(
                400,
                "option_not_metered",
                f"{model.id} is billed by {what}, which this endpoint does not count. "
                "Use it where it belongs, or another model here.",
                param="model",
            )
    if facts.tokens_untold is not None and (rates.input or rates.output):
        why, instead = facts.tokens_untold
        raise ApiError(
            400, "option_not_metered", f"{model.id} is billed by tokens, and {why}. {instead}."
        )


def _units(facts: RequestFacts) -> tuple[tuple[str, int], ...]:
    return (("web_search", facts.searches), *facts.units) if facts.searches else facts.units


def _output_max(facts: RequestFacts, model: Model, policy: HoldPolicy, *, has_price: bool) -> int:
    """Return the most output tokens of one choice; of what costs nothing there may be any number.

    Raises:
        ApiError: 400, when the policy is strict and nothing says how many there may be.
    """
    own, models = facts.output_max, model.max_output_tokens
    if own is not None:
        # A provider refuses or lowers a maximum above the model's own.
        return own if models is None else min(own, models)
    if models is not None:
        return models
    if policy.is_strict and has_price:
        raise not_bounded(
            f"neither the request nor the model catalog says how much {model.id} may answer",
            "Set a maximum of output tokens, such as `max_tokens`",
        )
    return OUTPUT_TOKENS_MAX_DEFAULT


def with_likely_units(usage: Usage, facts: RequestFacts) -> Usage:
    """Return a usage that has what the request is likely to cause of what is billed by the number.

    Its tokens are those of what was asked for: sound that is listened to, images that are made.
    Where the usage has some of them itself, these count, but not more than were asked for.
    """
    if not facts.likely_units:
        return usage
    first, *others = usage.legs
    counted = {}
    for name, asked in facts.likely_units:
        counts = UNITS[name].counted
        counted[counts] = min(getattr(first, counts) or asked, asked)
    counted["input_audio"] = first.input if "input_audio" in facts.media else first.input_audio
    counted["output_image"] = first.output if "output_image" in facts.media else first.output_image
    return msgspec.structs.replace(usage, legs=(msgspec.structs.replace(first, **counted), *others))


def with_untold_images(usage: Usage, facts: RequestFacts, model: Model) -> Usage:
    """Return a usage in which all that a model for images has made is images, where none is told.

    But for what it has thought. Chat completions tell no media apart, and what is not told must not
    cost less for that. The endpoints for images tell what is text.
    """
    if model.mode != "image" or facts.likely_units or not may_make_images(facts, model):
        return usage
    first, *others = usage.legs
    if first.output_image:
        return usage
    first = msgspec.structs.replace(first, output_image=first.output - first.reasoning)
    return msgspec.structs.replace(usage, legs=(first, *others))


def fit(quote: Quote, available_nanousd: int) -> Quote | None:
    """Return the quote with the largest maximum of output that an amount pays for, if any will do.

    A request that sets no maximum gets none so small that its answer would be cut off for sure.
    One that the provider may not read is none, but no larger one is written in.
    """
    fitting = _fitting_max(quote, available_nanousd)
    facts = quote.facts
    lowest = WRITTEN_MAX_LOWEST if facts.output_max is None else 1
    if facts.unread_max is not None:
        fitting, lowest = min(fitting, facts.unread_max), min(lowest, facts.unread_max)
    if fitting < lowest:
        return None
    output_tokens = fitting * facts.choices + facts.output_tokens_extra
    held = min(quote.held_output_tokens, output_tokens) if quote.grows else output_tokens
    return msgspec.structs.replace(
        quote, output_tokens=output_tokens, held_output_tokens=held, fitted_max=fitting
    )


def covered(quote: Quote, available_nanousd: int) -> Quote | None:
    """Return the quote as an amount covers it, with less output where need be, if it can be.

    A maximum that the request sets is lowered only where it would be refused: a hold that grows
    may do without.
    """
    # A request that sets no maximum goes without one only if its longest answer is covered, also
    # where the hold grows: else the provider is to end it, properly. One that is set is the
    # client's own word, and stands as long as its first hold can be placed.
    sets_none = quote.facts.output_max is None
    needed = quote.cost_nanousd(quote.output_tokens) if sets_none else quote.amount_nanousd
    return quote if needed <= available_nanousd else fit(quote, available_nanousd)


def with_counted_max(body: bytes, endpoint: Endpoint, quote: Quote) -> bytes:
    """Return a request's body with the maximum of output that its quote counts with.

    That is the client's own body, unless the maximum was made to fit, or stands only under a name
    that the provider does not read.
    """
    tokens = quote.fitted_max
    if tokens is None and quote.facts.unread_max is not None:
        tokens = quote.facts.output_max
    if tokens is None:
        return body
    members, read = endpoint.output_members, endpoint.read_output_members
    within = quote.facts.output_within
    if within is None:
        return with_output_max(body, members, tokens, read=read)
    return with_output_max_within(body, within, members, tokens, read=read)


def _fitting_max(quote: Quote, available_nanousd: int) -> int:
    """Return the largest maximum of output tokens for each choice that an amount pays for.

    Of images and sound there is none that a request could set.
    """
    if quote.facts.likely_units:
        return 0
    tokens = affordable_tokens(
        available_nanousd,
        quote.bound.output_rate,
        quote.user_multiplier_micro,
        quote.model.multiplier_micro,
        besides=quote.bound.rated(quote.facts.output_tokens_extra),
    )
    return (tokens or 0) // quote.facts.choices


def insufficient_credit(quote: Quote, standing: Standing) -> ApiError:
    """Return the 402 for a quote that the wallet cannot hold, saying what would fit."""
    fitting = _fitting_max(quote, standing.available_nanousd)
    needed, available = format_usd(quote.amount_nanousd), format_usd(standing.available_nanousd)
    message = (
        f"Insufficient credit balance — top up or {_less(quote)}. "
        f"Needed {needed} USD, available {available} USD{_hint(quote, fitting)}."
    )
    fields: dict[str, object] = {
        "needed_usd": needed,
        "available_usd": available,
        "held_usd": format_usd(standing.held_nanousd),
        "max_tokens_affordable": fitting,
    }
    return ApiError(402, "insufficient_credit", message, fields=fields)


def budget_exceeded(quote: Quote, room: Room) -> NotAllowedError:
    """Return the 402 for a quote that a budget of the API key does not cover; no retry helps."""
    left = max(0, room.left)
    fitting = _fitting_max(quote, left)
    amounts = {
        "needed_usd": format_usd(quote.amount_nanousd),
        "budget_usd": format_usd(room.budget),
        "spent_usd": format_usd(room.spent),
        "held_usd": format_usd(room.held),
    }
    resets_at = rfc3339(room.resets_at_ms) or ""
    message = (
        f"The {room.name} budget of this API key does not cover this request — {_less(quote)}, "
        f"or wait until {resets_at[:16]}Z. Needed {amounts['needed_usd']} USD, "
        f"{format_usd(left)} of {amounts['budget_usd']} USD left{_hint(quote, fitting)}."
    )
    fields: dict[str, object] = {
        "budget": room.name,
        **amounts,
        "resets_at": resets_at,
        "max_tokens_affordable": fitting,
    }
    return NotAllowedError(402, code="budget_exceeded", message=message, fields=fields)


def _less(quote: Quote) -> str:
    """Return what makes a request cheaper."""
    if _sets_maximum(quote):
        return "lower max_tokens"
    facts = quote.facts
    if "image" not in dict(facts.likely_units):
        return "send less input"
    options = ["fewer images"] if facts.choices > 1 else []
    if quote.bound.output_rate:
        options += facts.lessened_by
    if not options:
        return "use another model"
    *others, last = options
    return f"ask for {', '.join(others)} or {last}" if others else f"ask for {last}"


def _sets_maximum(quote: Quote) -> bool:
    """Say whether a request can set a maximum: those for embeddings, images and sound cannot."""
    return quote.output_tokens > 0 and not quote.facts.likely_units


def _hint(quote: Quote, fitting: int) -> str:
    if not _sets_maximum(quote):
        return ""
    return f"; max_tokens up to {fitting} would fit" if fitting else "; no max_tokens would fit"
