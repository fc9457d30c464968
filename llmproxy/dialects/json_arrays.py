"""Owns the splitting of a stream that is one JSON array: bytes in, the same bytes out, a copy read.

That is what Gemini sends where nobody asks for events (reference wire.md A.6). Each object of the
array is handed over as soon as it is whole, whatever pieces it comes in. An object that stands in
no array is the whole answer: what else sends one has answered as if no stream had been asked for.
"""

import re
import weakref
from typing import Protocol

from typing_extensions import override

from llmproxy.dialects.sse import (
    EVENT_BYTES_MAX,
    NOTHING_DEFERRED,
    Deferral,
    EventReader,
    EventStream,
    EventTooLargeError,
    Splitter,
    Undeferred,
)

# Whatever neither opens nor closes anything, whole texts, and whole objects without others in them.
_PLAIN = rb'[^"{}]++|"[^"\\]*+(?:\\.[^"\\]*+)*+"'
_WITHIN = re.compile(rb"(?:%b|\{(?:%b)*+\})*+" % (_PLAIN, _PLAIN), re.DOTALL)
_TEXT = re.compile(rb"[^\"\\]*+(?:\\.[^\"\\]*+)*+", re.DOTALL)
_BETWEEN = re.compile(rb"[^{\]]*+")
_BLANKS = b" \t\r\n"
_BLANKS_MAX = 16 * 1024
"""What keeps a client waiting so long is a stream of events."""
_QUOTE, _OPEN, _CLOSE = b'"{}'


class ArrayReader(EventReader, Protocol):
    """Reads the objects of an array as if each were an event without a name."""

    events: Splitter

    def on_array_end(self) -> None:
        """Take note that the array has closed, or that all of an answer without one has come."""


class ArrayStream(Undeferred):
    """Splits a JSON array into its objects and hands each to a reader."""

    def __init__(self, reader: ArrayReader, *, has_brackets: bool = True) -> None:
        """Take the reader; without brackets, the end of the stream ends it between two objects."""
        super().__init__()
        self._reader: ArrayReader = weakref.proxy(reader)  # as an `EventStream` has it
        self._has_brackets = has_brackets
        self._tail = bytearray()
        self._position = 0
        """How far the unfinished object has been read."""
        self._depth = 0
        self._is_in_text = False
        self._is_closed = False

    @property
    @override
    def open_bytes(self) -> int:
        """How much has been returned of an object that has not come to its end."""
        return len(self._tail)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now: all.

        Raises:
            EventTooLargeError: no more should be read of this stream.
        """
        if not self._is_closed:
            self._tail += chunk
            while self._step():
                pass
        if len(self._tail) > EVENT_BYTES_MAX:
            msg = f"an object of the answer has more than {EVENT_BYTES_MAX:,} bytes"
            raise EventTooLargeError(msg)
        return chunk

    def finish(self) -> bytes:
        """Take the end of the stream; nothing was held back."""
        if not (self._has_brackets or self._depth or self._is_closed):
            self._is_closed = True
            self._reader.on_array_end()
        return b""

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of an object that cannot be read counts as generated text: all of it."""
        return len(data)

    def _step(self) -> bool:
        """Go on to the next brace, or the end of a text; say whether there may be more to read."""
        tail = self._tail
        if not self._depth:
            return self._begin()
        if self._is_in_text:
            self._position = _end(_TEXT, tail, self._position)
            # What follows is the closing quote, or an escape that has been cut in two.
            if tail[self._position : self._position + 1] != b'"':
                return False
            self._position += 1
            self._is_in_text = False
        self._position = _end(_WITHIN, tail, self._position)
        if self._position >= len(tail):
            return False
        mark = tail[self._position]
        self._position += 1
        self._is_in_text = mark == _QUOTE
        if not self._is_in_text:
            self._depth += 1 if mark == _OPEN else -1
            if not self._depth:
                self._hand_over()
        return True

    def _begin(self) -> bool:
        """Drop what stands between two objects; say whether another one begins."""
        tail = self._tail
        position = _end(_BETWEEN, tail, 0)
        if position < len(tail) and tail[position] == _OPEN:
            del tail[:position]
            self._position = self._depth = 1
            return True
        if position < len(tail):
            self._is_closed = True
            self._reader.on_array_end()
        tail.clear()
        return False

    def _hand_over(self) -> None:
        written = bytes(self._tail[: self._position])
        del self._tail[: self._position]
        self._position = 0
        self._reader.on_event(b"", written)


def _end(pattern: re.Pattern[bytes], written: bytearray, position: int) -> int:
    match = pattern.match(written, position)
    assert match is not None  # all of them match nothing too
    return match.end()


class EventsOrArray(Undeferred):
    """Finds out whether a stream is one of events or an array of the same objects."""

    def __init__(self, reader: ArrayReader, deferral: Deferral) -> None:
        """Take the reader of either, which gets the splitter for it as its `events`."""
        super().__init__()
        self._reader = weakref.ref(reader)
        self._deferral = deferral
        self._blanks = b""
        """What came before it could be told."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now: all.

        Raises:
            EventTooLargeError: no more should be read of this stream.
        """
        self._blanks += chunk
        first = self._blanks.lstrip(_BLANKS)[:1]
        if first or len(self._blanks) > _BLANKS_MAX:
            reader = self._reader()
            assert reader is not None  # it has this splitter
            reader.events = (
                ArrayStream(reader, has_brackets=first == b"[")
                if first in (b"[", b"{")
                else EventStream(reader, self._deferral)
            )
            reader.events.feed(self._blanks)
        return chunk

    def finish(self) -> bytes:
        """Take the end of the stream; nothing was held back."""
        return b""

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of what cannot be read counts as generated text: nothing was read."""
        del data
        return 0

    @override
    def defer_nothing(self) -> None:
        """Read at once whatever comes from now on, if it is events."""
        self._deferral = NOTHING_DEFERRED
