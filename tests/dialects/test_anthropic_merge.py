"""Anthropic messages: the end of a stream goes on from its beginning, which alone tells some."""

import random
from typing import Any

import msgspec
import pytest

from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Reading
from llmproxy.usage import Leg, Usage
from tests.support.answers import anthropic_message, anthropic_stream, anthropic_usage

MESSAGES = AnthropicMessages()
ONCE = ("cache_creation", "service_tier", "speed", "inference_geo")
"""What the beginning alone tells."""


def streamed(start: dict[str, Any], end: dict[str, Any]) -> Reading:
    reader = MESSAGES.stream_reader(withholds_usage=False)
    events = anthropic_stream(usage={"output_tokens": 1}, start=start, final=end)
    for event in events:
        reader.events.feed(event)
    return reader.reading()


def some_usage(random_: random.Random) -> dict[str, Any]:
    """A whole usage, as a plain answer has it."""
    rolled = [random_.choice([0, random_.randrange(1, 5000)]) for _ in range(6)]
    usage = anthropic_usage(
        rolled[0] + 1,
        rolled[1] + 1,
        cache_read=rolled[2],
        cache_write_5m=rolled[3],
        cache_write_1h=rolled[4],
        service_tier=random_.choice(["standard", "priority", "batch", None]),
        speed=random_.choice(["fast", "standard", None]),
        inference_geo=random_.choice(["us", "global", "not_available", None]),
        server_tool_use=random_.choice([None, {"web_search_requests": rolled[5]}]),
    )
    parts = random_.choice([0, 1, 3])
    usage["iterations"] = [] if not parts else _iterations(usage, parts)
    return usage


def _iterations(usage: dict[str, Any], parts: int) -> list[dict[str, Any]]:
    """Messages that add up to the usage, with a compaction and an advisor beside them."""
    summed = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    names = (*summed, "output_tokens")
    messages: list[dict[str, Any]] = [
        {"type": "message", **{name: usage[name] // parts for name in names}} for _ in range(parts)
    ]
    for name in names:
        messages[-1][name] += usage[name] % parts
    advisor = {"type": "advisor_message", "model": "other", "input_tokens": 7, "output_tokens": 8}
    return [
        {"type": "compaction", "input_tokens": 55_196, "output_tokens": 125},
        *messages,
        advisor,
    ]


@pytest.mark.parametrize("seed", range(200))
def test_a_stream_costs_what_one_does_that_tells_everything_at_its_end(seed: int) -> None:
    random_ = random.Random(seed)
    whole = some_usage(random_)
    # The counts of the beginning are others: what holds of them is what the end leaves out.
    early = {**whole, "input_tokens": random_.randrange(9), "cache_read_input_tokens": 0}
    early |= {"iterations": None, "server_tool_use": None, "output_tokens": 1}
    late = {name: value for name, value in whole.items() if name not in ONCE}
    nulled = {**late, **dict.fromkeys(ONCE)}
    plain = MESSAGES.read_answer(anthropic_message(usage=whole)).usage
    assert plain is not None
    for start, end in (({}, whole), (early, whole), (early, late), (early, nulled)):
        reading = streamed(start, end)
        assert (reading.usage, reading.is_final, reading.problem) == (plain, True, None)


@pytest.mark.parametrize("total", [0, 1, 400, 9000, 9400, 10_000, 12_000])
def test_the_split_of_the_beginning_is_of_what_the_end_tells_in_all(total: int) -> None:
    start = anthropic_usage(10, 1, cache_write_5m=9000, cache_write_1h=1000)
    end = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": total}
    leg = Leg(
        input=10,
        output=5,
        cache_write_5m=min(total, 9000),
        cache_write_1h=min(max(0, total - 9000), 1000),
        cache_write=max(0, total - 10_000),
    )
    entry = {"type": "message", **end}
    for more in ({}, {"iterations": [entry]}):
        assert streamed(start, {**end, **more}).usage == Usage((leg,), service_tier="standard")


def test_a_null_within_a_member_leaves_what_the_beginning_told_of_it() -> None:
    start = anthropic_usage(10, 1, cache_write_5m=6, cache_write_1h=3)
    start["server_tool_use"] = {"web_search_requests": 2, "web_fetch_requests": 0}
    end = {
        "output_tokens": 5,
        "cache_creation": {"ephemeral_5m_input_tokens": 5, "ephemeral_1h_input_tokens": None},
        "server_tool_use": {"web_search_requests": None},
    }
    leg = Leg(input=10, output=5, web_searches=2, cache_write_5m=5, cache_write_1h=3, cache_write=1)
    leg = msgspec.structs.replace(leg, round_input=7)  # 19 in three rounds
    assert streamed(start, end).usage == Usage((leg,), service_tier="standard")


# --- iterations ---

BESIDE = (
    {"type": "compaction", "input_tokens": 7, "output_tokens": 8},
    {"type": "advisor_message", "model": "other", "input_tokens": 7, "output_tokens": 8},
)


def legs_of(**usage: Any) -> tuple[Leg, ...]:  # noqa: ANN401
    read = MESSAGES.read_answer(anthropic_message(usage=usage)).usage
    assert read is not None
    return read.legs


@pytest.mark.parametrize("kind", [entry["type"] for entry in BESIDE])
def test_what_comes_beside_the_whole_has_no_share_of_its_split(kind: str) -> None:
    written = {"cache_creation_input_tokens": 100}
    entries = [
        {"type": kind, "input_tokens": 7, "output_tokens": 8, **written},
        {"type": "message", "input_tokens": 1, "output_tokens": 2, **written},
    ]
    beside, part = legs_of(**anthropic_usage(1, 2, cache_write_5m=100, iterations=entries))
    assert beside == Leg(input=7, output=8, cache_write=100)
    assert part == Leg(input=1, output=2, cache_write_5m=100)


@pytest.mark.parametrize(
    "missing", [{"input_tokens": 9}, {"output_tokens": 9}, {"cache_read_input_tokens": 9}]
)
def test_what_the_whole_has_beyond_its_messages_counts_too(missing: dict[str, int]) -> None:
    part = {"type": "message", "input_tokens": 10, "output_tokens": 10}
    more = {**anthropic_usage(10, 10), **missing}
    more |= {name: more[name] + 5 for name in missing}
    whole = Leg(
        input=more["input_tokens"],
        output=more["output_tokens"],
        cache_read=more["cache_read_input_tokens"],
    )
    beyond = msgspec.structs.replace(whole, input=whole.input - 10, output=whole.output - 10)
    legs = (Leg(input=7, output=8), Leg(input=10, output=10), Leg(input=7, output=8, model="other"))
    assert legs_of(**more, iterations=[BESIDE[0], part, BESIDE[1]]) == (*legs, beyond)
    assert legs_of(**more, iterations=list(BESIDE)) == (legs[0], legs[2], whole)


def test_one_token_more_on_one_side_takes_nothing_from_the_other() -> None:
    part = {"type": "message", "input_tokens": 90_000, "output_tokens": 900}
    legs = Leg(input=90_000, output=900), Leg(output=1)
    assert legs_of(**anthropic_usage(10, 901), iterations=[part]) == legs


def test_classes_that_differ_are_not_missing_where_all_input_is_the_same() -> None:
    part = {"type": "message", "input_tokens": 0, "output_tokens": 10, "cache_read_input_tokens": 9}
    legs = Leg(cache_read=9, output=10), Leg(output=1)
    assert legs_of(**anthropic_usage(9, 11), iterations=[part]) == legs


def test_a_whole_that_counts_what_comes_beside_it_too_is_not_charged_twice() -> None:
    part = {"type": "message", "input_tokens": 220, "output_tokens": 8}
    legs = Leg(input=7, output=8), Leg(input=220, output=8)
    assert legs_of(**anthropic_usage(227, 16), iterations=[BESIDE[0], part]) == legs


def test_writes_that_are_missing_stay_as_long_as_the_whole_says() -> None:
    part = {"type": "message", "input_tokens": 1, "output_tokens": 2}
    whole = anthropic_usage(1, 2, cache_write_5m=30, cache_write_1h=40, iterations=[part])
    assert legs_of(**whole) == (Leg(input=1, output=2), Leg(cache_write_5m=30, cache_write_1h=40))


def test_a_name_is_not_kept_without_end() -> None:
    entry = {**BESIDE[1], "model": "x" * 300_000}
    _, leg = legs_of(**anthropic_usage(0, 0), iterations=[{**BESIDE[0]}, entry])
    assert leg.model == "x" * 256


def test_iterations_alone_are_a_bill_too() -> None:
    part = {"type": "message", "input_tokens": 10, "output_tokens": 20}
    assert legs_of(iterations=[part]) == (Leg(input=10, output=20),)


def test_where_there_are_fewer_messages_than_rounds_each_may_be_several() -> None:
    """Of three rounds two at most are in the one message, or in what is missing."""
    part = {"type": "message", "input_tokens": 100, "output_tokens": 5}
    usage = anthropic_usage(301, 5, iterations=[part])
    usage["server_tool_use"] = {"web_search_requests": 2}
    legs = (
        Leg(input=100, output=5, web_searches=2, round_input=50),
        Leg(input=201, round_input=101),
    )
    assert streamed(usage, usage).usage == Usage(legs, service_tier="standard")
