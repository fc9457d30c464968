"""Gemini's streams of events: that all candidates have ended is all that tells the end."""

from collections.abc import Iterator

from tests.faults.cell import Case, End, Row, View
from tests.faults.dialects import Dialect
from tests.faults.expect import ENDED_EARLY, billed
from tests.faults.streams import sent
from tests.support.answers import data_event


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    assert is_stream
    first = [event.raw for event in dialect.events]
    second = [raw.replace(b'"index":0', b'"index":1') for raw in first]
    both = [part for pair in zip(first, second, strict=True) for part in pair]
    view = View(200, End.CLEAN, b"".join(both))
    yield Case("two candidates interleaved", sent(both), view, billed(dialect))
    one_is_open = both[:-1]
    body = b"".join(one_is_open)
    yield Case(
        "one of two candidates unfinished",
        sent(one_is_open),
        View(200, End.OUR_EVENT, body, "upstream_interrupted"),
        # What was reported, since it is more than what was seen.
        Row("settled", "estimate", dialect.cost_nanousd, 200, ENDED_EARLY, raw_usage=True),
    )
    one_after_the_other = [*first, *second]
    view = View(200, End.CLEAN, b"".join(one_after_the_other))
    handle = sent(one_after_the_other)
    yield Case("one candidate after the other", handle, view, billed(dialect))
    blocked = data_event({"promptFeedback": {"blockReason": "SAFETY"}, "usageMetadata": {}})
    told = blocked.replace(b"{}", b'{"promptTokenCount":1000,"totalTokenCount":1000}')
    yield Case(
        "a prompt that is blocked",
        sent([told]),
        View(200, End.CLEAN, told),
        Row("settled", "usage", 1000 * dialect.rates.input, 200, None, raw_usage=True),
    )
