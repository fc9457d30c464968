"""Owns whether a request is within the limits of its API key and user, and what it uses of them.

What is counted stands in memory: minutes begin anew with the process, budgets and the speed of
spending are read from the database when a key is first used. The steps of one request:

    enter    before its body is read: suspended? provider? and what rate_limits.py looks at
    reserve  before its hold: budgets; `change` when it held something else, `extend` as it grows
    note_end with its settlement: what it has cost, its tokens; may suspend the key
    leave    when it is over, whatever became of it
"""

import logging
import shlex
from asyncio import Future, shield
from functools import partial

from llmproxy import limit_store, reports
from llmproxy.accounts import Principal
from llmproxy.clock import Clock, arrival_ms
from llmproxy.errors import api_key_suspended, not_allowed
from llmproxy.limits import VELOCITY_SPANS_PER_HOUR, Limits
from llmproxy.meters import Books, Meter, Spent
from llmproxy.money import format_usd
from llmproxy.quote import Quote, budget_exceeded, covered
from llmproxy.rate_limits import Entry, Scope, headers_of, too_many
from llmproxy.storage.queue import Queue

_log = logging.getLogger("llmproxy.relay")


class Gate:
    """Counts what API keys and users use, and refuses what is beyond their limits."""

    def __init__(
        self, writer: Queue, clock: Clock, answer_s_max: int = reports.ANSWER_S_MAX
    ) -> None:
        """Begin with nothing counted; `publish` must be called before the first request.

        `answer_s_max` is how long an answer may take (`total_timeout_s`).
        """
        self._writer = writer
        self._clock = clock
        self._answer_s_max = answer_s_max
        self._meters: dict[int, Meter] = {}
        self._limits: dict[int, Limits] = {}
        """The limits of API keys as they are now, by their ids."""
        self._limits_of_key: dict[int, Limits] = {}
        """The same by the ids of the keys, ended ones too whose requests may still run."""

    def publish(self, principals: dict[bytes, Principal]) -> None:
        """Take the limits as the operator has set them."""
        limited = [each for each in principals.values() if each.limits or each.user_limits]
        before = self._limits
        self._limits_of_key = {each.api_key_id: each.limits for each in limited if each.limits}
        self._limits = {limits.id: limits for limits in self._limits_of_key.values()}
        known = {each.user_limits.id for each in limited if each.user_limits} | set(self._limits)
        for limits_id in [each for each in self._meters if each not in known]:
            meter = self._meters[limits_id]
            meter.books = None  # what is spent meanwhile is not noted: to be read again
            if not meter.running:
                del self._meters[limits_id]
        for principal in {each.limits.id: each for each in limited if each.limits}.values():
            limits = principal.limits
            if limits is not None and limits.id in self._meters:
                meter = self._meters[limits.id]
                if not _are_same_books(before.get(limits.id), limits):
                    self._renew_books(principal, limits, meter)
                meter.note_resumed(limits)
                self._trip_if_too_fast(limits, meter)  # it may be a lower speed than before

    def _renew_books(self, principal: Principal, limits: Limits, meter: Meter) -> None:
        """Forget what was spent; read it again where running requests may soon hold more."""
        meter.books = None
        if meter.running and limits.needs_books:
            meter.filled = self._read_books(principal, limits, meter)

    # --- a request comes -----------------------------------------------------------------------

    def enter(self, principal: Principal, provider: str) -> Entry:
        """Let a request in, or refuse it; nothing is counted for one that is refused.

        Raises:
            ApiError: 403 for a suspended key, or a provider that it may not use; 429.
        """
        limits = principal.limits
        if limits is not None:
            self._require_not_suspended(principal, limits)
            if not limits.allows_provider(provider):
                raise not_allowed(f"may not use provider {provider}", code="provider_not_allowed")
        scopes = self._scopes(principal)
        now_s = self._clock.monotonic_s()
        for scope in scopes:
            refusal = scope.refusal(now_s)
            if refusal is not None:
                raise too_many(*refusal, headers_of(scopes, now_s))
        return Entry(scopes, self._clock)

    def _scopes(self, principal: Principal) -> list[Scope]:
        scopes = []
        if (own := principal.limits) is not None:
            scopes.append(Scope("This API key", "", own, self._meter(own)))
        if (of_user := principal.user_limits) is not None:
            whose = "The user of this API key"
            scopes.append(Scope(whose, "user-", of_user, self._meter(of_user)))
        return scopes

    def _meter(self, limits: Limits) -> Meter:
        meter = self._meters.get(limits.id)
        if meter is None:
            meter = self._meters[limits.id] = Meter()
            meter.note_resumed(limits)
        return meter

    def _require_not_suspended(self, principal: Principal, limits: Limits) -> None:
        meter = self._meters.get(limits.id)
        if limits.is_suspended:
            reason = limits.suspended_reason or ""
        elif meter is not None and meter.is_tripped(limits):
            reason = _too_fast(limits)
        else:
            return
        names = shlex.join((principal.user, principal.api_key))
        raise api_key_suspended(reason, f"llmproxy keys resume {names}")

    # --- its money -----------------------------------------------------------------------------

    async def reserve(
        self, principal: Principal, quote: Quote, hold_id: bytes, *, may_fit: bool
    ) -> Quote:
        """Count what a request will hold for the budgets of its key, before it is held.

        Returns the quote, with less output where only that is left and `may_fit`.

        Raises:
            ApiError: 402, a budget does not cover it; 403, the key has just been suspended.
            DatabaseError: what has been spent cannot be read.
        """
        limits = principal.limits
        if limits is None or not limits.needs_books:
            return quote
        books = await self._books(principal, limits)
        self._require_not_suspended(principal, limits)
        now_ms = self._clock.now_ms()
        rooms = books.rooms(limits, now_ms)
        if rooms:
            tightest = min(rooms, key=lambda room: room.left)
            fitting = covered(quote, tightest.left) if may_fit else quote
            if fitting is None or fitting.amount_nanousd > tightest.left:
                raise budget_exceeded(quote, tightest)
            quote = fitting
        books.hold(hold_id, quote.amount_nanousd, now_ms)
        return quote

    def change(self, principal: Principal, hold_id: bytes, amount_nanousd: int) -> None:
        """Note that a request holds another amount than was reserved."""
        books = self._known_books(principal)
        if books is not None:
            books.change(hold_id, amount_nanousd)

    def extend(
        self, principal: Principal, quote: Quote, hold_id: bytes, held_tokens: int, wanted: int
    ) -> int:
        """Reserve more output for a running request; return how many tokens the budgets cover."""
        books, limits = self._known_books(principal), self._limits_now(principal)
        if books is None or limits is None:
            return wanted
        held = quote.cost_nanousd(held_tokens)
        for room in books.rooms_of(limits, hold_id):
            if quote.cost_nanousd(wanted) - held > room.left:
                wanted = max(held_tokens, quote.affordable_output_tokens(held + room.left))
        books.change(hold_id, quote.cost_nanousd(wanted))
        return wanted

    def _limits_now(self, principal: Principal) -> Limits | None:
        """Return the limits of a running request's key, which may have got them since it came."""
        return self._limits_of_key.get(principal.api_key_id, principal.limits)

    def _known_books(self, principal: Principal) -> Books | None:
        limits = self._limits_now(principal)
        meter = None if limits is None else self._meters.get(limits.id)
        return None if meter is None else meter.books

    async def _books(self, principal: Principal, limits: Limits) -> Books:
        """Return what the key has spent, reading it at first."""
        meter = self._meter(limits)
        while meter.books is None or not meter.books.is_filled:
            filled = meter.filled
            if meter.books is None or filled is None:
                filled = meter.filled = self._read_books(principal, limits, meter)
            # Shielded: who asks no longer takes it from nobody else.
            await shield(filled)
        return meter.books

    def _read_books(self, principal: Principal, limits: Limits, meter: Meter) -> Future[None]:
        """Ask the database what has been spent; the future resolves when that is in the books.

        Ends that are queued before the question are in its answer, those behind it are noted in
        the new books: writes run in their order.
        """
        limits = self._limits.get(limits.id, limits)
        books = meter.books = Books()
        asked_ms, asked_s = self._clock.now_ms(), self._clock.monotonic_s()
        # It keeps the writer, and the loop, for as long as it takes: nothing more is asked for.
        find = partial(
            reports.find_spent,
            now_ms=asked_ms,
            resumed_at_ms=limits.resumed_at_ms,
            answer_s_max=self._answer_s_max,
            with_recent=limits.spend_per_hour_nanousd is not None,
        )
        reading = self._writer.submit(find, principal.user_id, limits.id)
        # Not the reading itself: it is done a moment before its callback runs.
        filled: Future[None] = reading.get_loop().create_future()

        def fill(reading: Future[Spent]) -> None:
            error = reading.exception()
            if error is None:
                books.fill(reading.result(), asked_ms, asked_s, meter.resumed_at_ms)
            if meter.books is not books:
                pass  # the limits were lifted meanwhile: who waits asks anew
            elif error is None:
                self._trip_if_too_fast(self._limits.get(limits.id, limits), meter)
            else:
                meter.books = None
                filled.set_exception(error)
                filled.exception()  # else asyncio complains when nobody waits any more
                return
            filled.set_result(None)

        reading.add_done_callback(fill)
        return filled

    # --- a request ends ------------------------------------------------------------------------

    def note_end(
        self, principal: Principal, hold_id: bytes, cost_nanousd: int = 0, tokens: int = 0
    ) -> None:
        """Count what a request has cost, which holds nothing any more.

        To be called with every settlement and release, in the same moment as it is queued.
        """
        if tokens:
            for limits in (principal.limits, principal.user_limits):
                if limits is not None and (meter := self._meters.get(limits.id)) is not None:
                    meter.tokens.add(tokens, self._clock.monotonic_s())
        limits = self._limits_now(principal)
        meter = None if limits is None else self._meters.get(limits.id)
        if limits is None or meter is None or meter.books is None:
            return
        meter.books.end(hold_id, cost_nanousd, arrival_ms(hold_id), self._clock.monotonic_s())
        if cost_nanousd:
            self._trip_if_too_fast(limits, meter)

    def _trip_if_too_fast(self, limits: Limits, meter: Meter) -> None:
        """Suspend the keys that spend faster than they may, durably."""
        most, books = limits.spend_per_hour_nanousd, meter.books
        if most is None or books is None or limits.is_suspended or meter.is_tripped(limits):
            return
        spent = books.velocity.total(self._clock.monotonic_s())
        if spent * VELOCITY_SPANS_PER_HOUR <= most:
            return
        # A resumption of this very millisecond was of an earlier suspension.
        meter.tripped_at_ms = max(self._clock.now_ms(), limits.resumed_at_ms + 1)
        reason = _too_fast(limits)
        _log.warning("API keys with limits %d are suspended: %s", limits.id, reason)
        self._writer.enqueue(limit_store.suspend, limits.id, reason, meter.tripped_at_ms)


def require_model(principal: Principal, model_id: str) -> None:
    """Refuse a model that the API key may not use.

    Raises:
        ApiError: 403.
    """
    if principal.limits is not None and not principal.limits.allows_model(model_id):
        what = f'may not use model "{model_id:.100}"' if model_id else "must name a model"
        raise not_allowed(what, code="model_not_allowed")


def _are_same_books(before: Limits | None, now: Limits) -> bool:
    """Say whether books that were kept for limits tell all that must be known since a change."""
    if before is None or not (before.needs_books and now.needs_books):
        return False
    return before.spend_per_hour_nanousd is not None or now.spend_per_hour_nanousd is None


def _too_fast(limits: Limits) -> str:
    most = format_usd(limits.spend_per_hour_nanousd or 0)
    return f"its last ten minutes were spent faster than {most} USD per hour"
