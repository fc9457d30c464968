"""Chat completions: usage read out of plain answers, or not trusted."""

import json
from typing import Any

import msgspec
import pytest

from llmproxy.dialects.base import Reading, estimated
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.usage import Leg, Usage
from tests.dialects.chat_streams import CHAT, DONE, chunk, content, read, run
from tests.support.answers import openai_chat, openai_usage


def leg_of(usage: object) -> Leg:
    reading = read(usage)
    assert reading.usage is not None
    assert (reading.is_final, reading.problem) == (True, None)
    (leg,) = reading.usage.legs
    return leg


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


def test_what_cohere_bills_may_be_written_with_a_fraction_that_is_none() -> None:
    billed = {"input_tokens": 5.0, "output_tokens": 4.18e2}
    assert leg_of({**COUNTS, "billed_units": billed}) == Leg(input=5, output=418)


@pytest.mark.parametrize("bad", [5.5, -1.0, 1e300, "5", True, [5], 2**31 + 1])
@pytest.mark.parametrize("name", ["input_tokens", "output_tokens"])
def test_what_cohere_bills_is_untrusted_where_it_is_absurd(name: str, bad: object) -> None:
    reading = read({**COUNTS, "billed_units": {"input_tokens": 5, "output_tokens": 4, name: bad}})
    assert reading.problem is not None
    assert reading.problem.startswith("absurd token count ")


@pytest.mark.parametrize(
    "billed",
    [
        *({}, {"search_units": 1}, None, 3),
        # Half of a bill is none: the others belong together.
        *({"input_tokens": 7}, {"input_tokens": 7, "output_tokens": None}, {"output_tokens": 7}),
    ],
)
def test_billed_units_without_both_counts_leave_the_tokens_as_they_are(billed: object) -> None:
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


UNTRUE = [
    {"prompt_tokens": -1, "completion_tokens": 5},
    {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0},
    {**COUNTS, "total_tokens": 3},
    {},
]


@pytest.mark.parametrize("counts", UNTRUE)
def test_a_cost_is_kept_where_the_tokens_beside_it_cannot_be_true(counts: dict[str, int]) -> None:
    """In 10⁻¹⁵ USD. Only as the last word: what is reported on the way is no bill yet."""
    usage = {**counts, "cost": 0.02}
    last = chunk(usage=usage)
    _, ended = run(chunk(choices=content("x")), last, DONE)
    for reading in (read(usage), ended.reading()):
        assert (reading.usage, reading.is_final) == (None, False)
        assert (reading.provider_cost, bool(reading.problem)) == (2 * 10**13, True)
        assert reading.seen_bytes > 0
    _, running = run(chunk(choices=content("x")), last)
    assert (running.reading().provider_cost, running.reading().is_final) == (None, False)
    odd: tuple[object, ...] = (-1, "0.02", None, {})
    for cost in odd:
        assert read({**usage, "cost": cost}).provider_cost is None


@pytest.mark.parametrize("usage", [[], 5, "", True])
def test_a_usage_that_is_no_object_tells_no_cost(usage: object) -> None:
    assert read(usage).provider_cost is None


@pytest.mark.parametrize(
    ("cached", "written", "leg"),
    [
        # OpenRouter has really sent cached + written 4322 of a prompt of 2168.
        (2161, 2161, Leg(cache_read=2161, cache_write=7, output=1, cache_surplus=2154)),
        (2150, 2172, Leg(cache_read=2150, cache_write=18, output=1, cache_surplus=2154)),
        (0, 2172, Leg(cache_write=2168, output=1, cache_surplus=4)),
        (2168, 3, Leg(cache_read=2168, output=1, cache_surplus=3)),
        (2168, 0, Leg(cache_read=2168, output=1)),
    ],
)
def test_more_written_tokens_than_the_prompt_leaves_are_clamped(
    cached: int, written: int, leg: Leg
) -> None:
    details = {"cached_tokens": cached, "cache_write_tokens": written}
    usage = {"prompt_tokens": 2168, "completion_tokens": 1, "prompt_tokens_details": details}
    assert leg_of(usage) == leg


@pytest.mark.parametrize(
    "fields",
    [
        {"total_tokens": 104},
        {"total_tokens": 0},
        {"prompt_tokens_details": {"cached_tokens": 101}},
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


# --- estimates ---


def test_an_estimate_takes_no_more_output_than_was_allowed_unless_it_was_reported() -> None:
    assert estimated(Reading(seen_bytes=900), 1, 100) == Usage((Leg(input=1, output=100),))
    reported = Reading(usage=Usage((Leg(input=5, output=200),)), seen_bytes=900)
    assert estimated(reported, 3, 100) == Usage((Leg(input=5, output=200),))
