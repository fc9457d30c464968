"""Owns the hold of a stream while it grows: extended ahead of need, until the credit ends.

As prepaid telephony does (RFC 8506): what has not been held is not passed on. A budget of the API
key counts as credit does. Must not end holds.
"""

from asyncio import Future
from contextlib import suppress

from llmproxy import ledger
from llmproxy.accounts import Principal
from llmproxy.errors import DatabaseError
from llmproxy.gate import Gate
from llmproxy.order import Order, Services
from llmproxy.quote import Quote
from llmproxy.storage.database import Tx
from llmproxy.storage.queue import Queue

SEEN_BYTES_PER_TOKEN = 2
"""Fewer than almost any text has, in any script: what is held covers what the provider counts."""


def make_growing(services: Services, order: Order) -> "GrowingHold | None":
    """Return the hold of an admitted request that grows with its answer, None if it does not."""
    if order.quote is None or order.hold is None or not order.quote.grows:
        return None
    return GrowingHold(services.writer, services.gate, order.principal, order.quote, order.hold)


class GrowingHold:
    """One stream's hold; asked before the stream is passed on beyond `look_at_bytes`."""

    def __init__(
        self, writer: Queue, gate: Gate, principal: Principal, quote: Quote, hold: ledger.Hold
    ) -> None:
        """Take the hold as it was placed, and whose it is."""
        self._writer = writer
        self._gate = gate
        self._principal = principal
        self.is_budget_short = False
        """It was a budget of the API key that did not cover what was last asked for."""
        self._quote = quote
        self._hold = hold
        self._step_tokens = quote.held_output_tokens
        self._held_tokens = quote.held_output_tokens
        self._asked_tokens = 0
        self._extension: Future[int] | None = None
        self.look_at_bytes = self._next_look(is_short=False)
        """Up to so many bytes of generated text nothing needs to be done."""
        self.held_bytes = self._held_tokens * SEEN_BYTES_PER_TOKEN
        """So many bytes of generated text are surely held."""

    async def covers(self, seen_bytes: int) -> bool:
        """Say whether so much generated text is held; extend the hold where its end is near.

        Waits only for what the text has outgrown.

        Raises:
            DatabaseError: it has outgrown its hold, and the ledger cannot be written.
        """
        seen_tokens = self._seen_tokens(seen_bytes)
        if not await self._holds(seen_tokens):
            return False
        if seen_bytes > self.look_at_bytes:
            await self._grow_ahead_of_need(seen_tokens)
        return True

    async def covers_end(self, seen_bytes: int, billed_tokens: int) -> bool:
        """Say the same of an answer at its end, of which so many tokens of output are billed.

        Where the provider bills more than the text can have been, that is its own doing: what
        passes is covered.

        Raises:
            DatabaseError: it has outgrown its hold, and the ledger cannot be written.
        """
        return await self._holds(min(self._seen_tokens(seen_bytes), billed_tokens))

    def _seen_tokens(self, seen_bytes: int) -> int:
        """Return the most tokens that a text can have been."""
        # Never more than the answer can have: that is all that can be held, and it suffices.
        text_tokens = -(-seen_bytes // SEEN_BYTES_PER_TOKEN)
        return min(text_tokens, self._quote.output_tokens)

    async def _holds(self, tokens: int) -> bool:
        return tokens <= self._held_tokens or await self._catch_up(tokens)

    async def _grow_ahead_of_need(self, seen_tokens: int) -> None:
        """Ask for more, or take what was granted; if it was not, there is time to ask again."""
        extension = self._extension or self._ask_beyond(seen_tokens)
        if extension.done():
            with suppress(DatabaseError):
                await self._take(extension)

    async def _catch_up(self, seen_tokens: int) -> bool:
        """Wait for what the text has outgrown; say whether it is held now.

        An extension that had been asked for may do. Else it is no last word: who was short of
        credit then may have some now.
        """
        if self._extension is not None:
            with suppress(DatabaseError):
                await self._take(self._extension)
        if seen_tokens > self._held_tokens:
            await self._take(self._ask_beyond(seen_tokens))
        return seen_tokens <= self._held_tokens

    async def hold_all(self) -> bool:
        """Extend the hold to the most that the answer can have; say whether all of it is held.

        Where it is not, as much is as there was credit for.

        Raises:
            DatabaseError: the ledger cannot be written.
        """
        wanted = self._quote.output_tokens
        extension = self._extend(wanted)
        try:
            self._held_tokens = await extension
        finally:
            self._note_held()
        return self._held_tokens == wanted

    def _ask_beyond(self, seen_tokens: int) -> Future[int]:
        wanted = max(self._held_tokens, seen_tokens) + self._step_tokens
        self._asked_tokens = min(wanted, self._quote.output_tokens)
        self._extension = self._extend(self._asked_tokens)
        return self._extension

    def _extend(self, wanted_tokens: int) -> Future[int]:
        """Ask for as much of what is wanted as the budgets cover."""
        granted = self._gate.extend(
            self._principal, self._quote, self._hold.id, self._held_tokens, wanted_tokens
        )
        self.is_budget_short = granted < wanted_tokens
        return self._writer.submit(_extend, self._hold, self._quote, self._held_tokens, granted)

    def _note_held(self) -> None:
        """Take note of what is held now; give back what was reserved of the budgets beyond it."""
        self.held_bytes = self._held_tokens * SEEN_BYTES_PER_TOKEN
        amount_nanousd = self._quote.cost_nanousd(self._held_tokens)
        self._gate.change(self._principal, self._hold.id, amount_nanousd)

    async def _take(self, extension: Future[int]) -> None:
        """Take what was granted, once it is known.

        Raises:
            DatabaseError: nothing was.
        """
        self._extension = None
        try:
            self._held_tokens = await extension
        finally:
            self._note_held()
            is_short = self._held_tokens < self._asked_tokens
            self.look_at_bytes = self._next_look(is_short=is_short)

    def _next_look(self, *, is_short: bool) -> int:
        """Return how much text may pass: half a step less than is held, where more is to be had."""
        if self._held_tokens >= self._quote.output_tokens:
            return 2**63  # the provider itself ends the answer here
        ahead = 0 if is_short else self._step_tokens // 2
        return (self._held_tokens - ahead) * SEEN_BYTES_PER_TOKEN


def _extend(tx: Tx, hold: ledger.Hold, quote: Quote, held_tokens: int, wanted_tokens: int) -> int:
    """Hold more output, as much as is wanted or available; return how many tokens are held now."""
    held = quote.cost_nanousd(held_tokens)
    short = ledger.extend_hold(tx, hold, quote.cost_nanousd(wanted_tokens) - held)
    if short is None:
        return wanted_tokens
    fitting = quote.affordable_output_tokens(held + short.available_nanousd)
    if fitting <= held_tokens:
        return held_tokens
    ledger.extend_hold(tx, hold, quote.cost_nanousd(fitting) - held)
    return fitting
