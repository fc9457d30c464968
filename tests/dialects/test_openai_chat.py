"""Chat completions: what a request may cost, and what the body becomes on its way."""

import base64
import json
from typing import Any

import pytest

from llmproxy.dialects.base import InputFacts, RequestFacts
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.errors import ApiError
from llmproxy.routes import endpoints_of
from llmproxy.usage import TOKENS_MAX
from tests.support.reading import refusal_of

CHAT = OpenAIChat()
MESSAGES = [{"role": "user", "content": "hi"}]


def encode(**fields: object) -> bytes:
    return json.dumps({"model": "gpt-4o", "messages": MESSAGES, **fields}).encode()


def facts(**fields: object) -> RequestFacts:
    return CHAT.read_request(encode(**fields))


def refusal(**fields: object) -> ApiError:
    return refusal_of(CHAT, encode(**fields))


# --- requests ---


def test_a_plain_request_is_read() -> None:
    body = encode()
    read = CHAT.read_request(body)
    assert (read.model, read.is_stream, read.output_max, read.choices) == ("gpt-4o", False, None, 1)
    assert read.input == InputFacts(len(body))
    assert (read.asks_usage, read.has_stream_options) == (False, False)


@pytest.mark.parametrize(
    ("fields", "output_max"),
    [
        ({"max_tokens": 7}, 7),
        ({"max_completion_tokens": 9}, 9),
        ({"max_tokens": 7, "max_completion_tokens": 9}, 9),
        ({"max_tokens": 9, "max_completion_tokens": 7}, 9),
        ({"max_tokens": None, "max_completion_tokens": 7}, 7),
        ({"max_tokens": None}, None),
        ({"max_tokens": 0}, None),
        ({"max_tokens": 0, "max_completion_tokens": 7}, 7),
        ({"max_tokens": TOKENS_MAX}, TOKENS_MAX),
    ],
)
def test_the_larger_of_both_maxima_bounds_the_output(
    fields: dict[str, Any], output_max: int | None
) -> None:
    read = facts(**fields)
    assert (read.output_max, read.unread_max) == (output_max, None)


@pytest.mark.parametrize(
    ("fields", "of_own", "of_deepseek"),
    [
        ({"max_tokens": 7}, (7, None), (7, None)),
        ({"max_tokens": 7, "max_completion_tokens": 9}, (9, None), (9, None)),
        # What may not be read does not count; what surely is not is written in.
        ({"max_completion_tokens": 9}, (None, 9), (9, 9)),
        ({"max_completion_tokens": 9, "max_tokens": 0}, (None, 9), (9, 9)),
        ({"max_completion_tokens": 0}, (None, None), (None, None)),
        ({}, (None, None), (None, None)),
    ],
)
def test_a_maximum_that_the_provider_may_not_read_does_not_count(
    fields: dict[str, Any], of_own: tuple[int | None, ...], of_deepseek: tuple[int | None, ...]
) -> None:
    for name, expected in (("own", of_own), ("deepseek", of_deepseek)):
        chat, *_ = endpoints_of(name, "openai")
        read = chat.read_request(encode(**fields))
        assert (read.output_max, read.unread_max) == expected


@pytest.mark.parametrize("key", ["max_tokens", "max_completion_tokens"])
@pytest.mark.parametrize("value", [-1, TOKENS_MAX + 1, 10**30, 1.0, 1.5, True, False, "5", [5], {}])
def test_an_absurd_maximum_is_refused_by_name(key: str, value: object) -> None:
    assert refusal(**{key: value}).param == key


@pytest.mark.parametrize(("value", "choices"), [(None, 1), (1, 1), (128, 128)])
def test_n_multiplies_the_output(value: int | None, choices: int) -> None:
    assert facts(n=value).choices == choices


@pytest.mark.parametrize("value", [0, -1, 129, 2.0, True, "2"])
def test_an_absurd_n_is_refused(value: object) -> None:
    assert refusal(n=value).param == "n"


@pytest.mark.parametrize("value", [None, "", 5, ["gpt-4o"], "\ud800", "x" * 257])
def test_a_model_that_is_no_text_is_refused(value: object) -> None:
    assert refusal(model=value).param == "model"


@pytest.mark.parametrize("value", [1, 0, "true", []])
def test_a_stream_flag_that_is_no_boolean_is_refused(value: object) -> None:
    assert refusal(stream=value).param == "stream"


def test_the_service_tier_is_kept_for_the_price() -> None:
    assert facts(service_tier="priority").movers.service_tier == "priority"
    assert facts(service_tier=None).movers.service_tier is None
    assert refusal(service_tier=5).param == "service_tier"


AUDIO_PART = {"type": "input_audio", "input_audio": {"data": "", "format": "wav"}}
FILE_PART = {"type": "file", "file": {"file_id": "file-1"}}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"web_search_options": {}}, "web_search_options"),
        ({"modalities": ["text", "audio"]}, "modalities"),
        ({"modalities": "audio"}, "modalities"),
        ({"messages": [{"role": "user", "content": [AUDIO_PART]}]}, "input_audio"),
        ({"messages": [{"role": "user", "content": [FILE_PART]}]}, "file_id"),
    ],
)
def test_what_is_billed_beyond_the_reported_tokens_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    error = refusal(**fields)
    assert (error.code, error.param) == ("option_not_metered", param)


def part_of(part: dict[str, Any]) -> dict[str, Any]:
    return {"messages": [{"role": "user", "content": [part]}]}


def tool_of(**fields: object) -> dict[str, Any]:
    return {"tools": [{"type": "function", "function": {"name": "f"}}, fields]}


PDF = base64.b64encode(b"%PDF-1.4 /Type /Page ").decode()
LONG = {"mode": "explicit", "ttl": "24h"}


@pytest.mark.parametrize(
    ("fields", "param"),
    [
        ({"search_parameters": {"mode": "auto"}}, "search_parameters"),  # xAI
        ({"search_mode": "web"}, "search_mode"),
        ({"web_search": True}, "web_search"),
        ({"plugins": [{"id": "web"}]}, "plugins"),  # OpenRouter
        ({"models": ["o1-pro"]}, "models"),
        ({"compound_custom": {"tools": {}}}, "compound_custom"),  # Groq
        ({"deferred": True}, "deferred"),
        ({"extra_body": {"google": {}}}, "extra_body"),  # Gemini
        (tool_of(type="browser_search"), "tools: browser_search"),
        (tool_of(type="code_interpreter"), "tools: code_interpreter"),
        (tool_of(type="web_search", function={}), "tools: web_search"),
        (tool_of(type=["function"], function={}), "tools: type"),
        (tool_of(google_search={}), "tools: google_search"),
        (tool_of(function={}, google_search={}), "tools: google_search"),
        (tool_of(type="function", function={}, urlContext={}), "tools: urlContext"),
        ({"prompt_cache_options": LONG}, "prompt_cache_options.ttl"),
        (part_of({"type": "text", "prompt_cache_breakpoint": LONG}), "prompt_cache_breakpoint.ttl"),
        (part_of({"type": "text", "cache_control": {"ttl": 60}}), "cache_control.ttl"),
        (part_of({"type": "video_url", "video_url": {"url": "x"}}), "video_url"),
        (part_of({"type": "x", "content": [AUDIO_PART]}), "input_audio"),
        (part_of({"type": "x", "input_audio": {}}), "input_audio"),
        ({"messages": [{"role": "assistant", "audio": {"id": "audio_1"}}]}, "audio"),
        ({"messages": {"role": "user", "content": FILE_PART}}, "file_id"),
    ],
)
def test_what_some_provider_bills_by_the_search_or_unseen_is_refused_by_name(
    fields: dict[str, Any], param: str
) -> None:
    error = refusal(**fields)
    assert (error.code, error.param) == ("option_not_metered", param)
    assert error.message.startswith(f"`{param}` ")


@pytest.mark.parametrize(
    "model",
    [
        "gpt-4o-search-preview",
        "gpt-4o-mini-search-preview-2025-03-11",
        "gpt-5-search-api",
        "groq/compound",
        "compound-beta-mini",
        "Compound",
    ],
)
def test_models_that_search_the_web_unasked_are_refused(model: str) -> None:
    error = refusal(model=model)
    assert (error.code, error.param) == ("option_not_metered", f"model: {model}")


def test_escapes_do_not_hide_what_is_not_metered() -> None:
    audio = encode(**part_of(AUDIO_PART)).replace(b"input_audio", b"inp\\u0075t_audio")
    file = encode(**part_of(FILE_PART)).replace(b"file_id", b"\\u0066ile_id")
    search = encode(search_parameters={}).replace(b"search_", b"s\\u0065arch_")
    for body in (audio, file, search):
        with pytest.raises(ApiError) as caught:
            CHAT.read_request(body)
        assert caught.value.code == "option_not_metered"


def test_names_in_other_peoples_json_mean_nothing() -> None:
    innocent = {"type": "input_audio", "file_id": "x", "cache_control": {"ttl": "1h"}}
    tools = [{"type": "function", "function": {"name": "f", "parameters": innocent}}]
    call = {"id": "c", "type": "function", "function": {"name": "f", "arguments": innocent}}
    messages = [{"role": "assistant", "content": None, "tool_calls": [call]}]
    assert facts(tools=tools, messages=messages, response_format=innocent).model == "gpt-4o"


@pytest.mark.parametrize(
    "fields",
    [
        {"deferred": False, "web_search": False, "search_parameters": None},
        {"prompt_cache_options": {"mode": "implicit", "ttl": "30m"}},
        {"prompt_cache_options": {"mode": "implicit"}, "prompt_cache_retention": "24h"},
        part_of({"type": "text", "text": "x", "cache_control": {"type": "ephemeral"}}),
        {"tools": [{"type": "custom", "custom": {"name": "c"}}, {"function": {"name": "f"}}]},
        {"tools": "x"},
        {"tools": [1, None, []]},
        {"model": "compounds-of-nature"},
        part_of({"type": "file", "file": 5}),
        part_of({"type": ["file"], "file": None, "file_id": None}),
        {"modalities": ["text"]},
        {"modalities": None},
        {"web_search_options": None},
        {"messages": [{"role": "user", "content": "about input_audio and file_id"}]},
        {"messages": [{"role": "user", "content": '"input_audio" "file_id"'}]},
        {"messages": [{"content": [{"type": "file", "file": {"file_data": "x"}}]}], "x": "file_id"},
        {"messages": "nonsense"},
        {"messages": [1, None, {"content": [1, None]}]},
        {"reasoning_effort": "low", "anything_new": {"a": 1}},
    ],
)
def test_everything_else_passes(fields: dict[str, Any]) -> None:
    assert facts(**fields).choices == 1


def test_tools_images_and_predictions_are_told() -> None:
    body = encode(tools=[{"type": "function", "function": {"name": "f"}}])
    assert CHAT.read_request(body).input == InputFacts(len(body), has_tools=True)
    part = {"type": "image_url", "image_url": {"url": "https://example.org/x.png"}}
    body = encode(messages=[{"role": "user", "content": [part, part]}])
    assert CHAT.read_request(body).input == InputFacts(len(body), media=2)
    body = encode(prediction={"type": "content", "content": "abc"})
    assert CHAT.read_request(body).output_tokens_extra == len(body)


# --- the body on its way ---


def sent(body: bytes, *, injects_usage: bool = True) -> bytes:
    return CHAT.upstream_body(body, CHAT.read_request(body), injects_usage=injects_usage)


@pytest.mark.parametrize(
    "body",
    [
        b'{"model":"m"}',
        b'{"model":"m","stream":false}',
        b'{"model":"m","stream":null,"stream_options":{"include_usage":false}}',
        b'{ "model":"m", "stream":true, "stream_options":{"include_usage" : true}}',
        b'{"model":"m","stream":true,"stream_options":{"include_usage":true,"x":1}}',
    ],
)
def test_a_body_that_needs_nothing_stays_as_it_is(body: bytes) -> None:
    assert sent(body) == body


def test_nothing_is_written_for_a_provider_that_reports_usage_unasked() -> None:
    body = b'{"model":"m","stream":true}'
    assert sent(body, injects_usage=False) == body


MERGED = b'{"include_obfuscation":false,"include_usage":true}'
ASK = b'"stream_options":{"include_usage":true}'


@pytest.mark.parametrize(
    ("body", "wanted"),
    [
        (b'{"model":"m","stream":true}', b"{" + ASK + b',"model":"m","stream":true}'),
        (
            b'\n{ "model" : "\\u006d" ,\t"stream":true }\n',
            b"\n{" + ASK + b', "model" : "\\u006d" ,\t"stream":true }\n',
        ),
        (
            b'{"model":"m","stream":true,"stream_options":null}',
            b'{"model":"m","stream":true,' + ASK + b"}",
        ),
        (
            b'{"model":"m","stream":true,"stream_options":{}}',
            b'{"model":"m","stream":true,' + ASK + b"}",
        ),
        (
            b'{"model":"m","stream_options":{"include_usage":false},"stream":true}',
            b'{"model":"m",' + ASK + b',"stream":true}',
        ),
        (
            b'{"model":"m","stream_options": {"include_obfuscation": false} ,"stream":true}',
            b'{"model":"m","stream_options": %b ,"stream":true}' % MERGED,
        ),
        (
            b'{"model":"m","stream\\u005foptions":{"include_obfuscation":false},"stream":true}',
            b'{"model":"m","stream\\u005foptions":%b,"stream":true}' % MERGED,
        ),
        (
            b'{"model":"m","user":"\\"stream_options\\"","x":{"stream_options":1},"stream":true}',
            b"{" + ASK + b',"model":"m","user":"\\"stream_options\\"",'
            b'"x":{"stream_options":1},"stream":true}',
        ),
    ],
)
def test_usage_is_asked_for_and_every_other_byte_stays(body: bytes, wanted: bytes) -> None:
    assert sent(body) == wanted


@pytest.mark.parametrize(
    ("fields", "is_long"),
    [
        ({"prompt_cache_options": {"ttl": "12h"}}, True),  # OpenAI's
        (part_of({"type": "text", "prompt_cache_breakpoint": {"ttl": "12h"}}), True),
        (part_of({"type": "text", "cache_control": {"ttl": "1h"}}), True),  # OpenRouter's
        ({"cache_control": {"type": "ephemeral", "ttl": "1h"}}, True),
        (tool_of(type="function", function={}, cache_control={"ttl": "1h"}), True),
        (tool_of(type="function", function={"cache_control": {"ttl": "1h"}}), False),
        ({"prompt_cache_options": {"ttl": "30m"}}, False),
        (part_of({"type": "text", "cache_control": {"ttl": "5m"}}), False),
        ({}, False),
    ],
)
def test_what_is_cached_for_long_is_held_and_billed_at_its_price(
    fields: dict[str, Any], is_long: bool
) -> None:
    assert facts(**fields).may_write_cache_1h is is_long


def test_a_lifetime_without_a_price_is_refused_at_a_tool_too() -> None:
    marked = tool_of(type="function", function={}, cache_control={"ttl": "2h"})
    assert refusal(**marked).param == "cache_control.ttl"
    assert refusal(cache_control={"ttl": "2h"}).param == "cache_control.ttl"


def test_images_and_pdfs_may_cost_what_images_do() -> None:
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    file = {"type": "file", "file": {"file_data": f"data:application/pdf;base64,{PDF}"}}
    assert facts(**part_of(image)).media == ("input_image",)
    assert facts(**part_of(file)).media == ("input_image",)
    assert facts(**part_of({"type": "text", "text": "a"})).media == ()
