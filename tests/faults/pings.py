"""Answers in which for a long time comes nothing but signs of life.

A provider that sends them is not silent (`idle_timeout_s`), but has no more time than any other
(`total_timeout_s`). Ten minutes of them are played in seconds, with limits as much shorter.
"""

import asyncio
from collections.abc import Iterator

from tests.faults.cell import (
    SILENT_S,
    TOTAL_S,
    Bulk,
    Case,
    End,
    Handler,
    Limits,
    Stage,
    View,
)
from tests.faults.connections import TIMEOUT
from tests.faults.dialects import MESSAGES, Dialect, Event
from tests.faults.expect import JSON_HEAD, STREAM_HEAD, billed, cut_short, released
from tests.faults.streams import sent
from tests.support.stub_provider import Out, SeenRequest

GAP_S = 0.2
COUNT = round(1.5 * SILENT_S / GAP_S)
"""So many of them take longer than a provider may be silent."""
MANY = 1_000
"""More of them than a provider has time for."""
AT_ONCE = 20_000
ALONE = "signs of life alone"
TOOK_LONGER = f"the answer took longer than {TOTAL_S} s$"


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    sign = b" "
    if is_stream:
        yield from _at_once(dialect)
        sign = b": working\n\n"
        if dialect is MESSAGES:
            sign = b'event: ping\ndata: {"type": "ping"}\n\n'
    yield _before_the_answer(dialect, sign, is_stream=is_stream)
    yield from _without_end(dialect, sign, is_stream=is_stream)


def _at_once(dialect: Dialect) -> Iterator[Case]:
    at = 3
    events = dialect.events
    raw = [event.raw for event in events]
    comments = {
        "comments": b": a comment\n\n" * AT_ONCE,
        "comment lines of one event": b": a comment\n" * AT_ONCE,
        "lines without a meaning": b"x\n" * AT_ONCE,
    }
    for kind, block in comments.items():
        body = dialect.passed(events[:at]) + block + dialect.passed(events[at:])
        parts = [*raw[:at], block, *raw[at:]]
        view = View(200, End.CLEAN, body)
        yield Case(f"20,000 {kind} at once", sent(parts), view, billed(dialect))


def _before_the_answer(dialect: Dialect, sign: bytes, *, is_stream: bool) -> Case:
    events = [event.raw for event in dialect.events] if is_stream else [dialect.plain()]
    passed = dialect.passed(dialect.events) if is_stream else dialect.plain()

    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, STREAM_HEAD if is_stream else JSON_HEAD)
        await stage.fault()
        for _ in range(COUNT):
            await out.chunk(sign)
            await asyncio.sleep(GAP_S)
        for event in events:
            await out.chunk(event)
        await out.end()

    return Case(
        "signs of life for long, then the answer",
        handle,
        View(200, End.CLEAN, sign * COUNT + passed),
        billed(dialect),
        has_middle=True,
        limits=Limits.SHORT,
    )


def _without_end(dialect: Dialect, sign: bytes, *, is_stream: bool) -> Iterator[Case]:
    if not is_stream:
        handle = _signs_alone(JSON_HEAD, (), sign)
        row = released(200, TOOK_LONGER)
        yield Case(ALONE, handle, TIMEOUT, row, has_middle=True, limits=Limits.SHORT)
        return
    for fault, count in {ALONE: 0, f"text, then {ALONE}": 3}.items():
        events = dialect.events[:count]
        handle = _signs_alone(STREAM_HEAD, events, sign)
        view, row = cut_short(dialect, events, TOOK_LONGER, is_clean=False)
        assert isinstance(view.body, bytes)
        view = view._replace(body=Bulk(view.body, sign, MANY, b""), is_beginning=True)
        yield Case(fault, handle, view, row, has_middle=True, limits=Limits.SHORT)


def _signs_alone(head: list[tuple[str, str]], events: tuple[Event, ...], sign: bytes) -> Handler:
    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, head)
        for event in events:
            await out.chunk(event.raw)
        await stage.fault()
        await out.chunk(sign)
        await stage.ends()
        while not out.client_gone.is_set():
            await out.chunk(sign)
            await asyncio.sleep(GAP_S)

    return handle
