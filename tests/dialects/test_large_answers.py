"""Answers without their middle: what the bill depends on is found at either end, and only there."""

import json
import random
from typing import Any

import pytest

from llmproxy.dialects.base import Endpoint, Reading
from llmproxy.dialects.gemini_contents import GENERATE, GeminiContents
from llmproxy.dialects.large_answers import BEGINNING_BYTES, END_BYTES, LargeAnswer
from llmproxy.routes import endpoints_of
from llmproxy.usage import Leg
from tests.support.answers import anthropic_message, anthropic_usage, openai_chat, openai_usage

ENDPOINTS = {one.name: one for one in endpoints_of("openai", "openai")}
CHAT, RESPONSES, EMBEDDINGS = (
    ENDPOINTS[name] for name in ("chat/completions", "responses", "embeddings")
)
MESSAGES, *_ = endpoints_of("anthropic", "anthropic")
LONG = "x" * (BEGINNING_BYTES + 3 * END_BYTES)
USAGE = {"prompt_tokens": 10, "total_tokens": 10}
VECTORS = [{"index": n, "embedding": [0.012345678901234567] * 3072} for n in range(30)]


def read(endpoint: Endpoint, body: bytes, seed: int = 0) -> Reading:
    taken, rng = LargeAnswer(), random.Random(seed)
    while body:
        cut = rng.choice((1, 100, 65_536, 10**7))
        taken.feed(body[:cut])
        body = body[cut:]
    return taken.reading(endpoint)


def encode(**fields: Any) -> bytes:  # noqa: ANN401
    return json.dumps(fields).encode()


BILLED: list[tuple[Endpoint, bytes, Leg]] = [
    (CHAT, openai_chat(LONG, usage=openai_usage(10, 500)), Leg(input=10, output=500)),
    (MESSAGES, anthropic_message(LONG, anthropic_usage(10, 500)), Leg(input=10, output=500)),
    (EMBEDDINGS, encode(object="list", data=VECTORS, model="m", usage=USAGE), Leg(input=10)),
    # Some have it in front.
    (EMBEDDINGS, encode(object="list", usage=USAGE, model="m", data=VECTORS), Leg(input=10)),
    (EMBEDDINGS, encode(data=VECTORS, usage=USAGE), Leg(input=10)),
]


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("endpoint", "body", "leg"), BILLED)
def test_a_large_answer_is_billed_by_its_usage(
    endpoint: Endpoint, body: bytes, leg: Leg, seed: int
) -> None:
    reading = read(endpoint, body, seed)
    assert (reading.is_final, reading.problem, reading.seen_bytes) == (True, None, len(body))
    assert reading.usage is not None
    assert reading.usage.legs == (leg,)
    whole = endpoint.read_answer(body)
    assert (reading.usage, reading.raw_usage) == (whole.usage, whole.raw_usage)
    assert (reading.model, reading.movers) == (whole.model, whole.movers)


def test_a_response_tells_its_tier_and_searches_between_output_and_usage() -> None:
    usage = {"input_tokens": 10, "output_tokens": 500, "total_tokens": 510}
    body = encode(
        id="resp_1",
        output=[{"type": "message", "content": LONG}],
        service_tier="priority",
        tools=[{"parameters": {"properties": {"usage": {"input_tokens": 1}}}}] * 100,
        tool_usage={"web_search": {"num_requests": 3}},
        usage=usage,
        metadata={},
    )
    reading = read(RESPONSES, body)
    assert reading.usage is not None
    # 10 tokens in at most four rounds
    assert reading.usage.legs == (Leg(input=10, output=500, web_searches=3, round_input=3),)
    assert reading.movers.service_tier == "priority"


NO_USAGE = "no usage at the beginning or end of an answer of {:,} bytes"


@pytest.mark.parametrize(
    "fields",
    [
        {"choices": [{"message": {"content": LONG}}]},
        # Within an object, a text or a name it is somebody else's.
        {"choices": [LONG], "last": {"usage": openai_usage(1, 1)}},
        {"choices": [LONG], "last": [{"usage": openai_usage(1, 1)}]},
        {"choices": [LONG], "last": json.dumps({"usage": openai_usage(1, 1)})},
        {"choices": [LONG], 'x"usage': openai_usage(1, 1)},
        {"choices": [LONG], "last": "usage"},
        {"first": {"usage": openai_usage(1, 1)}, "choices": [LONG]},
    ],
)
def test_what_is_called_usage_elsewhere_is_none(fields: dict[str, Any]) -> None:
    body = encode(**fields)
    reading = read(CHAT, body)
    assert (reading.usage, reading.seen_bytes) == (None, len(body))
    assert reading.problem == NO_USAGE.format(len(body))


def test_what_is_no_object_is_not_the_expected_json() -> None:
    for body in (b"[" + encode(choices=LONG) + b"]", b"<html>" + LONG.encode(), LONG.encode()):
        reading = read(CHAT, body)
        assert (reading.usage, reading.seen_bytes) == (None, len(body))
        assert reading.problem == "the answer is not the expected JSON"


def test_a_large_image_costs_what_its_provider_bills() -> None:
    """In 10⁻¹⁵ USD; xAI tells nothing else, and its images were not kept."""
    data = [{"b64_json": LONG}]
    body = encode(data=data, usage={"cost_in_usd_ticks": 2 * 10**8})
    reading = read(ENDPOINTS["images/generations"], body)
    assert (reading.usage, reading.provider_cost) == (None, 2 * 10**13)
    assert (reading.is_final, reading.problem) == (False, "usage has no token counts")


def test_the_data_of_large_images_is_no_text() -> None:
    """Of the Gemini API too; that of all others is."""
    body = encode(data=[{"b64_json": LONG}])
    for name in ("images/generations", "images/edits"):
        assert read(ENDPOINTS[name], body).seen_bytes == -(-len(body) // 256)
    for endpoint in (CHAT, RESPONSES, EMBEDDINGS, MESSAGES, ENDPOINTS["audio/transcriptions"]):
        assert read(endpoint, body).seen_bytes == len(body)
    inline = {"inlineData": {"mimeType": "image/png", "data": LONG}}
    body = encode(candidates=[{"content": {"parts": [inline]}}])
    assert read(GeminiContents(GENERATE, "m"), body).seen_bytes == -(-len(body) // 256)


def test_of_large_images_that_cannot_be_counted_as_many_count_as_were_asked_for() -> None:
    cut = read(ENDPOINTS["images/generations"], body := encode(data=[{"b64_json": LONG}] * 2))
    assert (cut.images, cut.problem) == (None, NO_USAGE.format(len(body)))
    told = read(ENDPOINTS["images/generations"], encode(data=[{"url": "x"}] * 2, more=LONG))
    assert told.images == 2


@pytest.mark.parametrize(("told", "cost"), [({}, None), ({"cost": 0.02}, 2 * 10**13)])
def test_no_tokens_at_all_are_not_believed_of_a_large_answer(
    told: dict[str, float], cost: int | None
) -> None:
    """But the cost beside them is kept."""
    reading = read(CHAT, openai_chat(LONG, usage={**openai_usage(0, 0), **told}))
    assert (reading.usage, reading.is_final, reading.provider_cost) == (None, False, cost)
    assert reading.problem == "usage reports no tokens for an answer with text"


def test_no_tokens_for_a_text_that_was_cut_out_are_not_believed_either() -> None:
    """What is read of it has no text; so many bytes were one."""
    usage = json.dumps({**openai_usage(0, 0), "cost": 0.02}).encode()
    body = b'{"id":"a","choices":[{"text":"%b"}],"usage":%b}' % (LONG.encode(), usage)
    reading = read(ENDPOINTS["completions"], body)
    assert (reading.usage, reading.provider_cost) == (None, 2 * 10**13)
    assert (reading.is_final, reading.seen_bytes) == (False, len(body))
