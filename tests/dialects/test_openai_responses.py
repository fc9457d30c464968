"""Responses: what a request may cost, and usage read out of answers and streams."""

import json
from typing import Any

import pytest

from llmproxy.dialects.base import InputFacts, Reading, RequestFacts
from llmproxy.dialects.openai_responses import OpenAIResponses, ResponseStreamReader
from llmproxy.errors import ApiError
from llmproxy.usage import Leg
from tests.support.reading import refusal_of

RESPONSES = OpenAIResponses()


def encode(**fields: object) -> bytes:
    return json.dumps({"model": "gpt-5.2", "input": "hi", **fields}).encode()


def facts(**fields: object) -> RequestFacts:
    return RESPONSES.read_request(encode(**fields))


def refusal(**fields: object) -> ApiError:
    refused = refusal_of(RESPONSES, encode(**fields))
    assert refused.code == "option_not_metered"
    return refused


def usage(prompt: int = 100, output: int = 20, **details: int) -> dict[str, Any]:
    return {
        "input_tokens": prompt,
        "input_tokens_details": {
            "cached_tokens": details.get("cached", 0),
            "cache_write_tokens": details.get("written", 0),
        },
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": details.get("reasoning", 0)},
        "total_tokens": prompt + output,
    }


def response(**fields: object) -> dict[str, Any]:
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]
    return {
        "id": "resp_1",
        "object": "response",
        "status": "completed",
        "model": "gpt-5.2-2025-12-11",
        "service_tier": "default",
        "output": output,
        "usage": usage(),
        "error": None,
        **fields,
    }


def read(**fields: object) -> Reading:
    return RESPONSES.read_answer(json.dumps(response(**fields)).encode())


# --- requests ---


def test_what_it_goes_on_from_and_whether_it_is_kept_is_read() -> None:
    assert facts(previous_response_id="resp_1").previous_response_id == "resp_1"
    assert facts(previous_response_id=None).previous_response_id is None
    assert [facts(**f).keeps_response for f in ({}, {"store": None}, {"store": False})] == [
        *(True, True, False),
    ]
    compact = OpenAIResponses("responses/compact").read_request(encode())
    assert not compact.keeps_response


@pytest.mark.parametrize("fields", [{"previous_response_id": 5}, {"Previous_Response_Id": "x"}])
def test_an_id_that_is_no_text_or_is_spelt_otherwise_is_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        facts(**fields)
    assert caught.value.code == "invalid_request"


def test_a_request_is_read() -> None:
    body = encode(max_output_tokens=50, stream=True, service_tier="flex")
    read_facts = RESPONSES.read_request(body)
    assert (read_facts.model, read_facts.output_max, read_facts.is_stream) == ("gpt-5.2", 50, True)
    assert read_facts.movers.service_tier == "flex"
    assert read_facts.input == InputFacts(len(body))
    assert facts().output_max is None


@pytest.mark.parametrize(
    "fields",
    [
        {"background": True},
        {"conversation": "conv_1"},
        {"conversation": {"id": "conv_1"}},
        {"prompt": {"id": "pmpt_1"}},
        {"reasoning": {"mode": "pro"}},
        {"reasoning": {"mode": ["pro"]}},
        {"input": [{"type": "item_reference", "id": "msg_1"}]},
        {"input": [{"id": "msg_1"}]},
        {"input": [{"role": "user", "content": [{"type": "input_image", "file_id": "file-1"}]}]},
        {"input": [{"role": "user", "content": [{"type": "input_audio", "input_audio": {}}]}]},
        {"tools": [{"type": "code_interpreter", "container": {"type": "auto"}}]},
        {"tools": [{"type": "file_search", "vector_store_ids": ["vs_1"]}]},
        {"tools": [{"type": "image_generation"}]},
        {"tools": [{"type": "mcp", "server_label": "x"}]},
        {"tools": [{"type": "shell", "environment": {"type": "container_auto"}}]},
        {"tools": [{"type": "shell"}]},
        {"tools": [{"type": "namespace", "tools": [{"type": "mcp"}]}]},
        {"tools": [{"type": ["function"]}]},
        {"search_parameters": {"mode": "on"}},
        {"prompt_cache_options": {"ttl": "24h"}},
    ],
)
def test_what_cannot_be_metered_is_refused_by_name(fields: dict[str, Any]) -> None:
    assert "cannot be used through this proxy" in refusal(**fields).message


@pytest.mark.parametrize(
    "fields",
    [
        {"background": False, "previous_response_id": None, "store": False},
        {"reasoning": {"effort": "high", "summary": "auto"}},
        {"tools": [{"type": "function", "name": "f"}, {"type": "custom", "name": "c"}]},
        {"tools": [{"type": "shell", "environment": {"type": "local"}}]},
        {"tools": [{"type": "namespace", "tools": [{"type": "function", "name": "f"}]}]},
        {"tools": [{"type": "local_shell"}, {"type": "apply_patch"}, {"type": "computer"}]},
        {"input": [{"id": "rs_1", "type": "reasoning", "encrypted_content": "x", "summary": []}]},
        {"input": [{"type": "function_call_output", "call_id": "c", "output": "file_id"}]},
        {"metadata": {"previous_response_id": "x"}},
        {"previous_response_id": "resp_1"},
        {"input": [{"type": "image_generation_call", "id": "ig_1", "result": "aGk="}]},
    ],
)
def test_everything_else_passes(fields: dict[str, Any]) -> None:
    assert facts(**fields).searches == 0


def test_web_searches_are_counted_as_they_may_come() -> None:
    tool = {"type": "web_search_preview"}
    searching = facts(tools=[tool])
    assert searching.searches == 10
    assert (searching.input.has_tools, searching.input.rereads) == (True, "tools: web_search")
    assert facts(tools=[{"type": "web_search"}], max_tool_calls=2).searches == 2


def test_linked_images_and_files_in_the_input_are_counted() -> None:
    content = [
        {"type": "input_image", "image_url": "https://example.com/x.png"},
        {"type": "input_file", "file_url": "https://example.com/x.pdf"},
    ]
    messages = [{"role": "user", "content": content}]
    body = encode(input=messages)
    assert RESPONSES.read_request(body).input == InputFacts(len(body), media=2)


# --- plain answers ---


def test_cached_and_written_tokens_are_taken_out_of_the_fresh_input() -> None:
    reading = read(usage=usage(1000, 200, cached=600, written=100, reasoning=150))
    assert reading.usage is not None
    wanted = Leg(input=300, cache_read=600, cache_write=100, output=200, reasoning=150)
    assert reading.usage.legs == (wanted,)
    assert (reading.is_final, reading.usage.service_tier) == (True, "default")
    assert reading.model == "gpt-5.2-2025-12-11"


def test_web_searches_are_billed_as_reported() -> None:
    reading = read(tool_usage={"web_search": {"num_requests": 3}, "image_gen": {}})
    assert reading.usage is not None
    assert reading.usage.legs[0].web_searches == 3


@pytest.mark.parametrize("tool_usage", [None, {}, {"web_search": None}, {"web_search": {}}])
def test_unreported_web_searches_are_counted_in_the_output(tool_usage: object) -> None:
    output = [
        {"type": "web_search_call", "action": {"type": "search", "query": "x"}},
        {"type": "web_search_call", "action": {"type": "open_page", "url": "x"}},
        {"type": "web_search_call"},
        {"type": "message", "content": []},
    ]
    reading = read(output=output, tool_usage=tool_usage)
    assert reading.usage is not None
    assert reading.usage.legs[0].web_searches == 2


def test_an_absurd_number_of_searches_makes_the_record_untrusted() -> None:
    reading = read(tool_usage={"web_search": {"num_requests": -3}})
    assert reading.usage is None
    assert reading.problem


def test_an_incomplete_answer_is_billed_and_a_failed_one_without_usage_is_not() -> None:
    assert read(status="incomplete").is_final
    failed = read(status="failed", error={"code": "server_error"}, usage=None, output=[])
    assert (failed.usage, failed.seen_bytes, failed.has_error) == (None, 0, True)


def test_an_answer_that_is_no_response_is_counted_by_its_bytes() -> None:
    assert RESPONSES.read_answer(b"[1]") == Reading(
        seen_bytes=3, problem="the answer is not the expected JSON"
    )


# --- streams ---


def event(kind: str, **fields: object) -> bytes:
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def run(*events: bytes) -> ResponseStreamReader:
    reader = RESPONSES.stream_reader(withholds_usage=True)
    for one in events:
        assert reader.events.feed(one) == one
    assert reader.events.finish() == b""
    return reader


BEGUN = [
    event("response.created", response=response(status="in_progress", usage=None, output=[])),
    event("response.in_progress", response=response(status="in_progress", usage=None, output=[])),
    event("response.output_item.added", item={"type": "message"}),
    event("response.output_text.delta", delta="Hello", sequence_number=4),
    event("response.function_call_arguments.delta", delta='{"a":1}'),
]


@pytest.mark.parametrize("count", [1, 2, 4])
@pytest.mark.parametrize("between", [b"", b" "])
def test_what_the_beginning_tells_counts_where_nothing_follows(count: int, between: bytes) -> None:
    first, *others = (one.replace(b'"type":', b'"type":' + between) for one in BEGUN)
    second = others[0].replace(b'"default"', b'"flex"')
    reader = run(first, second, *others[1:][: count - 2]) if count > 1 else run(first)
    reading = reader.reading()
    assert reading.model == "gpt-5.2-2025-12-11"
    assert reading.movers.service_tier == ("default" if count == 1 else "flex")
    assert (reading.usage, reading.is_final) == (None, False)
    assert reader.reading() == reading


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_usage_comes_with_the_last_event(end: str) -> None:
    reader = run(*BEGUN, event(f"response.{end}", response=response(status=end)))
    reading = reader.reading()
    assert (reader.is_complete, reader.is_over, reading.is_final) == (True, True, True)
    assert reading.usage is not None
    assert reading.usage.legs == (Leg(input=100, output=20),)
    assert reading.has_error is (end == "failed")


def test_a_stream_without_its_last_event_is_estimated() -> None:
    reader = run(*BEGUN)
    reading = reader.reading()
    assert (reader.is_complete, reading.is_final, reading.usage) == (False, False, None)
    assert reading.seen_bytes == len("Hello") + len('{\\"a\\":1}')


def test_a_failed_stream_without_usage_has_none() -> None:
    failed = response(status="failed", usage=None, output=[], error={"code": "server_error"})
    reader = run(BEGUN[0], event("response.failed", response=failed))
    reading = reader.reading()
    assert (reading.has_error, reading.is_final, reading.seen_bytes) == (True, False, 0)


def test_an_error_event_is_seen_and_is_no_end() -> None:
    reader = run(*BEGUN, event("error", code="server_error", message="x"))
    assert (reader.is_complete, reader.reading().has_error) == (False, True)


def test_done_and_what_is_no_json_change_nothing() -> None:
    reader = run(*BEGUN, b"data: [DONE]\n\n")
    assert not reader.is_complete
    assert run(b"data: oops\n\n").reading().seen_bytes == 4


def test_the_id_of_an_answer_is_read_where_its_provider_keeps_it() -> None:
    assert read().response_id == "resp_1"
    assert read(store=True).response_id == "resp_1"
    assert read(store=False).response_id is None
    for odd in (None, 5, ""):
        assert read(id=odd).response_id is None
    assert read(usage=None).response_id is None


def test_the_id_of_a_stream_counts_only_with_its_last_event() -> None:
    reader = ResponseStreamReader()
    created = {"type": "response.created", "response": response(usage=None)}
    reader.events.feed(b"data: " + json.dumps(created).encode() + b"\n\n")
    assert reader.reading().response_id is None
    completed = {"type": "response.completed", "response": response()}
    reader.events.feed(b"data: " + json.dumps(completed).encode() + b"\n\n")
    assert reader.reading().response_id == "resp_1"
