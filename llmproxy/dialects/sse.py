"""Owns the splitting of server-sent events: bytes in, the same bytes out, a copy read.

Events end at a blank line; lines end in LF, CR or CRLF and nothing else (WHATWG; wire.md A.9).
A line may be long: a provider's last event may repeat a whole answer, with images in it.
"""

import re
from typing import Protocol

from llmproxy.dialects.repeats import Repeats

HELD_BACK_BYTES_MAX = 16 * 1024
"""A usage chunk is smaller than this; a longer unfinished event is passed on as it comes."""
EVENT_BYTES_MAX = 64 * 1024 * 1024
"""It is in memory until it is complete: one without an end must not fill it."""

_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_END_BYTES_MAX = 4
_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """An event is longer than any that a provider means to send."""


class EventReader(Protocol):
    """Reads the events of a stream."""

    seen_bytes: int
    """How much generated text has passed; that of events which are not read is added here."""

    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event: its name, b"" when it has none, and its data lines joined.

        Returns:
            Whether it is to be withheld from the client, which needs `holds_back`.
        """


class Splitter(Protocol):
    """Splits a stream into what its reader reads, as it passes; see `EventStream`."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now."""

    def finish(self) -> bytes:
        """Take the end of the stream; return the bytes that were still held back."""

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of what cannot be read counts as generated text."""


class EventStream:
    """Splits a stream into events and hands each to a reader, but for those that repeat another."""

    def __init__(self, reader: EventReader, *, holds_back: bool = False) -> None:
        """Take the reader; with `holds_back`, events are passed on only when complete."""
        self.repeats = Repeats(reader)
        self._reader = reader
        self._holds_back = holds_back
        self._is_first = True
        self._is_at_end = False
        self._is_cut = False
        """The next bytes go on with something: with the tail, or with the end of a line."""
        self._tail = bytearray()
        """The event that has not come to its end."""
        self._passed_on = 0
        """How much of it the client has got already."""
        self._is_end_withheld = False
        """Of the event that has ended in CR, which a LF may still follow."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now.

        Raises:
            EventTooLargeError: no more should be read of this stream.
        """
        if self._is_cut:
            passed = self._go_on(chunk)
        elif (start := self.repeats.skip(chunk, 0)) == len(chunk):
            return chunk
        elif not start and (event := _ordinary(chunk)) is not None:
            self._is_first = False
            self.repeats.event = chunk
            return b"" if self._reader.on_event(*event) else chunk
        else:
            passed = self._read(chunk, start)
        return passed if self._holds_back else chunk

    def finish(self) -> bytes:
        """Take the end of the stream; return the bytes that were still held back."""
        self._is_at_end = True
        rest = bytes(self._tail)
        self._tail.clear()
        already, self._passed_on = self._passed_on, 0
        # Some servers end without the last blank line; what they sent still counts.
        is_withheld = bool(rest) and self._handle(rest) and not already
        return b"" if is_withheld or not self._holds_back else rest[already:]

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of an event that cannot be read counts as generated text: all of it.

        But nothing of one that the end of the stream has cut short: most of it is not text, and
        last events repeat a whole answer.
        """
        return 0 if self._is_at_end else len(data)

    def _read(self, chunk: bytes, start: int) -> bytes:
        """Read a chunk from `start` on, where an event begins; return what may pass of all of it.

        What stands before `start` may.
        """
        passed: list[bytes] = []
        kept = 0  # from here on nothing is withheld
        size = len(chunk)
        has_cr = b"\r" in chunk
        while start < size:
            end = _end_of_event(chunk, start, has_cr=has_cr)
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
            start = self.repeats.skip(chunk, end)
        return chunk if not kept else b"".join([*passed, chunk[kept:]])

    def _go_on(self, chunk: bytes) -> bytes:
        """Go on with what was cut; return what may pass of it, and of what follows it."""
        tail = self._tail
        if not tail:  # an event has ended in CR
            if not chunk:
                return b""
            self._is_cut = False
            if not chunk.startswith(b"\n"):
                return self._read(chunk, 0)
            return (b"" if self._is_end_withheld else b"\n") + self._read(chunk[1:], 0)
        searched = max(0, len(tail) - _END_BYTES_MAX)
        tail += chunk
        end = _end_of_event(tail, searched, has_cr=True)
        if not end:
            return self._wait()
        event, rest = bytes(tail[:end]), bytes(tail[end:])
        tail.clear()
        self._is_cut = False
        already, self._passed_on = self._passed_on, 0
        is_withheld = self._handle(event) and not already
        if not rest:
            self._note_end(event, is_withheld=is_withheld)
        return (b"" if is_withheld else event[already:]) + self._read(rest, 0)

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
        if self._is_first:
            self._is_first = False
            event = event.removeprefix(_BOM)
        name, data = parse_event(event)
        if not data:
            return False
        self.repeats.event = event
        return self._reader.on_event(name, data)


def _ordinary(chunk: bytes) -> tuple[bytes, bytes] | None:
    """Return the name and data of a chunk that is one event with one line of data, and no more.

    None for any other, which has to be taken apart.
    """
    if chunk[-2:] != b"\n\n" or b"\r" in chunk:
        return None
    name, begins = b"", 6
    if chunk[:7] == b"event: ":
        line = chunk.find(b"\n")
        name, begins = chunk[7:line].strip(), line + 7
    data = chunk[begins:-2]
    if not data or b"\n" in data or chunk[begins - 6 : begins] != b"data: ":
        return None
    return name, data


def _end_of_event(written: bytes | bytearray, start: int, *, has_cr: bool) -> int:
    """Return where the event that begins at `start` ends; 0 where it does not."""
    if not has_cr:
        end = written.find(b"\n\n", start)
        return 0 if end < 0 else end + 2
    match = _EVENT_END.search(written, start)
    return 0 if match is None else match.end()


def parse_event(event: bytes) -> tuple[bytes, bytes]:
    """Return an event's name and its data lines joined by newlines."""
    lines = event.split(b"\n") if b"\r" not in event else event.splitlines()
    if lines[0][:6] == b"data: " and not any(lines[1:]):
        return b"", lines[0][6:]
    name = b""
    data: list[bytes] = []
    for line in lines:
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return name, data[0] if len(data) == 1 else b"\n".join(data)
