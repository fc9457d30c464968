"""Owns the lines of server-sent events: where an event ends, its name, and its data.

Lines end in LF, CR or CRLF and nothing else (WHATWG; wire.md A.9). Must not know streams.
"""

import re

END_BYTES_MAX = 4
"""The end of an event has no more."""

_EVENT_END = re.compile(rb"(?:\r\n|\n|\r(?!\n))(?:\r\n|\n|\r(?!\n))")
_ERROR = re.compile(rb'error(?:(?<="error)"(?!\s*:\s*null)|(?<=event: error)|(?<=event:error))')
"""A member, or the name of an event; within a text the quotes would have backslashes."""
_NAME, _DATA = b"event: ", b"data: "


def ordinary(chunk: bytes) -> tuple[bytes, bytes] | None:
    """Return the name and data of a chunk that is one event with one line of data, and no more.

    A line of comment has no data. None for any other chunk, which has to be taken apart.
    """
    if not chunk.endswith(b"\n\n") or chunk.find(b"\r") >= 0:
        return None
    name, begins = b"", 6
    if chunk.startswith(b":") and chunk.find(b"\n") == len(chunk) - 2:
        return name, b""
    if chunk.startswith(b"event: "):
        line = chunk.find(b"\n")
        name, begins = chunk[7:line], line + 7
    data = chunk[begins:-2]
    if not data or data.find(b"\n") >= 0 or not chunk.startswith(b"data: ", begins - 6):
        return None
    return name, data


def may_tell_error(events: bytes) -> bool:
    """Say whether one of several events may tell of an error, by its name or in its data."""
    # Most have no such word at all, which a search from behind finds out in half the time.
    return events.rfind(b"error") >= 0 and _ERROR.search(events) is not None


def datas_of(events: bytes) -> list[bytes] | None:
    """Return the data of events that have one line of it, and before that their name or nothing.

    None where any has other lines, or may be named an error, and so has to be taken apart.
    """
    blank = b"\r\n\r\n" if events.endswith(b"\r\n\r\n") else b"\n\n"
    if events.startswith(_DATA):
        datas = events[len(_DATA) : -len(blank)].split(blank + _DATA)
        lines = 2 * len(datas)
    elif events.startswith(_NAME) and not may_tell_error(events):
        named = events[len(_NAME) : -len(blank)].split(blank + _NAME)
        datas = [event.partition(b"\n" + _DATA)[2] for event in named]
        lines = 3 * len(datas)
    else:
        return None
    if events.count(b"\n") != lines:
        return None
    is_crlf = len(blank) > len(b"\n\n")
    has_other_cr = events.count(b"\r") != lines if is_crlf else events.find(b"\r") >= 0
    return None if has_other_cr else datas


def end_of_event(written: bytes | bytearray, start: int, *, has_cr: bool) -> int:
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
            name = line[7:] if line[6:7] == b" " else line[6:]
    return name, data[0] if len(data) == 1 else b"\n".join(data)
