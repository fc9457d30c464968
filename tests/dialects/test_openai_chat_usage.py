"""Chat completions: usage read out of plain answers and streams, or not trusted."""

import json
from typing import Any

import msgspec
import pytest

from llmproxy.dialects.answers import CALL_BYTES
from llmproxy.dialects.base import Reading, estimated
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.usage import Leg, Usage
from tests.support.answers import data_event, openai_chat, openai_chat_stream, openai_usage

CHAT = OpenAIChat()
DONE = b"data: [DONE]\n\n"


def read(usage: object, **fields: Any) -> Reading:  # noqa: ANN401
    return CHAT.read_answer(openai_chat(usage=usage, **fields))


def leg_of(usage: object) -> Leg:
    reading = read(usage)
    assert reading.usage is not None
    assert (reading.is_final, reading.problem) == (True, None)
    (leg,) = reading.usage.legs
    return leg


def run(*events: bytes, withholds: bool = True) -> tuple[bytes, ChunkStreamReader]:
    """What passes of a stream, and its reader."""
    reader = CHAT.stream_reader(withholds_usage=withholds)
    passed = b"".join(reader.events.feed(event) for event in events)
    return passed + reader.events.finish(), reader


def chunk(*, choices: object = None, **fields: object) -> bytes:
    return data_event({"model": "gpt-4o-2024-08-06", "choices": choices or [], **fields})


def content(text: str, finish: str | None = None) -> list[dict[str, Any]]:
    return [{"index": 0, "delta": {"content": text}, "finish_reason": finish}]


# --- the classes ---


def test_cached_and_written_tokens_are_taken_out_of_the_fresh_input() -> None:
    usage = openai_usage(1000, 200, cached=600, cache_write=100, reasoning=150)
    wanted = Leg(input=300, cache_read=600, cache_write=100, output=200, reasoning=150)
    assert leg_of(usage) == wanted


@pytest.mark.parametrize(
    ("completion", "total", "output"),
    [
        (12, 109, 74),  # Gemini: 35 + 12, and 62 of thinking that only the total tells
        (5, 135, 100),  # xAI: reasoning is not in completion_tokens
        (74, 109, 74),
        (74, None, 74),
        (0, 109, 74),
    ],
)
def test_output_is_what_the_total_has_beyond_the_prompt(
    completion: int, total: int | None, output: int
) -> None:
    usage = {"prompt_tokens": 35, "completion_tokens": completion, "total_tokens": total}
    assert leg_of(usage) == Leg(input=35, output=output)


@pytest.mark.parametrize(
    "fields",
    [
        {"prompt_cache_hit_tokens": 80, "prompt_cache_miss_tokens": 20},  # DeepSeek
        {"prompt_tokens_details": {"cached_tokens": 80}},
        {"num_cached_tokens": 80},  # Mistral
        {"cached_tokens": 80},  # Together, Hugging Face
        {"prompt_cache_hit_tokens": 80, "prompt_tokens_details": {"cached_tokens": 80}},
    ],
)
def test_cached_tokens_are_found_wherever_a_provider_reports_them(fields: dict[str, Any]) -> None:
    usage = {"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, **fields}
    assert leg_of(usage) == Leg(input=20, cache_read=80, output=5)


@pytest.mark.parametrize(
    ("split", "written"),
    [
        ({"ttl_30m_tokens": 60, "ttl_12h_tokens": 40}, Leg(cache_write_5m=60, cache_write_1h=40)),
        ({"ttl_12h_tokens": 100}, Leg(cache_write_1h=100)),
        ({"ttl_30m_tokens": 7}, Leg(cache_write_5m=100)),
        ({"ttl_12h_tokens": 170}, Leg(cache_write_1h=100)),
        ({}, Leg(cache_write=100)),
        (None, Leg(cache_write=100)),
    ],
)
def test_cache_writes_are_told_apart_by_their_lifetime(split: object, written: Leg) -> None:
    details = {"cache_write_tokens": 100, "cache_write_tokens_details": split}
    usage = {"prompt_tokens": 150, "completion_tokens": 1, "prompt_tokens_details": details}
    assert leg_of(usage) == msgspec.structs.replace(written, input=50, output=1)


def test_audio_and_image_tokens_are_told_and_are_a_part_of_all() -> None:
    usage = {
        "prompt_tokens": 100,
        "completion_tokens": 50,
        "prompt_tokens_details": {"audio_tokens": 60, "image_tokens": 30, "cached_tokens": 20},
        "completion_tokens_details": {"audio_tokens": 45, "text_tokens": 5},
    }
    assert leg_of(usage) == Leg(
        # What is cached is not told apart: 80 are fresh, and no more of them are anything.
        input=80,
        cache_read=20,
        output=50,
        input_audio=60,
        input_image=20,
        output_audio=45,
    )


def test_what_cohere_bills_counts_and_not_what_it_has_read() -> None:
    usage = {
        "billed_units": {"input_tokens": 5, "output_tokens": 418},
        "tokens": {"input_tokens": 71, "output_tokens": 418},
    }
    assert leg_of(usage) == Leg(input=5, output=418)


@pytest.mark.parametrize("billed", [{}, {"search_units": 1}, None, 3])
def test_billed_units_that_are_no_tokens_leave_the_tokens_as_they_are(billed: object) -> None:
    assert leg_of({**COUNTS, "billed_units": billed}) == Leg(input=10, output=5)


@pytest.mark.parametrize("odd", [3.0, -1, "7", True, 2**40])
def test_an_odd_count_of_what_others_are_made_of_does_not_lose_the_bill(odd: object) -> None:
    details = {"reasoning_tokens": odd, "audio_tokens": odd, "image_tokens": odd}
    usage = {**COUNTS, "completion_tokens_details": details, "prompt_tokens_details": details}
    assert leg_of(usage) == Leg(input=10, output=5)


COUNTS = {"prompt_tokens": 10, "completion_tokens": 5}


@pytest.mark.parametrize(
    ("fields", "expected"),
    [
        ({"cost": 2.662e-05}, 26_620_000_000),  # OpenRouter, USD
        ({"cost": 1}, 10**15),
        ({"cost": 0}, 0),
        ({"cost": 0.00001, "is_byok": False}, 10**10),
        ({"cost": 0, "is_byok": True}, None),  # paid by another account of the operator's
        ({"cost": {"total_cost": 0.005, "request_cost": 0.004}}, 5 * 10**12),  # Perplexity
        ({"cost_in_usd_ticks": 38_916_000}, 3_891_600_000_000),  # xAI, 10⁻¹⁰ USD
        ({"cost": 1e-16}, 1),  # upwards
        ({"cost": -1}, None),
        ({"cost": 1000.5}, None),
        ({"cost": "0.1"}, None),
        ({"cost": 10**400}, None),
        ({"cost": 1e300}, None),
        ({"cost_in_usd_ticks": 10**17}, None),
        ({"cost": True}, None),
        ({"cost": None}, None),
        ({"cost": {}}, None),
        ({}, None),
    ],
)
def test_what_the_provider_says_that_it_bills_is_read_and_nothing_odd_spoils_the_tokens(
    fields: dict[str, object], expected: int | None
) -> None:
    reading = OpenAIChat().read_answer(json.dumps({"usage": {**COUNTS, **fields}}).encode())
    assert reading.usage == Usage((Leg(input=10, output=5),), provider_cost=expected)
    assert reading.is_final


def test_more_cached_and_written_tokens_than_the_prompt_has_are_clamped() -> None:
    # OpenRouter has really sent cached + written 4322 of a prompt of 2168.
    details = {"cached_tokens": 2161, "cache_write_tokens": 2161}
    usage = {"prompt_tokens": 2168, "completion_tokens": 1, "prompt_tokens_details": details}
    assert leg_of(usage) == Leg(cache_read=2161, cache_write=7, output=1)


@pytest.mark.parametrize(
    "fields",
    [
        {"total_tokens": 104},
        {"total_tokens": 0},
        {"prompt_tokens_details": {"cached_tokens": 101}},
        {"prompt_tokens_details": {"cache_write_tokens": 101}},
        {"prompt_cache_hit_tokens": 101},
    ],
)
def test_a_record_that_contradicts_itself_is_untrusted(fields: dict[str, Any]) -> None:
    reading = read({"prompt_tokens": 100, "completion_tokens": 5, "total_tokens": 105, **fields})
    assert (reading.usage, reading.is_final) == (None, False)
    assert reading.problem is not None
    assert reading.problem.startswith("usage contradicts itself: ")


def test_null_details_count_as_none() -> None:
    usage = {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "prompt_tokens_details": None,
        "completion_tokens_details": None,
    }
    assert leg_of(usage) == Leg(input=3, output=4)


def test_the_service_tier_that_was_used_is_kept() -> None:
    reading = read(openai_usage(), service_tier="priority")
    assert reading.usage is not None
    assert reading.usage.service_tier == "priority"


@pytest.mark.parametrize("bad", [-1, 1.0, 1.5, True, False, "7", 2**31 + 1, 2**63, 10**300, [], {}])
@pytest.mark.parametrize(
    "path", ["prompt_tokens", "completion_tokens", "total_tokens", "cached_tokens", "details"]
)
def test_an_absurd_count_makes_the_whole_record_untrusted(path: str, bad: object) -> None:
    usage: dict[str, Any] = {"prompt_tokens": 10, "completion_tokens": 5, "total_tokens": 15}
    if path == "details":
        usage["prompt_tokens_details"] = {"cached_tokens": bad}
    else:
        usage[path] = bad
    reading = read(usage)
    assert (reading.usage, reading.is_final) == (None, False)
    assert reading.problem
    assert reading.raw_usage is not None
    assert json.loads(reading.raw_usage) == usage
    _, reader = run(chunk(choices=content("x")), chunk(usage=usage), DONE)
    assert (reader.reading().usage, reader.reading().is_final) == (None, False)


@pytest.mark.parametrize(
    "usage",
    [
        *({}, [], "", 5, True, {"completion_tokens": 0}, {"x": 1}),
        {"prompt_tokens": 5},
        {"completion_tokens": 5, "total_tokens": 15},  # would all be taken for output
        {"prompt_tokens": None, "completion_tokens": 5, "total_tokens": 15},
        {"prompt_tokens": 10, "completion_tokens": None, "total_tokens": None},
    ],
)
def test_a_usage_record_without_counts_is_untrusted(usage: object) -> None:
    reading = read(usage)
    assert (reading.usage, reading.is_final) == (None, False)
    assert reading.problem


def test_zero_tokens_for_an_answer_with_text_are_untrusted() -> None:
    usage = openai_usage(0, 0)
    assert not read(usage).is_final
    _, reader = run(chunk(choices=content("x")), chunk(usage=usage), DONE)
    assert not reader.reading().is_final


def test_an_answer_that_is_no_json_counts_by_its_bytes() -> None:
    for body in (b"<html>", b"", b"[]", b'{"usage"', b'{"usage":' + b"[" * 100_000):
        reading = CHAT.read_answer(body)
        assert (reading.usage, reading.seen_bytes, reading.is_final) == (None, len(body), False)


def test_an_error_in_an_answer_of_200_is_seen() -> None:
    reading = CHAT.read_answer(b'{"error":{"message":"no","code":502}}')
    assert (reading.has_error, reading.usage, reading.seen_bytes) == (True, None, 0)
    assert not CHAT.read_answer(openai_chat(error=None)).has_error


# --- streams ---


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
    assert reading.seen_bytes == len("Hello there!")
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
    assert reading.seen_bytes == len("Hello there!")


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


def test_an_estimate_takes_no_more_output_than_was_allowed_unless_it_was_reported() -> None:
    assert estimated(Reading(seen_bytes=900), 1, 100) == Usage((Leg(input=1, output=100),))
    reported = Reading(usage=Usage((Leg(input=5, output=200),)), seen_bytes=900)
    assert estimated(reported, 3, 100) == Usage((Leg(input=5, output=200),))
