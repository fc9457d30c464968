"""Events that repeat others are read as if each was parsed, however odd they are and arrive.

Compared with the same readers when they recognise none.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.dialects import repeats
from llmproxy.dialects.base import Reading
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


def run(case: Case, pieces: list[bytes]) -> list[tuple[bytes, bool, bool, Reading]]:
    """What passes of each piece, and what is known after it."""
    reader = endpoint_of(case).stream_reader(withholds_usage=case.is_usage_withheld)
    known = []
    for piece in pieces:
        passed = reader.events.feed(piece)
        known.append((passed, reader.is_complete, reader.is_over, reader.reading()))
    return [*known, (reader.events.finish(), reader.is_complete, reader.is_over, reader.reading())]


@given(streams(), st.booleans(), st.data())
@THOROUGH
def test_a_stream_is_read_the_same_with_repeats_and_without(
    made: tuple[Case, bytes], by_lines: bool, data: st.DataObject
) -> None:
    case, stream = made
    pieces = cut(stream, data.draw(cuts(len(stream))))
    if by_lines:
        pieces = stream.splitlines(keepends=True)
    seen = run(case, pieces)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(repeats, "LEARNT_MAX", 0)
        assert run(case, pieces) == seen
