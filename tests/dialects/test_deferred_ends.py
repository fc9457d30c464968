"""What is told at the end of a stream whose events have passed unread, where some are not alike."""

import json
from typing import Any

import pytest

from llmproxy.dialects.anthropic_messages import MessageStreamReader
from llmproxy.dialects.gemini_contents import STREAM, GeminiContents
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.openai_responses import ResponseStreamReader
from llmproxy.dialects.stream_readers import BaseStreamReader
from tests.support.answers import anthropic_stream, anthropic_usage, data_event, named_event

DONE = b"data: [DONE]\n\n"
FEW, MANY = ({"prompt_tokens": 10, "completion_tokens": count} for count in (2, 90))


def text(words: str, **members: object) -> bytes:
    choice = {"index": 0, "delta": {"content": words}, "finish_reason": None}
    return data_event({"model": "m", "choices": [choice], **members})


def counted(usage: dict[str, int], **members: object) -> bytes:
    return data_event({"model": "m", "choices": [], "usage": usage, **members})


def fed(reader: Any, *events: bytes) -> Any:  # noqa: ANN401 - any dialect's reader
    for event in events:
        reader.events.feed(event)
    return reader


def chat(*events: bytes, withholds: bool = False) -> ChunkStreamReader:
    reader: ChunkStreamReader = fed(ChunkStreamReader(withholds_usage=withholds), *events)
    return reader


ODD = [
    text('send "event: error" then', usage=FEW, error=None),
    text("a", usage=FEW).replace(b'"a"', b'"\\ud83d"'),
    b"id: 1\n" + text("a", usage=FEW),
    b"event:error\n" + text("a", usage=FEW),
]


@pytest.mark.parametrize("odd", ODD)
@pytest.mark.parametrize("tail", [b"data: [DONE]\n", DONE + b"\n", DONE, b": ping", b"data: {cut"])
def test_what_is_withheld_counts_behind_everything_that_waits(odd: bytes, tail: bytes) -> None:
    stop = data_event({"model": "m", "choices": [{"index": 0, "finish_reason": "stop"}]})
    reader = chat(odd, stop, counted(MANY, service_tier="priority"), tail, withholds=True)
    reader.events.finish()
    reading = reader.reading()
    assert (reading.raw_usage, reading.is_final) == (
        json.dumps(MANY, separators=(",", ":")).encode(),
        True,
    )
    assert reading.movers.service_tier == "priority"
    assert reader.seen_bytes > 0


def test_of_two_withheld_chunks_the_last_counts() -> None:
    for asks in (False, True):
        reader = chat(text("a"), counted(FEW, service_tier="x"), withholds=True)
        assert not asks or reader.reading().movers.service_tier == "x"
        reader = fed(reader, counted(MANY))
        assert not asks or reader.reading().usage is not None
        reading = fed(reader, DONE).reading()
        assert reading.usage is not None
        assert (reading.usage.legs[0].output, reading.movers.service_tier) == (90, "x")


@pytest.mark.parametrize("written", [b'"choices": []', b'"choices":[ ]', b'"choices" : [\t]'])
def test_the_usage_chunk_is_withheld_however_it_is_spaced(written: bytes) -> None:
    event = counted(MANY).replace(b'"choices":[]', written)
    reader = chat(text("a"), withholds=True)
    assert written in event
    assert reader.events.feed(event) == b""
    assert fed(reader, DONE).reading().is_final


def test_an_error_is_told_whether_it_is_withheld_waits_or_was_read_before() -> None:
    error = {"code": 502, "message": "x"}
    assert chat(text("a"), counted(MANY, error=error), DONE, withholds=True).reading().has_error
    assert chat(text("a"), b"event: error\n" + counted(MANY), DONE).reading().has_error
    asked = chat(text("a", error=error))
    assert asked.reading().has_error
    assert fed(asked, text("b"), counted(MANY), DONE).reading().has_error


def test_an_error_that_is_null_is_none_and_reads_nothing() -> None:
    reader = chat(text("a", error=None), text("b", error=None), counted(MANY), DONE)
    assert (reader.reading().is_final, reader.reading().has_error) == (True, False)
    assert len(reader.events.deferred) == 3


def test_a_tier_or_model_that_was_read_before_stays() -> None:
    reader = chat(text("a", service_tier="flex"))
    assert reader.reading().movers.service_tier == "flex"
    assert fed(reader, text("b"), counted(MANY), DONE).reading().movers.service_tier == "flex"
    nameless = counted(MANY).replace(b'"model":"m",', b"")
    assert chat(text("a"), nameless, DONE).reading().model == "m"


def test_behind_the_last_word_nothing_waits() -> None:
    reader = chat(text("abc"), counted(MANY), DONE, text("more"), text("more"))
    assert len(reader.events.deferred) == 2
    assert reader.seen_bytes == 3


def test_a_last_word_within_a_piece_is_found_once() -> None:
    behind = data_event({"choices": [], "cost": "0"})
    reader = chat(text("abc") + counted(MANY) + DONE + behind)
    first = reader.reading()
    assert first is reader.reading()
    assert (first.is_final, reader.is_over, reader.is_complete) == (True, True, True)
    # … also by an event that is read at once, and stands behind it
    reader = chat(text("abc") + counted(FEW) + DONE + behind)
    fed(reader, b"event: x\n" + text("more", usage=MANY)[:-1] + b": more\n\n")
    assert reader.seen_bytes == 3
    assert reader.reading().raw_usage == json.dumps(FEW, separators=(",", ":")).encode()


def test_a_stray_line_behind_the_last_word_reads_nothing() -> None:
    reader = chat(text("a"), counted(MANY), DONE, b"\n")
    reader.events.finish()
    assert len(reader.events.deferred) == 2


@pytest.mark.parametrize("call", [{"custom": {"name": "f"}}, {"function": {"name": "f"}}])
def test_no_call_counts_for_more_than_the_most(call: dict[str, object]) -> None:
    reader = ChunkStreamReader(withholds_usage=False)
    delta = {"tool_calls": [call] * 1000}
    reader.events.feed(data_event({"choices": [{"delta": delta}]}))
    most = reader.seen_bytes_max
    assert reader.seen_bytes == 31_000 <= most


@pytest.mark.parametrize("name", [b"event: error\n", b"event:error\n", b"event: x\n"])
def test_an_error_of_anthropics_that_waits_is_told_at_the_end(name: bytes) -> None:
    start, *middle, end, stop = anthropic_stream(usage=anthropic_usage(12, 9))
    kind = "error" if name == b"event: x\n" else "odd"
    error = name + b'data: {"type":"%b"}\n\n' % kind.encode()
    reader = fed(MessageStreamReader(), start, *middle, error, end, stop)
    assert (reader.reading().is_final, reader.reading().has_error) == (True, True)


@pytest.mark.parametrize("colon", [b":", b" :", b" : "])
def test_the_last_event_of_a_response_is_read_as_it_passes(colon: bytes) -> None:
    usage = {"input_tokens": 3, "output_tokens": 4}
    last = named_event("response.completed", response={"usage": usage})
    last = last.replace(b'"response":', b'"response"' + colon)
    delta = named_event("response.output_text.delta", delta="abc")
    reader = fed(ResponseStreamReader(), delta, last)
    assert (reader.is_over, len(reader.events.deferred)) == (True, 1)
    assert reader.reading().is_final


def test_a_last_event_without_its_response_ends_the_answer_when_it_is_read() -> None:
    delta = named_event("response.output_text.delta", delta="abc")
    reader = fed(ResponseStreamReader(), delta, named_event("response.completed"), delta)
    assert not reader.is_over
    assert (reader.is_complete, reader.is_over, reader.seen_bytes) == (True, True, 3)


def gemini(*pieces: bytes) -> BaseStreamReader:
    reader: BaseStreamReader = fed(
        GeminiContents(STREAM, "m").stream_reader(withholds_usage=False), *pieces
    )
    return reader


def test_events_of_gemini_wait_and_are_taken_in_their_order() -> None:
    def event(count: int, **ends: str) -> bytes:
        candidate = {"content": {"parts": [{"text": "word"}]}, **ends}
        usage = {"promptTokenCount": 9, "candidatesTokenCount": count}
        return data_event({"candidates": [candidate], "usageMetadata": usage})

    last = event(3, finishReason="STOP")
    reader = gemini(event(1), event(2))
    assert len(reader.events.deferred) == 2
    # The last comes with another line, and is read at once: behind those that wait.
    reading = fed(reader, last[:-2] + b"\n: more\n\n").reading()
    assert reading.usage is not None
    assert (reading.is_final, reading.usage.legs[0].output) == (True, 3)


@pytest.mark.parametrize(
    ("reader", "events"),
    [
        (ChunkStreamReader(withholds_usage=False), [DONE]),
        (MessageStreamReader(), [named_event("message_stop")]),
        (ResponseStreamReader(), [named_event("response.completed", response={"model": "m"})]),
    ],
)
def test_what_ends_properly_was_generated_though_nothing_looks_like_text(
    reader: BaseStreamReader, events: list[bytes]
) -> None:
    fed(reader, *events)
    reading = reader.reading()
    assert (reader.is_complete, reading.usage, reading.seen_bytes) == (True, None, 1)


def test_what_breaks_off_before_anything_came_was_not() -> None:
    reader = chat(text(""))
    assert (reader.is_complete, reader.reading().seen_bytes) == (False, 0)
    failed = fed(ResponseStreamReader(), named_event("response.failed", response={"model": "m"}))
    assert (failed.is_complete, failed.reading().seen_bytes) == (True, 0)
