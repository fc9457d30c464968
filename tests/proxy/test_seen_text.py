"""What counts as generated text while a hold grows: what was said, however it is written."""

import asyncio
import contextlib
import json

import pytest

from tests.proxy.conftest import INPUT, OUTPUT
from tests.proxy.helpers import CHAT, Site, Visitor, chat
from tests.support.answers import (
    broken_stream,
    named_event,
    openai_chat_stream,
    openai_usage,
)
from tests.support.stub_provider import Out, SeenRequest

RESPONSES = "/v1/openai/responses"
RUSSIAN = "Привет, как дела? "
PIECES, TOKENS_OF_PIECE = 40, 6


def visitor(site: Site, credit: str) -> Visitor:
    return Visitor(*site.books.user(credit))


def dear_chat(text: str = "hi", *, is_ascii: bool = True, **fields: object) -> bytes:
    body = {"model": "dear", "max_tokens": 128_000, "stream": True, **fields}
    body["messages"] = [{"role": "user", "content": text}]
    return json.dumps(body, ensure_ascii=is_ascii).encode()


@pytest.mark.parametrize("is_ascii", [True, False])
def test_a_stream_of_escapes_does_not_end_before_its_credit(dear: Site, is_ascii: bool) -> None:
    """Python's own encoder writes six bytes for each letter that has two."""
    delta = {"choices": [{"index": 0, "delta": {"content": RUSSIAN}, "finish_reason": None}]}
    piece = b"data: %b\n\n" % json.dumps(delta, ensure_ascii=is_ascii).encode()
    usage = openai_usage(10, PIECES * TOKENS_OF_PIECE)

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        with contextlib.suppress(ConnectionError):
            for _ in range(PIECES):
                await out.chunk(piece)
                await asyncio.sleep(0.002)
            for event in openai_chat_stream([], usage=usage)[1:]:
                await out.chunk(event)
            await out.end()

    dear.stub.handle = handle
    ann = visitor(dear, "0.1")  # 240 tokens of output are 0.024
    got = dear.ask(ann, CHAT, dear_chat())
    assert got.body.endswith(b"data: [DONE]\n\n")
    cost = 10 * INPUT + PIECES * TOKENS_OF_PIECE * OUTPUT
    dear.assert_row(ann, state="settled", basis="usage", cost=cost)


def test_a_broken_stream_of_escapes_is_estimated_by_its_text(dear: Site) -> None:
    dear.stub.handle = broken_stream(openai_chat_stream([RUSSIAN])[:2])
    ann = visitor(dear, "5")
    body = dear_chat()
    dear.ask(ann, CHAT, body)
    output = -(-len(RUSSIAN.encode()) // 3)
    cost = -(-len(body) // 3) * INPUT + output * OUTPUT
    dear.assert_row(ann, state="settled", basis="estimate", cost=cost)


def test_escapes_of_a_request_hold_little_more_than_its_letters(dear: Site) -> None:
    held = []
    for is_ascii in (False, True):
        dear.stub.handle = broken_stream(openai_chat_stream()[:1])
        ann = visitor(dear, "5")
        dear.ask(ann, CHAT, dear_chat(RUSSIAN * 1000, is_ascii=is_ascii, max_tokens=1))
        held.append(dear.ended(ann)["hold_nanousd"])
    plain, escaped = held
    assert plain < escaped < 1.6 * plain


@pytest.mark.parametrize("is_escaped", [True, False])
def test_the_name_of_a_called_tool_counts_in_responses(dear: Site, is_escaped: bool) -> None:
    name = "ж" * 50 if is_escaped else "x" * 100
    item = {"type": "function_call", "name": name, "arguments": "", "call_id": "c"}
    dear.stub.handle = broken_stream([named_event("response.output_item.added", item=item)])
    ann = visitor(dear, "5")
    body = json.dumps({"model": "dear", "input": "hi", "stream": True, "max_output_tokens": 999})
    dear.ask(ann, RESPONSES, body.encode())
    # The name's 100 bytes, and 30 for what stands around it.
    cost = -(-len(body) // 3) * INPUT + 44 * OUTPUT
    dear.assert_row(ann, state="settled", basis="estimate", cost=cost)


def test_calls_without_arguments_end_with_the_credit_in_responses(dear: Site) -> None:
    item = {"type": "function_call", "name": "look", "arguments": "", "call_id": "c"}

    async def call_for_ever(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        with contextlib.suppress(ConnectionError):
            while True:
                await out.chunk(named_event("response.output_item.added", item=item))
                await asyncio.sleep(0.001)

    dear.stub.handle = call_for_ever
    ann = visitor(dear, "0.05")
    body = {"model": "dear", "input": "hi", "stream": True, "max_output_tokens": 128_000}
    got = dear.ask(ann, RESPONSES, json.dumps(body).encode())
    assert got.last_event()[1]["error"]["code"] == "insufficient_credit"
    assert dear.ended(ann)["shortfall_nanousd"] == 0


def test_a_plain_answer_of_escapes_without_usage_is_estimated_by_its_text(dear: Site) -> None:
    answer = json.dumps({"choices": [{"message": {"content": RUSSIAN * 10}}]}).encode()

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(200, answer)

    dear.stub.handle = handle
    ann = visitor(dear, "5")
    body = chat(model="dear", max_tokens=10_000)
    dear.ask(ann, CHAT, body)
    estimated = dear.ended(ann)["cost_nanousd"] - -(-len(body) // 3) * INPUT
    letters = len((RUSSIAN * 10).encode())
    assert letters // 3 * OUTPUT < estimated < letters * OUTPUT * 6 // 10
