"""Owns the splitting of server-sent events: bytes in, the same bytes out, a copy read.

Events end at a blank line; lines end in LF, CR or CRLF and nothing else (WHATWG; wire.md A.9).
A line may be long: a provider's last event may repeat a whole answer, with images in it.
"""

import re
from collections.abc import Callable
from typing import Protocol

HELD_BACK_BYTES_MAX = 16 * 1024
"""A usage chunk is smaller than this; a longer unfinished event is passed on as it comes."""
EVENT_BYTES_MAX = 64 * 1024 * 1024
"""It is in memory until it is complete: one without an end must not fill it."""

_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_END_BYTES_MAX = 4
_BOM = b"\xef\xbb\xbf"


class EventTooLargeError(ValueError):
    """An event is longer than any that a provider means to send."""


class Splitter(Protocol):
    """Splits a stream into what its reader reads, as it passes; see `EventStream`."""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now."""

    def finish(self) -> bytes:
        """Take the end of the stream; return the bytes that were still held back."""

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of what cannot be read counts as generated text."""


class EventStream:
    """Splits a stream into events and hands each to a reader.

    `on_event(name, data)` gets the event's name (b"" when it has none) and its data lines joined;
    when it returns True, the event is withheld from the client, which needs `holds_back`.
    """

    def __init__(self, on_event: Callable[[bytes, bytes], bool], *, holds_back: bool) -> None:
        """Read with `on_event`; with `holds_back`, events are passed on only when complete."""
        self._on_event = on_event
        self._holds_back = holds_back
        self._tail = bytearray()
        self._searched = 0
        self._passed_on = 0
        self._is_first = True
        self._is_at_end = False
        self._open_end: bool | None = None
        """After an event that ended in CR, which a LF may still follow: was it passed on?"""

    def feed(self, chunk: bytes) -> bytes:
        """Take the next bytes of the stream; return the bytes to send to the client now.

        Raises:
            EventTooLargeError: no more should be read of this stream.
        """
        if chunk[:6] == b"data: " and not self._tail:
            data = b""
            if chunk[-2:] == b"\n\n":
                data = chunk[6:-2]
            elif chunk[-4:] == b"\r\n\r\n":
                data = chunk[6:-4]
            # One line of data alone, the ordinary case: there is nothing to take apart.
            if data and b"\n" not in data and b"\r" not in data and self._open_end is None:
                self._is_first = False
                return b"" if self._on_event(b"", data) else chunk
        if not self._holds_back:
            self._read(chunk)
            return chunk
        return self._read(chunk)

    def finish(self) -> bytes:
        """Take the end of the stream; return the bytes that were still held back."""
        self._is_at_end = True
        rest = bytes(self._tail)
        self._tail.clear()
        # Some servers end without the last blank line; what they sent still counts.
        is_withheld = bool(rest) and self._handle(rest)
        already, self._passed_on = self._passed_on, 0
        return b"" if is_withheld or not self._holds_back else rest[already:]

    def unread_bytes(self, data: bytes) -> int:
        """Return how much of an event that cannot be read counts as generated text: all of it.

        But nothing of one that the end of the stream has cut short: most of it is not text, and
        last events repeat a whole answer.
        """
        return 0 if self._is_at_end else len(data)

    def _read(self, chunk: bytes) -> bytes:
        tail = self._tail
        passed: list[bytes] = []
        if self._open_end is not None and chunk:
            if chunk.startswith(b"\n"):
                chunk = chunk[1:]
                passed += [b"\n"] if self._open_end else []
            self._open_end = None
        elif not tail and b"\r" not in chunk and chunk.endswith(b"\n\n"):
            return self._read_whole(chunk)
        tail += chunk
        start = 0
        position = max(0, self._searched - _END_BYTES_MAX)
        while (match := _EVENT_END.search(tail, position)) is not None:
            end = position = match.end()
            event = bytes(tail[start:end])
            is_withheld = self._handle(event)
            if not is_withheld:
                passed.append(event[self._passed_on :])
            if end == len(tail) and event.endswith(b"\r"):
                self._open_end = not is_withheld
            self._passed_on = 0
            start = end
        del tail[:start]
        self._searched = len(tail)
        if len(tail) > EVENT_BYTES_MAX:
            msg = f"an event has more than {EVENT_BYTES_MAX:,} bytes"
            raise EventTooLargeError(msg)
        if self._holds_back and (self._passed_on or len(tail) > HELD_BACK_BYTES_MAX):
            passed.append(bytes(tail[self._passed_on :]))
            self._passed_on = len(tail)
        return b"".join(passed)

    def _read_whole(self, chunk: bytes) -> bytes:
        """Read a chunk of nothing but whole events, without any CR."""
        events = chunk[:-2].split(b"\n\n")
        if len(events) == 1:
            return b"" if self._handle(chunk) else chunk
        passed = [event for event in events if not self._handle(event)]
        return chunk if len(passed) == len(events) else b"".join(e + b"\n\n" for e in passed)

    def _handle(self, event: bytes) -> bool:
        if self._is_first:
            self._is_first = False
            event = event.removeprefix(_BOM)
        name, data = _parse(event)
        if not data:
            return False
        is_withheld = self._on_event(name, data)
        return is_withheld and self._passed_on == 0


def _parse(event: bytes) -> tuple[bytes, bytes]:
    """Return an event's name and its data lines joined by newlines."""
    if event[:6] == b"data: " and b"\n" not in event and b"\r" not in event:
        return b"", event[6:]
    name = b""
    data: list[bytes] = []
    for line in event.splitlines():
        if line.startswith(b"data:"):
            data.append(line[6:] if line[5:6] == b" " else line[5:])
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return name, data[0] if len(data) == 1 else b"\n".join(data)
