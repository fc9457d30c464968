"""Events that repeat one before but for their text: counted as if each were parsed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.dialects.anthropic_messages import MessageStreamReader
from llmproxy.dialects.gemini_contents import STREAM, GeminiContents
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.openai_responses import ResponseStreamReader
from llmproxy.dialects.repeats import LEARNT_MAX, Repeats
from llmproxy.dialects.sse import EventStream

Event = dict[str, Any]
GEMINI = GeminiContents(STREAM, "m")

WORDS = st.one_of(
    st.sampled_from(
        [
            "",
            " word",
            "\n",
            'say "no"',
            "back\\slash",
            "\\under",
            "и",
            "\u2028",
            '"content":"x"',
            "]}",
        ]
    ),
    st.text(max_size=5),
)
ODD = st.sampled_from([None, 1, [], {}, {"content": "x"}, ["text"]])


@st.composite
def chunks(draw: st.DrawFn) -> list[Event]:
    """Events of a chat stream that are alike, and some that are not quite."""
    made: list[Event] = []
    for _ in range(draw(st.integers(1, 12))):
        delta: Event = {"content": draw(WORDS)}
        if draw(st.integers(0, 9)) == 0:
            delta[draw(st.sampled_from(["content", "refusal", "reasoning", "role"]))] = draw(
                st.one_of(WORDS, ODD)
            )
        choice: Event = {"index": draw(st.sampled_from([0, 0, 0, 1])), "delta": delta}
        choice["finish_reason"] = draw(st.sampled_from([None] * 9 + ["stop"]))
        if draw(st.integers(0, 9)) == 0:
            choice["logprobs"] = {"content": [{"token": draw(WORDS)}]}
        event: Event = {"model": draw(st.sampled_from(["m"] * 9 + ["n"])), "choices": [choice]}
        event["service_tier"] = draw(st.sampled_from(["a"] * 9 + ["b", None]))
        event["usage"] = draw(st.sampled_from([None] * 9 + [{"prompt_tokens": 1}]))
        if draw(st.booleans()):
            event["obfuscation"] = draw(WORDS)
        made.append(event)
    return made


def written(event: Event, *, spaced: bool, is_ascii: bool) -> bytes:
    separators = None if spaced else (",", ":")
    return json.dumps(event, separators=separators, ensure_ascii=is_ascii).encode()


@given(chunks(), st.booleans(), st.booleans())
def test_a_chat_stream_reads_the_same_with_repeats_and_without(
    events: list[Event], spaced: bool, is_ascii: bool
) -> None:
    with_repeats = ChunkStreamReader(withholds_usage=False)
    without = ChunkStreamReader(withholds_usage=False)
    for event in events:
        data = b"data: " + written(event, spaced=spaced, is_ascii=is_ascii) + b"\n\n"
        with_repeats.events.feed(data)
        without.events.repeats.forget()
        without.events.feed(data)
        assert with_repeats.seen_bytes == without.seen_bytes
        assert with_repeats.reading() == without.reading()
        assert with_repeats.is_complete == without.is_complete


@given(
    st.lists(
        st.tuples(
            st.sampled_from(["text", "text", "text", "thinking", "partial_json", "signature"]),
            st.integers(0, 1),
            st.one_of(WORDS, WORDS, WORDS, ODD),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_an_anthropic_stream_reads_the_same_with_repeats_and_without(
    deltas: list[tuple[str, int, object]], spaced: bool
) -> None:
    with_repeats, without = MessageStreamReader(), MessageStreamReader()
    for member, index, value in deltas:
        event = {"type": "content_block_delta", "index": index, "delta": {member: value}}
        data = written(event, spaced=spaced, is_ascii=False)
        for reader in (with_repeats, without):
            reader.events.feed(b"event: content_block_delta\ndata: " + data + b"\n\n")
        without.events.repeats.forget()
        assert with_repeats.seen_bytes == without.seen_bytes


@given(
    st.lists(
        st.tuples(
            st.sampled_from(
                ["response.output_text.delta"] * 6 + ["response.x.delta", "x", "error"]
            ),
            st.one_of(WORDS, WORDS, WORDS, ODD),
            st.one_of(st.just("pad"), WORDS, ODD),
        ),
        max_size=12,
    ),
    st.booleans(),
)
def test_a_stream_of_responses_reads_the_same_with_repeats_and_without(
    deltas: list[tuple[str, object, object]], spaced: bool
) -> None:
    with_repeats, without = ResponseStreamReader(), ResponseStreamReader()
    for number, (kind, delta, padding) in enumerate(deltas):
        event = {"type": kind, "sequence_number": number, "delta": delta, "obfuscation": padding}
        data = written(event, spaced=spaced, is_ascii=False)
        for reader in (with_repeats, without):
            reader.events.feed(b"event: %b\ndata: %b\n\n" % (kind.encode(), data))
        without.events.repeats.forget()
        assert with_repeats.seen_bytes == without.seen_bytes
        assert with_repeats.reading() == without.reading()


COUNT = st.one_of(st.integers(0, 30), st.sampled_from([None, -1, 1.5, 10**10, "7"]))


@given(
    st.lists(
        st.tuples(st.one_of(WORDS, WORDS, ODD), st.sampled_from([0] * 5 + [1]), COUNT, COUNT),
        max_size=10,
    ),
    st.lists(st.sampled_from([None] * 9 + ["STOP"]), min_size=10, max_size=10),
    st.booleans(),
)
def test_a_gemini_stream_reads_the_same_with_repeats_and_without(
    chunks: list[tuple[object, int, object, object]], ends: list[str | None], spaced: bool
) -> None:
    """Repeats may leave out counts that no stream takes back, and none that its end does."""
    with_repeats, without = (GEMINI.stream_reader(withholds_usage=False) for _ in "ab")
    for (text, index, candidates, total), end in zip(chunks, ends, strict=False):
        candidate: Event = {"content": {"parts": [{"text": text}]}, "index": index}
        if end is not None:
            candidate["finishReason"] = end
        usage = {
            "promptTokenCount": 9,
            "candidatesTokenCount": candidates,
            "totalTokenCount": total,
        }
        event = {"candidates": [candidate], "usageMetadata": usage}
        data = b"data: " + written(event, spaced=spaced, is_ascii=False) + b"\n\n"
        for reader in (with_repeats, without):
            reader.events.feed(data)
        if isinstance(without.events, EventStream):
            without.events.repeats.forget()
        assert with_repeats.seen_bytes == without.seen_bytes
        assert with_repeats.reading() == without.reading()
        assert with_repeats.is_complete == without.is_complete


class Counter:
    """Whoever counts the text of a stream."""

    seen_bytes = 0


FRAMES = [(b"data: ", b"\n\n"), (b"event: x\ndata: ", b"\n\n"), (b"data:", b"\r\n\r\n")]


def learnt(event: bytes, data: bytes, text: bytes, *varied: bytes) -> Repeats:
    repeats = Repeats(Counter())
    repeats.event = event
    repeats.learn(data, b"content", b'"' + text + b'"', *varied, keeps_last=bool(varied))
    return repeats


def skipped(repeats: Repeats, chunk: bytes, start: int = 0) -> tuple[int, int]:
    """Return where the repeats end, and how much text they have."""
    counter = Counter()
    repeats._counter = counter
    end = repeats.skip(chunk, start)
    return end, counter.seen_bytes


def is_repeat(repeats: Repeats, event: bytes) -> bool:
    return skipped(repeats, event)[0] == len(event)


@pytest.mark.parametrize(("before", "after"), FRAMES)
def test_a_text_padding_and_numbers_may_differ(before: bytes, after: bytes) -> None:
    data = b'{"n": 3,"d":{"content":"hi"},"u":null,"obfuscation":"xyz"}'
    repeats = learnt(before + data + after, data, b"hi", b"n", b"obfuscation", b"absent")
    others = [
        b'{"n": 12,"d":{"content":" you all"},"u":null,"obfuscation":"z"}',
        b'{"n": 3,"d":{"content":""},"u":null,"obfuscation":""}',
        b'{"n": 4,"d":{"content":"\\"\\n"},"u":null,"obfuscation":"z"}',
    ]
    events = [before + one + after for one in others]
    assert [skipped(repeats, event) for event in events] == [
        (len(event), text) for event, text in zip(events, (8, 0, 4), strict=True)
    ]
    run = b"".join(events)
    assert skipped(repeats, run + b"data: x\n\n") == (len(run), 12)
    assert repeats.last == events[-1]
    assert skipped(repeats, b": first\n\n" + run, 9) == (9 + len(run), 12)


@pytest.mark.parametrize(
    "data",
    [
        b'{"n":1,"d":{"content":"a"},"u":1}',
        b'{"n":1,"d":{"content":"a"},"u":null} ',
        b'{"n":1,"d":{"content":"a","content":"b"},"u":null}',
        b'{"n":1,"d":{"content":"a\\"},"u":null}',
        b'{"n":1,"d":{"content":"\\u0061"},"u":null}',
        b'{"n":1,"d":{"content":"\\x"},"u":null}',
        b'{"n":1,"d":{"content":"\\\\under"},"u":null}',
        b'{"n":1,"d":{"content":"a\tb"},"u":null}',
        b'{"n":1,"d":{"content":"a\x01b"},"u":null}',
        b'{"n":1,"d":{"content":"a\nb"},"u":null}',
        b'{"n":1,"d":{"content":"a\rb"},"u":null}',
        b'{"n":1,"d":{"content":null},"u":null}',
        b'{"n":0,"d":{"content":"a"},"u":null}',
        b'{"n":-1,"d":{"content":"a"},"u":null}',
        b'{"n":1.5,"d":{"content":"a"},"u":null}',
        b'{"n":1e5,"d":{"content":"a"},"u":null}',
        b'{"n":"1","d":{"content":"a"},"u":null}',
        b'{"n":12345678901,"d":{"content":"a"},"u":null}',
        b'{"n":1,"d":{"content":"a',
        b'{"n":1,"d":{"content":"',
        b'{"n":1,"d":{"content":"a"}',
        b'{"n":',
        b"",
    ],
)
def test_anything_else_that_differs_is_no_repeat(data: bytes) -> None:
    known = b'{"n":7,"d":{"content":"hi"},"u":null}'
    repeats = learnt(b"data: " + known + b"\n\n", known, b"hi", b"n")
    alike = b'{"n":1,"d":{"content":"a"},"u":null}'
    assert is_repeat(repeats, b"data: " + alike + b"\n\n")
    assert not is_repeat(repeats, b"data: " + data + b"\n\n")
    assert not is_repeat(repeats, b"event: error\ndata: " + alike + b"\n\n")
    assert not is_repeat(repeats, b"data: " + alike + b"\ndata: 1\n\n")
    assert not is_repeat(repeats, b"data: " + alike)


@pytest.mark.parametrize(
    "data",
    [
        b'{"content":"hi","logprobs":{"content":[]}}',
        b'{"content":"hi","x":"\\n"}',
        b'{"content" :"hi"}',
        b'{"content":"ho"}',
        b'{"content":"hi","n":-5}',
        b'{"content":"hi","n":null}',
        b'{"content":"hi","n":[1]}',
    ],
)
def test_where_it_is_not_clear_nothing_is_learnt(data: bytes) -> None:
    event = b"data: " + data + b"\n\n"
    assert not is_repeat(learnt(event, data, b"hi", b"n"), event)


@pytest.mark.parametrize(
    "event",
    [
        b'data: {"content":\ndata: "hi"}\n\n',
        b'data: {"content":"hi"}\nid: 7\n\n',
        b'data: {"content":"hi"}\n\r',
    ],
)
def test_of_an_event_that_does_not_end_in_its_data_nothing_is_learnt(event: bytes) -> None:
    data = b'{"content":"hi"}' if b'"content":"hi"' in event else b'{"content":\n"hi"}'
    assert not is_repeat(learnt(event, data, b"hi"), event)


def test_the_same_words_in_a_comment_are_no_text() -> None:
    data = b'{"content":"hi"}'
    repeats = learnt(b": %b\ndata: %b\n\n" % (data, data), data, b"hi")
    assert is_repeat(repeats, b': %b\ndata: {"content":"you"}\n\n' % data)
    assert not is_repeat(repeats, b': {"content":"you"}\ndata: %b\n\n' % data)


def test_a_text_that_is_no_string_is_not_learnt() -> None:
    data = b'{"content":12345}'
    repeats = Repeats(Counter())
    repeats.event = b"data: " + data + b"\n\n"
    repeats.learn(data, b"content", b"12345")
    assert not is_repeat(repeats, repeats.event)


def test_an_event_whose_last_line_may_still_end_is_not_learnt() -> None:
    """Its LF comes in the next piece, and belongs to it."""
    text = {"choices": [{"index": 0, "delta": {"content": "word"}}]}
    usage = {"choices": [], "usage": {"prompt_tokens": 1, "completion_tokens": 2}}
    reader = ChunkStreamReader(withholds_usage=True)
    one, last = (b"data: " + json.dumps(each).encode() for each in (text, usage))
    pieces = (one + b"\r\n\r", b"\n" + one + b"\r\n\r", b"\n" + last + b"\r\n\r\n")
    passed = b"".join(reader.events.feed(piece) for piece in pieces)
    assert passed == (one + b"\r\n\r\n") * 2


@pytest.mark.parametrize("comment", [b"", b": {\n"])
@pytest.mark.parametrize("more", [b"", b"id: 7\n"])
@pytest.mark.parametrize("counts", [{}, {"totalTokenCount": 9}, {"candidatesTokenCount": 5}])
def test_the_usage_of_the_last_repeat_counts_whatever_stands_around_it(
    comment: bytes, more: bytes, counts: dict[str, int]
) -> None:
    def chunk(index: int, **usage: object) -> bytes:
        candidate = {"content": {"parts": [{"text": "word"}]}, "index": index}
        data = json.dumps({"candidates": [candidate], "usageMetadata": usage}).encode()
        return comment + b"data: " + data + b"\n" + more + b"\n"

    with_repeats, without = (GEMINI.stream_reader(withholds_usage=False) for _ in "ab")
    alike = chunk(0, promptTokenCount=3, **counts)
    other = chunk(1, promptTokenCount=4, candidatesTokenCount=31, totalTokenCount=35)
    for piece in (alike, alike, other, alike):
        for reader in (with_repeats, without):
            reader.events.feed(piece)
        assert isinstance(without.events, EventStream)
        without.events.repeats.forget()
        assert with_repeats.reading() == without.reading()


def test_an_empty_text_is_not_learnt_since_the_first_event_is_unlike_the_others() -> None:
    data = b'{"content":""}'
    repeats = learnt(b"data: " + data + b"\n\n", data, b"")
    assert not is_repeat(repeats, b"data: " + data + b"\n\n")


def test_it_gives_up_where_nothing_repeats() -> None:
    repeats = Repeats(Counter())
    for _ in range(LEARNT_MAX):
        assert repeats.may_learn
        repeats.learn(b"{}", b"content", b'"x"')
    assert not repeats.may_learn


def test_what_follows_the_last_word_is_no_repeat() -> None:
    reader = ChunkStreamReader(withholds_usage=False)
    event = b'data: {"choices":[{"index":0,"delta":{"content":"word"}}]}\n\n'
    for piece in (event, event, b"data: [DONE]\n\n", event):
        reader.events.feed(piece)
    assert reader.seen_bytes == 8
