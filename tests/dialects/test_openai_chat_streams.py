"""Chat completions in streams: which chunk is the bill, what is withheld, what was seen."""

from typing import Any

import pytest

from llmproxy.dialects.answers import CALL_BYTES
from llmproxy.dialects.base import estimated
from llmproxy.usage import Leg, Usage
from tests.dialects.chat_streams import CHAT, DONE, chunk, content, run
from tests.support.answers import data_event, openai_chat_stream, openai_usage


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_is_read_and_exactly_its_usage_chunk_is_withheld(size: int) -> None:
    events = openai_chat_stream(usage=openai_usage(1000, 200, cached=600))
    whole = b"".join(events)
    pieces = [whole[at : at + size] for at in range(0, len(whole), size)]
    passed, reader = run(*pieces)
    assert passed == b"".join([*events[:-2], DONE])
    reading = reader.reading()
    assert reading.usage is not None
    assert reading.usage.legs == (Leg(input=400, cache_read=600, output=200),)
    assert (reading.is_final, reader.is_complete, reader.is_over) == (True, True, True)
    assert reader.seen_bytes == len("Hello there!")
    assert reading.model == "gpt-4o-mini-2024-07-18"


def test_nothing_is_withheld_from_a_client_that_asked() -> None:
    events = openai_chat_stream()
    assert run(*events, withholds=False)[0] == b"".join(events)


def test_usage_beside_content_is_read_and_not_withheld() -> None:
    # DeepSeek, Mistral, OpenRouter: usage rides in the chunk that finishes.
    last = chunk(choices=content("", "stop"), usage=openai_usage(9, 4))
    passed, reader = run(chunk(choices=content("x")), last, DONE)
    assert passed.count(b"usage") == last.count(b"usage")
    assert reader.reading().usage == Usage((Leg(input=9, output=4),))


def test_groqs_own_place_for_usage_is_read() -> None:
    last = chunk(choices=content("", "stop"), x_groq={"id": "r", "usage": openai_usage(9, 4)})
    passed, reader = run(last, DONE)
    assert passed == last + DONE
    assert reader.reading().usage == Usage((Leg(input=9, output=4),))


def test_azures_first_chunk_without_choices_is_not_withheld() -> None:
    first = data_event({"choices": [], "prompt_filter_results": [{"prompt_index": 0}]})
    null = data_event({"choices": [], "usage": None})
    passed, reader = run(first, null, DONE)
    assert passed == first + null + DONE
    assert reader.reading().usage is None


def test_a_usage_chunk_without_the_key_choices_is_not_withheld() -> None:
    odd = data_event({"usage": openai_usage(9, 4)})
    passed, reader = run(odd, DONE)
    assert passed == odd + DONE
    assert reader.reading().usage == Usage((Leg(input=9, output=4),))


def test_the_last_usage_that_was_seen_counts() -> None:
    events = [
        chunk(choices=content("a"), usage=openai_usage(9, 1)),
        chunk(choices=content("b", "stop"), usage=openai_usage(9, 2)),
        chunk(usage=openai_usage(9, 3)),
        chunk(choices=[], usage=None),
        DONE,
    ]
    passed, reader = run(*events)
    assert passed == b"".join([*events[:2], *events[3:]])
    assert reader.reading().usage == Usage((Leg(input=9, output=3),))


def test_usage_before_the_end_of_the_answer_is_not_the_bill() -> None:
    # vLLM's continuous_usage_stats: a stream that breaks has reported only what was done by then.
    _, reader = run(chunk(choices=content("abcdefghi"), usage=openai_usage(9, 1)))
    reading = reader.reading()
    assert (reading.is_final, reader.is_complete) == (False, False)
    assert estimated(reading, 300, 100) == Usage((Leg(input=9, output=3),))


def test_all_generated_text_is_counted_for_an_estimate() -> None:
    deltas = [
        {"content": "abc"},
        {"reasoning_content": "def"},
        {"reasoning": "ghi"},
        {"refusal": "no!"},
        {"tool_calls": [{"index": 0, "function": {"name": "get", "arguments": "{}"}}]},
        {"tool_calls": [{"index": 0, "function": None}, {"index": 1}], "content": None},
        {"content": ""},
    ]
    events = [chunk(choices=[{"index": 0, "delta": delta}]) for delta in deltas]
    _, reader = run(*events)
    reading = reader.reading()
    assert reading.seen_bytes == 3 + 3 + 3 + 3 + (3 + CALL_BYTES) + 2
    assert estimated(reading, 34, 100) == Usage((Leg(input=34, output=16),))


def test_what_comes_behind_the_last_word_counts_for_nothing() -> None:
    events = openai_chat_stream(usage=openai_usage(1000, 200))
    behind = chunk(choices=[], usage=openai_usage(1, 1)) + chunk(choices=content("more"))
    passed, reader = run(*events[:-1], events[-1] + behind)
    assert passed == b"".join([*events[:-2], DONE, behind])
    reading = reader.reading()
    assert reading.usage == Usage((Leg(input=1000, output=200),), service_tier="default")
    assert reader.seen_bytes == len("Hello there!")


def test_an_event_that_the_end_cuts_short_is_no_generated_text() -> None:
    events = openai_chat_stream()
    _, reader = run(*events[:4], events[1][:-10])
    assert reader.reading().seen_bytes == len("Hello there!")
    # but one that lacks only its line end is read
    _, reader = run(*events[:3], events[3].rstrip())
    assert reader.reading().seen_bytes == len("Hello there!")


@pytest.mark.parametrize(
    "event",
    [
        b"event: error\ndata: {}\n\n",
        b'data: {"error":{"message":"overloaded"}}\n\n',
        b'data: {"error":"overloaded","choices":[]}\n\n',
        b"event: error\ndata: not json\n\n",
    ],
)
def test_an_error_event_is_seen_and_passed(event: bytes) -> None:
    passed, reader = run(chunk(choices=content("x")), event)
    assert passed.endswith(event)
    assert reader.reading().has_error


@pytest.mark.parametrize(
    "data",
    [
        b"hello",
        b"[1,2]",
        b'{"choices":5}',
        b"\xff\xfe",
        b'{"x":' + b"[" * 100_000,
        b'{"usage":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    ],
)
def test_an_event_of_no_known_shape_passes_and_counts(data: bytes) -> None:
    event = b"data: " + data + b"\n\n"
    passed, reader = run(event, DONE)
    assert passed == event + DONE
    assert reader.reading().usage is None
    assert reader.is_over


def test_an_answer_is_complete_when_every_choice_that_began_has_finished() -> None:
    def choice(index: int, finish: str | None = None) -> list[dict[str, Any]]:
        return [{"index": index, "delta": {"content": "x"}, "finish_reason": finish}]

    reader = CHAT.stream_reader(withholds_usage=True)
    seen = []
    for choices in (choice(0), choice(1), choice(0, "stop"), choice(1, "length")):
        reader.events.feed(chunk(choices=choices))
        seen.append(reader.is_complete)
    assert seen == [False, False, False, True]
    # OpenRouter's usage chunk comes after the end, with a choice in it.
    reader.events.feed(chunk(choices=choice(0), usage=openai_usage(9, 4)))
    assert reader.is_complete
    assert not reader.is_over


def test_usage_in_an_error_chunk_is_the_bill() -> None:
    error = {"error": {"code": 502, "message": "x"}, "usage": openai_usage(9, 4)}
    _, reader = run(chunk(choices=content("x")), chunk(**error))
    reading = reader.reading()
    assert (reading.has_error, reading.is_final) == (True, True)
    assert reading.usage == Usage((Leg(input=9, output=4),))
