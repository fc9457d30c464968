"""Whatever comes, from a client or a provider: an answer or a refusal, never another error."""

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from llmproxy.dialects.base import Endpoint, RequestFacts, estimated
from llmproxy.dialects.failures import classify
from llmproxy.dialects.families import faces_of
from llmproxy.errors import ApiError
from llmproxy.routes import endpoints_of

PROVIDERS = [("openai", "openai"), ("deepseek", "openai"), ("own", "openai")]
PROVIDERS += [("anthropic", "anthropic"), ("own", "anthropic")]
GEMINI = [method.make("m") for method in faces_of("gemini", "gemini")[0].by_model.values()]
ENDPOINTS: tuple[Endpoint, ...] = (
    *(endpoint for provider in PROVIDERS for endpoint in endpoints_of(*provider)),
    *GEMINI,
)
QUICK = settings(
    max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow], database=None
)
KEY_WORDS = """
    model stream stream_options max_tokens max_completion_tokens n type messages content role
    file file_id image_url input_audio audio url cache_control prompt_cache_options ttl tools
    function source system max_uses service_tier speed inference_geo prediction modalities usage
    choices delta finish_reason index error x_groq iterations message prompt_tokens total_tokens
    completion_tokens prompt_tokens_details cached_tokens input_tokens output_tokens cache_creation
    response output action tool_usage web_search num_requests delta data prompt best_of reasoning
    mode environment max_tool_calls server_tool_use cache_creation_input_tokens
    output_tokens_details input text tool_calls
    contents parts inlineData inline_data mimeType fileData fileUri file_uri functionCall args
    generationConfig generation_config maxOutputTokens candidateCount thinkingConfig serviceTier
    googleSearch searchTypes cachedContent requests generateContentRequest candidates finishReason
    usageMetadata promptTokenCount candidatesTokenCount totalTokenCount promptTokensDetails
    modality tokenCount modelVersion groundingMetadata webSearchQueries promptFeedback embedding
"""
TEXT_WORDS = """
    m file url 1h text user web_search_20250305 custom message_start message_delta message_stop
    content_block_delta error stop response.created response.completed response.failed
    response.output_text.delta web_search_call search namespace shell image/png AUDIO models/m
"""
KEYS = st.sampled_from(KEY_WORDS.split())
TEXTS = st.sampled_from([*TEXT_WORDS.split(), "", "\ud800x"])
LEAVES = st.one_of(
    st.none(), st.booleans(), st.integers(-2, 5), st.just(10**400), st.floats(), TEXTS
)
TREES: st.SearchStrategy[Any] = st.recursive(
    LEAVES,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS, inner, max_size=5),
    max_leaves=25,
)
OBJECTS = st.dictionaries(KEYS, TREES, max_size=8)
DATE_WORDS = """
    Wed , 21 Oct 2037 07:28:00 GMT - + -0000 +9999999 0 99999999999999999999 : 06-Nov-94 . ( ) PM
"""
DATE_PARTS = st.sampled_from([*DATE_WORDS.split(), " ", "  "])


def read(endpoint: Endpoint, body: bytes) -> RequestFacts | None:
    try:
        facts = endpoint.read_request(body)
    except ApiError as error:
        error.body("req_1").decode()
        return None
    sent = endpoint.upstream_body(body, facts, injects_usage=True)
    assert endpoint.read_request(sent).model == facts.model
    return facts


@given(OBJECTS)
@QUICK
def test_any_request_is_read_or_refused(fields: dict[str, Any]) -> None:
    for endpoint in ENDPOINTS:
        for whole in (fields, {**fields, "model": "m", "stream": True, "n": None}):
            read(endpoint, json.dumps(whole).encode())


@given(st.binary(max_size=200))
@QUICK
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    for endpoint in ENDPOINTS:
        for whole in (body, b'{"model":"m",%b}' % body, b'{"model":"%b"}' % body):
            read(endpoint, whole)


@given(TREES, st.binary(max_size=100))
@QUICK
def test_any_answer_is_read(tree: Any, junk: bytes) -> None:  # noqa: ANN401
    text = json.dumps(tree).encode()
    for body in (text, junk, text[: len(junk)], text + junk):
        classify(429, {"retry-after": "x"}, body, now_ms=0)
        for endpoint in ENDPOINTS:
            estimated(endpoint.read_answer(body), 10, 10)


@given(st.text(max_size=80) | st.lists(DATE_PARTS, max_size=9).map("".join))
@QUICK
def test_any_time_to_wait_is_read(told: str) -> None:
    told_s = classify(429, {"retry-after": told}, b"", now_ms=0).retry_after_s
    assert told_s is None or 1 <= told_s <= 3600


@given(st.lists(OBJECTS | st.binary(max_size=30), max_size=6), st.lists(st.integers(1, 60)))
@QUICK
def test_any_stream_is_read(events: list[Any], cuts: list[int]) -> None:
    lines = [
        b"data: " + (event if isinstance(event, bytes) else json.dumps(event).encode()) + b"\n\n"
        for event in events
    ]
    stream = b"event: x\n" + b"".join(lines)
    for endpoint in ENDPOINTS:
        for withholds in (True, False):
            reader = endpoint.stream_reader(withholds_usage=withholds)
            rest = stream
            for cut in cuts:
                reader.events.feed(rest[:cut])
                rest = rest[cut:]
                estimated(reader.reading(), 10, 10)
            reader.events.feed(rest)
            reader.events.finish()
            estimated(reader.reading(), 10, 10)
