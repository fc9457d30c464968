"""Events that repeat one before but for their text: counted as if each were parsed."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from llmproxy.dialects.anthropic_messages import MessageStreamReader
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.repeats import LEARNT_MAX, Repeats

Event = dict[str, Any]

WORDS = st.one_of(
    st.sampled_from(
        ["", " word", "\n", 'say "no"', "back\\slash", "и", "\u2028", '"content":"x"', "]}"]
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
        without._repeats = Repeats()
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
        without._repeats = Repeats()
        assert with_repeats.seen_bytes == without.seen_bytes


def repeats_of(data: bytes, text: bytes) -> Repeats:
    repeats = Repeats()
    repeats.learn(b"", data, b"content", b'"' + text + b'"')
    return repeats


def test_a_text_and_its_padding_may_differ() -> None:
    repeats = repeats_of(b'{"d":{"content":"hi"},"u":null,"obfuscation":"xyz"}', b"hi")
    assert repeats.text_bytes(b"", b'{"d":{"content":" you all"},"u":null,"obfuscation":"z"}') == 8
    assert repeats.text_bytes(b"", b'{"d":{"content":""},"u":null,"obfuscation":""}') == 0


@pytest.mark.parametrize(
    "data",
    [
        b'{"d":{"content":"a"},"u":1}',
        b'{"d":{"content":"a"},"u":null} ',
        b'{"d":{"content":"a","content":"b"},"u":null}',
        b'{"d":{"content":"a\\"},"u":null}',
        b'{"d":{"content":null},"u":null}',
        b'{"d":{"content":"a',
        b'{"d":{"content":"',
        b'{"d":{"content":"a"}',
        b"",
    ],
)
def test_anything_else_that_differs_is_no_repeat(data: bytes) -> None:
    repeats = repeats_of(b'{"d":{"content":"hi"},"u":null}', b"hi")
    assert repeats.text_bytes(b"", b'{"d":{"content":"a"},"u":null}') == 1
    assert repeats.text_bytes(b"", data) == -1
    assert repeats.text_bytes(b"error", b'{"d":{"content":"a"},"u":null}') == -1


@pytest.mark.parametrize(
    "data",
    [
        b'{"content":"hi","logprobs":{"content":[]}}',
        b'{"content":"hi","x":"\\n"}',
        b'{"content" :"hi"}',
        b'{"content":"hi","obfuscation":5,"x":"y"}',
        b'{"content":"ho"}',
    ],
)
def test_where_it_is_not_clear_nothing_is_learnt(data: bytes) -> None:
    assert repeats_of(data, b"hi").text_bytes(b"", data) == -1


def test_it_gives_up_where_nothing_repeats() -> None:
    repeats = Repeats()
    for _ in range(LEARNT_MAX):
        assert repeats.may_learn
        repeats.learn(b"", b"{}", b"content", b"")
    assert not repeats.may_learn
