"""However a stream of events is cut: the same bytes pass, and the same events are read.

Compared with a reader that is written for nothing but this test, after the words of the standard.
"""

from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.dialects.gemini_contents import STREAM, GeminiContents
from llmproxy.dialects.sse import HELD_BACK_BYTES_MAX, EventStream
from llmproxy.routes import endpoints_of
from tests.fuzz.strategies import THOROUGH, cut, cuts

PIECES = st.sampled_from(
    [
        *(b"\n", b"\n", b"\n\n", b"\r", b"\r\n", b"\r\n\r\n", b"data: ", b"data:", b"data"),
        *(b"event: usage", b"event:x", b"id: 1", b": comment", b":", b" ", b"\xef\xbb\xbf"),
        *(b'{"choices":[],"usage":{"prompt_tokens":9,"completion_tokens":1,"total_tokens":10}}',),
        *(b"[DONE]", "é後😀".encode(), b"\xff", b"\x00", "\u2028\x85\x0b\x0c".encode(), b"x" * 40),
        b'{"choices":[{"index":0,"delta":{"content":"x"}}]}',
        *(b"[", b"]", b",", b"{", b'"', b"\\"),
        b'{"candidates":[{"content":{"parts":[{"text":"}"}]},"finishReason":"STOP"}]}',
        b'{"usageMetadata":{"promptTokenCount":3}}',
    ]
)
STREAMS = st.lists(PIECES, max_size=25).map(b"".join) | st.binary(max_size=120)
EVENTS = st.lists(
    st.tuples(st.sampled_from([b"", b"a", b"usage"]), st.sampled_from([b"1", b'{"usage":1}', b""])),
    max_size=8,
)
Event = tuple[bytes, bytes]


def read_plainly(stream: bytes) -> list[Event]:
    """All events with data, by the standard's own steps, line by line."""
    text = stream.removeprefix(b"\xef\xbb\xbf").replace(b"\r\n", b"\n").replace(b"\r", b"\n")
    events: list[Event] = []
    name, data = b"", list[bytes]()
    for line in [*text.split(b"\n"), b""]:  # what has no blank line behind it counts too
        if not line:
            joined = b"\n".join(data)
            if joined:
                events.append((name, joined))
            name, data = b"", []
        elif line.startswith(b"data:"):
            data.append(line[5:].removeprefix(b" "))
        elif line.startswith(b"event:"):
            name = line[6:].strip()
    return events


class Notes:
    """What a reader is handed; it withholds what has these bytes in it."""

    def __init__(self, withheld: bytes | None) -> None:
        self.is_over = False
        self.events: list[Event] = []
        self._withheld = withheld

    def on_event(self, name: bytes, data: bytes) -> bool:
        self.events.append((name, data))
        return self._withheld is not None and self._withheld in data

    def on_deferred(self, datas: list[bytes]) -> bool:
        raise AssertionError(datas)  # none is, by default

    def on_finish(self) -> None:
        """Nothing to do."""


def run(
    pieces: list[bytes], *, holds_back: bool, withhold: bytes | None = None
) -> tuple[list[Event], bytes]:
    notes = Notes(withhold)
    stream = EventStream(notes, holds_back=holds_back)
    passed = b"".join(stream.feed(piece) for piece in pieces)
    return notes.events, passed + stream.finish()


@given(STREAMS, st.data())
@example(b"data: 1\r\r\ndata: 2\r\n\r\n", None)
@example(b"\xef\xbb\xbfdata: 1\n\n", None)
@THOROUGH
def test_any_bytes_are_read_as_the_standard_says_and_pass(
    stream: bytes, data: st.DataObject | None
) -> None:
    every = [bytes([byte]) for byte in stream]
    splits = [[stream], every] + ([cut(stream, data.draw(cuts(len(stream))))] if data else [])
    wanted = read_plainly(stream)
    for pieces in splits:
        for holds_back in (False, True):
            events, passed = run(pieces, holds_back=holds_back)
            assert passed == stream
            assert events == wanted


@given(EVENTS, st.sampled_from([b"\n", b"\r\n", b"\r"]), st.data())
@THOROUGH
def test_exactly_the_withheld_events_are_missing(
    events: list[Event], eol: bytes, data: st.DataObject
) -> None:
    parts = [
        (b"event: " + name + eol if name else b"") + b"data: " + said + eol + eol
        for name, said in events
    ]
    stream = b"".join(parts)
    kept = b"".join(part for part in parts if b"usage" not in part.partition(b"data:")[2])
    for pieces in (
        [stream],
        [bytes([b]) for b in stream],
        cut(stream, data.draw(cuts(len(stream)))),
    ):
        assert run(pieces, holds_back=True, withhold=b"usage")[1] == kept


@given(STREAMS, st.data())
@THOROUGH
def test_every_endpoint_reads_the_same_however_a_stream_is_cut(
    stream: bytes, data: st.DataObject
) -> None:
    pieces = cut(stream, data.draw(cuts(len(stream))))
    endpoints = (*endpoints_of("openai", "openai"), *endpoints_of("anthropic", "anthropic"))
    for endpoint in (*endpoints, GeminiContents(STREAM, "m")):
        for withholds in (True, False):
            whole, cut_up = (endpoint.stream_reader(withholds_usage=withholds) for _ in range(2))
            passed = whole.events.feed(stream) + whole.events.finish()
            again = b"".join(cut_up.events.feed(piece) for piece in pieces)
            again += cut_up.events.finish()
            assert again == passed
            assert cut_up.reading() == whole.reading()
            assert (cut_up.is_complete, cut_up.is_over) == (whole.is_complete, whole.is_over)


@given(st.integers(0, HELD_BACK_BYTES_MAX + 50), st.lists(st.integers(1, 9000), max_size=6))
@THOROUGH
def test_long_events_pass_whole_and_are_held_back_up_to_the_limit(
    length: int, steps: list[int]
) -> None:
    stream = b"data: " + b"x" * length + b"\n\ndata: usage\n\ndata: 2\n\n"
    positions, at = [], 0
    for step in steps:
        at = min(at + step, len(stream))
        positions.append(at)
    _, passed = run(cut(stream, positions), holds_back=True, withhold=b"usage")
    assert passed == stream.replace(b"data: usage\n\n", b"")
