"""Events that pass unread: which do, when they are read, and that it makes no difference."""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from typing_extensions import override

from llmproxy.dialects.anthropic_messages import MessageStreamReader
from llmproxy.dialects.base import Reading
from llmproxy.dialects.gemini_contents import STREAM, GeminiContents
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.openai_responses import ResponseStreamReader
from llmproxy.dialects.sse import DEFERRED_BYTES_MAX, Deferral, EventStream
from llmproxy.dialects.stream_readers import BaseStreamReader
from llmproxy.usage import Leg, Usage
from tests.every_cut import endpoint_of
from tests.fixtures import STREAMS
from tests.support.answers import anthropic_stream, anthropic_usage, data_event, named_event

Event = dict[str, Any]

WORDS = st.one_of(
    st.sampled_from(
        [
            *("", " word", "\n", 'say "no"', "back\\slash", "\\under", "и", "\u2028"),
            *('"content":"x"', "]}", '"error"', "[DONE]", "[]", "message_stop", '"response":'),
        ]
    ),
    st.text(max_size=5),
)
ODD = st.sampled_from([None, 1, [], {}, {"content": "x"}, ["text"]])
KINDS = ["response.output_text.delta"] * 6 + ["response.x.delta", "x", "error"]
COUNT = st.one_of(st.integers(0, 30), st.sampled_from([None, -1, 1.5, 10**10, "7"]))
CALL = {"index": 0, "function": {"name": "f", "arguments": ""}}


@st.composite
def chunks(draw: st.DrawFn) -> list[Event]:
    """Events of a chat stream that are alike, and some that are not quite."""
    made: list[Event] = []
    for _ in range(draw(st.integers(1, 12))):
        delta: Event = {"content": draw(WORDS)}
        if draw(st.integers(0, 9)) == 0:
            name = draw(st.sampled_from(["content", "refusal", "reasoning", "role"]))
            delta[name] = draw(st.one_of(WORDS, ODD))
        if draw(st.integers(0, 9)) == 0:
            delta["tool_calls"] = [CALL] * draw(st.integers(0, 30))
        choice: Event = {"index": draw(st.sampled_from([0, 0, 0, 1])), "delta": delta}
        choice["finish_reason"] = draw(st.sampled_from([None] * 9 + ["stop"]))
        event: Event = {"model": draw(st.sampled_from(["m"] * 9 + ["n"])), "choices": [choice]}
        event["service_tier"] = draw(st.sampled_from(["a"] * 9 + ["b", None]))
        event["usage"] = draw(st.sampled_from([None] * 9 + [{"prompt_tokens": 1}]))
        if draw(st.integers(0, 9)) == 0:
            event["choices"] = []
            event["usage"] = {"prompt_tokens": draw(COUNT), "completion_tokens": draw(COUNT)}
        if draw(st.integers(0, 19)) == 0:
            event["error"] = draw(st.one_of(WORDS, ODD))
        made.append(event)
    return made


def written(event: Event, *, spaced: bool, is_ascii: bool = False) -> bytes:
    separators = None if spaced else (",", ":")
    return json.dumps(event, separators=separators, ensure_ascii=is_ascii).encode()


def assert_alike(
    deferring: BaseStreamReader, plain: BaseStreamReader, events: Iterator[bytes], asked: int
) -> None:
    """Feed both, of which one reads everything at once; ask after some of the events, and at last.

    What has been asked for, `asked` says by its bits.
    """
    for number, event in enumerate(events):
        plain.events.defer_nothing()
        assert deferring.events.feed(event) == plain.events.feed(event)
        assert deferring.is_over == plain.is_over
        if asked >> number & 1:
            assert deferring.seen_bytes <= deferring.seen_bytes_max
            assert deferring.seen_bytes == plain.seen_bytes
            assert deferring.reading() == plain.reading()
            assert deferring.is_complete == plain.is_complete
    assert deferring.events.finish() == plain.events.finish()
    assert deferring.reading() == plain.reading()
    assert deferring.is_complete == plain.is_complete
    assert deferring.seen_bytes_max >= plain.seen_bytes
    assert deferring.seen_bytes == plain.seen_bytes


ASKED = st.sampled_from([0, 0, 1, 2**30 - 1]) | st.integers(0, 2**13)


@given(chunks(), st.booleans(), st.booleans(), st.booleans(), st.booleans(), ASKED)
def test_a_chat_stream_reads_the_same(
    events: list[Event], spaced: bool, is_ascii: bool, is_ended: bool, withholds: bool, asked: int
) -> None:
    one, other = (ChunkStreamReader(withholds_usage=withholds) for _ in "ab")
    pieces = [
        b"data: " + written(event, spaced=spaced, is_ascii=is_ascii) + b"\n\n" for event in events
    ]
    assert_alike(one, other, iter(pieces + [b"data: [DONE]\n\n"] * is_ended), asked)


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["text", "text", "text", "thinking", "partial_json", "signature"]),
            st.one_of(WORDS, WORDS, WORDS, ODD),
        ),
        max_size=12,
    ),
    st.booleans(),
    st.booleans(),
    ASKED,
)
def test_an_anthropic_stream_reads_the_same(
    deltas: list[tuple[str, object]], spaced: bool, is_ended: bool, asked: int
) -> None:
    start, *_, end, stop = anthropic_stream(usage=anthropic_usage(12, 9))
    pieces = [start]
    for member, value in deltas:
        event = {"type": "content_block_delta", "index": 0, "delta": {member: value}}
        data = written(event, spaced=spaced)
        pieces.append(b"event: content_block_delta\ndata: " + data + b"\n\n")
    pieces += [end, stop] * is_ended
    assert_alike(MessageStreamReader(), MessageStreamReader(), iter(pieces), asked)


@given(
    st.lists(st.tuples(st.sampled_from(KINDS), st.one_of(WORDS, WORDS, ODD)), max_size=12),
    st.sampled_from([None, "completed", "failed"]),
    st.booleans(),
    ASKED,
)
def test_a_stream_of_responses_reads_the_same(
    deltas: list[tuple[str, object]], last: str | None, spaced: bool, asked: int
) -> None:
    events: list[Event] = [
        {"type": kind, "sequence_number": number, "delta": delta}
        for number, (kind, delta) in enumerate(deltas)
    ]
    if last is not None:
        usage = {"input_tokens": 3, "output_tokens": 4}
        events.append({"type": f"response.{last}", "response": {"usage": usage}})
    pieces = (
        b"event: %b\ndata: %b\n\n" % (event["type"].encode(), written(event, spaced=spaced))
        for event in events
    )
    assert_alike(ResponseStreamReader(), ResponseStreamReader(), pieces, asked)


@given(
    st.lists(
        st.tuples(st.one_of(WORDS, WORDS, ODD), st.sampled_from([0] * 5 + [1]), COUNT, COUNT),
        max_size=10,
    ),
    st.lists(st.sampled_from([None] * 9 + ["STOP"]), min_size=10, max_size=10),
    st.sampled_from([b"\n", b"\r\n"]),
    ASKED,
)
def test_a_gemini_stream_reads_the_same(
    told: list[tuple[object, int, object, object]], ends: list[str | None], eol: bytes, asked: int
) -> None:
    pieces = []
    for (text, index, candidates, total), end in zip(told, ends, strict=False):
        candidate: Event = {"content": {"parts": [{"text": text}]}, "index": index}
        if end is not None:
            candidate["finishReason"] = end
        usage = {
            "promptTokenCount": 9,
            "candidatesTokenCount": candidates,
            "totalTokenCount": total,
        }
        event = {"candidates": [candidate], "usageMetadata": usage}
        pieces.append(b"data: " + written(event, spaced=True) + eol * 2)
    one, other = (GeminiContents(STREAM, "m").stream_reader(withholds_usage=False) for _ in "ab")
    assert_alike(one, other, iter(pieces), asked)


# --- what is read when -----------------------------------------------------------------------


@pytest.mark.parametrize(
    "name", ["openai-chat", "groq-chat", "openai-responses", "anthropic-messages", "deepseek-chat"]
)
@pytest.mark.parametrize("in_one", [False, True])
def test_of_a_whole_answer_with_usage_most_is_never_read(name: str, in_one: bool) -> None:
    case = STREAMS[name]
    reader = endpoint_of(case).stream_reader(withholds_usage=case.is_usage_withheld)
    for piece in [case.answer] if in_one else case.events:
        reader.events.feed(piece)
    reading = reader.reading()
    assert (reading.is_final, reader.is_complete, reader.is_over) == (True, True, True)
    deferred = reader.events.deferred
    assert b"".join(deferred).count(b"\n\n") > len(case.events) / 3
    assert reader.reading() is reading
    assert reader.seen_bytes > 0  # asked for, it is read
    assert (deferred, reader.events.deferred_bytes) == ([], 0)
    assert reader.reading() is reading


@pytest.mark.parametrize("cut", [0, 500], ids=["whole", "cut"])
def test_no_more_than_so_much_waits(cut: int) -> None:
    reader = ChunkStreamReader(withholds_usage=False)
    event = data_event({"choices": [{"index": 0, "delta": {"content": "x" * 1000}}]})
    waited = []
    reader.events.feed(event[:cut])
    for _ in range(200):
        reader.events.feed(event[cut:] + event[:cut])
        waited.append(reader.events.deferred_bytes)
        assert sum(map(len, reader.events.deferred)) == waited[-1]
    assert DEFERRED_BYTES_MAX - len(event) < max(waited) <= DEFERRED_BYTES_MAX
    assert reader.seen_bytes == 200_000


def test_parallel_calls_in_one_event_count_for_no_more_than_the_most() -> None:
    reader = ChunkStreamReader(withholds_usage=False)
    calls = [{"function": {"name": "f"}}] * 100
    data = written({"choices": [{"delta": {"tool_calls": calls}}]}, spaced=False)
    reader.events.feed(b"data: " + data + b"\n\n")
    most = reader.seen_bytes_max
    assert len(data) < reader.seen_bytes == 3100 <= most


def text(words: str, **members: object) -> bytes:
    choice = {"index": 0, "delta": {"content": words}, "finish_reason": None}
    return data_event({"model": "m", "choices": [choice], **members})


def ended(*events: bytes, usage: Event | None = None) -> ChunkStreamReader:
    reader = ChunkStreamReader(withholds_usage=False)
    told = {"prompt_tokens": 5, "completion_tokens": 2} if usage is None else usage
    last = data_event({"model": "m", "choices": [], "usage": told})
    for event in (*events, last, b"data: [DONE]\n\n"):
        reader.events.feed(event)
    return reader


def test_what_may_change_the_bill_is_read_wherever_it_stands() -> None:
    plain = ended(text("a"), text("b")).reading()
    assert plain.usage == Usage((Leg(input=5, output=2),))
    assert ended(text("a"), text("b", service_tier="flex")).reading().movers.service_tier == "flex"
    assert ended(text("a", error={"code": 502}), text("b")).reading().has_error
    assert ended(text("a") + b'event: error\ndata: {"x":1}\n\n' + text("b")).reading().has_error
    assert not ended(text('the "error" is'), text("error")).reading().has_error
    early = ended(text("a") + b"data: [DONE]\n\n" + text("b"))
    assert (early.reading().is_final, early.reading().seen_bytes) == (False, 1)


def test_a_usage_of_nothing_for_an_answer_with_text_is_not_believed() -> None:
    nothing = {"prompt_tokens": 0, "completion_tokens": 0}
    reading = ended(text("some text"), usage=nothing).reading()
    assert (reading.is_final, reading.seen_bytes) == (False, len("some text"))
    assert reading.problem == "usage reports no tokens for an answer with text"
    assert ended(text(""), usage=nothing).reading().is_final


def test_an_unreadable_event_counts_as_text_when_it_is_read_later() -> None:
    reader = ChunkStreamReader(withholds_usage=False)
    for event in (text("abc"), b'data: {"choices": nonsense}\n\n', text("de")):
        reader.events.feed(event)
    reader.events.feed(b"data: cut sho")
    assert reader.events.finish() == b""
    assert reader.seen_bytes == 3 + len('{"choices": nonsense}') + 2


def test_the_events_behind_a_withheld_usage_chunk_are_taken_after_it() -> None:
    reader = ChunkStreamReader(withholds_usage=True)
    first, second = ({"prompt_tokens": count, "completion_tokens": 1} for count in (3, 4))
    passed = [
        reader.events.feed(event)
        for event in (
            text("a", service_tier="x"),
            data_event({"choices": [], "usage": first}),
            text("b", usage=second, service_tier="y"),
        )
    ]
    assert [bool(each) for each in passed] == [True, False, True]
    reading = reader.reading()
    assert reading.raw_usage == json.dumps(second, separators=(",", ":")).encode()
    assert (reading.movers.service_tier, reading.seen_bytes) == ("y", 2)


def test_a_byte_order_mark_behind_an_event_that_waits_is_none() -> None:
    reader = ChunkStreamReader(withholds_usage=False)
    mark = b"\xef\xbb\xbf"
    reader.events.feed(mark + text("abc"))
    reader.events.feed(mark + text("de"))
    assert (len(reader.events.deferred), reader.seen_bytes) == (2, 3)


class Kept:
    """A reader that keeps what it is handed, and cannot read several at once."""

    def __init__(self) -> None:
        self.is_over = False
        self.events: list[tuple[bytes, bytes]] = []
        self.several: list[list[bytes]] = []

    def on_event(self, name: bytes, data: bytes) -> bool:
        self.events.append((name, data))
        self.is_over = data == b"{2}"
        return False

    def on_deferred(self, datas: list[bytes]) -> bool:
        self.several.append(datas)
        return False

    def on_finish(self) -> None:
        """Nothing to do."""


@pytest.mark.parametrize("begin", [b"data: ", b"event: a\ndata: "])
@pytest.mark.parametrize("eol", [b"\n", b"\r\n"])
def test_events_are_told_apart_by_their_lines(begin: bytes, eol: bytes) -> None:
    begin = begin.replace(b"\n", eol)
    reader = Kept()
    stream = EventStream(reader, Deferral((b"\n",)))
    for data in (b"{0}", b"{1}"):
        stream.feed(begin + data + eol * 2)
    stream.read_deferred()
    assert reader.several == [[b"{0}", b"{1}"]]
    assert [data for _, data in reader.events] == [b"{0}", b"{1}"]


@pytest.mark.parametrize(
    "odd",
    [
        *(b"data: {0}\nid: 1\n\n", b"data: {0}\ndata: {1}\n\n", b": x\ndata: {0}\n\n"),
        *(b"data:{0}\n\n", b"event:error\ndata: {0}\n\n", b"data: {0}\r\n\n", b"data: {0}\r\r\n\n"),
        *(b"event: a\n\ndata: {0}\n\n", b"data: {0}\n\n\n", b"event: a\ndata: {0}\n\n"),
    ],
)
def test_events_with_other_lines_are_taken_apart(odd: bytes) -> None:
    whole = Kept()
    EventStream(whole).feed(b"data: {1}\n\n" + odd)
    for chunks in ([b"data: {1}\n\n", odd], [b"data: {1}\n\n" + odd]):
        reader = Kept()
        stream = EventStream(reader, Deferral((b"\n\n",)))
        for chunk in chunks:
            stream.feed(chunk)
        stream.read_deferred()
        assert reader.events == whole.events
        assert reader.several == []


@pytest.mark.parametrize("odd", [b"data: {0\r}\r\n\r\n", b"data: \r{0}\r\n\r\n"])
def test_a_lone_cr_ends_a_line_also_where_lines_end_in_crlf(odd: bytes) -> None:
    whole, waiting = Kept(), Kept()
    for reader, ends in ((whole, ()), (waiting, (b"\r\n\r\n",))):
        stream = EventStream(reader, Deferral(ends))
        for event in (b"data: {1}\r\n\r\n", odd):
            stream.feed(event)
        stream.read_deferred()
    assert waiting.events == whole.events
    assert waiting.several == []


def test_what_was_read_up_to_the_last_word_is_all() -> None:
    reader = Kept()
    stream = EventStream(reader, Deferral((b"\n\n",)))
    stream.feed(b"data: {1}\n\ndata: {2}\n\ndata: {3}\n\n")
    stream.read_deferred()
    assert [data for _, data in reader.events] == [b"{1}", b"{2}"]
    # … and what had passed before the last word was read counts, though it is read behind it
    reader = Kept()
    stream = EventStream(reader, Deferral((b"}\n\n",), re.compile(b"2")))
    for chunk in (b"data: {1}\n\n", b"data: {2}\n\n"):
        stream.feed(chunk)
    stream.read_deferred()
    assert [data for _, data in reader.events] == [b"{2}", b"{1}"]


A, MARKED, B = b"data: {1}\n\n", b"data: {2}\n\n", b"data: {3}\n\n"


@pytest.mark.parametrize(
    ("chunk", "handed", "waiting"),
    [
        (A + A + MARKED + B + B, [b"{2}"], [A + A, B + B]),
        (MARKED + A + B + MARKED, [b"{2}"], [A + B]),
        (A + MARKED + b": x\n\n" + B, [b"{2}"], [A, b": x\n\n" + B]),
        (A + B + b"data: {3", [], [A + B]),
        (A + b"data: 4\n\n" + B + b"data: 5\n\n", [b"5"], [A + b"data: 4\n\n" + B]),
        (b"data: 4\r\n\r\n" + MARKED + A, [b"4", b"{2}"], [A]),
        (b"\xef\xbb\xbf" + A + MARKED, [b"{2}"], [A]),
        (b"2\n\n" + A, [], [A]),
    ],
)
def test_of_a_chunk_with_several_events_all_wait_that_may(
    chunk: bytes, handed: list[bytes], waiting: list[bytes]
) -> None:
    """Those before and behind a mark together; what is not at its end comes with the next chunk."""
    reader = Kept()
    stream = EventStream(reader, Deferral((b"}\n\n",), re.compile(b"2")))
    assert stream.feed(chunk) == chunk
    assert [data for _, data in reader.events] == handed
    assert stream.deferred == waiting


def test_nothing_is_withheld_behind_the_last_word() -> None:
    usage = data_event({"choices": [], "usage": {"prompt_tokens": 1}})
    text = data_event({"choices": [{"index": 0, "delta": {"content": "a"}}]})
    done = b"data: [DONE]\n\n"
    for chunks in ([text + done + text, usage], [text + done + text + usage]):
        reader = ChunkStreamReader(withholds_usage=True)
        passed = b"".join(map(reader.events.feed, chunks))
        assert passed == b"".join(chunks)
        assert reader.reading().usage is None


def test_pings_and_starts_wait_too() -> None:
    reader = MessageStreamReader()
    for event in (
        named_event("ping"),
        named_event("content_block_start", content_block={"type": "tool_use", "name": "f"}),
        named_event("content_block_stop", index=0),
    ):
        reader.events.feed(event)
    assert len(reader.events.deferred) == 3
    assert reader.seen_bytes == len("f") + 30


class OneByOne(BaseStreamReader):
    """A reader that has nothing to read several events at once with."""

    def __init__(self) -> None:
        super().__init__()
        self.events = EventStream(self, Deferral((b"}\n\n",)))

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        self.counted_bytes += len(data)
        return False

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        return Reading(seen_bytes=seen_bytes)


def test_a_reader_that_cannot_read_several_at_once_gets_each() -> None:
    reader = OneByOne()
    for _ in range(3):
        reader.events.feed(b"data: {1}\n\n")
    assert reader.reading() == Reading(seen_bytes=9)
