"""Every endpoint of the demo provider in its true shape: the SDKs' own types are the measure."""

# ruff: noqa: ANN401 - the SDKs' overloads are wider than what the tests need.

import json
import math
from collections.abc import Iterator
from typing import Any

import anthropic
import openai
import pytest
from openai.types.responses import Response, ResponseStreamEvent
from pydantic import TypeAdapter

from llmproxy.demo.provider import DemoProvider
from tests.support.demo import RunningDemo

LONG = "All work and no play makes a dull prompt. " * 200  # 8,400 characters, 2,100 tokens
WEATHER = {
    "type": "object",
    "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
    "required": ["city", "days"],
}
CHAT_TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}
CLAUDE_TOOL: Any = {"name": "get_weather", "description": "it", "input_schema": WEATHER}
ASKED = "What is the weather in Paris?"
ARGUMENTS = {"city": "Paris", "days": 1}


@pytest.fixture(scope="module")
def demo() -> Iterator[DemoProvider]:
    with RunningDemo() as running:
        yield running.provider


@pytest.fixture(scope="module")
def gpt(demo: DemoProvider) -> Iterator[Any]:
    with openai.OpenAI(base_url=demo.openai_base_url, api_key="sk-demo", max_retries=0) as client:
        yield client


@pytest.fixture(scope="module")
def claude(demo: DemoProvider) -> Iterator[Any]:
    url = demo.anthropic_base_url
    with anthropic.Anthropic(base_url=url, api_key="sk-demo", max_retries=0) as client:
        yield client


def stream_of(gpt: Any, **fields: Any) -> list[Any]:
    """The events of a response, each held against the type that it says it is."""
    raw = gpt.responses.with_raw_response.create(
        **{"model": "gpt-4o", "input": "Write a haiku", **fields}, stream=True
    )
    body = raw.http_response.read().decode()
    events = []
    for number, block in enumerate(body.split("\n\n")[:-1]):
        name, _, data = block.partition("\n")
        event = json.loads(data.removeprefix("data: "))
        assert name == f"event: {event['type']}"
        assert event["sequence_number"] == number
        events.append(TypeAdapter(ResponseStreamEvent).validate_python(event, strict=True))
    return events


# --- responses ---


def test_a_response_has_the_sdks_shape_and_is_counted(gpt: Any, demo: DemoProvider) -> None:
    raw = gpt.responses.with_raw_response.create(model="gpt-4o", input="Tell me a joke")
    response = Response.model_validate_json(raw.http_response.content)
    text = response.output_text
    assert text
    assert response.status == "completed"
    assert response.usage is not None
    assert response.usage.input_tokens == -(-len("user: Tell me a joke\n") // 4)
    assert response.usage.output_tokens == -(-len(text) // 4)
    mine = demo.counted[-1]
    assert (mine.path, mine.model) == ("/v1/responses", "gpt-4o")
    assert (mine.input, mine.output) == (response.usage.input_tokens, response.usage.output_tokens)


def test_a_response_stream_has_every_event_in_its_order(gpt: Any) -> None:
    events = stream_of(gpt)
    kinds = [event.type for event in events]
    deltas = kinds.count("response.output_text.delta")
    assert deltas > 3
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        *["response.output_text.delta"] * deltas,
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.completed",
    ]
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    plain = gpt.responses.create(model="gpt-4o", input="Write a haiku")
    final = events[-1].response
    assert text == final.output_text == plain.output_text
    assert final.usage == plain.usage
    assert events[0].response.usage is None


def test_a_reasoning_model_puts_a_reasoning_item_before_its_message(gpt: Any) -> None:
    events = stream_of(gpt, model="gpt-5-mini", reasoning={"effort": "low", "summary": "auto"})
    items = [e.item.type for e in events if e.type == "response.output_item.done"]
    assert items == ["reasoning", "message"]
    assert "response.reasoning_summary_text.delta" in [event.type for event in events]
    usage = events[-1].response.usage
    assert usage.output_tokens_details.reasoning_tokens == 32
    assert usage.output_tokens == 32 + -(-len(events[-1].response.output_text) // 4)
    silent = gpt.responses.create(model="gpt-5-mini", input="hi").output[0]
    assert (silent.type, silent.summary) == ("reasoning", [])


def test_a_maximum_makes_a_response_incomplete(gpt: Any) -> None:
    events = stream_of(gpt, input="Write 100 words", max_output_tokens=5)
    final = events[-1].response
    assert (events[-1].type, final.status) == ("response.incomplete", "incomplete")
    assert final.incomplete_details.reason == "max_output_tokens"
    assert final.usage.output_tokens == 5
    assert final.output[0].status == "incomplete"
    thought = gpt.responses.create(model="o3", input="hi", max_output_tokens=10)
    assert [item.type for item in thought.output] == ["reasoning"]
    assert thought.usage.output_tokens == 10


def test_a_response_calls_a_function_and_goes_on_with_its_result(gpt: Any) -> None:
    events = stream_of(gpt, input=ASKED, tools=[FLAT_TOOL])
    deltas = [e.delta for e in events if e.type == "response.function_call_arguments.delta"]
    (call,) = events[-1].response.output
    assert json.loads("".join(deltas)) == json.loads(call.arguments) == ARGUMENTS
    (plain,) = gpt.responses.create(model="gpt-4o", input=ASKED, tools=[FLAT_TOOL]).output
    assert (plain.type, plain.arguments) == ("function_call", call.arguments)
    told = {"type": "function_call_output", "call_id": call.call_id, "output": "sunny"}
    question = {"role": "user", "content": ASKED}
    went_on = [question, call.model_dump(exclude_none=True), told]
    after = gpt.responses.create(model="gpt-4o", input=went_on, tools=[FLAT_TOOL])
    assert after.output_text == "The tool says: “sunny”."


def test_a_response_keeps_to_a_schema(gpt: Any) -> None:
    form = {"type": "json_schema", "name": "weather", "schema": WEATHER, "strict": True}
    response = gpt.responses.create(model="gpt-4o", input=ASKED, text={"format": form})
    assert json.loads(response.output_text) == ARGUMENTS


def test_a_long_input_of_a_response_is_cached(gpt: Any) -> None:
    first, second = (
        gpt.responses.create(model="gpt-4.1-mini", input=LONG + each).usage for each in "12"
    )
    assert first.input_tokens_details.cached_tokens == 0
    assert second.input_tokens_details.cached_tokens == 2048


def test_counting_the_input_of_a_response_agrees_with_its_usage(gpt: Any) -> None:
    counted = gpt.responses.input_tokens.count(model="gpt-4o", input=LONG)
    assert counted.object == "response.input_tokens"
    asked = gpt.responses.create(model="gpt-4o", input=LONG, max_output_tokens=1)
    assert counted.input_tokens == asked.usage.input_tokens


def test_a_compacted_response_is_the_users_words_and_one_item(gpt: Any, demo: DemoProvider) -> None:
    compacted = gpt.responses.compact(model="gpt-4o", input=LONG)
    assert compacted.object == "response.compaction"
    assert compacted.output[0].role == "user"
    assert [item.type for item in compacted.output] == ["message", "compaction"]
    assert compacted.usage.input_tokens > 2000
    assert demo.counted[-1].output == compacted.usage.output_tokens > 0


# --- tools in chat and messages ---


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_chat_calls_a_function(gpt: Any, is_stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    fields = {"model": "gpt-4o", "messages": messages, "tools": [CHAT_TOOL]}
    if is_stream:
        with gpt.chat.completions.stream(**fields) as stream:
            choice = stream.get_final_completion().choices[0]
    else:
        choice = gpt.chat.completions.create(**fields).choices[0]
    assert (choice.finish_reason, choice.message.content) == ("tool_calls", None)
    (call,) = choice.message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("get_weather", ARGUMENTS)
    messages += [choice.message, {"role": "tool", "tool_call_id": call.id, "content": "rain"}]
    after = gpt.chat.completions.create(**fields).choices[0]
    assert after.message.content == "The tool says: “rain”."


def test_a_tool_is_called_only_when_it_may_be(gpt: Any) -> None:
    def finish(text: str, choice: Any) -> str:
        answer = gpt.chat.completions.create(
            model="gpt-4o",
            messages=[{"role": "user", "content": text}],
            tools=[CHAT_TOOL],
            tool_choice=choice,
        )
        return str(answer.choices[0].finish_reason)

    named = {"type": "function", "function": {"name": "get_weather"}}
    assert finish("hello", "auto") == "stop"
    assert finish("hello", "required") == finish("hello", named) == "tool_calls"
    assert finish(ASKED, "none") == "stop"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_message_uses_a_tool(claude: Any, is_stream: bool) -> None:
    messages: list[Any] = [{"role": "user", "content": ASKED}]
    fields = {"model": "claude-sonnet-5-5", "max_tokens": 200, "tools": [CLAUDE_TOOL]}
    if is_stream:
        with claude.messages.stream(**fields, messages=messages) as stream:
            answer = stream.get_final_message()
    else:
        answer = claude.messages.create(**fields, messages=messages)
    (block,) = answer.content
    assert (answer.stop_reason, block.type, block.input) == ("tool_use", "tool_use", ARGUMENTS)
    assert answer.usage.output_tokens > 5
    said = {"type": "tool_result", "tool_use_id": block.id, "content": "snow"}
    messages += [{"role": "assistant", "content": [block]}, {"role": "user", "content": [said]}]
    after = claude.messages.create(**fields, messages=messages)
    assert after.content[0].text == "The tool says: “snow”."


# --- the other endpoints ---


def test_embeddings_come_as_floats_and_as_base64(gpt: Any, demo: DemoProvider) -> None:
    fields = {"model": "text-embedding-3-small", "input": ["one", "another one"]}
    floats = gpt.embeddings.create(**fields, encoding_format="float")
    encoded = gpt.embeddings.create(**fields)  # the SDK asks for base64 and decodes it
    assert [each.index for each in floats.data] == [0, 1]
    for ours, theirs in zip(floats.data, encoded.data, strict=True):
        assert len(ours.embedding) == 1536
        assert math.isclose(math.hypot(*ours.embedding), 1)
        assert ours.embedding == pytest.approx(theirs.embedding, abs=1e-6)
    assert floats.data[0].embedding != floats.data[1].embedding
    assert floats.usage.prompt_tokens == floats.usage.total_tokens == 1 + 3
    assert demo.counted[-1].input == 4
    small = gpt.embeddings.create(model="text-embedding-3-large", input=[1, 2, 3], dimensions=256)
    assert (len(small.data[0].embedding), small.usage.prompt_tokens) == (256, 3)


def test_a_legacy_completion_answers_several_prompts(gpt: Any, demo: DemoProvider) -> None:
    fields = {"model": "gpt-3.5-turbo-instruct", "prompt": ["Write 9 words", "hello"]}
    answer = gpt.completions.create(**fields, n=2, best_of=3)
    assert answer.object == "text_completion"
    assert [choice.index for choice in answer.choices] == [0, 1, 2, 3]
    assert answer.choices[0].text == answer.choices[1].text
    assert answer.usage.prompt_tokens == 4 + 2
    each = [-(-len(answer.choices[i].text) // 4) for i in (0, 2)]
    assert answer.usage.completion_tokens == 3 * sum(each) == demo.counted[-1].output
    assert answer.choices[2].finish_reason == "length"  # 16 tokens when nothing is said
    assert each[1] == 16


def test_a_legacy_completion_streams_with_usage_when_asked(gpt: Any) -> None:
    fields = {"model": "gpt-3.5-turbo-instruct", "prompt": "hello", "max_tokens": 100}
    plain = gpt.completions.create(**fields)
    *chunks, last = gpt.completions.create(
        **fields, stream=True, stream_options={"include_usage": True}
    )
    assert "".join(chunk.choices[0].text for chunk in chunks) == plain.choices[0].text
    assert (last.choices, last.usage) == ([], plain.usage)
    echoed = gpt.completions.create(**fields, echo=True)
    assert echoed.choices[0].text == "hello" + plain.choices[0].text


def test_moderations_flag_what_a_text_names(gpt: Any, demo: DemoProvider) -> None:
    before = len(demo.counted)
    answer = gpt.moderations.create(input=["a kind word", "so much violence"])
    assert [result.flagged for result in answer.results] == [False, True]
    assert answer.results[1].categories.violence
    assert not answer.results[1].categories.hate
    parts: Any = [{"type": "text", "text": "hate"}, {"type": "text", "text": "!"}]
    assert [each.flagged for each in gpt.moderations.create(input=parts).results] == [True]
    assert len(demo.counted) == before


def test_one_model_can_be_looked_up(gpt: Any, claude: Any) -> None:
    assert gpt.models.retrieve("gpt-4o").id == "gpt-4o"
    assert claude.models.retrieve("claude-sonnet-5-5").type == "model"
    with pytest.raises(openai.NotFoundError, match="does not exist"):
        gpt.models.retrieve("gpt-4o-nothing")
    with pytest.raises(anthropic.NotFoundError):
        claude.models.retrieve("claude-nothing")


@pytest.mark.parametrize(
    ("path", "param"),
    [("responses", "input"), ("completions", "prompt"), ("embeddings", "input")],
)
def test_a_request_without_its_main_part_is_refused(gpt: Any, path: str, param: str) -> None:
    with pytest.raises(openai.BadRequestError, match="Missing required parameter") as raised:
        gpt.post(f"/{path}", cast_to=object, body={"model": "gpt-4o"})
    assert raised.value.param == param
