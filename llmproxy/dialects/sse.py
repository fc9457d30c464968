"""Owns the splitting of server-sent events: bytes in, the same bytes out, a copy read.

Events end at a blank line; lines end in LF, CR or CRLF and nothing else (WHATWG; wire.md A.9).
A line may be long: a provider's last event may repeat a whole answer, with images in it.

Most events of a stream only bring the next words, which matter for the bill only where the provider
reports no usage. Where a dialect can tell them by a look at their bytes (`Deferral`) they pass
unread, and are read together when somebody asks for what they say: many cost less than each, and
of most streams nobody asks.
"""

import re
import weakref
from typing import NamedTuple, Protocol

from llmproxy.dialects.event_lines import (
    END_BYTES_MAX,
    datas_of,
    end_of_event,
    ordinary,
    parse_event,
)

HELD_BACK_BYTES_MAX = 16 * 1024
"""A usage chunk is smaller than this; a longer unfinished event is passed on as it comes."""
EVENT_BYTES_MAX = 64 * 1024 * 1024
"""It is in memory until it is complete: one without an end must not fill it."""
DEFERRED_BYTES_MAX = 32 * 1024
"""So much waits at most until it is read."""

_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """An event is longer than any that a provider means to send."""


class EventReader(Protocol):
    """Reads the events of a stream."""

    is_over: bool
    """The last word has been read: no event behind it is handed over."""

    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event: its name, b"" when it has none, and its data lines joined.

        Returns:
            Whether it is to be withheld from the client, which needs `holds_back`.
        """

    def on_deferred(self, datas: list[bytes]) -> bool:
        """Take the data of events that have passed unread; their names do not matter.

        Returns:
            Whether all could be read. Else nothing has been taken, and each comes by itself.
        """

    def on_finish(self) -> None:
        """Take note that the stream has come to its end, or broke off: nothing comes any more."""


class Deferral(NamedTuple):
    """How chunks look that may pass unread: whole events, of the kinds that need not be read yet.

    What is to be withheld must not be among them, nor should the last word of an answer, whose hold
    ends before it passes. None may, by default.
    """

    ends: tuple[bytes, ...] = ()
    mark: re.Pattern[bytes] | None = None
    """What is found in none of them."""


NOTHING_DEFERRED = Deferral()


class Splitter(Protocol):
    """Splits a stream into what its reader reads, as it passes; see `EventStream`."""

    deferred: list[bytes]
    """The chunks that have passed unread."""
    deferred_bytes: int
    """How long they are."""

    @property
    def open_bytes(self) -> int:
        """How much has been returned, to be sent, of an event that has not come to its end."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now."""

    def finish(self) -> bytes:
        """Take the end of the stream; return the bytes that were still held back."""

    def read_deferred(self) -> None:
        """Read what has passed unread."""

    def defer_nothing(self) -> None:
        """Read at once whatever comes from now on."""

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of what cannot be read counts as generated text."""


class Undeferred:
    """Part of a splitter that hands everything over at once."""

    def __init__(self) -> None:
        """Nothing waits, ever."""
        self.deferred: list[bytes] = []
        self.deferred_bytes = 0

    @property
    def open_bytes(self) -> int:
        """How much has been returned of something that has not come to its end: nothing."""
        return 0

    def read_deferred(self) -> None:
        """Read what has passed unread: nothing."""

    def defer_nothing(self) -> None:
        """Read at once whatever comes from now on, as ever."""


class EventStream:
    """Splits a stream into events and hands each to a reader, at once or when it is asked for."""

    def __init__(
        self,
        reader: EventReader,
        deferral: Deferral = NOTHING_DEFERRED,
        *,
        holds_back: bool = False,
    ) -> None:
        """Take the reader, which must outlive this; with `holds_back`, only whole events pass."""
        self.deferred: list[bytes] = []
        """The chunks that have passed unread, in their order."""
        self.deferred_bytes = 0
        # Which has this splitter: a cycle would keep what has waited long after the answer.
        self._reader: EventReader = weakref.proxy(reader)
        self._ends, mark = deferral
        self._mark = None if mark is None else mark.search
        self._holds_back = holds_back
        self._is_first = True
        self._is_at_end = False
        self._is_cut = True
        """The next bytes are the first, or go on with the tail or with the end of a line."""
        self._tail = bytearray()
        """The event that has not come to its end."""
        self._passed_on = 0
        """How much of it the client has got already."""
        self._is_end_withheld = False
        """Of the event that has ended in CR, which a LF may still follow."""

    @property
    def open_bytes(self) -> int:
        """How much has been returned of an event that has not come to its end."""
        return self._passed_on if self._holds_back else len(self._tail)

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now.

        Raises:
            EventTooLargeError: no more should be read of this stream.
        """
        if self._is_cut:
            passed = self._go_on(chunk)
        elif chunk.endswith(self._ends) and (self._mark is None or self._mark(chunk) is None):
            # As `_may_wait` and `_defer`, whose calls would cost as much again.
            self.deferred.append(chunk)
            self.deferred_bytes += len(chunk)
            if self.deferred_bytes > DEFERRED_BYTES_MAX:
                self.read_deferred()
            return chunk
        elif (event := ordinary(chunk)) is not None:
            name, data = event
            if not data or self._reader.is_over:
                return chunk
            return b"" if self._reader.on_event(name, data) else chunk
        else:
            passed = self._read(chunk)
        return passed if self._holds_back else chunk

    def _may_wait(self, event: bytes) -> bool:
        """Say whether a whole event may pass unread."""
        if not event.endswith(self._ends):
            return False
        return self._mark is None or self._mark(event) is None

    def _defer(self, events: bytes) -> None:
        """Leave whole events unread, which are of the kinds that may be."""
        events = self._without_bom(events)
        self.deferred.append(events)
        self.deferred_bytes += len(events)
        if self.deferred_bytes > DEFERRED_BYTES_MAX:
            self.read_deferred()

    def _defer_some(self, chunk: bytes, start: int) -> tuple[int, int]:
        """Leave unread what may be of the whole events that begin at `start`.

        Returns:
            Where they end, and where the mark is that they end before, or the end of the chunk.
        """
        marked = None if self._mark is None else self._mark(chunk, start)
        marked_at = len(chunk) if marked is None else marked.start()
        rest = start
        for end in self._ends:
            ends_at = chunk.rfind(end, rest, marked_at)
            if ends_at >= 0:
                rest = ends_at + len(end)
        if rest > start:
            self._defer(chunk[start:rest])
        return rest, marked_at

    def read_deferred(self) -> None:
        """Read what has passed unread."""
        if not self.deferred:
            return
        events = b"".join(self.deferred)
        self.deferred.clear()
        self.deferred_bytes = 0
        datas = datas_of(events)
        if datas is None or not self._reader.on_deferred(datas):
            self._read_each(events)

    def defer_nothing(self) -> None:
        """Read at once whatever comes from now on."""
        self._ends = ()

    def finish(self) -> bytes:
        """Take the end of the stream; return the bytes that were still held back."""
        held_back = self._finish_tail() if self._tail else b""
        self._reader.on_finish()
        return held_back

    def _finish_tail(self) -> bytes:
        """Take what has no end as an event; return what of it was held back."""
        rest = bytes(self._tail)
        self._tail.clear()
        already, self._passed_on = self._passed_on, 0
        # Some servers end without the last blank line; what they sent still counts.
        self._is_at_end = True
        is_withheld = self._handle(rest) and not already
        self._is_at_end = False
        return b"" if is_withheld or not self._holds_back else rest[already:]

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of an event that cannot be read counts as generated text: all of it.

        But nothing of one that the end of the stream has cut short: most of it is not text, and
        last events repeat a whole answer.
        """
        return 0 if self._is_at_end else len(data)

    def _read(self, chunk: bytes) -> bytes:
        """Read a chunk, at the beginning of which an event begins; return what may pass of it."""
        passed: list[bytes] = []
        start = 0
        kept = 0  # from here on nothing is withheld
        size = len(chunk)
        has_cr = b"\r" in chunk
        marked_at = -1
        while start < size:
            if start > marked_at:
                start, marked_at = self._defer_some(chunk, start)
                continue
            end = end_of_event(chunk, start, has_cr=has_cr)
            if not end:
                self._tail += chunk[start:]
                self._is_cut = True
                return b"".join([*passed, chunk[kept:start], self._wait()])
            is_withheld = self._handle(chunk[start:end])
            if is_withheld:
                passed.append(chunk[kept:start])
                kept = end
            if has_cr and end == size:
                self._note_end(chunk, is_withheld=is_withheld)
            start = end
        return chunk if not kept else b"".join([*passed, chunk[kept:]])

    def _read_each(self, events: bytes) -> None:
        """Read events that have passed, one by one, up to the last word if it is among them."""
        was_over, was_at_end = self._reader.is_over, self._is_at_end
        self._is_at_end = False  # they are whole, whatever has come behind them
        start = 0
        while start < len(events) and self._reader.is_over == was_over:
            end = end_of_event(events, start, has_cr=True) or len(events)
            name, data = parse_event(events[start:end])
            if data:
                self._reader.on_event(name, data)
            start = end
        self._is_at_end = was_at_end

    def _go_on(self, chunk: bytes) -> bytes:
        """Go on with what was cut; return what may pass of it, and of what follows it."""
        tail = self._tail
        if not tail:  # nothing has come yet, or an event has ended in CR
            if not chunk:
                return b""
            self._is_cut = False
            if self._is_first and not chunk.startswith(_BOM[:1]):
                self._is_first = False
                return self.feed(chunk)
            if not chunk.startswith(b"\n"):
                return self._read(chunk)
            return (b"" if self._is_end_withheld else b"\n") + self._read(chunk[1:])
        searched = max(0, len(tail) - END_BYTES_MAX)
        tail += chunk
        end = end_of_event(tail, searched, has_cr=True)
        if not end:
            return self._wait()
        event, rest = bytes(tail[:end]), bytes(tail[end:])
        tail.clear()
        self._is_cut = False
        already, self._passed_on = self._passed_on, 0
        is_withheld = False
        if self._may_wait(event):
            self._defer(event)
        else:
            is_withheld = self._handle(event) and not already
        if not rest:
            self._note_end(event, is_withheld=is_withheld)
        return (b"" if is_withheld else event[already:]) + self._read(rest)

    def _wait(self) -> bytes:
        """Wait for the end of an event; return what of it is too much to be held back so long.

        Raises:
            EventTooLargeError: it is more than should be kept.
        """
        tail = self._tail
        if len(tail) > EVENT_BYTES_MAX:
            msg = f"an event has more than {EVENT_BYTES_MAX:,} bytes"
            raise EventTooLargeError(msg)
        if not self._holds_back or (not self._passed_on and len(tail) <= HELD_BACK_BYTES_MAX):
            return b""
        already, self._passed_on = self._passed_on, len(tail)
        return bytes(tail[already:])

    def _note_end(self, written: bytes, *, is_withheld: bool) -> None:
        """Take note of an event that is the last so far: its end may not be complete."""
        self._is_cut = written.endswith(b"\r")
        self._is_end_withheld = is_withheld

    def _handle(self, event: bytes) -> bool:
        """Hand an event over; return whether it is to be withheld."""
        name, data = parse_event(self._without_bom(event))
        return bool(data) and not self._reader.is_over and self._reader.on_event(name, data)

    def _without_bom(self, events: bytes) -> bytes:
        """Return events without the mark that the first may begin with."""
        if not self._is_first:
            return events
        self._is_first = False
        return events.removeprefix(_BOM)
