"""Events that pass unread are read as if each had been at once, however odd they are and arrive.

Compared with the same readers when nothing waits.
"""

import re

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.dialects.base import StreamReader
from tests.every_cut import endpoint_of
from tests.fixtures import STREAMS, Case
from tests.fuzz.strategies import THOROUGH, cut, cuts

SHORT = sorted(name for name, case in STREAMS.items() if len(case.answer) < 8000)
ODD = st.sampled_from(
    [
        *(
            b'"',
            b"\\",
            b"\\n",
            b"\\\\u",
            b"\\u00e9",
            b"\n",
            b"\r",
            b"\t",
            b"\x00",
            b"{",
            b"}",
            b"1",
        ),
        *(
            b'","content":"',
            b'"usage":{"prompt_tokens":7}',
            b"null",
            b"\xc3",
            "é".encode(),
            b"data: ",
        ),
    ]
)


@st.composite
def streams(draw: st.DrawFn) -> tuple[Case, bytes]:
    """A recorded stream with some of its events once more, a few bytes of them changed."""
    case = STREAMS[draw(st.sampled_from(SHORT))]
    events = list(case.events)
    for _ in range(draw(st.integers(0, 4))):
        number = draw(st.integers(0, len(events) - 1))
        text = events[number].rfind(b'":"') + 3
        at = draw(st.just(text) | st.integers(0, len(events[number])))
        taken = draw(st.integers(0, 2))
        changed = events[number][:at] + draw(ODD) + events[number][at + taken :]
        events[number : number + 1] = [events[number]] * draw(st.integers(1, 3)) + [changed] * 2
    eol = draw(st.sampled_from([b"\n", b"\n", b"\r\n"]))
    return case, b"".join(events).replace(b"\n", eol)


def run(
    case: Case, pieces: list[bytes], asked: list[bool], *, defers: bool
) -> tuple[list[object], StreamReader]:
    """What passes of each piece, and what is known after it where that is asked for."""
    reader = endpoint_of(case).stream_reader(withholds_usage=case.is_usage_withheld)
    known: list[object] = []
    for piece, is_asked in zip(pieces, asked, strict=True):
        if not defers:
            reader.events.defer_nothing()
        known.append(reader.events.feed(piece))
        if is_asked:
            assert reader.seen_bytes <= reader.seen_bytes_max
            known += [reader.seen_bytes, reader.is_complete, reader.reading()]
    known.append(reader.events.finish())
    return known, reader


@given(streams(), st.booleans(), st.data())
@THOROUGH
def test_a_stream_is_read_the_same_whether_events_wait_or_not(
    made: tuple[Case, bytes], by_events: bool, data: st.DataObject
) -> None:
    case, stream = made
    pieces = cut(stream, data.draw(cuts(len(stream))))
    if by_events:
        pieces = re.split(rb"(?<=\n\n)|(?<=\n\r\n)", stream)
    asked = data.draw(st.lists(st.booleans(), min_size=len(pieces), max_size=len(pieces)))
    known, reader = run(case, pieces, asked, defers=True)
    wanted, plain = run(case, pieces, asked, defers=False)
    assert known == wanted
    assert reader.reading() == plain.reading()
    assert (reader.is_over, reader.is_complete) == (plain.is_over, plain.is_complete)
    assert reader.seen_bytes == plain.seen_bytes
