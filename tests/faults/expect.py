"""The outcomes that many faults share."""

from tests.faults.cell import End, Row, View
from tests.faults.dialects import Dialect, Event
from tests.support.stub_provider import Out

BROKE_OFF = r"\S+ broke off: ."
ENDED_EARLY = r"\S+ ended the stream before the answer was complete$"
JSON_HEAD = [("content-type", "application/json")]
STREAM_HEAD = [("content-type", "text/event-stream; charset=utf-8")]


async def answer_whole(out: Out, dialect: Dialect, *, is_stream: bool) -> None:
    """The complete answer."""
    if is_stream:
        await out.sse([event.raw for event in dialect.events])
    else:
        await out.json(200, dialect.plain())


def whole_view(dialect: Dialect, *, is_stream: bool) -> View:
    """The complete answer as it was sent."""
    body = dialect.passed(dialect.events) if is_stream else dialect.plain()
    return View(200, End.CLEAN, body)


def billed(dialect: Dialect, reason: str | None = None) -> Row:
    """The complete answer's usage is charged."""
    return Row("settled", "usage", dialect.cost_nanousd, 200, reason, raw_usage=True)


def released(upstream_status: int | None, reason: str) -> Row:
    """Nothing is charged."""
    return Row("released", "none", 0, upstream_status, reason)


def estimated(
    dialect: Dialect,
    seen_bytes: int,
    reason: str,
    *,
    is_stream: bool,
    is_input_told: bool = False,
    raw_usage: bool | None = None,
) -> Row:
    """The documented estimate is charged."""
    nanousd = dialect.estimate(seen_bytes, is_stream=is_stream, is_input_told=is_input_told)
    return Row("settled", "estimate", nanousd, 200, reason, raw_usage)


def unreachable(*, should_retry: bool = False) -> View:
    """Our 502 for a provider that gave no answer that could be passed on."""
    advice = b"true" if should_retry else b"false"
    return View(502, End.OUR_ERROR, code="upstream_unreachable", should_retry=advice)


def cut_short(
    dialect: Dialect, events: tuple[Event, ...], why: str, *, is_clean: bool
) -> tuple[View, Row]:
    """What a stream comes to that ends after some of its events.

    `is_clean`: its framing says that it is complete; else the connection broke.
    """
    last = events[-1] if events else Event(b"")
    is_told = any(event.tells_input for event in events)
    is_settled = any(event.settles for event in events)
    is_complete = any(event.completes for event in events)
    is_whole = last.closes or (is_clean and is_complete)
    broken_end = End.CUT if dialect.is_array else End.OUR_EVENT
    end = End.CLEAN if is_whole else broken_end
    code = "upstream_interrupted" if end is End.OUR_EVENT else None
    view = View(200, end, dialect.passed(events), code)
    reason = "the provider reported no usage$" if is_whole else why
    seen = sum(event.text_bytes for event in events)
    if is_settled:
        return view, billed(dialect, None if is_whole else why)
    if not (seen or is_told):
        return view, released(200, reason)
    return view, estimated(dialect, seen, reason, is_stream=True, is_input_told=is_told)
