"""Gemini's own API: what a request may cost, and what cannot be metered."""

import base64
import json
from typing import Any

import pytest

from llmproxy.dialects.base import InputFacts, RequestFacts
from llmproxy.dialects.gemini_embeddings import (
    COUNT,
    EMBED,
    EMBED_BATCH,
    GeminiEmbeddings,
    GeminiTokenCount,
)
from llmproxy.dialects.json_gate import with_output_max_within
from llmproxy.errors import ApiError
from llmproxy.usage import TOKENS_MAX, Movers
from tests.support.gemini_requests import CONTENTS, MODEL, STREAMED, encode, facts, refused

PNG = base64.b64encode(b"\x89PNG" + b"x" * 300).decode()


def test_a_plain_request_is_read() -> None:
    body = encode()
    assert CONTENTS.read_request(body) == RequestFacts(
        model=MODEL,
        is_stream=False,
        output_max=None,
        choices=1,
        input=InputFacts(len(body)),
        movers=Movers(),
        may_write_cache=False,
        media=("output_image",),
        names_output=True,
        output_within="generationConfig",
    )
    assert CONTENTS.upstream_path == "/models/gemini-2.5-flash:generateContent"


def test_a_stream_may_be_events_or_an_array() -> None:
    read = STREAMED.read_request(encode())
    assert (read.is_stream, read.may_stream_array) == (True, True)
    assert STREAMED.upstream_path.endswith(":streamGenerateContent")


@pytest.mark.parametrize("outer", ["generationConfig", "generation_config"])
@pytest.mark.parametrize("inner", ["maxOutputTokens", "max_output_tokens"])
def test_both_spellings_bound_the_output(outer: str, inner: str) -> None:
    read = facts(**{outer: {inner: 7, "candidateCount": 3}})
    assert (read.output_max, read.choices, read.output_within) == (7, 3, outer)


@pytest.mark.parametrize(
    "fields",
    [
        {"generationConfig": {}, "generation_config": {}},
        {"generationConfig": {"maxOutputTokens": 1, "max_output_tokens": 9}},
        {"systemInstruction": {}, "system_instruction": {}},
        {"contents": [{"parts": [{"inlineData": {}, "inline_data": {}}]}]},
    ],
)
def test_what_is_there_in_both_spellings_is_ambiguous(fields: dict[str, Any]) -> None:
    assert "both spellings" in refused(**fields).message


@pytest.mark.parametrize(
    "fields",
    [
        {"GenerationConfig": {}},
        {"generation_Config": {}},
        {"generationConfig": {"maxoutputtokens": 9}},
        {"contents": [{"parts": [{"filedata": {}}]}]},
        {"CachedContent": "x"},
    ],
)
def test_a_third_spelling_is_refused(fields: dict[str, Any]) -> None:
    assert "must be written" in refused(**fields).message


@pytest.mark.parametrize("value", ["7", 7.0, -1, True, TOKENS_MAX + 1])
def test_a_maximum_is_a_whole_number(value: object) -> None:
    assert refused(generationConfig={"maxOutputTokens": value}).param == "maxOutputTokens"


@pytest.mark.parametrize("config", [[], "x", 1])
def test_a_config_is_an_object(config: object) -> None:
    assert refused(generationConfig=config).param == "generationConfig"


@pytest.mark.parametrize(
    ("thinking", "hides"),
    [
        (None, False),
        ({"thinkingBudget": 0}, False),
        ({"thinking_budget": 0}, False),
        ({"thinkingBudget": -1}, True),
        ({"thinkingBudget": 0, "thinkingLevel": "high"}, True),
        ({"includeThoughts": True}, True),
        ({}, True),
    ],
)
def test_thinking_may_hide_output(thinking: object, hides: bool) -> None:
    assert facts(generationConfig={"thinkingConfig": thinking}).hides_output == hides


@pytest.mark.parametrize("model", [MODEL, f"models/{MODEL}", None])
def test_the_body_may_name_the_model_of_the_path(model: object) -> None:
    assert facts(model=model).model == MODEL


@pytest.mark.parametrize("model", ["gemini-2.5-pro", "models/x", "", 7, f"tunedModels/{MODEL}"])
def test_the_body_may_name_no_other_model(model: object) -> None:
    assert refused(model=model).param == "model"


@pytest.mark.parametrize(
    ("given", "tier"),
    [("flex", "flex"), ("PRIORITY", "priority"), ("SERVICE_TIER_FLEX", "flex")],
)
@pytest.mark.parametrize("name", ["serviceTier", "service_tier"])
def test_a_service_tier_is_read(name: str, given: str, tier: str) -> None:
    assert facts(**{name: given}).movers == Movers(service_tier=tier)


def test_an_unspecified_tier_is_none() -> None:
    assert facts(serviceTier="unspecified").movers == Movers()


# --- tools ---


@pytest.mark.parametrize(
    "tool",
    [
        {"functionDeclarations": [{"name": "f"}]},
        {"function_declarations": [{"name": "f"}]},
        {"computerUse": {}},
        {"urlContext": None},
        {},
    ],
)
def test_tools_of_the_client_are_taken(tool: dict[str, Any]) -> None:
    assert facts(tools=[tool]).searches == 0
    assert facts(tools=tool).input.has_tools == bool(tool)


@pytest.mark.parametrize(
    "name",
    [
        *("urlContext", "url_context", "codeExecution", "code_execution", "googleMaps"),
        *("fileSearch", "googleSearchRetrieval", "enterpriseWebSearch", "mcpServers", "new_tool"),
    ],
)
def test_tools_that_run_at_google_are_refused(name: str) -> None:
    assert name in refused(tools=[{"functionDeclarations": []}, {name: {}}]).message


@pytest.mark.parametrize("name", ["googleSearch", "google_search"])
def test_a_web_search_is_held_for(name: str) -> None:
    read = facts(tools=[{name: {}}])
    assert read.searches == 10
    assert read.input.rereads == "tools: googleSearch"
    assert read.hides_output


def test_a_search_for_images_is_refused() -> None:
    kinds: dict[str, dict[str, str]] = {"webSearch": {}, "imageSearch": {}}
    assert "googleSearch" in refused(tools=[{"googleSearch": {"searchTypes": kinds}}]).message
    facts(tools=[{"googleSearch": {"search_types": {"web_search": {}}}}])


# --- a maximum that is written in ---


@pytest.mark.parametrize(
    ("body", "within", "wanted"),
    [
        ('{"contents":[]}', "generationConfig", '{"generationConfig":{"maxOutputTokens":50},"cont'),
        (
            '{ "generation_config" : {"temperature": 1.0e0 } }',
            "generation_config",
            '{ "generation_config" : {"maxOutputTokens":50,"temperature": 1.0e0 } }',
        ),
        (
            '{"generationConfig":{"max_output_tokens": 99 ,"x":"\\u00e9"}, "a": 1}',
            "generationConfig",
            '{"generationConfig":{"max_output_tokens": 50 ,"x":"\\u00e9"}, "a": 1}',
        ),
        (
            '{"generationConfig":{"x":1, "max_output_tokens":0}}',
            "generationConfig",
            '{"generationConfig":{"x":1, "max_output_tokens":50}}',
        ),
        (
            '{"generationConfig":{"maxOutputTokens":null}}',
            "generationConfig",
            '{"generationConfig":{"maxOutputTokens":50}}',
        ),
        (
            '{"generationConfig":null}',
            "generationConfig",
            '{"generationConfig":{"maxOutputTokens":50}}',
        ),
    ],
)
def test_a_maximum_is_written_where_it_belongs(body: str, within: str, wanted: str) -> None:
    members, read = CONTENTS.output_members, CONTENTS.read_output_members
    written = with_output_max_within(body.encode(), within, members, 50, read=read).decode()
    assert written.startswith(wanted)
    again = CONTENTS.read_request(written.encode())
    assert (again.output_max, again.output_within) == (50, within)


# --- embeddings, and the counting of tokens ---


def test_embeddings_are_read() -> None:
    one = GeminiEmbeddings(EMBED, "gemini-embedding-001")
    body = b'{"model":"models/gemini-embedding-001","content":{"parts":[{"text":"hi"}]}}'
    read = one.read_request(body)
    assert (read.model, read.output_max, read.input) == (
        "gemini-embedding-001",
        0,
        InputFacts(len(body)),
    )


@pytest.mark.parametrize(
    "fields",
    [
        {"model": "models/other", "content": {"parts": [{"text": "hi"}]}},
        {"content": {"parts": [{"inlineData": {"mimeType": "image/png", "data": PNG}}]}},
        {"requests": [{"model": "models/other"}]},
        {"requests": [{"content": {"parts": [{"file_data": {"file_uri": "x"}}]}}]},
        {"requests": [{"Content": {}}]},
    ],
)
def test_embeddings_of_other_models_and_of_media_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ApiError) as caught:
        GeminiEmbeddings(EMBED_BATCH, "m").read_request(json.dumps(fields).encode())
    assert caught.value.status == 400


@pytest.mark.parametrize(
    "fields",
    [
        {"cachedContent": "cachedContents/x"},
        {"generateContentRequest": {"model": "models/m", "cached_content": "cachedContents/x"}},
        {"generateContentRequest": {"model": "models/other"}},
        {"contents": [{"parts": [{"fileData": {"fileUri": "files/x"}}]}]},
        {"generateContentRequest": {"contents": {"parts": {"fileData": {"fileUri": "files/x"}}}}},
    ],
)
def test_nothing_that_is_kept_at_google_is_counted(fields: dict[str, Any]) -> None:
    counting = GeminiTokenCount(COUNT, "m")
    assert counting.is_free
    with pytest.raises(ApiError):
        counting.read_request(json.dumps(fields).encode())
