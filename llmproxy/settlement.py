"""Owns how a request ends: its hold settled by usage or estimate, or released; exactly once.

Every ending is queued, never waited for, and queued before the client's last bytes, so that the
client's next request stands behind it. The rules of who pays for what are those of reference
money.md 2.1 and docs/what-gets-charged.md.
"""

import logging
from collections.abc import Callable
from functools import partial
from typing import Protocol

import msgspec

from llmproxy import ledger
from llmproxy.bill import Bill, is_empty
from llmproxy.clock import arrival_ms
from llmproxy.dialects.base import Reading
from llmproxy.order import Order, Services
from llmproxy.pricing import Cost
from llmproxy.quote import Quote, may_make_images
from llmproxy.storage.database import Tx
from llmproxy.stored_responses import KeptResponse, hash_response_id
from llmproxy.usage import Usage
from llmproxy.watchdog import Times

_log = logging.getLogger("llmproxy.relay")


class Ending(Protocol):
    """The end of one request, and what its reporting row says of it until then."""

    has_ended: bool
    status: int
    """The HTTP status that the client got."""
    upstream_status: int | None
    attempts: int
    """How often it was tried, the present attempt included."""
    provider_key_id: int | None
    ttfb_ms: int | None

    def begin_attempt(self) -> None:
        """Count an attempt of which nothing has been sent yet."""

    def note_sent(self) -> None:
        """Note that the provider may have got something of this attempt's request."""

    def end(self, reading: Reading, reason: str | None = None) -> int:
        """End by what was read; return the cost in nano-USD. Later calls do nothing."""

    def end_abandoned(self, reading: Reading, reason: str) -> None:
        """End a request whose client left and whose answer could not be read to its end."""

    def release(self, reason: str, reading: Reading | None = None) -> None:
        """End without a charge. Later calls do nothing."""

    def note_seen(self, read: Callable[[], Reading]) -> None:
        """Note durably, with the next commit, what a running answer has cost so far."""


def make_ending(services: Services, order: Order, times: Times) -> Ending:
    """Return how an admitted request will end; nothing is charged until it does."""
    if order.quote is None or order.hold is None:
        return FreeEnding(services, order, times)
    return Settlement(services, order, times, order.quote, order.hold)


class _Row:
    """What the reporting row of a running request says so far; see `Ending`."""

    def __init__(self, services: Services, order: Order, times: Times) -> None:
        self._services = services
        self._order = order
        self._times = times
        self.has_ended = False
        self.status = 0
        self.upstream_status: int | None = None
        self.attempts = 0
        self.was_sent = False
        self.provider_key_id: int | None = None
        self.ttfb_ms: int | None = None

    def begin_attempt(self) -> None:
        """Count an attempt of which nothing has been sent yet."""
        self.attempts += 1
        self.was_sent = False
        self.upstream_status = None

    def note_sent(self) -> None:
        """Note that the provider may have got something of this attempt's request."""
        self.was_sent = True

    def _note_end(
        self, state: str, basis: str, usage: Usage | None = None, cost_nanousd: int = 0
    ) -> None:
        trace = self._order.trace
        trace.state, trace.basis = state, basis
        trace.usage, trace.cost_nanousd = usage, cost_nanousd
        trace.upstream_status, trace.attempts = self.upstream_status, self.attempts

    def _outcome(self, reading: Reading, reason: str | None) -> ledger.Outcome:
        order = self._order
        return ledger.Outcome(
            user_id=order.principal.user_id,
            provider=order.provider.name,
            model=order.model_id,
            is_stream=order.facts.is_stream,
            status=self.status,
            duration_ms=self._times.elapsed_ms(),
            model_served=reading.model,
            reason=reason,
            raw_usage=reading.raw_usage.decode(errors="replace") if reading.raw_usage else None,
            upstream_status=self.upstream_status,
            provider_key_id=self.provider_key_id,
            attempts=self.attempts,
            ttfb_ms=self.ttfb_ms,
        )


class FreeEnding(_Row):
    """The end of a request that costs nothing: its row alone; see `Ending`."""

    def end(self, reading: Reading, reason: str | None = None) -> int:
        """Leave the row."""
        del reading
        self._record(reason, "settled")
        return 0

    def end_abandoned(self, reading: Reading, reason: str) -> None:
        """Leave the row."""
        del reading
        self._record(reason, "released")

    def release(self, reason: str, reading: Reading | None = None) -> None:
        """Leave the row."""
        del reading
        self._record(reason, "released")

    def note_seen(self, read: Callable[[], Reading]) -> None:
        """Do nothing: it costs nothing."""

    def _record(self, reason: str | None, state: str) -> None:
        if self.has_ended:
            return
        self.has_ended = True
        order = self._order
        record = partial(
            ledger.record_unheld,
            api_key_id=order.principal.api_key_id,
            endpoint=order.endpoint.name,
            outcome=self._outcome(Reading(), reason),
            now_ms=arrival_ms(order.id),
            state=state,
        )
        self._services.writer.offer(record, order.id)
        self._note_end(state, "none")


class Settlement(_Row):
    """The end of one hold; see `Ending`."""

    def __init__(
        self, services: Services, order: Order, times: Times, quote: Quote, hold: ledger.Hold
    ) -> None:
        """Take the admitted request with its hold."""
        super().__init__(services, order, times)
        self._quote = quote
        self._hold = hold
        self._bill = Bill(services, order, quote, hold)

    def end(self, reading: Reading, reason: str | None = None) -> int:
        """End the hold by what was read; return the cost in nano-USD. Later calls do nothing.

        What it is charged for is said in `bill.py`; where that is nothing the hold is released.
        """
        if self.has_ended:
            return 0
        usage, basis, problem = self._bill.of(reading)
        if usage is None:
            self.release(reason or _why(reading, problem, "the answer was empty"), reading)
            return 0
        if basis == "usage":
            return self._settle(reading, usage, basis, reason or problem)
        if reading.raw_usage and problem:
            order = self._order
            _log.warning(
                "%s: %s reported usage that is not trusted, the estimate counts: %s",
                *(order.request_id, order.provider.name, problem),
            )
        why = reason or _why(reading, problem, "the provider reported no usage")
        return self._settle(reading, usage, basis, why)

    @property
    def _hides_output(self) -> bool:
        facts, model = self._order.facts, self._quote.model
        return model.reasoning or facts.hides_output or may_make_images(facts, model)

    def end_abandoned(self, reading: Reading, reason: str) -> None:
        """End a hold whose client left and whose answer could not be read to its end.

        Leaving must never be free: at least the input is charged, and the whole hold where a
        model's hidden reasoning may have been generated (money.md 2.1, row 2).
        """
        if self.has_ended:
            return
        is_error = self.upstream_status is not None and self.upstream_status >= 300
        if is_error or not self.was_sent:
            self.release(reason)  # nothing was generated, or nothing has been sent yet
        elif reading.is_final or self._bill.has_cost_alone(reading):
            self.end(reading, reason)
        elif self._hides_output:
            cost = Cost(self._hold.amount_nanousd, ())
            self._enqueue(cost, None, "hold", reading, reason)
        else:
            self._settle(reading, self._bill.estimate(reading), "estimate", reason)

    def release(self, reason: str, reading: Reading | None = None) -> None:
        """End the hold without a charge. Later calls do nothing."""
        if self.has_ended:
            return
        outcome = self._outcome(reading or Reading(), reason)
        end = ledger.released(outcome, at_ms=self._services.clock.now_ms())
        self.has_ended = True
        self._services.writer.enqueue(ledger.end_hold, self._hold, end)
        self._services.gate.note_end(self._order.principal, self._hold.id)
        self._note_end("released", "none")

    def note_seen(self, read: Callable[[], Reading]) -> None:
        """Note durably, with the next commit, what a running answer has cost so far.

        Should we be killed, the hold ends by this (money.md 2.1, row 6). May be left out while
        the database cannot be written.
        """
        self._services.writer.offer(self._write_seen, read)

    def _write_seen(self, tx: Tx, read: Callable[[], Reading]) -> None:
        if self.has_ended:  # most answers have, by now
            return
        reading = read()
        if not is_empty(reading):
            seen = self._bill.price(self._bill.estimate(reading))
            ledger.note_seen(tx, self._hold, seen.nanousd)

    def _settle(self, reading: Reading, usage: Usage, basis: str, reason: str | None) -> int:
        cost = self._bill.price(usage)
        searches = sum(leg.web_searches for leg in usage.legs)
        if searches and not cost.has_units:
            model_id = self._quote.model.id
            _log.warning(
                "%d web searches cost nothing: %s has no price for them", searches, model_id
            )
        guess = self._bill.guess(cost)
        if guess:
            _log.warning("%s: %s", self._order.request_id, guess)
        why = "; ".join(filter(None, (reason, guess))) or None
        self._enqueue(cost, usage, basis, reading, why)
        return cost.nanousd

    def _kept(self, reading: Reading, usage: Usage | None) -> KeptResponse | None:
        """Return what to remember of an answer; nothing of one whose tokens are not known."""
        is_kept = self._order.facts.keeps_response and not reading.has_error
        if usage is None or reading.response_id is None or not is_kept:
            return None
        tokens = sum(leg.input_side + leg.output for leg in usage.legs)
        return KeptResponse(hash_response_id(reading.response_id), tokens)

    def _enqueue(
        self, cost: Cost, usage: Usage | None, basis: str, reading: Reading, reason: str | None
    ) -> None:
        outcome = msgspec.structs.replace(
            self._outcome(reading, reason),
            usage=msgspec.json.encode(usage).decode() if usage else None,
            receipt=msgspec.json.encode(cost.lines).decode() if cost.lines else None,
        )
        now_ms = self._services.clock.now_ms()
        kept = self._kept(reading, usage) if reading.response_id is not None else None
        unpinned = self._bill.unpinned(cost)
        end = ledger.End("settled", basis, cost.nanousd, outcome, now_ms, kept, unpinned)
        # Only now: were anything above to fail, the hold must still be seen as open.
        self.has_ended = True
        self._services.writer.enqueue(ledger.end_hold, self._hold, end)
        principal = self._order.principal
        tokens = self._tokens(usage) if principal.is_limited else 0
        self._services.gate.note_end(principal, self._hold.id, cost.nanousd, tokens)
        self._note_end("settled", basis, usage, cost.nanousd)

    def _tokens(self, usage: Usage | None) -> int:
        """Return how many tokens count for a limit: of input, cached or not, and of output."""
        if usage is None:  # the whole hold was charged
            return self._quote.input_tokens + self._quote.held_output_tokens
        return sum(leg.input_side + leg.output for leg in usage.legs)


def _why(reading: Reading, problem: str | None, otherwise: str) -> str:
    """Say why an answer that came to its end is not billed by a usage record."""
    if problem is None and reading.has_error:
        return "the provider ended the answer with an error"
    return problem or otherwise
