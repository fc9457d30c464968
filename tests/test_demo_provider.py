"""The demo provider, as the providers' own SDKs see it."""

# ruff: noqa: ANN401 - the SDKs' overloads are wider than what the tests need.

import http.client
import json
import time
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest

from llmproxy.demo.provider import DemoProvider
from tests.support.demo import RunningDemo

LONG = "All work and no play makes a dull prompt. " * 200  # 8,400 characters, 2,100 tokens


@pytest.fixture
def demo() -> Iterator[DemoProvider]:
    with RunningDemo() as running:
        yield running.provider


@pytest.fixture
def gpt(demo: DemoProvider) -> Iterator[openai.OpenAI]:
    with openai.OpenAI(base_url=demo.openai_base_url, api_key="sk-demo", max_retries=0) as client:
        yield client


@pytest.fixture
def claude(demo: DemoProvider) -> Iterator[anthropic.Anthropic]:
    url = demo.anthropic_base_url
    with anthropic.Anthropic(base_url=url, api_key="sk-demo", max_retries=0) as client:
        yield client


def chat(client: openai.OpenAI, text: str, model: str = "gpt-4o", **options: Any) -> Any:
    message: Any = {"role": "user", "content": text}
    return client.chat.completions.create(model=model, messages=[message], **options)


def create(client: anthropic.Anthropic, content: Any, **options: Any) -> Any:
    options = {"model": "claude-sonnet-5-5", "max_tokens": 500, **options}
    return client.messages.create(messages=[{"role": "user", "content": content}], **options)


def raw(demo: DemoProvider, method: str, path: str, body: Any = None, **headers: str) -> Any:
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=5)
    headers = {name.replace("_", "-"): value for name, value in headers.items()}
    connection.request(method, path, body, {"authorization": "Bearer sk-demo", **headers})
    response = connection.getresponse()
    answer = response.status, dict(response.getheaders()), response.read()
    connection.close()
    return answer


def test_a_chat_completion_counts_four_characters_as_a_token(
    gpt: openai.OpenAI,
) -> None:
    answer = chat(gpt, "Tell me a joke")
    text = answer.choices[0].message.content
    assert "?" in text or "." in text
    assert answer.choices[0].finish_reason == "stop"
    assert answer.usage.prompt_tokens == -(-len("user: Tell me a joke\n") // 4)
    assert answer.usage.completion_tokens == -(-len(text) // 4)
    assert answer.usage.total_tokens == answer.usage.prompt_tokens + answer.usage.completion_tokens


def test_the_same_request_gets_the_same_answer(gpt: openai.OpenAI) -> None:
    assert chat(gpt, "Write a haiku") == chat(gpt, "Write a haiku")
    assert chat(gpt, "Write a haiku") != chat(gpt, "Write another haiku")


def test_a_stream_says_what_the_plain_answer_says(gpt: openai.OpenAI) -> None:
    plain = chat(gpt, "Write a haiku")
    chunks = list(chat(gpt, "Write a haiku", stream=True))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
    assert text == plain.choices[0].message.content
    assert chunks[-1].choices[0].finish_reason == "stop"
    assert all(chunk.usage is None for chunk in chunks)


def test_a_stream_ends_with_usage_only_when_asked(gpt: openai.OpenAI) -> None:
    plain = chat(gpt, "hello")
    chunks = list(chat(gpt, "hello", stream=True, stream_options={"include_usage": True}))
    assert chunks[-1].choices == []
    assert chunks[-1].usage == plain.usage
    assert all("usage" in chunk.model_fields_set for chunk in chunks)
    assert all(chunk.usage is None for chunk in chunks[:-1])
    unasked = list(chat(gpt, "hello", stream=True))
    assert not any("usage" in chunk.model_fields_set for chunk in unasked)


def test_a_chat_stream_is_data_lines_that_end_with_done(demo: DemoProvider) -> None:
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    status, headers, sent = raw(demo, "POST", "/v1/chat/completions", json.dumps(body))
    assert status == 200
    assert headers["content-type"].startswith("text/event-stream")
    assert sent.endswith(b"data: [DONE]\n\n")
    assert all(event.startswith(b"data: ") for event in sent.split(b"\n\n")[:-1])


def test_max_tokens_cuts_the_answer_and_says_length(gpt: openai.OpenAI) -> None:
    answer = chat(gpt, "Write 100 words", max_tokens=7)
    assert answer.usage.completion_tokens == 7
    assert len(answer.choices[0].message.content) == 28
    assert answer.choices[0].finish_reason == "length"


def test_a_stop_sequence_ends_the_answer_before_it(gpt: openai.OpenAI) -> None:
    answer = chat(gpt, "Write 100 words", stop=["ledger", "word"])
    assert answer.choices[0].message.content == "the meter counts each "
    assert answer.choices[0].finish_reason == "stop"


@pytest.mark.parametrize("model", ["o4-mini", "gpt-5-mini"])
def test_reasoning_tokens_are_inside_the_completion_tokens(gpt: openai.OpenAI, model: str) -> None:
    plain, reasoned = chat(gpt, "hello"), chat(gpt, "hello", model)
    reasoning = reasoned.usage.completion_tokens_details.reasoning_tokens
    assert reasoning > 0
    assert reasoned.usage.completion_tokens == plain.usage.completion_tokens + reasoning
    cut = chat(gpt, "hello", model, max_completion_tokens=10)
    assert cut.choices[0].message.content == ""
    assert cut.usage.completion_tokens == 10
    assert cut.choices[0].finish_reason == "length"


def test_n_choices_share_one_usage(gpt: openai.OpenAI) -> None:
    one, three = chat(gpt, "hello"), chat(gpt, "hello", n=3)
    assert [choice.index for choice in three.choices] == [0, 1, 2]
    assert three.usage.completion_tokens == 3 * one.usage.completion_tokens


def test_a_long_prompt_prefix_is_cached_the_second_time(gpt: openai.OpenAI) -> None:
    first, second = chat(gpt, LONG + "one"), chat(gpt, LONG + "two")
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    assert second.usage.prompt_tokens_details.cached_tokens == 2048
    assert second.usage.prompt_tokens == first.usage.prompt_tokens
    assert chat(gpt, "hello").usage.prompt_tokens_details.cached_tokens == 0
    assert chat(gpt, LONG, "gpt-4o-mini").usage.prompt_tokens_details.cached_tokens == 0


def test_a_message_answers_and_counts(claude: anthropic.Anthropic) -> None:
    answer = create(claude, "Tell me a joke")
    assert answer.stop_reason == "end_turn"
    assert answer.usage.input_tokens == -(-len("user: Tell me a joke\n") // 4)
    assert answer.usage.output_tokens == -(-len(answer.content[0].text) // 4)
    assert answer.usage.cache_read_input_tokens == 0


def test_a_message_stream_has_the_named_events_in_order(claude: anthropic.Anthropic) -> None:
    plain = create(claude, "Write a haiku")
    events = list(create(claude, "Write a haiku", stream=True))
    names = [event.type for event in events if event.type != "content_block_delta"]
    assert names == [
        "message_start",
        "content_block_start",
        "content_block_stop",
        "message_delta",
        "message_stop",
    ]
    text = "".join(event.delta.text for event in events if event.type == "content_block_delta")
    assert text == plain.content[0].text
    assert events[0].message.usage.output_tokens == 1
    assert events[-2].usage.output_tokens == plain.usage.output_tokens
    assert events[-2].usage.input_tokens == plain.usage.input_tokens


def test_a_message_stream_carries_pings(demo: DemoProvider) -> None:
    messages = [{"role": "user", "content": "hi"}]
    body = {"model": "claude-haiku-5-5", "max_tokens": 9, "stream": True, "messages": messages}
    sent = raw(demo, "POST", "/v1/messages", json.dumps(body), anthropic_version="2023-06-01")[2]
    assert b'event: ping\ndata: {"type":"ping"}\n\n' in sent
    assert sent.endswith(b'event: message_stop\ndata: {"type":"message_stop"}\n\n')


def test_a_message_says_why_it_ended(claude: anthropic.Anthropic) -> None:
    assert create(claude, "Write 100 words", max_tokens=3).stop_reason == "max_tokens"
    stopped = create(claude, "Write 100 words", stop_sequences=["counts"])
    assert (stopped.stop_reason, stopped.stop_sequence) == ("stop_sequence", "counts")
    warmed = create(claude, "Write 100 words", max_tokens=0)
    assert (warmed.content, warmed.usage.output_tokens) == ([], 0)


@pytest.mark.parametrize("ttl", ["5m", "1h"])
def test_a_marked_prefix_is_written_to_the_cache_and_then_read(
    claude: anthropic.Anthropic, ttl: str
) -> None:
    marked = {"type": "text", "text": LONG, "cache_control": {"type": "ephemeral", "ttl": ttl}}
    first = create(claude, [marked, {"type": "text", "text": "first"}]).usage
    second = create(claude, [marked, {"type": "text", "text": "again"}]).usage
    assert first.cache_creation_input_tokens > 2000
    assert first.cache_read_input_tokens == 0
    assert getattr(first.cache_creation, f"ephemeral_{ttl}_input_tokens") > 2000
    assert second.cache_read_input_tokens == first.cache_creation_input_tokens
    assert second.cache_creation_input_tokens == 0
    assert second.input_tokens == first.input_tokens < 10
    streamed = list(create(claude, [marked], stream=True))
    assert streamed[-2].usage.cache_read_input_tokens == second.cache_read_input_tokens


def test_counting_tokens_agrees_with_the_usage(claude: anthropic.Anthropic) -> None:
    messages: Any = [{"role": "user", "content": LONG}]
    counted = claude.messages.count_tokens(model="claude-sonnet-5-5", messages=messages)
    assert counted.input_tokens == create(claude, LONG).usage.input_tokens


def test_models_are_listed_in_the_dialect_of_the_client(
    gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    assert "gpt-4o" in [model.id for model in gpt.models.list()]
    listed = raw_models(claude)
    assert [model["type"] for model in listed["data"]] == ["model"] * len(listed["data"])
    assert listed["first_id"].startswith("claude-")


def raw_models(claude: anthropic.Anthropic) -> Any:
    return claude.models.with_raw_response.list().http_response.json()


def test_a_bad_key_is_refused_in_the_dialect_of_the_client(
    gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.AuthenticationError) as openai_error:
        chat(gpt.with_options(api_key="sk-demo-bad-0123456789"), "hi")
    assert openai_error.value.code == "invalid_api_key"
    assert "sk-demo-bad-0123456789" not in str(openai_error.value)
    with pytest.raises(anthropic.AuthenticationError, match="authentication_error"):
        create(claude.with_options(api_key="sk-demo-bad"), "hi")


def test_a_key_without_credit_is_refused_in_the_dialect_of_the_client(
    gpt: openai.OpenAI, claude: anthropic.Anthropic
) -> None:
    with pytest.raises(openai.RateLimitError) as openai_error:
        chat(gpt.with_options(api_key="sk-demo-quota"), "hi")
    assert (openai_error.value.type, openai_error.value.code) == ("insufficient_quota",) * 2
    with pytest.raises(anthropic.BadRequestError, match="credit balance is too low"):
        create(claude.with_options(api_key="sk-demo-quota"), "hi")


def test_an_unknown_model_is_not_found(gpt: openai.OpenAI, claude: anthropic.Anthropic) -> None:
    with pytest.raises(openai.NotFoundError) as openai_error:
        chat(gpt, "hi", "gpt-missing")
    assert openai_error.value.code == "model_not_found"
    with pytest.raises(anthropic.NotFoundError, match="claude-missing"):
        create(claude, "hi", model="claude-missing")


@pytest.mark.parametrize(
    ("body", "message", "param"),
    [
        ("{", "We could not parse the JSON body of your request.", None),
        (b'{"model": "\xff"}', "We could not parse the JSON body of your request.", None),
        ("{}", "you must provide a model parameter", None),
        ('{"model": "gpt-4o"}', "Missing required parameter: 'messages'.", "messages"),
        ('{"model": "gpt-4o", "max_tokens": "x"}', None, "max_tokens"),
        ('{"model": "gpt-4o", "max_tokens": 0}', None, "max_tokens"),
    ],
)
def test_a_wrong_chat_body_is_answered_400(
    demo: DemoProvider, body: Any, message: str | None, param: str | None
) -> None:
    status, _, sent = raw(demo, "POST", "/v1/chat/completions", body)
    error = json.loads(sent)["error"]
    assert status == 400
    assert error["type"] == "invalid_request_error"
    assert message is None or error["message"] == message
    assert error["param"] == param


@pytest.mark.parametrize(
    ("body", "message"),
    [
        ("{", "The request body is not valid JSON"),
        ('{"max_tokens": 1, "messages": []}', "model: Field required"),
        ('{"model": "c", "max_tokens": 1}', "messages: Field required"),
        ('{"model": "c", "messages": [{"role": "user", "content": ""}]}', "max_tokens: Field"),
    ],
)
def test_a_wrong_message_body_is_answered_400(demo: DemoProvider, body: str, message: str) -> None:
    status, _, sent = raw(demo, "POST", "/v1/messages", body)
    answer = json.loads(sent)
    assert (status, answer["type"]) == (400, "error")
    assert answer["error"]["type"] == "invalid_request_error"
    assert answer["error"]["message"].startswith(message)


def test_an_unknown_path_is_answered_404(demo: DemoProvider) -> None:
    status, _, sent = raw(demo, "GET", "/v1/nothing")
    assert (status, json.loads(sent)["error"]["message"]) == (404, "Invalid URL (GET /v1/nothing)")
    status, _, sent = raw(demo, "POST", "/v1/messages/nothing", "{}")
    assert (status, json.loads(sent)["error"]["type"]) == (404, "not_found_error")


def test_a_chunked_body_is_read(demo: DemoProvider) -> None:
    body = json.dumps({"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]})
    parts = iter([body[:20].encode(), body[20:].encode()])
    assert raw(demo, "POST", "/v1/chat/completions", parts)[0] == 200


def test_one_connection_serves_many_requests_and_each_is_counted(demo: DemoProvider) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", demo.port, timeout=5)
    sockets = set()
    for _ in range(3):
        connection.request("GET", "/v1/models", headers={"authorization": "Bearer sk-demo"})
        assert connection.getresponse().read()
        sockets.add(connection.sock.getsockname())
    connection.close()
    assert len(sockets) == 1
    assert demo.requests_seen == 3


def test_bytes_that_are_not_http_are_answered_400(demo: DemoProvider) -> None:
    status, headers, _ = raw(demo, "NONSENSE", "/v1/models")
    assert status == 400
    assert headers["connection"] == "close"


def test_stream_events_are_paced() -> None:
    with (
        RunningDemo(chunk_gap_s=0.03) as running,
        openai.OpenAI(base_url=running.provider.openai_base_url, api_key="sk-demo") as client,
    ):
        started = time.monotonic()  # the first event may be read late
        arrivals = [time.monotonic() for _ in chat(client, "Write 4 words", stream=True)]
    assert len(arrivals) == 6
    assert arrivals[-1] - started >= 5 * 0.03


def test_stopping_cuts_open_streams() -> None:
    running = RunningDemo(chunk_gap_s=30)
    connection = http.client.HTTPConnection("127.0.0.1", running.provider.port, timeout=5)
    body = {"model": "gpt-4o", "stream": True, "messages": [{"role": "user", "content": "hi"}]}
    headers = {"authorization": "Bearer sk-demo"}
    connection.request("POST", "/v1/chat/completions", json.dumps(body), headers)
    assert connection.getresponse().status == 200
    started = time.monotonic()
    running.stop()
    assert time.monotonic() - started < 3
    connection.close()
