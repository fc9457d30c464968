"""What is odd about members that do not matter to the bill never keeps the bill from being read."""

import json
from typing import Any

import msgspec
import pytest

from llmproxy.dialects.answers import MENDED_BYTES_MAX, rescued
from llmproxy.dialects.base import Endpoint, Reading
from llmproxy.routes import endpoints_of
from llmproxy.usage import Leg
from tests.support.answers import (
    anthropic_message,
    anthropic_stream,
    anthropic_usage,
    openai_chat,
    openai_chat_stream,
    openai_usage,
)

CHAT, RESPONSES, *_ = endpoints_of("openai", "openai")
EMBEDDINGS = next(one for one in endpoints_of("openai", "openai") if one.name == "embeddings")
MESSAGES, *_ = endpoints_of("anthropic", "anthropic")
LEG = Leg(input=10, output=500)
NAN = float("nan")
HALF = "\ud83d"
"""One half of a character; a server that cuts its pieces by UTF-16 sends such."""


def run(endpoint: Endpoint, events: list[bytes]) -> Reading:
    reader = endpoint.stream_reader(withholds_usage=False)
    for event in events:
        reader.events.feed(event)
    reader.events.finish()
    return reader.reading()


def assert_billed(reading: Reading, leg: Leg = LEG) -> None:
    assert (reading.is_final, reading.problem) == (True, None)
    assert reading.usage is not None
    assert reading.usage.legs == (leg,)


def changed(event: bytes, **fields: object) -> bytes:
    """The event with other members at the top of its data."""
    head, _, data = event.partition(b"data: ")
    return head + b"data: " + json.dumps({**json.loads(data), **fields}).encode() + b"\n\n"


# --- chat ---

ODD_CHUNKS = [
    {"model": 5},
    {"model": HALF},
    {"service_tier": ["default"]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": 1}]},
    {"choices": [{"index": 0, "delta": {"tool_calls": [None]}, "finish_reason": "stop"}]},
    {"choices": [{"index": 0, "delta": {}, "finish_reason": "stop", "logprobs": NAN}]},
    {"choices": [{"index": "0", "delta": "x"}]},
    {"choices": {}},
    {"x_groq": 5},
    {"unheard_of": [NAN, -NAN, float("inf"), HALF]},
]


@pytest.mark.parametrize("odd", ODD_CHUNKS)
def test_the_usage_of_a_chunk_counts_whatever_stands_beside_it(odd: dict[str, Any]) -> None:
    *events, usage, done = openai_chat_stream(usage=openai_usage(10, 500))
    assert_billed(run(CHAT, [*events, changed(usage, **odd), done]))


@pytest.mark.parametrize("odd", ODD_CHUNKS)
def test_an_odd_chunk_without_usage_counts_as_text_at_most(odd: dict[str, Any]) -> None:
    events = openai_chat_stream()
    reading = run(CHAT, [events[1], changed(events[2], **odd)])
    assert len("Hello") <= reading.seen_bytes <= len("Hello") + len(changed(events[2], **odd))


def test_what_stands_beside_a_nan_is_read_for_itself() -> None:
    first, *_ = openai_chat_stream()
    choice = {"index": 0, "delta": {"content": "abc" + HALF}, "logprobs": NAN}
    assert run(CHAT, [changed(first, choices=[choice])]).seen_bytes == 3 + 3


ODD_ANSWERS = [
    {"model": 5},
    {"service_tier": {}},
    {"choices": {}},
    {"choices": [{"logprobs": NAN, "message": {"content": "x"}}]},
    {"unheard_of": HALF},
]


@pytest.mark.parametrize("odd", ODD_ANSWERS)
def test_the_usage_of_a_chat_answer_counts_whatever_stands_beside_it(odd: dict[str, Any]) -> None:
    assert_billed(CHAT.read_answer(openai_chat(usage=openai_usage(10, 500), **odd)))


def test_an_answer_that_is_none_still_says_so() -> None:
    for body in (b"[1]", b'{"choices":', b"x", b'"usage"'):
        reading = CHAT.read_answer(body)
        assert (reading.usage, reading.seen_bytes) == (None, len(body))
        assert reading.problem == "the answer is not the expected JSON"


def test_the_usage_of_an_embedding_counts_whatever_stands_beside_it() -> None:
    usage = {"prompt_tokens": 10, "total_tokens": 10}
    for odd in ({"model": 5}, {"data": 5}, {"data": [{"embedding": [NAN]}]}):
        body = json.dumps({"data": [[1]], "usage": usage, **odd}).encode()
        assert_billed(EMBEDDINGS.read_answer(body), Leg(input=10))


# --- responses ---

RESPONSE_USAGE = {"input_tokens": 10, "output_tokens": 500, "total_tokens": 510}
ODD_RESPONSES = [
    {"model": 5},
    {"service_tier": 5},
    {"output": {}},
    {"output": [None, 5, {"type": 5}]},
    {"output": [{"logprobs": NAN}]},
    {"tool_usage": 5},
    {"tool_usage": {"web_search": 5}},
]


@pytest.mark.parametrize("odd", ODD_RESPONSES)
def test_the_usage_of_a_response_counts_whatever_stands_beside_it(odd: dict[str, Any]) -> None:
    response = {"model": "m", "output": [{"type": "message"}], "usage": RESPONSE_USAGE, **odd}
    assert_billed(RESPONSES.read_answer(json.dumps(response).encode()))
    completed = {"type": "response.completed", "response": response}
    assert_billed(run(RESPONSES, [b"data: %b\n\n" % json.dumps(completed).encode()]))
    odd_event: dict[str, object] = {**completed, "item": NAN}
    assert_billed(run(RESPONSES, [b"data: %b\n\n" % json.dumps(odd_event).encode()]))


# --- messages ---

ODD_MESSAGES = [{"model": 5}, {"type": 5}, {"content": {}}, {"content": [{"x": NAN}]}]


@pytest.mark.parametrize("odd", ODD_MESSAGES)
def test_the_usage_of_a_message_counts_whatever_stands_beside_it(odd: dict[str, Any]) -> None:
    assert_billed(MESSAGES.read_answer(anthropic_message(usage=anthropic_usage(10, 500), **odd)))


@pytest.mark.parametrize("odd", [{"delta": 5}, {"delta": {"stop_reason": NAN}}, {"message": []}])
def test_the_usage_of_a_message_delta_counts_whatever_stands_beside_it(
    odd: dict[str, Any],
) -> None:
    events = anthropic_stream(usage=anthropic_usage(10, 500))
    index = next(n for n, event in enumerate(events) if b'"message_delta"' in event)
    events[index] = changed(events[index], **odd)
    assert_billed(run(MESSAGES, events))


# --- what is odd about the usage itself ---


@pytest.mark.parametrize("name", ["prompt_tokens", "completion_tokens", "total_tokens"])
def test_a_count_that_is_no_number_is_no_bill(name: str) -> None:
    usage = {**openai_usage(10, 500), name: NAN}
    reading = CHAT.read_answer(openai_chat(usage=usage))
    assert (reading.usage, reading.problem) == (None, "absurd token count 'NaN'")
    *events, last, done = openai_chat_stream()
    reading = run(CHAT, [*events, changed(last, usage=usage), done])
    assert (reading.usage, reading.problem) == (None, "absurd token count 'NaN'")
    assert reading.seen_bytes == len("Hello there!")


# --- the limit ---


class Two(msgspec.Struct):
    one: int = 0
    other: str = ""


def test_members_are_read_each_for_itself() -> None:
    assert rescued(Two, b'{"one":"1","other":"x","third":[]}') == (Two(other="x"), False)
    assert rescued(Two, b'{"one":1,"other":"x","third":NaN}') == (Two(1, "x"), True)
    assert rescued(Two, b"[1]") == (Two(), False)
    assert rescued(Two, b"{" * 5000) == (Two(), False)


def test_only_what_is_not_too_long_is_mended() -> None:
    long = b'{"one":1,"third":[NaN,"%b"]}' % (b"x" * MENDED_BYTES_MAX)
    assert rescued(Two, long) == (Two(), False)
