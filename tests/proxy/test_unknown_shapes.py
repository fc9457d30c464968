"""What passes in a shape that nobody knows is not free, nor billed by what was told before it."""

import json
from typing import Any

import pytest

from tests.proxy.helpers import CHAT, Site, chat
from tests.support.answers import data_event, named_event, openai_usage, stream

TEXT = "word " * 2000
SOUND = "A" * 12_000
DONE = b"data: [DONE]\n\n"
RESPONSE = {"model": "gpt-4o", "input": "a", "stream": True, "max_output_tokens": 5000}
SPEECH = {"model": "tts-1", "voice": "coral", "input": "x" * 400, "stream_format": "sse"}
OUTPUT = [{"type": "message", "content": [{"type": "output_text", "text": TEXT}]}]
IN, OUT = 2_500, 10_000
"""Nano-USD per token of gpt-4o."""


def choice(**more: object) -> dict[str, object]:
    return {"model": "gpt-4o", "choices": [{"index": 0, **more}]}


def input_nanousd(body: bytes) -> int:
    return -(-len(body) // 3) * IN


@pytest.mark.parametrize(
    ("events", "output_tokens"),
    [
        # One byte, that is: a third of a token.
        ([data_event(choice(message={"content": TEXT}, finish_reason="stop")), DONE], 1),
        ([data_event(choice(delta={"x": TEXT}, finish_reason="stop"))], 1),
        ([DONE], 1),
        # 12,002 bytes / 256 / 3, twice.
        ([data_event(choice(delta={"audio": {"data": SOUND}}))], 16),
        ([data_event(choice(delta={"images": [SOUND]}))] * 2, 32),
    ],
)
def test_a_chat_of_which_no_text_is_seen_is_not_free(
    site: Site, events: list[bytes], output_tokens: int
) -> None:
    site.stub.handle = stream(events)
    ann, body = site.visitor(), chat(stream=True, max_tokens=5000)
    site.ask(ann, CHAT, body)
    nanousd = input_nanousd(body) + output_tokens * OUT
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize("has_done", [False, True])
def test_a_response_counts_by_its_output_where_no_text_came_before(
    site: Site, has_done: bool
) -> None:
    response = {"id": "r", "model": "gpt-4o", "output": OUTPUT, "usage": None}
    done = named_event("response.output_text.done", text=TEXT)
    completed = named_event("response.completed", response=response)
    site.stub.handle = stream([done, completed] if has_done else [completed])
    ann, body = site.visitor(), json.dumps(RESPONSE).encode()
    site.ask(ann, "/v1/openai/responses", body)
    output_bytes = len(json.dumps(OUTPUT[0], separators=(",", ":")))
    nanousd = input_nanousd(body) + -(-output_bytes // 3) * OUT
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize(
    "events",
    [
        [{"type": "speech.audio.delta", "delta": SOUND}],
        [{"type": "chunk", "data": SOUND}],
        [{"type": "speech.audio.delta"}, {"type": "speech.audio.done"}],
    ],
)
def test_speech_costs_its_characters_whatever_its_sound_is_called(
    site: Site, events: list[dict[str, Any]]
) -> None:
    site.stub.handle = stream([data_event(event) for event in events])
    ann = site.visitor()
    site.ask(ann, "/v1/openai/audio/speech", json.dumps(SPEECH).encode())
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=400 * 15_000)


def test_a_response_without_usage_counts_its_characters_not_how_they_are_escaped(
    site: Site,
) -> None:
    """600 of two bytes, which the provider writes as six, count as three."""
    output = [{"type": "message", "text": "и" * 600}]
    response = {"id": "r", "model": "gpt-4o", "output": output}
    event = json.dumps({"type": "response.completed", "response": response}).encode()
    site.stub.handle = stream([b"event: response.completed\ndata: %b\n\n" % event])
    ann, body = site.visitor(), json.dumps(RESPONSE).encode()
    site.ask(ann, "/v1/openai/responses", body)
    seen = len(json.dumps(output[0])) - 3 * 600
    nanousd = input_nanousd(body) + -(-seen // 3) * OUT
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize(
    "events",
    [
        [{"object": "error", "message": "overloaded", "code": 503}],
        [choice(delta={"role": "assistant", "content": "", "audio": None, "images": []})] * 3,
    ],
)
def test_where_nothing_came_nothing_is_charged(site: Site, events: list[dict[str, Any]]) -> None:
    """An error as vLLM has told it, and chunks with nothing in them that break off."""
    ends = [DONE] if "object" in events[0] else []
    site.stub.handle = stream([*map(data_event, events), *ends])
    ann = site.visitor()
    site.ask(ann, CHAT, chat(stream=True, max_tokens=5000))
    site.assert_released(ann)


def test_speech_of_which_nothing_but_an_error_came_is_free(site: Site) -> None:
    error = {"type": "error", "error": {"message": "x" * 2000}}
    site.stub.handle = stream([data_event(error)])
    ann = site.visitor()
    site.ask(ann, "/v1/openai/audio/speech", json.dumps(SPEECH).encode())
    site.assert_released(ann)


FIRST = openai_usage(10, 0)


@pytest.mark.parametrize(
    "end",
    [
        [data_event({"error": {"message": "overloaded"}})],
        [data_event(choice(delta={}, finish_reason="stop")), DONE],
        [DONE],
    ],
)
def test_usage_from_before_the_text_is_not_the_bill(site: Site, end: list[bytes]) -> None:
    """… but what it tells of the input is: 10 tokens, and 10,000 bytes / 3."""
    first = data_event({**choice(delta={"role": "assistant"}), "usage": FIRST})
    site.stub.handle = stream([first, data_event(choice(delta={"content": TEXT})), *end])
    ann = site.visitor()
    site.ask(ann, CHAT, chat(stream=True, max_tokens=5000))
    nanousd = 10 * IN + 3_334 * OUT
    site.assert_paid(ann, state="settled", basis="estimate", nanousd=nanousd)


def test_usage_that_knew_of_the_output_before_it_came_is(site: Site) -> None:
    """So does who has the whole answer, and sends it in pieces."""
    first = {**choice(delta={"role": "assistant"}), "usage": openai_usage(10, 7)}
    last = choice(delta={"content": TEXT}, finish_reason="stop")
    site.stub.handle = stream([data_event(first), data_event(last), DONE])
    ann = site.visitor()
    site.ask(ann, CHAT, chat(stream=True, max_tokens=5000))
    site.assert_paid(ann, state="settled", basis="usage", nanousd=10 * IN + 7 * OUT)


def test_usage_that_comes_with_the_last_text_is(site: Site) -> None:
    last = {**choice(delta={"content": TEXT}, finish_reason="stop"), "usage": openai_usage(10, 7)}
    first = data_event({**choice(delta={"content": TEXT}), "usage": FIRST})
    site.stub.handle = stream([first, data_event(last), DONE])
    ann = site.visitor()
    site.ask(ann, CHAT, chat(stream=True, max_tokens=5000))
    site.assert_paid(ann, state="settled", basis="usage", nanousd=10 * IN + 7 * OUT)
