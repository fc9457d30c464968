"""Streams that are one JSON array: nothing but the closing bracket says that it is complete.

Nothing can be told behind a part of one, so that a broken one ends without a clean end.
"""

from collections.abc import Iterator

from tests.faults.cell import Case, End, View
from tests.faults.dialects import Dialect, compact
from tests.faults.expect import ENDED_EARLY, JSON_HEAD, billed, cut_short, estimated, released
from tests.faults.gemini import chunk
from tests.faults.streams import ENDS, ERROR_WITHOUT_USAGE, sent

ERROR = compact({"error": {"code": 503, "message": "busy", "status": "UNAVAILABLE"}})


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    assert is_stream
    for count in range(len(dialect.events) + 1):
        yield from _ends(dialect, count)
    yield from _inside_an_object(dialect)
    yield from _errors(dialect)
    yield from _strange(dialect)
    yield from _behind_the_end(dialect)
    yield from _alone(dialect)


def _ends(dialect: Dialect, count: int) -> Iterator[Case]:
    """The array ends after so many of its parts, of which the bracket is the last."""
    events = dialect.events[:count]
    raw = [event.raw for event in events]
    for how, why in ENDS.items():
        view, row = cut_short(dialect, events, why, is_clean=how == "ended")
        handle = sent(raw, how, head=JSON_HEAD)
        yield Case(f"array {how} after part {count}", handle, view, row, has_middle=True)


def _inside_an_object(dialect: Dialect) -> Iterator[Case]:
    """What came of an object that is cut is no text that was generated."""
    events = dialect.events[:2]
    raw = [event.raw for event in events]
    last = dialect.events[-2].raw
    broken_char = dialect.events[1].raw.replace(b"Hello", "日".encode())
    closing = {
        "inside an object": last[:40],
        "inside a character": broken_char[: broken_char.index("日".encode()) + 1],
        "before the last brace": last[:-1],
    }
    for where, rest in closing.items():
        for how, why in ENDS.items():
            view, row = cut_short(dialect, events, why, is_clean=how == "ended")
            handle = sent(raw, how, [rest], JSON_HEAD)
            yield Case(f"array {how} {where}", handle, view, row, has_middle=True)


def _errors(dialect: Dialect) -> Iterator[Case]:
    """The provider says itself what is wrong; that passes as it is."""
    text = [event.raw for event in dialect.events[:3]]
    seen = sum(event.text_bytes for event in dialect.events[:3])
    for fault, parts, row in (
        ("an error alone in an array", [b"[", ERROR, b"]"], released(200, ERROR_WITHOUT_USAGE)),
        ("an error in place of an array", [ERROR], released(200, ERROR_WITHOUT_USAGE)),
        (
            "an error in an array",
            [*text, b",", ERROR, b"]"],
            estimated(dialect, seen, ERROR_WITHOUT_USAGE, is_stream=True, is_input_told=True),
        ),
    ):
        view = View(200, End.CLEAN, b"".join(parts))
        yield Case(fault, sent(parts, head=JSON_HEAD), view, row)


def _strange(dialect: Dialect) -> Iterator[Case]:
    """Whole arrays in unusual clothes."""
    raw = [event.raw for event in dialect.events]
    whole = b"".join(raw)
    forged = b"," + compact(chunk('}]\\"[{"usageMetadata":{"promptTokenCount":1}}]'))
    line = b"," + compact(chunk("x" * 5_000_000))
    dressed = {
        "in one chunk": [whole],
        "in chunks of one byte": [whole[at : at + 1] for at in range(len(whole))],
        "without line ends": [part.replace(b"\n", b"").replace(b"\r", b"") for part in raw],
        "behind blanks": [b" \r\n" * 1_000, *raw],
        "with text that looks like its end": [*raw[:-2], forged, *raw[-2:]],
        "with an object of 5 MB": [*raw[:-2], line, *raw[-2:]],
        "of one object": [b"[", dialect.plain(), b"]"],
    }
    for fault, parts in dressed.items():
        view = View(200, End.CLEAN, b"".join(parts))
        yield Case(f"an array {fault}", sent(parts, head=JSON_HEAD), view, billed(dialect))
    empty = View(200, End.CUT, b"[]")
    yield Case("an empty array", sent([b"[]"], head=JSON_HEAD), empty, released(200, ENDED_EARLY))


def _behind_the_end(dialect: Dialect) -> Iterator[Case]:
    """The bracket has come: what comes behind it counts for nothing."""
    raw = [event.raw for event in dialect.events]
    for name, more in {
        "text": compact(chunk("more")),
        "an error": ERROR,
        "a bracket": b"]",
    }.items():
        for how in ENDS:
            view = View(200, End.CLEAN, b"".join(raw) + more)
            fault = f"{name} behind an array, {how}"
            handle = sent(raw, how, [more], JSON_HEAD)
            yield Case(fault, handle, view, billed(dialect), has_middle=True)


def _alone(dialect: Dialect) -> Iterator[Case]:
    """One object in no array, as if no stream had been asked for."""
    whole = dialect.plain()
    for how, why in ENDS.items():
        view = View(200, End.CLEAN, whole)
        handle = sent([whole[:40]], how, [whole[40:]], JSON_HEAD)
        yield Case(f"an object in no array, {how}", handle, view, billed(dialect), has_middle=True)
        cut = whole[:-1]
        handle = sent([cut[:40]], how, [cut[40:]], JSON_HEAD)
        view, row = View(200, End.CUT, cut[:40]), released(200, why)
        yield Case(f"an object in no array, cut and {how}", handle, view, row, has_middle=True)
