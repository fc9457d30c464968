"""Owns what a request is charged for: whose usage counts, and at which prices.

There is one rule for all who ask: the settlement of its hold, and the cover of a stream that is
at its end. It is that of docs/what-gets-charged.md. Must not end or extend holds.
"""

from typing import NamedTuple

import msgspec

from llmproxy import ledger
from llmproxy.dialects.base import Reading, estimated
from llmproxy.input_bound import input_estimate
from llmproxy.order import Order, Services
from llmproxy.pricing import Cost, LegModel, PricedModel, leg_model, price
from llmproxy.quote import Quote, with_likely_units, with_untold_images
from llmproxy.usage import Usage, with_writes

_UNPRICED = "the provider reported what this model has no price for"
_NAME_SHOWN_MAX = 100
_GUESSES_SHOWN_MAX = 3
_COST_ALONE = "the provider's own cost counts, and of the tokens the estimate"


class Billed(NamedTuple):
    """What an answer is charged for."""

    usage: Usage | None
    """None where nothing can have been generated: it costs nothing."""
    basis: str
    """`usage` where the provider said what it costs, `estimate` where not, else `none`."""
    problem: str | None = None
    """Why what the provider said does not count, or not all of it."""


class Bill:
    """Says what the answer to one admitted request is charged for, and what that costs."""

    def __init__(self, services: Services, order: Order, quote: Quote, hold: ledger.Hold) -> None:
        """Take the admitted request with its hold, whose prices are the ones that count."""
        self._services = services
        self._order = order
        self._quote = quote
        self._hold = hold
        self._others: dict[str, LegModel] = {}
        """What prices each leg of another model: as the catalog was when it was first seen."""

    def of(self, reading: Reading) -> Billed:
        """Return what an answer is charged for that has come to its end.

        The provider's final usage is the bill. Where it cannot be trusted, the cost that stands
        beside it is, if the model is billed by that. Without either the documented estimate is.
        """
        problem = reading.problem
        if reading.is_final and reading.usage is not None:
            usage = reading.usage
            if reading.is_by_request:
                usage = with_likely_units(usage, self._order.facts)
            usage = self._as_asked(usage)
            if not self._is_unpriced(usage, reading):
                return Billed(usage, "usage", _surplus(usage))
            reading, problem = msgspec.structs.replace(reading, usage=None), _UNPRICED
        elif self.has_cost_alone(reading):
            usage = msgspec.structs.replace(
                self.estimate(reading), provider_cost=reading.provider_cost
            )
            return Billed(usage, "usage", f"{problem}: {_COST_ALONE}")
        if is_empty(reading):
            return Billed(None, "none", problem)
        return Billed(self.estimate(reading), "estimate", problem)

    def has_cost_alone(self, reading: Reading) -> bool:
        """Say whether a usage that cannot be trusted has told the cost that is the bill."""
        return reading.provider_cost is not None and self._is_cost_from_provider

    def output_tokens(self, reading: Reading) -> int:
        """Return how many tokens of output an answer at its end is charged for."""
        usage = self.of(reading).usage
        return 0 if usage is None else sum(leg.output for leg in usage.legs)

    def estimate(self, reading: Reading) -> Usage:
        """Return the documented estimate of an answer, as far as it has come."""
        quote = self._quote
        input_tokens = min(input_estimate(quote.facts.input), quote.input_tokens)
        image_tokens = quote.facts.image_tokens
        images_asked = quote.facts.choices if image_tokens else 0
        usage = estimated(reading, input_tokens, quote.output_tokens, image_tokens, images_asked)
        if reading.usage is None:
            usage = with_likely_units(usage, quote.facts)
        return self._dearer(self._as_asked(usage))

    def _dearer(self, usage: Usage) -> Usage:
        """Return a usage without the cost that was told on the way, if what has come costs more.

        The provider goes on counting behind it, and some begin with 0.
        """
        if usage.provider_cost is None:
            return usage
        by_tokens = msgspec.structs.replace(usage, provider_cost=None)
        return max(usage, by_tokens, key=lambda one: self.price(one).nanousd)

    def price(self, usage: Usage) -> Cost:
        """Return what a usage costs at the prices of the hold."""
        return price(
            usage,
            self._pinned(),
            user_multiplier_micro=self._hold.user_multiplier_micro,
            model_multiplier_micro=self._hold.model_multiplier_micro,
            other_model=self._other_model,
        )

    def unpinned(self, cost: Cost) -> tuple[ledger.Unpinned, ...]:
        """Return the prices of other models in a cost, which no price version pins so far."""
        if not self._others:
            return ()
        names = {line.model for line in cost.lines if line.price_version is None}
        entries = {name: self._others[name].model for name in sorted(names)}
        return tuple(
            ledger.Unpinned(name, model.id, model.prices.canonical_json().decode())
            for name, model in entries.items()
        )

    def guess(self, cost: Cost) -> str | None:
        """Say which models in a cost have no price, and whose counts instead; None without any."""
        if not self._others:
            return None
        charged = {line.model for line in cost.lines}
        guesses = [
            f"{name[:_NAME_SHOWN_MAX]} has no price: that of {other.model.id}, the provider's "
            "dearest, counts"
            for name, other in self._others.items()
            if other.is_guess and name in charged
        ]
        more = len(guesses) - _GUESSES_SHOWN_MAX
        told = guesses[:_GUESSES_SHOWN_MAX]
        return "; ".join([*told, f"and {more} more"] if more > 0 else told) or None

    @property
    def _is_cost_from_provider(self) -> bool:
        return self._quote.model.prices.is_cost_from_provider

    def _is_unpriced(self, usage: Usage, reading: Reading) -> bool:
        """Say whether a usage counts what the model is not billed by, such as seconds for tokens.

        It would cost nothing. What the provider says that it bills is a price, also if it is 0.
        """
        if usage.provider_cost is not None and self._is_cost_from_provider:
            return False
        if not self._order.facts.likely_units or self.price(usage).nanousd:
            return False
        likely = self.estimate(msgspec.structs.replace(reading, usage=None))
        return self.price(likely).nanousd > 0

    def _as_asked(self, usage: Usage) -> Usage:
        """Return a usage in which what the answer does not repeat stands as it was asked for."""
        facts = self._order.facts
        asked = facts.movers
        usage = with_untold_images(usage, facts, self._quote.model)
        return msgspec.structs.replace(
            with_writes(usage, may_be_1h=facts.may_write_cache_1h),
            service_tier=usage.service_tier or asked.service_tier,
            speed=usage.speed or asked.speed,
            geo=usage.geo or asked.geo,
        )

    def _pinned(self) -> PricedModel:
        """Return the asked model at the prices of the hold, whatever it costs by now."""
        model = self._quote.model
        return PricedModel(model.id, model.prices, self._hold.price_version_id)

    def _other_model(self, name: str) -> PricedModel:
        """Return the prices of a leg of another model, under the name that the leg has for it."""
        asked = self._quote.model
        if name not in self._others:
            self._others[name] = leg_model(name, asked, self._services.catalog.current)
        model = self._others[name].model
        version = self._hold.price_version_id if model is asked else None
        return PricedModel(name, model.prices, version)


def _surplus(usage: Usage) -> str | None:
    """Say how many tokens were reported of the cache, but of no input; None for none."""
    surplus = sum(leg.cache_surplus for leg in usage.legs)
    if not surplus:
        return None
    return f"{surplus:,} tokens of the cache, reported above all input, do not count"


def is_empty(reading: Reading) -> bool:
    """Say whether nothing can have been generated, as far as can be seen: it costs nothing."""
    return reading.usage is None and reading.seen_bytes == 0
