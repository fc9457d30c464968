"""How much text is counted in requests and answers: what it has when nothing is escaped."""

import json

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from llmproxy.dialects.answers import CALL_BYTES, text_bytes
from llmproxy.dialects.base import Endpoint, StreamReader, written_bytes
from llmproxy.routes import endpoints_of
from tests.support.answers import data_event, named_event

CHAT, RESPONSES, *_ = endpoints_of("openai", "openai")
MESSAGES, *_ = endpoints_of("anthropic", "anthropic")
RUSSIAN = "Привет, как дела? "
BACKSLASHES = st.text(alphabet="\\u04aé\U0001f600", max_size=12)


def run(endpoint: Endpoint, *events: bytes) -> StreamReader:
    reader = endpoint.stream_reader(withholds_usage=False)
    for event in events:
        reader.events.feed(event)
    return reader


@given(st.text(max_size=50) | BACKSLASHES, st.booleans())
@example("\\u043f", True)
@example("\\\\u043f\\", False)
@example("\U0001f600\x00\\", True)
def test_never_less_is_counted_than_a_text_has(text: str, is_ascii: bool) -> None:
    text = text.encode(errors="replace").decode()
    written = json.dumps(text, ensure_ascii=is_ascii).encode()
    true_bytes = len(text.encode())
    assert written_bytes(written) - 2 >= true_bytes
    seen = text_bytes(msgspec.Raw(written))
    assert true_bytes <= seen <= len(written)
    if b"\\u" in written:
        assert seen == true_bytes


@pytest.mark.parametrize(
    ("raw", "size"),
    [
        *((b"", 0), (b"null", 0), (b'""', 0), (b'"null"', 4), (b"[1,2]", 3), (b'["\\u0434"]', 7)),
        (b'"\\u00e9\xc3"', 6),
    ],
)
def test_what_is_no_text_counts_by_what_is_written(raw: bytes, size: int) -> None:
    assert text_bytes(msgspec.Raw(raw)) == size


@pytest.mark.parametrize("is_ascii", [True, False])
def test_an_escaped_stream_counts_like_one_that_is_not(is_ascii: bool) -> None:
    delta = {"choices": [{"index": 0, "delta": {"content": RUSSIAN}}]}
    written = json.dumps(delta, ensure_ascii=is_ascii).encode()
    assert run(CHAT, b"data: %b\n\n" % written).seen_bytes == len(RUSSIAN.encode())


@pytest.mark.parametrize("endpoint", [CHAT, RESPONSES, MESSAGES])
def test_an_escaped_request_has_little_more_text_than_one_that_is_not(endpoint: Endpoint) -> None:
    messages = [{"role": "user", "content": RUSSIAN * 100}]
    fields = {"model": "m", "messages": messages, "input": messages, "max_tokens": 9}
    plain = json.dumps(fields, ensure_ascii=False).encode()
    escaped = json.dumps(fields).encode()
    text = endpoint.read_request(plain).input.text_bytes
    assert text == len(plain)
    assert text <= endpoint.read_request(escaped).input.text_bytes < 1.5 * text


CALLS: list[tuple[Endpoint, bytes, int]] = [
    (
        CHAT,
        data_event(
            {
                "choices": [
                    {"delta": {"tool_calls": [{"function": {"name": "look", "arguments": ""}}]}}
                ]
            }
        ),
        4,
    ),
    (CHAT, data_event({"choices": [{"delta": {"tool_calls": [{"custom": {"name": "look"}}]}}]}), 4),
    (CHAT, data_event({"choices": [{"delta": {"function_call": {"name": "look"}}}]}), 4),
    (
        RESPONSES,
        named_event("response.output_item.added", item={"type": "function_call", "name": "look"}),
        4,
    ),
    (
        MESSAGES,
        named_event("content_block_start", content_block={"type": "tool_use", "name": "look"}),
        4,
    ),
]


@pytest.mark.parametrize(("endpoint", "event", "name"), CALLS)
def test_the_call_of_a_tool_counts_by_its_name_and_what_stands_around_it(
    endpoint: Endpoint, event: bytes, name: int
) -> None:
    assert run(endpoint, event).seen_bytes == name + CALL_BYTES


@pytest.mark.parametrize(
    ("endpoint", "event"),
    [
        (CHAT, data_event({"choices": [{"delta": {"tool_calls": [{"function": {}}, None]}}]})),
        (RESPONSES, named_event("response.output_item.added", item={"type": "message"})),
        (RESPONSES, named_event("response.output_item.added")),
        (MESSAGES, named_event("content_block_start", content_block={"type": "text"})),
    ],
)
def test_what_begins_no_call_counts_for_nothing(endpoint: Endpoint, event: bytes) -> None:
    assert run(endpoint, event).seen_bytes == 0
