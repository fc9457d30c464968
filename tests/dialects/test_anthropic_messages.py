"""Anthropic messages: what a request may cost."""

import json
from typing import Any

import pytest

from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import InputFacts, RequestFacts
from llmproxy.errors import ApiError
from llmproxy.routes import endpoints_of
from llmproxy.usage import TOKENS_MAX, Movers
from tests.support.reading import refusal_of

MESSAGES = AnthropicMessages()


def encode(**fields: object) -> bytes:
    hi = [{"role": "user", "content": "hi"}]
    return json.dumps(
        {"model": "claude-sonnet-4-6", "max_tokens": 99, "messages": hi, **fields}
    ).encode()


def facts(**fields: object) -> RequestFacts:
    return MESSAGES.read_request(encode(**fields))


def refusal(**fields: object) -> ApiError:
    return refusal_of(MESSAGES, encode(**fields))


def test_a_plain_request_is_read() -> None:
    body = encode()
    assert MESSAGES.read_request(body) == RequestFacts(
        model="claude-sonnet-4-6",
        is_stream=False,
        output_max=99,
        choices=1,
        input=InputFacts(len(body)),
        movers=Movers(),
        may_write_cache=False,
    )


def test_what_moves_the_price_is_read() -> None:
    read = facts(stream=True, service_tier="auto", speed="fast", inference_geo="us")
    assert read.is_stream
    assert read.movers == Movers(service_tier="auto", speed="fast", geo="us")


@pytest.mark.parametrize("value", [0, 1, TOKENS_MAX])
def test_max_tokens_bounds_the_output_and_may_be_zero(value: int) -> None:
    assert facts(max_tokens=value).output_max == value


def test_only_anthropic_itself_is_known_to_answer_nothing_for_0() -> None:
    messages, *_ = endpoints_of("own", "anthropic")
    assert messages.read_request(encode(max_tokens=0)).output_max is None
    assert messages.read_request(encode(max_tokens=1)).output_max == 1


@pytest.mark.parametrize("value", [-1, TOKENS_MAX + 1, 10**30, 1.0, True, "5", []])
def test_an_absurd_max_tokens_is_refused(value: object) -> None:
    assert refusal(max_tokens=value).param == "max_tokens"


def test_a_request_without_max_tokens_is_bounded_by_the_model() -> None:
    assert facts(max_tokens=None).output_max is None


@pytest.mark.parametrize("key", ["model", "service_tier", "speed", "inference_geo"])
@pytest.mark.parametrize("value", [5, [], "", "\udfff", "x" * 257])
def test_a_field_that_is_no_text_is_refused_by_name(key: str, value: object) -> None:
    assert refusal(**{key: value}).param == key


def test_cache_writes_are_expected_where_the_body_asks_for_them() -> None:
    five, hour = {"type": "ephemeral"}, {"type": "ephemeral", "ttl": "1h"}
    read = facts(system=[{"type": "text", "text": "x", "cache_control": five}])
    assert (read.may_write_cache, read.may_write_cache_1h) == (True, False)
    read = facts(system=[{"type": "text", "text": "x", "cache_control": hour}])
    assert (read.may_write_cache, read.may_write_cache_1h) == (True, True)


HOUR = {"type": "ephemeral", "ttl": "1h"}
INNOCENT = {"cache_control": HOUR, "file_id": "x", "type": "url"}


@pytest.mark.parametrize(
    "fields",
    [
        {"cache_control": HOUR},
        {"tools": [{"name": "t", "cache_control": HOUR}]},
        {
            "messages": [
                {"content": [{"type": "tool_result", "content": [{"cache_control": HOUR}]}]}
            ]
        },
        {"system": [{"type": "text", "text": "x", "cache_control": {"ttl": "1y"}}]},
    ],
)
def test_cache_marks_are_found_wherever_they_stand_and_however_spelled(
    fields: dict[str, Any],
) -> None:
    plain = encode(**fields)
    escaped = plain.replace(b'"cache_control"', b'"cache_contr\\u006fl"')
    for body in (plain, escaped.replace(b'"1h"', b'"\\u0031h"')):
        read = MESSAGES.read_request(body)
        assert (read.may_write_cache, read.may_write_cache_1h) == (True, True)


def test_names_in_other_peoples_json_mean_nothing() -> None:
    use = {"type": "tool_use", "id": "t", "name": "t", "input": INNOCENT}
    tool = {"name": "t", "input_schema": INNOCENT, "input_examples": [INNOCENT]}
    body = encode(
        tools=[tool], messages=[{"role": "assistant", "content": [use]}], metadata=INNOCENT
    )
    read = MESSAGES.read_request(body)
    assert (read.may_write_cache, read.input) == (False, InputFacts(len(body), has_tools=True))


@pytest.mark.parametrize(
    "block",
    [
        {"type": "container_upload", "file_id": "file_1"},
        {"type": "container_upload"},
        {"type": "document", "source": {"type": "file", "file_id": "file_1"}},
    ],
)
def test_files_at_the_provider_are_refused_at_any_depth_and_however_spelled(
    block: dict[str, Any],
) -> None:
    source = {"type": "content", "content": [block]}
    for content in (
        [block],
        block,
        [{"type": "tool_result", "tool_use_id": "t", "content": [block]}],
        [{"type": "tool_result", "content": [{"type": "document", "source": source}]}],
    ):
        body = encode(messages=[{"role": "user", "content": content}])
        escaped = body.replace(b"file_id", b"f\\u0069le_id").replace(b'"file"', b'"fil\\u0065"')
        for spelled in (body, escaped):
            with pytest.raises(ApiError) as caught:
                MESSAGES.read_request(spelled)
            assert caught.value.param == "file_id"


@pytest.mark.parametrize(
    "key",
    ["fallbacks", "thread", "mcp_servers", "container", "billing_policy", "user_profile_id"],
)
def test_what_cannot_be_metered_is_refused_by_name(key: str) -> None:
    values: list[object] = [[], {}, "x", 0, [{"model": "claude-opus-4-8"}]]
    for value in values:
        error = refusal(**{key: value})
        assert (error.code, error.param) == ("option_not_metered", key)
    assert facts(**{key: None}).output_max == 99
    assert refusal(**{key.upper(): 1}).code == "invalid_request"  # no way around by its case


def test_files_that_lie_at_the_provider_are_refused() -> None:
    source = {"type": "file", "file_id": "file_1"}
    message = {"role": "user", "content": [{"type": "document", "source": source}]}
    assert refusal(messages=[message]).param == "file_id"
    assert facts(messages=[{"role": "user", "content": '"file" "file_id"'}]).output_max == 99


@pytest.mark.parametrize(
    "kind", [None, "custom", "bash_20250124", "text_editor_20250728", "computer_x", "memory_2025"]
)
def test_tools_that_the_client_runs_pass(kind: str | None) -> None:
    tool = {"name": "t", "input_schema": {}} | ({"type": kind} if kind else {})
    body = encode(tools=[tool])
    read = MESSAGES.read_request(body)
    assert (read.searches, read.input) == (0, InputFacts(len(body), has_tools=True))


@pytest.mark.parametrize(
    "kind", ["code_execution_20250825", "web_fetch_20250910", "advisor", "web", "x\ud800"]
)
def test_tools_that_run_at_the_provider_are_refused(kind: str) -> None:
    assert refusal(tools=[{"type": kind, "name": "t"}]).code == "option_not_metered"


@pytest.mark.parametrize(("uses", "searches"), [(None, 10), (3, 3), (0, 0)])
def test_web_searches_are_counted_as_they_may_come(uses: int | None, searches: int) -> None:
    tool = {"type": "web_search_20250305", "name": "web_search", "max_uses": uses}
    body = encode(tools=[tool])
    read = MESSAGES.read_request(body)
    assert read.searches == searches
    assert read.input.rereads == ("tools: web_search" if searches else None)


@pytest.mark.parametrize("uses", [-1, 1001, 1.0, True, "3"])
def test_an_absurd_number_of_searches_is_refused(uses: object) -> None:
    refusal(tools=[{"type": "web_search_20250305", "name": "s", "max_uses": uses}])


@pytest.mark.parametrize("tools", ["x", [1, None, "x"], {}, None])
def test_tools_of_an_odd_shape_are_the_providers_to_refuse(tools: Any) -> None:  # noqa: ANN401
    assert facts(tools=tools).searches == 0


def test_images_by_reference_are_counted() -> None:
    source = {"type": "url", "url": "https://example.org/x.png"}
    body = encode(messages=[{"content": [{"type": "image", "source": source}]}])
    assert MESSAGES.read_request(body).input == InputFacts(len(body), media=1)
    result = {"type": "tool_result", "tool_use_id": "t", "content": [{"source": source}]}
    body = encode(messages=[{"content": [result, {"type": "text", "text": '"url"'}]}])
    assert MESSAGES.read_request(body).input == InputFacts(len(body), media=1)


def test_the_body_is_never_changed() -> None:
    body = b' {"model":"m" ,"stream":true,"max_tokens":1}\n'
    read = MESSAGES.read_request(body)
    assert MESSAGES.upstream_body(body, read, injects_usage=True) == body
