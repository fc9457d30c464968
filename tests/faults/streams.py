"""Event streams that end too early, and such as are strange but whole."""

import json
import re
from collections.abc import Iterable, Iterator

from tests.faults.cell import Case, End, Handler, Row, Stage, View
from tests.faults.dialects import CHAT, LEGACY, MESSAGES, RESPONSES, Dialect, Event, response
from tests.faults.expect import (
    BROKE_OFF,
    ENDED_EARLY,
    STREAM_HEAD,
    billed,
    cut_short,
    estimated,
    released,
)
from tests.support.answers import data_event, named_event
from tests.support.stub_provider import Headers, Out, SeenRequest

ENDS = {"ended": ENDED_EARLY, "closed": BROKE_OFF, "reset": BROKE_OFF}
"""How a stream ends too early, and the reason that its row gives."""
ERROR_WITHOUT_USAGE = "the provider ended the answer with an error$"
NO_USAGE = "the provider reported no usage$"


def sent(
    parts: Iterable[bytes],
    how: str = "ended",
    after: Iterable[bytes] = (),
    head: Headers = STREAM_HEAD,
) -> Handler:
    """Send these parts of a stream and end it: `ended`, `closed` or `reset`."""
    before, behind = list(parts), list(after)

    async def handle(request: SeenRequest, out: Out, stage: Stage) -> None:
        await out.head(200, head)
        for part in before:
            await out.chunk(part)
        await stage.fault()
        for part in behind:
            await out.chunk(part)
        if how == "ended":
            await out.end()
        elif how == "closed":
            out.close()
        else:
            out.abort()

    return handle


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    if not is_stream:
        return
    for count in range(len(dialect.events) + 1):
        yield from _ends(dialect, count)
        yield from _error_event(dialect, count)
    yield from _inside_an_event(dialect)
    yield from _strange(dialect)
    if dialect.events[-1].closes:
        yield from _behind_the_end(dialect)
    yield from _of_one_dialect(dialect)


def _ends(dialect: Dialect, count: int) -> Iterator[Case]:
    """The stream ends after so many events, in one way or another."""
    events = dialect.events[:count]
    raw = [event.raw for event in events]
    for how, why in ENDS.items():
        view, row = cut_short(dialect, events, why, is_clean=how == "ended")
        yield Case(f"{how} after event {count}", sent(raw, how), view, row, has_middle=True)


def _error_event(dialect: Dialect, count: int) -> Iterator[Case]:
    """The provider says itself what is wrong; that passes as it is."""
    events = dialect.events[:count]
    if events and events[-1].closes:
        return  # "behind the end"
    raw = [event.raw for event in events]
    error = provider_error(dialect)
    seen = sum(event.text_bytes for event in events)
    is_told = any(event.tells_input for event in events)
    if any(event.settles for event in events):
        row = billed(dialect)
    elif seen or is_told:
        row = estimated(dialect, seen, ERROR_WITHOUT_USAGE, is_stream=True, is_input_told=is_told)
    else:
        row = released(200, ERROR_WITHOUT_USAGE)
    view = View(200, End.CLEAN, dialect.passed(events) + error)
    handle = sent(raw, "ended", [error])
    yield Case(f"an error event after event {count}", handle, view, row, has_middle=True)


def provider_error(dialect: Dialect) -> bytes:
    """An error event as the provider sends it."""
    if dialect is RESPONSES:
        return named_event("error", code="server_error", message="Overloaded", param=None)
    error = {"type": "overloaded_error", "message": "Overloaded"}
    if dialect is MESSAGES:
        return named_event("error", error=error)
    return data_event({"error": error})


def _inside_an_event(dialect: Dialect) -> Iterator[Case]:
    """The connection breaks inside an event: what came of it is no text that was generated."""
    first_text = next(at for at, event in enumerate(dialect.events) if event.text_bytes)
    events = dialect.events[: first_text + 1]
    half = dialect.events[first_text + 1].raw[:40]
    broken_char = text_event(dialect, "日本").replace(b"\\u65e5\\u672c", "日本".encode())
    at = broken_char.index("本".encode()) + 1
    closing = {
        "inside an event": half,
        "inside a character": broken_char[:at],
        "inside the last event": dialect.events[-2].raw[:-5],
    }
    for where, rest in closing.items():
        for how, why in ENDS.items():
            view, row = cut_short(dialect, events, why, is_clean=how == "ended")
            raw = [event.raw for event in events]
            # Where our usage chunk may come, nothing unfinished is passed on.
            passed = b"" if dialect is CHAT else rest
            assert isinstance(view.body, bytes)
            view = view._replace(body=view.body + passed)
            yield Case(f"{how} {where}", sent(raw, how, [rest]), view, row, has_middle=True)


def text_event(dialect: Dialect, text: str) -> bytes:
    """An event with another text, its JSON as ASCII."""
    event = next(event for event in dialect.events if event.text_bytes)
    return event.raw.replace(b'"Hello"', json.dumps(text).encode())


def _strange(dialect: Dialect) -> Iterator[Case]:
    """Whole streams in unusual clothes: the bytes pass, the usage counts."""
    raw = [event.raw for event in dialect.events]
    at = 4
    comments = [b": a comment\n\n"] * 200
    pings = [b'event: ping\ndata: {"type": "ping"}\n\n'] * 200
    unknown = [named_event("x.future", field={"text": "x"}), b"id: 7\nretry: 10\n\n"]
    dressed: dict[str, list[bytes]] = {
        "CRLF": [part.replace(b"\n", b"\r\n") for part in raw],
        "CR": [part.replace(b"\n", b"\r") for part in raw],
        "mixed line ends": [
            part.replace(b"\n", b"\r\n") if number % 2 else part for number, part in enumerate(raw)
        ],
        "a byte order mark": [b"\xef\xbb\xbf" + raw[0], *raw[1:]],
        "comments": [*comments, *raw[:at], *comments, *raw[at:]],
        "unknown events": [*raw[:at], *unknown, *raw[at:]],
        "no space behind the colon": [part.replace(b"data: ", b"data:") for part in raw],
    }
    if dialect is not CHAT and dialect is not LEGACY:
        dressed["pings"] = [*pings, *raw[:at], *pings, *raw[at:]]
    for fault, parts in dressed.items():
        passed = b"".join(part for part in parts if not _is_withheld(dialect, part))
        view = View(200, End.CLEAN, passed)
        yield Case(f"a stream with {fault}", sent(parts), view, billed(dialect))
    whole = b"".join(raw)
    view = View(200, End.CLEAN, dialect.passed(dialect.events))
    split = [whole[at : at + 1] for at in range(len(whole))]
    yield Case("a stream in chunks of one byte", sent(split), view, billed(dialect))
    yield Case("a stream in one chunk", sent([whole]), view, billed(dialect))
    forged = text_event(dialect, f"data: {json.dumps(dialect.usage)}\n\ndata: [DONE]\n\n")
    body = dialect.passed(dialect.events[:at]) + forged + dialect.passed(dialect.events[at:])
    parts = [*raw[:at], forged, *raw[at:]]
    yield Case("text that looks like usage", sent(parts), view._replace(body=body), billed(dialect))
    line = text_event(dialect, "x" * 5_000_000)
    body = dialect.passed(dialect.events[:at]) + line + dialect.passed(dialect.events[at:])
    parts = [*raw[:at], line, *raw[at:]]
    yield Case("a line of 5 MB", sent(parts), View(200, End.CLEAN, body), billed(dialect))
    unended = [*raw[:-1], raw[-1].rstrip(b"\n")]
    view = view._replace(body=dialect.passed(dialect.events).rstrip(b"\n"))
    yield Case("no last line end", sent(unended), view, billed(dialect))


def _is_withheld(dialect: Dialect, part: bytes) -> bool:
    return dialect is CHAT and bool(re.search(rb'"choices":\[\]', part))


def _behind_the_end(dialect: Dialect) -> Iterator[Case]:
    """The last word has been said: what comes behind it counts for nothing."""
    raw = [event.raw for event in dialect.events]
    lies = {**dialect.usage, dialect.input_name: 1, dialect.output_name: 1}
    lies.pop("total_tokens", None)
    behind: dict[str, bytes] = {
        "the last event again": raw[-1],
        "text": text_event(dialect, "more"),
        "an error": provider_error(dialect),
        "another usage": usage_event(dialect, lies),
    }
    for name, more in behind.items():
        for how in ENDS:
            view = View(200, End.CLEAN, dialect.passed(dialect.events) + more)
            handle = sent(raw, how, [more])
            fault = f"{name} behind the end, {how}"
            yield Case(fault, handle, view, billed(dialect), has_middle=True)
        joined = [*raw[:-1], raw[-1] + more]
        view = View(200, End.CLEAN, dialect.passed(dialect.events) + more)
        yield Case(f"{name} in one chunk with the end", sent(joined), view, billed(dialect))


def usage_event(dialect: Dialect, usage: object) -> bytes:
    """The event that reports usage, with another one."""
    if dialect is RESPONSES:
        last = response("completed", output=dialect.answer["output"], usage=usage)
        return named_event("response.completed", response=last)
    if dialect is MESSAGES:
        delta = {"stop_reason": "end_turn", "stop_sequence": None}
        return named_event("message_delta", delta=delta, usage=usage)
    event = next(event for event in dialect.events if event.settles)
    old = json.dumps(dialect.usage, separators=(",", ":")).encode()
    assert old in event.raw
    return event.raw.replace(old, json.dumps(usage, separators=(",", ":")).encode())


def _of_one_dialect(dialect: Dialect) -> Iterator[Case]:
    if dialect is CHAT or dialect is LEGACY:
        yield from _of_chunks(dialect)
    elif dialect is RESPONSES:
        yield from _of_responses(dialect)
    elif dialect is MESSAGES:
        yield from _of_messages(dialect)


def _of_chunks(dialect: Dialect) -> Iterator[Case]:
    events = dialect.events
    done, usage, finish = events[-1], events[-2], events[-3]
    yield Case(
        "no [DONE]",
        sent([event.raw for event in events[:-1]]),
        View(200, End.CLEAN, dialect.passed(events[:-1])),
        billed(dialect),
    )
    without = (*events[:-3], usage, done)
    yield Case(
        "no finish_reason",
        sent([event.raw for event in without]),
        View(200, End.CLEAN, dialect.passed(without)),
        billed(dialect),
    )
    reordered = (*events[:-3], usage, finish, done)
    yield Case(
        "usage before the finish_reason",
        sent([event.raw for event in reordered]),
        View(200, End.CLEAN, dialect.passed(reordered)),
        billed(dialect),
    )
    unasked = (*events[:-2], done)
    yield Case(
        "no usage",
        sent([event.raw for event in unasked]),
        View(200, End.CLEAN, dialect.passed(unasked)),
        estimated(dialect, 12, NO_USAGE, is_stream=True),
    )
    second = [event.raw.replace(b'"index":0', b'"index":1') for event in events[:-2]]
    both = [
        part
        for pair in zip([event.raw for event in events[:-2]], second, strict=True)
        for part in pair
    ]
    whole = [*both, usage.raw, done.raw]
    passed = b"".join(both) + dialect.passed((usage, done))
    yield Case(
        "two choices interleaved", sent(whole), View(200, End.CLEAN, passed), billed(dialect)
    )
    one_is_open = [part for part in both if part != second[-1]]
    yield Case(
        "one of two choices unfinished",
        sent(one_is_open),
        View(200, End.OUR_EVENT, b"".join(one_is_open), "upstream_interrupted"),
        estimated(dialect, 24, ENDED_EARLY, is_stream=True),
    )
    early = (usage, *events[:-3], done)
    yield Case(
        "usage before any text",
        sent([event.raw for event in early]),
        View(200, End.CLEAN, dialect.passed(early)),
        billed(dialect),
    )
    yield Case(
        "usage before any text, and broken off",
        sent([event.raw for event in early[:-1]], "closed"),
        View(200, End.OUR_EVENT, dialect.passed(early[:-1]), "upstream_interrupted"),
        # What was reported, since it is more than what was seen.
        Row("settled", "estimate", dialect.cost_nanousd, 200, BROKE_OFF, raw_usage=True),
    )


def _of_responses(dialect: Dialect) -> Iterator[Case]:
    raw = [event.raw for event in dialect.events[:-1]]
    for status, reason in {"incomplete": None, "failed": None}.items():
        last = named_event(f"response.{status}", response=response(status, usage=dialect.usage))
        view = View(200, End.CLEAN, b"".join([*raw, last]))
        yield Case(
            f"response.{status} with usage", sent([*raw, last]), view, billed(dialect, reason)
        )
    failed = named_event("response.failed", response=response("failed", error={"code": "x"}))
    yield Case(
        "response.failed without usage",
        sent([*raw, failed]),
        View(200, End.CLEAN, b"".join([*raw, failed])),
        estimated(dialect, 12, ERROR_WITHOUT_USAGE, is_stream=True),
    )
    done = [event.raw for event in dialect.events] + [b"data: [DONE]\n\n"]
    yield Case("a [DONE]", sent(done), View(200, End.CLEAN, b"".join(done)), billed(dialect))
    early = named_event("response.created", response=response(usage=dialect.usage))
    last = named_event("response.completed", response=response("completed"))
    parts = [early, *raw[1:], last]
    yield Case(
        "usage in the first event alone",
        sent(parts),
        View(200, End.CLEAN, b"".join(parts)),
        estimated(dialect, 12, NO_USAGE, is_stream=True),
    )


def _of_messages(dialect: Dialect) -> Iterator[Case]:
    start, *middle, delta, stop = dialect.events
    yield from _messages_without(dialect, start, middle, delta, stop)
    lower = {**dialect.usage, "output_tokens": 5}
    for name, usages, row in (
        ("usage going up", [lower, dialect.usage], billed(dialect)),
        (
            "usage going down",
            [dialect.usage, lower],
            estimated(
                dialect,
                12,
                "usage contradicts itself: ",
                is_stream=True,
                is_input_told=True,
                raw_usage=True,
            ),
        ),
    ):
        parts = [start.raw, *(event.raw for event in middle)]
        parts += [usage_event(dialect, usage) for usage in usages] + [stop.raw]
        yield Case(
            f"two message_delta, {name}", sent(parts), View(200, End.CLEAN, b"".join(parts)), row
        )
    bare = named_event(
        "message_delta", delta={"stop_reason": "end_turn"}, usage={"output_tokens": 50}
    )
    parts = [start.raw, *(event.raw for event in middle), bare, stop.raw]
    yield Case(
        "message_delta with output alone",
        sent(parts),
        View(200, End.CLEAN, b"".join(parts)),
        billed(dialect),
    )


def _messages_without(
    dialect: Dialect, start: Event, middle: list[Event], delta: Event, stop: Event
) -> Iterator[Case]:
    without_start = (*middle, delta, stop)
    flat = dialect.cost_nanousd + 50 * (3_750 - 6_000)  # the hour's split stood in the start
    yield Case(
        "no message_start",
        sent([event.raw for event in without_start]),
        View(200, End.CLEAN, dialect.passed(without_start)),
        Row("settled", "usage", flat, 200, None),
    )
    without_delta = (start, *middle, stop)
    yield Case(
        "no message_delta",
        sent([event.raw for event in without_delta]),
        View(200, End.CLEAN, dialect.passed(without_delta)),
        estimated(dialect, 12, NO_USAGE, is_stream=True, is_input_told=True),
    )
    without_stop = (start, *middle, delta)
    yield Case(
        "no message_stop",
        sent([event.raw for event in without_stop]),
        View(200, End.OUR_EVENT, dialect.passed(without_stop), "upstream_interrupted"),
        billed(dialect, ENDED_EARLY),
    )
    neither = tuple(middle)
    yield Case(
        "text alone",
        sent([event.raw for event in neither]),
        View(200, End.OUR_EVENT, dialect.passed(neither), "upstream_interrupted"),
        estimated(dialect, 12, ENDED_EARLY, is_stream=True),
    )
