"""Owns what of an event stream may pass to the client: what is held, and never more.

What has come has been generated, and the provider bills it whether it passes or not: so all of it
counts before any of it passes, and what ends there is charged by what was read. It is read only
where more may have been generated than is held. An event that is still going on cannot be read yet:
of a long one only so much passes as would be held if all of it were text, and the rest at its end.
"""

import re
from collections.abc import Callable, Iterator

from llmproxy.bill import Bill
from llmproxy.dialects.base import Reading, StreamReader
from llmproxy.dialects.sse import EventTooLargeError
from llmproxy.errors import ApiError, DatabaseError, budget_ended, credit_ended, ledger_busy
from llmproxy.growing import GrowingHold, make_growing
from llmproxy.order import Order, Services

PIECE_BYTES = 4096
"""A longer chunk is read in pieces of about that, so that a part of it can pass where not all is
covered: so much comes at once when the provider is fast, or the proxy did not get to run."""

_EVENTS_END = re.compile(rb"\n\r?\n")


class NotCoveredError(Exception):
    """The hold of a running answer cannot grow: why, and what its client is told."""

    def __init__(self, reason: str, error: ApiError, beginning: bytes) -> None:
        """Take the reason for the row, the error for the client, and what it may have before."""
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.beginning = beginning
        """Of what was read last, the part that is held: it may pass."""


class PileTooLargeError(EventTooLargeError):
    """No more should be read of a stream, but some of what was read last may pass."""

    def __init__(self, reason: str, beginning: bytes) -> None:
        """Take the reason, and the part that is held."""
        super().__init__(reason)
        self.beginning = beginning


def make_cover(services: Services, order: Order, reader: StreamReader) -> "Cover | None":
    """Return the cover of an admitted request's stream, None if its hold does not grow."""
    growing = make_growing(services, order)
    if growing is None or order.quote is None or order.hold is None:
        return None
    return Cover(growing, reader, Bill(services, order, order.quote, order.hold).output_tokens)


class Cover:
    """One growing stream's cover; `require` it where what was read `is_outgrown`."""

    def __init__(
        self, growing: GrowingHold, reader: StreamReader, billed_tokens: Callable[[Reading], int]
    ) -> None:
        """Take the hold, and the reader that says how much has been generated.

        `billed_tokens` returns the tokens of output that an answer at its end is charged for.
        """
        self._growing = growing
        self._reader = reader
        self._billed_tokens = billed_tokens
        self._kept = bytearray()
        """What may pass only when its event has come to its end."""
        self._pieces: list[tuple[bytes, int]] = []
        """What may pass of the pieces that were read last, and how much text there was by then."""
        self.is_outgrown = False
        """So much has been generated that the hold needs a look before any of it passes."""

    def read(self, chunk: bytes | None) -> bytes:
        """Feed a chunk, or the stream's end, to the reader; return what may pass of it once held.

        Raises:
            EventTooLargeError: no more should be read of this stream.
        """
        reader = self._reader
        if self._pieces:
            self._pieces = []
        if chunk is None:
            passed = self.finish()
        elif len(chunk) <= PIECE_BYTES:
            passed = self._read_piece(chunk)
        else:
            passed = self._read_pile(chunk)
        growing = self._growing
        look_at_bytes = growing.look_at_bytes
        # What is surely held is not counted: that would read all that has passed unread.
        self.is_outgrown = reader.counted_bytes > look_at_bytes or (
            reader.seen_bytes_max > max(look_at_bytes, growing.held_bytes)
            and reader.seen_bytes > look_at_bytes
        )
        return passed

    def finish(self) -> bytes:
        """Tell the reader of the stream's end; return all that has not passed yet."""
        passed = bytes(self._kept) + self._reader.events.finish()
        self._kept.clear()
        return passed

    def _read_piece(self, piece: bytes) -> bytes:
        """Feed a piece; return what may pass of it, and of what was kept, once it is held."""
        reader, kept = self._reader, self._kept
        passed = reader.events.feed(piece)
        open_bytes = 0 if reader.is_over else reader.events.open_bytes
        if not open_bytes or self._holds(reader.seen_bytes_max + open_bytes):
            if kept:
                passed = bytes(kept) + passed
                kept.clear()
            return passed
        kept += passed
        whole_bytes = max(len(kept) - open_bytes, 0)
        passed = bytes(kept[:whole_bytes])
        del kept[:whole_bytes]
        return passed

    def _holds(self, most_bytes: int) -> bool:
        """Say whether so much text, be it the most that there can be, is surely held."""
        growing = self._growing
        return most_bytes <= max(growing.look_at_bytes, growing.held_bytes)

    def _read_pile(self, chunk: bytes) -> bytes:
        reader = self._reader
        for piece in _pieces(chunk):
            try:
                passed = self._read_piece(piece)
            except EventTooLargeError as error:
                raise PileTooLargeError(str(error), self._beginning()) from error
            self._pieces.append((passed, reader.seen_bytes))
        return b"".join(passed for passed, _ in self._pieces)

    def _beginning(self) -> bytes:
        """Return what is held of a pile that must not pass as a whole."""
        most = self._growing.held_bytes
        return b"".join(passed for passed, seen in self._pieces if seen <= most)

    async def require(self) -> None:
        """Hold what has been generated, so that it may pass.

        At the end of an answer that is what it will be charged, for that is known then.

        Raises:
            NotCoveredError: it is more than is held, and the hold cannot grow.
        """
        reader, growing = self._reader, self._growing
        try:
            if reader.is_over:
                billed_tokens = self._billed_tokens(reader.reading())
                is_covered = await growing.covers_end(reader.seen_bytes, billed_tokens)
            else:
                is_covered = await growing.covers(reader.seen_bytes)
        except DatabaseError as failure:
            what = "the ledger could not be written while the answer ran"
            raise self._refusal(what, ledger_busy()) from failure
        if is_covered:
            return
        what, error = "the credit ended before the answer", credit_ended()
        if growing.is_budget_short:
            what, error = "the budget of the API key ended before the answer", budget_ended()
        raise self._refusal(what, error)

    def _refusal(self, reason: str, error: ApiError) -> NotCoveredError:
        return NotCoveredError(reason, error, self._beginning())


def _pieces(chunk: bytes) -> Iterator[bytes]:
    """Cut a chunk between events, where it has any: half an event would tell a client nothing.

    Where none ends, as in an array, it is cut anywhere: what may pass of it is looked at anyway.
    """
    start = 0
    for event_end in _EVENTS_END.finditer(chunk):
        if event_end.end() - start >= PIECE_BYTES:
            yield chunk[start : event_end.end()]
            start = event_end.end()
    if not start:
        yield from (chunk[at : at + PIECE_BYTES] for at in range(0, len(chunk), PIECE_BYTES))
    elif start < len(chunk):
        yield chunk[start:]
