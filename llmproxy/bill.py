"""Owns what a request is charged for: whose usage counts, and at which prices.

There is one rule for all who ask: the settlement of its hold, and the cover of a stream that is
at its end. It is that of docs/what-gets-charged.md. Must not end or extend holds.
"""

import logging
from typing import NamedTuple

import msgspec

from llmproxy import ledger
from llmproxy.dialects.base import Reading, estimated
from llmproxy.input_bound import input_estimate
from llmproxy.order import Order, Services
from llmproxy.pricing import Cost, PricedModel, price
from llmproxy.quote import Quote, with_likely_units, with_untold_images
from llmproxy.usage import Usage, with_writes

_UNPRICED = "the provider reported what this model has no price for"
_COST_ALONE = "the provider's own cost counts, and of the tokens the estimate"

_log = logging.getLogger("llmproxy.relay")


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
                return Billed(usage, "usage")
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

    def _other_model(self, model_id: str) -> PricedModel:
        """Return the prices of another model's leg; the provider's dearest if it is unknown."""
        asked = self._quote.model
        if model_id in {asked.id, *asked.aliases}:
            return self._pinned()
        catalog, provider = self._services.catalog.current, self._order.provider.name
        model = catalog.find(provider, model_id)
        if model is None:
            _log.warning("a leg of %s has no price, the dearest one counts", model_id[:100])
            # The asked model too: it may have lost its entry since.
            known = [asked, *catalog.models(provider)]
            model = max(known, key=lambda one: one.prices.rates.output)
        return PricedModel(model.id, model.prices, None)


def is_empty(reading: Reading) -> bool:
    """Say whether nothing can have been generated, as far as can be seen: it costs nothing."""
    return reading.usage is None and reading.seen_bytes == 0
