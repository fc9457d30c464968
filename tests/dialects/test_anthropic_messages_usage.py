"""Anthropic messages: usage read out of plain answers and streams, or not trusted."""

import json
from typing import Any

import msgspec
import pytest

from llmproxy.dialects.answers import NO_COUNTS
from llmproxy.dialects.anthropic_messages import AnthropicMessages, MessageStreamReader
from llmproxy.dialects.base import Reading, estimated
from llmproxy.usage import Leg, Usage, with_writes
from tests.support.answers import (
    anthropic_message,
    anthropic_stream,
    anthropic_usage,
    named_event,
)

MESSAGES = AnthropicMessages()
OPUS = "claude-opus-4-8"


def read(usage: object, **fields: Any) -> Reading:  # noqa: ANN401
    return MESSAGES.read_answer(anthropic_message(**{"usage": usage, **fields}))


def run(*events: bytes) -> tuple[bytes, MessageStreamReader]:
    """What passes of a stream, and its reader."""
    reader = MESSAGES.stream_reader(withholds_usage=True)
    passed = b"".join(reader.events.feed(event) for event in events)
    return passed + reader.events.finish(), reader


def final(usage: Usage | None, reading: Reading) -> None:
    assert (reading.usage, reading.is_final, reading.problem) == (usage, True, None)


def test_the_classes_of_a_plain_answer_are_read() -> None:
    usage = anthropic_usage(7, 50, cache_read=100, cache_write_5m=20, cache_write_1h=30)
    usage["output_tokens_details"] = {"thinking_tokens": 40}
    legs = (
        Leg(
            input=7,
            cache_read=100,
            cache_write_5m=20,
            cache_write_1h=30,
            output=50,
            reasoning=40,
        ),
    )
    final(Usage(legs, service_tier="standard"), read(usage))


@pytest.mark.parametrize(
    ("written", "split", "leg"),
    [
        (9, None, Leg(cache_write=9)),
        (9, {"ephemeral_1h_input_tokens": 4}, Leg(cache_write_1h=4, cache_write=5)),
        (9, {"ephemeral_5m_input_tokens": 2}, Leg(cache_write_5m=2, cache_write=7)),
        # A record with only the split is no record of nothing; else the total is what counts.
        (
            None,
            {"ephemeral_5m_input_tokens": 2, "ephemeral_1h_input_tokens": 4},
            Leg(cache_write_5m=2, cache_write_1h=4),
        ),
        (3, {"ephemeral_1h_input_tokens": 4}, Leg(cache_write_1h=3)),
        # … and the hour, which costs more, is what the split has too much.
        (
            5,
            {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3},
            Leg(cache_write_5m=4, cache_write_1h=1),
        ),
        (
            3,
            {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3},
            Leg(cache_write_5m=3),
        ),
        (0, {"ephemeral_5m_input_tokens": 4, "ephemeral_1h_input_tokens": 3}, Leg()),
    ],
)
def test_what_the_split_does_not_explain_is_written_for_a_time_not_told(
    written: int | None, split: dict[str, int] | None, leg: Leg
) -> None:
    usage = anthropic_usage(1, 2)
    usage |= {"cache_creation_input_tokens": written, "cache_creation": split}
    wanted = msgspec.structs.replace(leg, input=1, output=2)
    final(Usage((wanted,), service_tier="standard"), read(usage))


def test_writes_of_a_time_not_told_count_as_the_dearer_one_that_was_asked_for() -> None:
    usage = Usage((Leg(cache_write_5m=1, cache_write_1h=2, cache_write=4), Leg(output=1)))
    for may_be_1h, five, hour in ((False, 5, 2), (True, 1, 6)):
        first, second = with_writes(usage, may_be_1h=may_be_1h).legs
        assert first == Leg(cache_write_5m=five, cache_write_1h=hour)
        assert second == Leg(output=1)
        assert first.input_side == usage.legs[0].input_side == 7


def test_tier_speed_and_region_are_kept_for_the_price() -> None:
    usage = anthropic_usage(1, 2, service_tier="priority", speed="fast", inference_geo="us")
    final(Usage((Leg(input=1, output=2),), "priority", "fast", "us"), read(usage))


def test_web_searches_are_counted() -> None:
    usage = anthropic_usage(9, 2, server_tool_use={"web_search_requests": 3})
    # The sum of at most four rounds: the largest of them read at least 9 / 4.
    leg = Leg(input=9, output=2, web_searches=3, round_input=3)
    final(Usage((leg,), service_tier="standard"), read(usage))


def test_iterations_are_legs_and_replace_the_top_level_counts() -> None:
    usage = anthropic_usage(
        2390,
        121,
        iterations=[
            {"type": "message", "input_tokens": 2390, "output_tokens": 121},
            {"type": "advisor_message", "model": OPUS, "input_tokens": 2518, "output_tokens": 22},
            {
                "type": "compaction",
                "input_tokens": 55196,
                "output_tokens": 125,
                "cache_read_input_tokens": 5,
                "cache_creation_input_tokens": 9,
                "cache_creation": {"ephemeral_1h_input_tokens": 4},
            },
            {
                "type": "message",
                "model": "claude-sonnet-4-6",
                "input_tokens": 1,
                "output_tokens": 0,
            },
        ],
        server_tool_use={"web_search_requests": 2},
    )
    legs = (
        # Three rounds, at most two of them in a message.
        Leg(input=2390, output=121, web_searches=2, round_input=1195),
        Leg(input=2518, output=22, model=OPUS),
        Leg(input=55196, cache_read=5, cache_write=5, cache_write_1h=4, output=125),
        Leg(input=1, round_input=1),  # the answer's own model, by its name
    )
    final(Usage(legs, service_tier="standard"), read(usage))


def test_a_stream_that_ends_with_no_cache_writes_takes_its_first_split_back() -> None:
    start = anthropic_usage(10, 1, cache_write_5m=300)
    none = {"input_tokens": 10, "output_tokens": 5, "cache_creation_input_tokens": 0}
    _, reader = run(*anthropic_stream(usage=start, final=none))
    final(Usage((Leg(input=10, output=5),), service_tier="standard"), reader.reading())


def test_iterations_are_not_more_together_than_any_answer_can_have() -> None:
    """Each may be: so many would cost more than the database can hold."""
    entry = {"input_tokens": 2**30, "output_tokens": 2**30}
    assert read(anthropic_usage(1, 1, iterations=[entry])).usage is not None
    reading = read(anthropic_usage(1, 1, iterations=[entry, {**entry, "output_tokens": 1}]))
    assert (reading.usage, reading.problem) == (None, "absurd token count 3221225473")


@pytest.mark.parametrize(
    "entry", [{}, {"input_tokens": 5}, {"output_tokens": 5}, {"type": "compaction"}]
)
def test_an_entry_of_iterations_without_counts_is_no_bill(entry: dict[str, Any]) -> None:
    whole = {"type": "message", "input_tokens": 5, "output_tokens": 5}
    for iterations in ([entry], [whole, entry]):
        reading = read(anthropic_usage(1000, 500, iterations=iterations))
        assert (reading.usage, reading.problem) == (None, NO_COUNTS)


@pytest.mark.parametrize("bad", [-1, 1.0, 1.5, True, "7", 2**31 + 1, 2**63, [], {}])
@pytest.mark.parametrize(
    "path",
    [
        "input_tokens",
        "output_tokens",
        "cache_read_input_tokens",
        "cache_creation_input_tokens",
        "searches",
        "iterations",
    ],
)
def test_an_absurd_count_makes_the_whole_record_untrusted(path: str, bad: object) -> None:
    usage = anthropic_usage(10, 5)
    if path == "searches":
        usage["server_tool_use"] = {"web_search_requests": bad}
    elif path == "iterations":
        usage["iterations"] = [{"input_tokens": 1}, {"input_tokens": bad}]
    else:
        usage[path] = bad
    reading = read(usage)
    assert (reading.usage, reading.is_final) == (None, False)
    assert reading.problem
    assert reading.raw_usage is not None
    assert json.loads(reading.raw_usage) == usage
    _, reader = run(*anthropic_stream(usage=anthropic_usage(20, 5), final=usage))
    streamed = reader.reading()
    assert (streamed.is_final, bool(streamed.problem)) == (False, True)
    # what the beginning told of the input still holds
    assert streamed.usage == Usage((Leg(input=20, output=1),), service_tier="standard")


@pytest.mark.parametrize(
    "usage",
    [{"output_tokens": 3}, {"input_tokens": 3}, {"iterations": [1]}, {"x": 1}, [1], "7", 7],
)
def test_a_usage_record_without_counts_is_untrusted(usage: object) -> None:
    reading = read(usage)
    assert (reading.usage, reading.is_final) == (None, False)
    assert reading.problem


def test_zero_tokens_for_an_answer_with_text_are_untrusted() -> None:
    assert not read(anthropic_usage(0, 0)).is_final
    assert not run(*anthropic_stream(usage=anthropic_usage(0, 0)))[1].reading().is_final


def test_an_answer_that_is_no_json_counts_by_its_bytes() -> None:
    for body in (b"<html>", b"", b"[]", b'{"usage":' + b"[" * 100_000):
        reading = MESSAGES.read_answer(body)
        assert (reading.usage, reading.seen_bytes, reading.is_final) == (None, len(body), False)


# --- streams ---


@pytest.mark.parametrize("size", [1, 7, 10_000])
def test_a_stream_passes_whole_and_its_usage_is_read(size: int) -> None:
    usage = anthropic_usage(12, 9, cache_read=30, cache_write_5m=4, cache_write_1h=5)
    whole = b"".join(anthropic_stream(usage=usage))
    passed, reader = run(*(whole[at : at + size] for at in range(0, len(whole), size)))
    assert passed == whole
    leg = Leg(input=12, cache_read=30, cache_write_5m=4, cache_write_1h=5, output=9)
    final(Usage((leg,), service_tier="standard"), reader.reading())
    assert (reader.is_complete, reader.is_over) == (True, True)
    assert reader.seen_bytes == len("Hello there!")


def test_the_last_report_wins_field_by_field() -> None:
    # Server tools: the input grows while the answer is made, 702 -> 1591; the split stays behind.
    start = anthropic_usage(702, 1, cache_write_5m=6, cache_write_1h=4, speed="fast")
    last = {
        "input_tokens": 1591,
        "cache_creation_input_tokens": 25,
        "cache_read_input_tokens": None,
        "server_tool_use": {"web_search_requests": 2},
    }
    _, reader = run(*anthropic_stream(usage=start, start={"speed": "fast"}, final=last))
    leg = Leg(input=1591, cache_write_5m=6, cache_write_1h=4, output=1, web_searches=2)
    leg = msgspec.structs.replace(leg, cache_write=15, round_input=539)  # (1591 + 25) / 3
    final(Usage((leg,), service_tier="standard", speed="fast"), reader.reading())


@pytest.mark.parametrize("last", [{}, {"input_tokens": 5}, [1], "7", {"output_tokens": 4}])
def test_a_last_report_without_output_or_with_less_than_before_is_untrusted(last: object) -> None:
    events = anthropic_stream(usage=anthropic_usage(12, 9))
    more = named_event("message_delta", delta={"stop_reason": "end_turn"}, usage=last)
    _, reader = run(*events[:-1], more, events[-1])
    reading = reader.reading()
    assert (reading.is_final, bool(reading.problem)) == (False, True)
    assert reading.usage == Usage((Leg(input=12, output=1),), service_tier="standard")


@pytest.mark.parametrize(
    "usage", [b'{"input_tokens":1,"x":"\xff"}', b'{"input_tokens":1e999999}', b"9" * 5000]
)
def test_a_usage_that_cannot_be_read_is_untrusted(usage: bytes) -> None:
    reading = MESSAGES.read_answer(b'{"content":[],"usage":' + usage + b"}")
    assert (reading.usage, reading.is_final, bool(reading.problem)) == (None, False, True)
    delta = b'event: x\ndata: {"type":"message_delta","usage":' + usage + b"}\n\n"
    events = anthropic_stream()
    _, reader = run(*events[:-2], delta, events[-1])
    assert not reader.reading().is_final
    assert reader.is_over


def test_only_the_final_report_is_the_bill() -> None:
    events = anthropic_stream(("abcdefg", "hi"), anthropic_usage(12, 9, cache_read=30))
    end = next(at for at, event in enumerate(events) if b"message_delta" in event)
    _, reader = run(*events[:end])
    reading = reader.reading()
    assert (reading.is_final, reader.is_complete) == (False, False)
    # the input as reported at the start, the output by the bytes that came
    leg = Leg(input=12, cache_read=30, output=3)
    assert estimated(reading, 10_000, 100) == Usage((leg,), service_tier="standard")
    _, reader = run(*events[: end + 1])
    assert reader.reading().is_final
    assert not reader.is_over


def test_all_generated_text_is_counted_for_an_estimate() -> None:
    deltas = [
        {"type": "text_delta", "text": "abc"},
        {"type": "thinking_delta", "thinking": "def"},
        {"type": "input_json_delta", "partial_json": "{}"},
        {"type": "signature_delta", "signature": "xxxx"},
        {"type": "text_delta", "text": ""},
    ]
    _, reader = run(*(named_event("content_block_delta", delta=delta) for delta in deltas))
    assert reader.reading().seen_bytes == 3 + 3 + 2
    assert estimated(reader.reading(), 34, 100) == Usage((Leg(input=34, output=3),))


def test_an_error_event_is_seen_and_ends_nothing_else() -> None:
    error = {"type": "overloaded_error", "message": "Overloaded"}
    events = anthropic_stream()[:4]
    _, reader = run(*events, named_event("error", error=error))
    reading = reader.reading()
    assert (reading.has_error, reading.is_final, reader.is_complete) == (True, False, False)
    _, reader = run(*events, b"event: error\ndata: {}\n\n")
    assert reader.reading().has_error


@pytest.mark.parametrize(
    "data", [b"hello", b"[1]", b'{"type":5}', b"\xff", b'{"usage":' + b"[" * 100_000]
)
def test_an_event_of_no_known_shape_passes_and_counts(data: bytes) -> None:
    event = b"event: new_thing\ndata: " + data + b"\n\n"
    events = anthropic_stream()
    passed, reader = run(*events[:4], event, *events[4:])
    assert passed == b"".join([*events[:4], event, *events[4:]])
    assert reader.reading().is_final


def test_pings_and_unknown_events_mean_nothing() -> None:
    passed, reader = run(b"event: ping\ndata: nonsense\n\n", named_event("brand_new", x=1))
    assert passed
    assert reader.reading() == Reading()
