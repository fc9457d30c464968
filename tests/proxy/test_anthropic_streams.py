"""Anthropic's streams as they may come (wire.md A.4), and what each costs, calculated by hand."""

# ruff: noqa: ANN401 - fields take any JSON value.

from typing import Any

import pytest

from tests.proxy.helpers import MESSAGES, Site, message
from tests.support.answers import named_event, stream

SONNET, OPUS, OLD_OPUS = "claude-sonnet-4-6", "claude-opus-5-5", "claude-opus-4-8"
JSON = dict[str, Any]


def entry(kind: str, input_tokens: int, output_tokens: int, **fields: Any) -> JSON:
    return {"type": kind, "input_tokens": input_tokens, "output_tokens": output_tokens, **fields}


def usage(
    input_tokens: int, output_tokens: int, read: int = 0, written: int = 0, **more: Any
) -> JSON:
    """The usage of an end, or, with what it leaves out, of a beginning."""
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "output_tokens": output_tokens,
        **more,
    }


def split(five: int, hour: int) -> JSON:
    return {
        "cache_creation": {"ephemeral_5m_input_tokens": five, "ephemeral_1h_input_tokens": hour},
        "service_tier": "standard",
        "inference_geo": "not_available",
    }


def events(model: str, start: JSON, end: JSON) -> list[bytes]:
    told = {"id": "msg_1", "type": "message", "role": "assistant", "model": model, "content": []}
    text = {"type": "text_delta", "text": "Hello there!"}
    return [
        named_event("message_start", message={**told, "usage": start}),
        named_event("content_block_start", index=0, content_block={"type": "text", "text": ""}),
        named_event("content_block_delta", index=0, delta=text),
        named_event("content_block_stop", index=0),
        named_event("message_delta", delta={"stop_reason": "end_turn"}, usage=end),
        named_event("message_stop"),
    ]


CASES: dict[str, tuple[str, JSON, JSON, int]] = {
    "a compaction": (
        SONNET,
        usage(55_000, 1, **split(0, 0)),
        usage(
            220,
            8,
            iterations=[entry("compaction", 55_196, 125), entry("message", 220, 8)],
        ),
        (55_196 + 220) * 3000 + (125 + 8) * 15_000,
    ),
    "a compaction that writes to the cache for a time that it tells": (
        SONNET,
        usage(50, 1, 0, 900, **split(900, 0)),
        usage(
            50,
            9,
            0,
            900,
            iterations=[
                entry("compaction", 7, 5, cache_creation_input_tokens=300, **split(0, 300)),
                entry("message", 50, 9, cache_creation_input_tokens=900),
            ],
        ),
        57 * 3000 + 14 * 15_000 + 900 * 3750 + 300 * 6000,
    ),
    "an advisor of another model": (
        SONNET,
        usage(2390, 2, **split(0, 0)),
        usage(
            2390,
            121,
            iterations=[
                entry("message", 1000, 21),
                entry("advisor_message", 2518, 22, model=OLD_OPUS),
                entry("message", 1390, 100, model=SONNET),
            ],
        ),
        2390 * 3000 + 121 * 15_000 + 2518 * 5000 + 22 * 25_000,
    ),
    "server tools, whose results are input": (
        SONNET,
        usage(702, 1, 0, 100, **split(100, 0), server_tool_use={"web_search_requests": 0}),
        usage(1591, 88, 1000, 250, server_tool_use={"web_search_requests": 2}),
        1591 * 3000 + 88 * 15_000 + 1000 * 300 + 250 * 3750 + 2 * 10_000_000,
    ),
    "an input that its beginning alone tells": (
        SONNET,
        usage(12, 3, 1000, 150, **split(100, 50)),
        {"output_tokens": 90},
        12 * 3000 + 90 * 15_000 + 1000 * 300 + 100 * 3750 + 50 * 6000,
    ),
    "an end of nulls": (
        SONNET,
        usage(12, 3, 1000, 150, **split(100, 50), server_tool_use={"web_search_requests": 1}),
        {
            **dict.fromkeys(["input_tokens", "cache_creation_input_tokens", "iterations"]),
            **dict.fromkeys(["cache_read_input_tokens", "service_tier", "inference_geo", "speed"]),
            "output_tokens": 90,
            "cache_creation": {"ephemeral_5m_input_tokens": None},
            "server_tool_use": {"web_search_requests": None},
            "output_tokens_details": None,
        },
        12 * 3000 + 90 * 15_000 + 1000 * 300 + 100 * 3750 + 50 * 6000 + 10_000_000,
    ),
    "fast": (
        OPUS,
        usage(10, 1, 200, 30, **split(20, 10), speed="fast"),
        usage(10, 50, 200, 30),
        10 * 8000 + 50 * 40_000 + 200 * 400 + 20 * 10_000 + 10 * 16_000,
    ),
    "in the United States": (
        OPUS,
        usage(10, 1, 200, 30, **{**split(20, 10), "inference_geo": "us"}),
        usage(10, 50, 200, 30),
        10 * 4400 + 50 * 22_000 + 200 * 220 + 20 * 5500 + 10 * 8800,
    ),
    "fast and in the United States, with an advisor": (
        OPUS,
        usage(10, 1, **{**split(0, 0), "inference_geo": "us"}, speed="fast"),
        usage(
            10,
            50,
            iterations=[entry("message", 10, 50), entry("advisor_message", 7, 8, model=OLD_OPUS)],
        ),
        10 * 8800 + 50 * 44_000 + 7 * 11_000 + 8 * 55_000,
    ),
    "a batch's tier": (
        SONNET,
        usage(10, 1, **{**split(0, 0), "service_tier": "batch"}),
        usage(10, 50),
        10 * 3000 + 50 * 15_000,
    ),
    "the priority tier": (
        SONNET,
        usage(10, 1, **{**split(0, 0), "service_tier": "priority"}),
        usage(10, 50),
        10 * 3000 + 50 * 15_000,
    ),
    "thinking, which is output": (
        SONNET,
        usage(10, 1, **split(0, 0)),
        usage(10, 500, output_tokens_details={"thinking_tokens": 480}),
        10 * 3000 + 500 * 15_000,
    ),
    "iterations that the beginning alone tells": (
        SONNET,
        usage(
            220,
            1,
            0,
            100,
            **split(60, 40),
            iterations=[
                entry("compaction", 55_196, 125),
                entry("message", 220, 1, cache_creation_input_tokens=100),
            ],
        ),
        usage(220, 500, 0, 100, iterations=None),
        (55_196 + 220) * 3000 + 625 * 15_000 + 60 * 3750 + 40 * 6000,
    ),
    "iterations without the message": (
        SONNET,
        usage(220, 1, **split(0, 0)),
        usage(220, 8, iterations=[entry("compaction", 55_196, 125)]),
        (55_196 + 220) * 3000 + (125 + 8) * 15_000,
    ),
    "a compaction after which nothing more is asked of the model": (
        SONNET,
        usage(55_196, 1, **split(0, 0)),
        usage(0, 0, iterations=[entry("compaction", 55_196, 125)]),
        55_196 * 3000 + 125 * 15_000,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_a_stream_costs_what_is_calculated_by_hand(recorded_site: Site, case: str) -> None:
    model, start, end, nanousd = CASES[case]
    recorded_site.stub.handle = stream(events(model, start, end))
    ann = recorded_site.visitor()
    tools = [{"type": "web_search_20250305", "name": "web_search", "max_uses": 2}]
    body = message(model=model, stream=True, tools=tools)
    assert recorded_site.ask(ann, MESSAGES, body).status == 200
    recorded_site.assert_paid(ann, state="settled", basis="usage", nanousd=nanousd)


@pytest.mark.parametrize("end", [None, {}, {"output_tokens": None, "input_tokens": 7}])
def test_a_usage_that_the_beginning_alone_tells_is_that_of_the_input(
    recorded_site: Site, end: JSON | None
) -> None:
    start = usage(12, 3, 1000, 150, **split(100, 50))
    told = events(SONNET, start, {})
    if end is None:
        told[-2] = named_event("message_delta", delta={"stop_reason": "end_turn"})
    else:
        told[-2] = named_event("message_delta", delta={"stop_reason": "end_turn"}, usage=end)
    recorded_site.stub.handle = stream(told)
    ann = recorded_site.visitor()
    recorded_site.ask(ann, MESSAGES, message(stream=True))
    # Of the output its 12 bytes are known, which count for four tokens.
    cost = 12 * 3000 + 1000 * 300 + 100 * 3750 + 50 * 6000 + 4 * 15_000
    recorded_site.assert_paid(ann, state="settled", basis="estimate", nanousd=cost)
