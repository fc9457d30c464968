"""Owns what of an event stream may pass to the client: what is held, and never more.

What has come has been generated, and the provider bills it whether it passes or not: so all of it
is read before any of it passes, and what ends there is charged by what was read. An event that is
still going on is not read yet: the pieces of a long one pass before it counts.
"""

import re
from collections.abc import Iterator

from llmproxy.dialects.base import Reading, StreamReader, estimated
from llmproxy.errors import ApiError, DatabaseError, budget_ended, credit_ended, ledger_busy
from llmproxy.growing import GrowingHold

PIECE_BYTES = 4096
"""A longer chunk is read in pieces of about that, so that a part of it can pass where not all is
covered: so much comes at once when the provider is fast, or the proxy did not get to run."""

_EVENTS_END = re.compile(rb"\n\r?\n")


class NotCoveredError(Exception):
    """The hold of a running answer cannot grow: why, and what its client is told."""

    def __init__(self, reason: str, error: ApiError) -> None:
        """Take the reason for the row, and the error for the client."""
        super().__init__(reason)
        self.reason = reason
        self.error = error
        self.covered = b""
        """Of the chunk that was read last, the beginning that is held: it may pass."""


class Cover:
    """One growing stream's cover; `require` it beyond the hold's `look_at_bytes`."""

    def __init__(self, growing: GrowingHold, reader: StreamReader) -> None:
        """Take the hold, and the reader that says how much has been generated."""
        self.growing = growing
        self._reader = reader

    def is_outgrown(self) -> bool:
        """Say whether so much has been generated that the hold needs a look."""
        look_at_bytes = self.growing.look_at_bytes
        reader = self._reader
        # The first is no more than an addition, the second reads all that has passed unread.
        return reader.seen_bytes_max > look_at_bytes and reader.seen_bytes > look_at_bytes

    async def read_pile(self, chunk: bytes) -> bytes:
        """Feed a chunk of more than a piece to the reader; return what may pass of it: all.

        Raises:
            EventTooLargeError: no more should be read of this stream.
            NotCoveredError: not all is held, and the hold cannot grow; a beginning may pass.
        """
        reader = self._reader
        pieces = [(reader.events.feed(piece), reader.seen_bytes) for piece in _pieces(chunk)]
        if self.is_outgrown():
            try:
                await self.require()
            except NotCoveredError as refusal:
                most = self.growing.held_bytes
                refusal.covered = b"".join(passed for passed, seen in pieces if seen <= most)
                raise
        return b"".join(passed for passed, _ in pieces)

    async def require(self) -> None:
        """Hold what has been generated, so that it may pass.

        At the end of an answer that is what it will be charged, for that is known then.

        Raises:
            NotCoveredError: it is more than is held, and the hold cannot grow.
        """
        reader, growing = self._reader, self.growing
        try:
            if reader.is_over:
                billed_tokens = _billed_tokens(reader.reading(), growing.output_tokens_max)
                is_covered = await growing.covers_end(reader.seen_bytes, billed_tokens)
            else:
                is_covered = await growing.covers(reader.seen_bytes)
        except DatabaseError as failure:
            what = "the ledger could not be written while the answer ran"
            raise NotCoveredError(what, ledger_busy()) from failure
        if is_covered:
            return
        what, error = "the credit ended before the answer", credit_ended()
        if growing.is_budget_short:
            what, error = "the budget of the API key ended before the answer", budget_ended()
        raise NotCoveredError(what, error)


def _pieces(chunk: bytes) -> Iterator[bytes]:
    """Cut a chunk between events, where it has any: half an event would tell a client nothing."""
    start = 0
    for event_end in _EVENTS_END.finditer(chunk):
        if event_end.end() - start >= PIECE_BYTES:
            yield chunk[start : event_end.end()]
            start = event_end.end()
    if start < len(chunk):
        yield chunk[start:]


def _billed_tokens(reading: Reading, output_tokens_max: int) -> int:
    """Return the tokens of output that an answer at its end is charged for (`settlement.py`)."""
    usage = reading.usage if reading.is_final else None
    usage = usage or estimated(reading, 0, output_tokens_max)
    return sum(leg.output for leg in usage.legs)
