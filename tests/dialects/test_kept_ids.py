"""Ids of what a provider keeps: refused wherever one can stand, since none was made here."""

import json
from typing import Any

import pytest

from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import KEPT, Endpoint
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_responses import OpenAIResponses
from llmproxy.errors import ApiError
from llmproxy.routes import endpoints_of
from tests.support.reading import refusal_of

CHAT = OpenAIChat()
RESPONSES = OpenAIResponses()
COMPACT = OpenAIResponses("responses/compact")
MESSAGES = AnthropicMessages()
FREE = {
    endpoint.name: endpoint
    for dialect in ("openai", "anthropic")
    for endpoint in endpoints_of(dialect, dialect)
    if endpoint.is_free
}
INPUT_TOKENS = FREE["responses/input_tokens"]
COUNT_TOKENS = FREE["messages/count_tokens"]


def item(**fields: object) -> dict[str, Any]:
    return {"input": [fields]}


def part(**fields: object) -> dict[str, Any]:
    """In a user's message of a response's input."""
    return {"input": [{"role": "user", "content": [fields]}]}


def block(**fields: object) -> dict[str, Any]:
    """In a user's message of chat or messages."""
    return {"messages": [{"role": "user", "content": [fields]}]}


def tool(**fields: object) -> dict[str, Any]:
    return {"tools": [fields]}


def result_of(**fields: object) -> dict[str, Any]:
    """In what a tool has answered, in a message to Anthropic."""
    return block(type="tool_result", tool_use_id="t", content=[fields])


IN_INPUT: list[dict[str, Any]] = [
    {"conversation": "conv_1"},
    {"conversation": {"id": "conv_1"}},
    {"prompt": {"id": "pmpt_1"}},
    item(type="item_reference", id="msg_1"),
    item(id="msg_1"),
    item(type="image_generation_call", id="ig_1"),
    item(type="image_generation_call", id="ig_1", result=""),
    item(type="compaction", id="cmp_1"),
    item(type="message", id="msg_1", role="assistant", content=[]),
    item(type="code_interpreter_call", id="ci_1", code="1", container_id="cntr_1"),
    item(type="computer_call_output", output={"type": "computer_screenshot", "file_id": "file-1"}),
    item(type="function_call_output", output=[{"type": "input_image", "file_id": "file-1"}]),
    part(type="input_file", file_id="file-1"),
    part(type="input_image", file_id="file-1"),
    {"input": {"role": "user", "content": {"type": "input_file", "file_id": "file-1"}}},
]
IN_TOOLS: list[dict[str, Any]] = [
    tool(type="file_search", vector_store_ids=["vs_1"]),
    tool(type="code_interpreter", container="cntr_1"),
    tool(type="code_interpreter", container={"type": "auto", "file_ids": ["file-1"]}),
    tool(type="image_generation", input_image_mask={"file_id": "file-1"}),
    tool(type="shell", environment={"type": "container_reference", "container_id": "cntr_1"}),
    tool(type="mcp", connector_id="connector_x"),
]
IN_CHAT: list[dict[str, Any]] = [
    block(type="file", file={"file_id": "file-1"}),
    {"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]},
    {"cached_content": "cachedContents/1"},
    *IN_TOOLS,
]
IN_MESSAGES: list[dict[str, Any]] = [
    {"container": "container_1"},
    {"container": {"id": "container_1", "skills": []}},
    {"thread": {"type": "continue", "previous_message_id": "msg_1"}},
    block(type="document", source={"type": "file", "file_id": "file_1"}),
    block(type="image", source={"type": "file", "file_id": "file_1"}),
    block(type="container_upload", file_id="file_1"),
    result_of(type="image", source={"type": "file", "file_id": "file_1"}),
]
CASES: list[tuple[Endpoint, dict[str, Any]]] = [
    *((endpoint, fields) for endpoint in (RESPONSES, COMPACT) for fields in IN_INPUT + IN_TOOLS),
    *((INPUT_TOKENS, fields) for fields in IN_INPUT),
    *((CHAT, fields) for fields in IN_CHAT),
    *((endpoint, fields) for endpoint in (MESSAGES, COUNT_TOKENS) for fields in IN_MESSAGES),
]


def refusal(endpoint: Endpoint, fields: dict[str, Any]) -> ApiError:
    body = {"model": "m", "max_tokens": 9, "messages": [], **fields}
    if endpoint in {RESPONSES, COMPACT, INPUT_TOKENS}:
        body = {"model": "m", "input": "hi", **fields}
    return refusal_of(endpoint, json.dumps(body).encode())


@pytest.mark.parametrize(
    ("endpoint", "fields"),
    CASES,
    ids=[f"{endpoint.name}-{json.dumps(fields)[:60]}" for endpoint, fields in CASES],
)
def test_an_id_of_what_is_kept_at_the_provider_is_refused(
    endpoint: Endpoint, fields: dict[str, Any]
) -> None:
    error = refusal(endpoint, fields)
    assert (error.status, error.code) == (400, "option_not_metered")
    assert error.param
    assert error.param in error.message


@pytest.mark.parametrize(
    ("endpoint", "fields", "param"),
    [
        (RESPONSES, {"conversation": "conv_1"}, "conversation"),
        (RESPONSES, part(type="input_file", file_id="file-1"), "file_id"),
        (CHAT, block(type="file", file={"file_id": "file-1"}), "file_id"),
        (MESSAGES, {"thread": {"type": "continue", "previous_message_id": "msg_1"}}, "thread"),
        (MESSAGES, block(type="document", source={"type": "file", "file_id": "x"}), "file_id"),
        (COUNT_TOKENS, block(type="image", source={"type": "file", "file_id": "x"}), "file_id"),
    ],
)
def test_the_refusal_says_that_it_cannot_have_been_made_here(
    endpoint: Endpoint, fields: dict[str, Any], param: str
) -> None:
    error = refusal(endpoint, fields)
    assert error.param == param
    assert KEPT in error.message


def test_an_item_by_its_id_is_told_what_to_send_instead() -> None:
    message = refusal(RESPONSES, item(type="item_reference", id="msg_1")).message
    assert "send the item itself, or `previous_response_id`" in message
