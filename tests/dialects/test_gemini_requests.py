"""Gemini's own API: what a request may cost, and what cannot be metered."""

import base64
import json
from typing import Any

import pytest

from llmproxy.dialects.base import InputFacts, RequestFacts
from llmproxy.dialects.gemini_contents import GENERATE, STREAM, GeminiContents
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
from tests.support.forms import wav
from tests.support.reading import refusal_of

MODEL = "gemini-2.5-flash"
CONTENTS = GeminiContents(GENERATE, MODEL)
STREAMED = GeminiContents(STREAM, MODEL)
HI = [{"role": "user", "parts": [{"text": "hi"}]}]
PNG = base64.b64encode(b"\x89PNG" + b"x" * 300).decode()


def encode(**fields: object) -> bytes:
    return json.dumps({"contents": HI, **fields}).encode()


def facts(**fields: object) -> RequestFacts:
    return CONTENTS.read_request(encode(**fields))


def with_part(part: object) -> RequestFacts:
    return facts(contents=[{"parts": [{"text": "look"}, part]}])


def refused(**fields: object) -> ApiError:
    return refusal_of(CONTENTS, encode(**fields), "gemini")


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


# --- contents ---


@pytest.mark.parametrize("name", ["inlineData", "inline_data"])
@pytest.mark.parametrize("kind", ["mimeType", "mime_type"])
def test_an_image_counts_flat_and_not_by_its_bytes(name: str, kind: str) -> None:
    contents = [{"parts": [{name: {kind: "image/png", "data": PNG}}]}]
    body = encode(contents=contents)
    read = CONTENTS.read_request(body)
    assert (read.input.media, read.input.text_bytes) == (1, len(body) - len(PNG))
    assert read.media == ("input_image", "output_image")


def test_the_pages_of_a_pdf_count() -> None:
    pdf = base64.b64encode(b"%PDF-1.4\n" + b"<< /Type /Page >>\n" * 3).decode()
    read = with_part({"inlineData": {"mimeType": "application/pdf", "data": pdf}})
    assert (read.input.pdf_pages, read.input.media) == (3, 0)
    assert "input_image" in read.media


def test_text_in_base64_counts_by_its_bytes() -> None:
    contents = [{"parts": [{"inlineData": {"mimeType": "text/csv", "data": "YSxi" * 99}}]}]
    body = encode(contents=contents)
    assert CONTENTS.read_request(body).input == InputFacts(len(body))


@pytest.mark.parametrize("where", ["system", "answer of a tool", "one content", "one part"])
def test_an_image_counts_wherever_it_stands(where: str) -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    answer = {"functionResponse": {"name": "f", "response": {"a": 1}, "parts": [image]}}
    read = {
        "system": lambda: facts(systemInstruction={"parts": [image]}),
        "answer of a tool": lambda: with_part(answer),
        "one content": lambda: facts(contents={"parts": [image]}),
        "one part": lambda: facts(contents={"parts": image}),
    }[where]()
    assert read.input.media == 1


def test_the_words_of_a_tool_are_not_looked_into() -> None:
    own = {"fileData": {"fileUri": "files/x"}, "InlineData": 1, "inlineData": 2, "inline_data": 3}
    with_part({"functionCall": {"name": "f", "args": own}})
    with_part({"functionResponse": {"name": "f", "response": own}})
    facts(tools=[{"functionDeclarations": [{"name": "f", "parameters": own}]}])


@pytest.mark.parametrize(
    ("kind", "content", "tokens", "unsure"),
    [
        # Two seconds and a sample, so three of 32 tokens.
        ("audio/wav", wav(16_001), 96, 0),
        ("audio/wav; rate=8000", wav(16_001), 96, 0),
        (" Audio/X-WAV", wav(16_001), 96, 0),
        # By their size: 16,047 bytes at 1,000 a second (a bit more in base64) are 17 seconds.
        ("audio/mp3", wav(16_001), 17 * 32, 1),
        ("audio/wav", b"x" * 16_047, 17 * 32, 1),
        # At 16,000 bytes a second 2; each of 300 tokens.
        ("video/mp4", b"x" * 16_047, 2 * 300, 1),
        ("Video/x", b"x" * 15_999, 300, 1),
    ],
)
def test_audio_and_video_count_by_their_length(
    kind: str, content: bytes, tokens: int, unsure: int
) -> None:
    data = base64.b64encode(content).decode()
    contents = [{"parts": [{"inlineData": {"mimeType": kind, "data": data}}]}]
    body = encode(contents=contents)
    read = CONTENTS.read_request(body)
    assert read.input == InputFacts(len(body) - len(data), clip_tokens=tokens, unsure_clips=unsure)
    assert read.media == ("input_audio", "input_image", "output_image")


def test_audio_in_a_large_body_counts_alike() -> None:
    """Of long texts only the beginning is kept; an escape does not change what it says."""
    data = base64.b64encode(wav(799_990)).decode()
    contents = [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": data}}]}]
    body = encode(contents=contents)
    read = CONTENTS.read_request(body)
    assert read.input == InputFacts(len(body) - len(data), clip_tokens=100 * 32)
    escaped = body.replace(data[:4].encode(), b"\\u0055" + data[1:4].encode())
    assert CONTENTS.read_request(escaped).input.clip_tokens == 100 * 32
    assert CONTENTS.read_request(escaped).input.unsure_clips == 0


def test_what_is_no_base64_is_no_wav() -> None:
    read = with_part({"inlineData": {"mimeType": "audio/wav", "data": "!" * 400}})
    assert (read.input.clip_tokens, read.input.unsure_clips) == (32, 1)


def test_data_that_are_no_text_count_by_their_bytes() -> None:
    contents = [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": 7}}]}]
    body = encode(contents=contents)
    assert CONTENTS.read_request(body).input == InputFacts(len(body))


@pytest.mark.parametrize(
    ("fps", "times"),
    [(1, 1), (0.5, 1), (2, 2), (2.1, 3), (24, 24), (99, 24), ("2", 24), (True, 24)],
)
@pytest.mark.parametrize("name", ["videoMetadata", "video_metadata"])
def test_more_frames_of_a_video_count_more(name: str, fps: object, times: int) -> None:
    video = {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}, name: {"fps": fps}}
    assert with_part(video).input.clip_tokens == 300 * times


@pytest.mark.parametrize(
    "uri",
    [
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "files/abc",
        "gs://bucket/x.png",
        "https://www.youtube.com/watch?v=x",
        "https://youtu.be/x",
        "https://WWW.YouTube.com./watch",
        "https://storage.googleapis.com/x.png",
        "https://[",
        7,
    ],
)
@pytest.mark.parametrize("name", ["fileData", "file_data"])
def test_files_at_google_and_videos_are_refused(name: str, uri: object) -> None:
    with pytest.raises(ApiError, match="fileData") as caught:
        with_part({name: {"fileUri": uri, "mimeType": "image/png"}})
    assert caught.value.code == "option_not_metered"


def test_a_link_to_an_image_counts_flat() -> None:
    read = with_part({"file_data": {"file_uri": "https://example.com/a", "mime_type": "image/png"}})
    assert read.input.media == 1


@pytest.mark.parametrize("kind", [None, "text/html", "video/mp4", 7])
def test_a_link_to_anything_else_is_refused(kind: object) -> None:
    with pytest.raises(ApiError):
        with_part({"fileData": {"fileUri": "https://example.com/a", "mimeType": kind}})


@pytest.mark.parametrize("name", ["cachedContent", "cached_content"])
def test_what_google_keeps_is_refused(name: str) -> None:
    assert refused(**{name: "cachedContents/x"}).code == "option_not_metered"


@pytest.mark.parametrize("kinds", [["VIDEO"], ["TEXT", "video"], "MODALITY_UNSPECIFIED", [2]])
def test_output_of_an_unknown_kind_is_refused(kinds: object) -> None:
    assert refused(generationConfig={"responseModalities": kinds}).code == "option_not_metered"


@pytest.mark.parametrize(
    ("config", "media"),
    [
        ({}, ("output_image",)),
        ({"responseModalities": []}, ("output_image",)),
        ({"responseModalities": ["Text"]}, ()),
        ({"response_modalities": "TEXT"}, ()),
        ({"responseModalities": ["TEXT", "image"]}, ("output_image",)),
        ({"response_modalities": "AUDIO"}, ("output_audio",)),
        ({"responseModalities": ["Audio", "IMAGE"]}, ("output_image", "output_audio")),
    ],
)
def test_images_may_come_unless_others_alone_are_asked_for(
    config: dict[str, Any], media: tuple[str, ...]
) -> None:
    read = facts(generationConfig=config)
    assert read.media == media
    # What is no text cannot be counted as it passes: of a stream all is held.
    asks = "responseModalities" in config or "response_modalities" in config
    assert read.hides_output == (asks and bool(media) and config != {"responseModalities": []})


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
