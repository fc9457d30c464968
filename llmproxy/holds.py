"""Owns the step before sending: the bound of a request's cost, set aside durably, or a 402."""

import asyncio
from functools import partial
from typing import Any

import msgspec

from llmproxy import ledger
from llmproxy.accounts import Principal
from llmproxy.catalog import Model, Prices
from llmproxy.clock import Clock, arrival_ms
from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.errors import NotAllowedError
from llmproxy.gate import Gate
from llmproxy.headers import Headers
from llmproxy.idempotency import Once, idempotency_key_taken
from llmproxy.quote import Quote, covered, insufficient_credit
from llmproxy.storage.database import Tx
from llmproxy.storage.writer import Writer
from llmproxy.unheld import unsent

CLAMP_HEADER = (b"x-llmproxy-clamp", b"1")


def may_be_lowered(endpoint: Endpoint, facts: RequestFacts, headers: Headers) -> bool:
    """Say whether a maximum of output may be written in: none is set, or clamping is asked for."""
    if not endpoint.output_members:
        return False
    return facts.output_max is None or CLAMP_HEADER in headers


class Holds:
    """Places holds, each with the prices that it is pinned to."""

    def __init__(self, writer: Writer[Any], gate: Gate, clock: Clock) -> None:
        """Begin without any price pinned; `boot_id` must be set before the first hold."""
        self._writer = writer
        self._gate = gate
        self._clock = clock
        self._price_versions: dict[tuple[str, str], tuple[Prices, int]] = {}
        self.boot_id = 0

    async def place(
        self,
        endpoint: Endpoint,
        quote: Quote,
        principal: Principal,
        request_id: bytes,
        *,
        may_fit: bool,
        once: Once | None = None,
    ) -> tuple[Quote, ledger.Hold]:
        """Set the bound of the cost aside, durably, before anything is sent.

        Where it is not available, or a budget of the API key does not cover it, and `may_fit`, the
        bound of the largest maximum of output that is; the returned quote says so.

        Raises:
            ApiError: 402; 403 for a suspended key; 409 or 422 when an earlier request has the
                idempotency key.
        """
        now_ms = self._clock.now_ms()
        hold = ledger.Hold(
            id=request_id,
            wallet_id=principal.wallet_id,
            api_key_id=principal.api_key_id,
            price_version_id=await self._price_version(quote.model, now_ms),
            boot_id=self.boot_id,
            endpoint=endpoint.name,
            user_multiplier_micro=quote.user_multiplier_micro,
            model_multiplier_micro=quote.model.multiplier_micro,
            amount_nanousd=quote.amount_nanousd,
            created_at_ms=arrival_ms(request_id),
            idempotency_hash=once.key_hash if once else None,
            body_hash=once.body_hash if once else None,
            is_stream=quote.facts.is_stream,
        )
        if principal.limits is None:
            return await self._place(quote, hold, principal, may_fit=may_fit)
        quote = await self._reserve(quote, hold, principal, may_fit=may_fit)
        try:
            hold = msgspec.structs.replace(hold, amount_nanousd=quote.amount_nanousd)
            placed = await self._place(quote, hold, principal, may_fit=may_fit)
        except BaseException:
            self._gate.note_end(principal, request_id)
            raise
        self._gate.change(principal, request_id, placed[1].amount_nanousd)
        return placed

    async def _reserve(
        self, quote: Quote, hold: ledger.Hold, principal: Principal, *, may_fit: bool
    ) -> Quote:
        """Count the hold for the budgets of the API key; a repeat is told so whatever they say."""
        try:
            return await self._gate.reserve(principal, quote, hold.id, may_fit=may_fit)
        except NotAllowedError:
            if hold.idempotency_hash is not None:
                earlier = await self._writer.submit(ledger.find_earlier_hold, hold)
                if earlier is not None:
                    raise idempotency_key_taken(earlier, hold.body_hash) from None
            raise

    async def _place(
        self, quote: Quote, hold: ledger.Hold, principal: Principal, *, may_fit: bool
    ) -> tuple[Quote, ledger.Hold]:
        try:
            placed = await self._writer.submit(_place_fitting if may_fit else _place, hold, quote)
        except asyncio.CancelledError:
            # It may be placed all the same: this stands behind the queued placing.
            self._writer.enqueue(ledger.end_if_open, hold, self._released(quote, principal))
            raise
        if isinstance(placed, ledger.Standing):
            raise insufficient_credit(quote, placed)
        if isinstance(placed, ledger.EarlierHold):
            raise idempotency_key_taken(placed, hold.body_hash)
        return placed

    def release(self, hold: ledger.Hold, quote: Quote, principal: Principal, reason: str) -> None:
        """End a hold whose request is not sent after all."""
        self._gate.note_end(principal, hold.id)
        self._writer.enqueue(ledger.end_hold, hold, self._released(quote, principal, reason))

    def _released(
        self, quote: Quote, principal: Principal, reason: str | None = None
    ) -> ledger.End:
        outcome = unsent(principal, quote.model.provider, quote.model.id, reason=reason)
        return ledger.released(outcome, at_ms=self._clock.now_ms())

    async def _price_version(self, model: Model, now_ms: int) -> int:
        """Return the id that pins the model's prices, storing them at their first use."""
        name = (model.provider, model.id)
        known = self._price_versions.get(name)
        if known is not None and known[0] is model.prices:
            return known[1]
        pin = partial(ledger.pin_prices, now_ms=now_ms)
        prices = model.prices.canonical_json()
        version = await self._writer.submit(pin, model.provider, model.id, prices)
        # With the prices that it stands for: the catalog may have changed while we waited.
        self._price_versions[name] = (model.prices, version)
        return version


_Placed = tuple[Quote, ledger.Hold] | ledger.Standing | ledger.EarlierHold


def _place(tx: Tx, hold: ledger.Hold, quote: Quote) -> _Placed:
    return ledger.find_earlier_hold(tx, hold) or ledger.place_hold(tx, hold) or (quote, hold)


def _place_fitting(tx: Tx, hold: ledger.Hold, quote: Quote) -> _Placed:
    """Place a hold, for less output where an answer of full length is not covered.

    All in one transaction: nobody can come between.
    """
    standing = ledger.standing(tx, hold.wallet_id)
    fitting = covered(quote, standing.available_nanousd)
    if fitting is None:
        return ledger.find_earlier_hold(tx, hold) or standing
    if fitting is not quote:
        hold = msgspec.structs.replace(hold, amount_nanousd=fitting.amount_nanousd)
    return _place(tx, hold, fitting)
