"""The openai package, any major version from 1 on, as a user writes it."""

# ruff: noqa: ANN401 - one script for several versions of its package.

import json
from typing import Any

import openai
from shared import ASKED, REFUSALS, SITUATIONS, WEATHER, model_for, step, tell

CHAT_TOOL: Any = {"type": "function", "function": {"name": "get_weather", "parameters": WEATHER}}
FLAT_TOOL: Any = {"type": "function", "name": "get_weather", "parameters": WEATHER, "strict": True}


def client(situation: str = "ok") -> Any:
    where = SITUATIONS[situation]
    return openai.OpenAI(base_url=f"{where['url']}/v1/openai", api_key=where["key"])


def chat(text: str, situation: str = "ok", **fields: Any) -> Any:
    return client(situation).chat.completions.create(
        model=model_for(situation, "gpt-4o"), messages=[{"role": "user", "content": text}], **fields
    )


def respond(text: str, situation: str = "ok", **fields: Any) -> Any:
    model = model_for(situation, "gpt-4o")
    return client(situation).responses.create(model=model, input=text, **fields)


def plain() -> object:
    answer = chat("Tell me a joke")
    return [answer.choices[0].message.content, answer.usage.prompt_tokens + 0]


def streamed() -> object:
    chunks = list(chat("Tell me a joke", stream=True))
    return ["".join(chunk.choices[0].delta.content or "" for chunk in chunks), len(chunks)]


def stream_usage() -> object:
    *_, last = chat("hello", stream=True, stream_options={"include_usage": True})
    return last.usage.total_tokens


def tool() -> object:
    (call,) = chat(ASKED, tools=[CHAT_TOOL]).choices[0].message.tool_calls
    return [call.function.name, json.loads(call.function.arguments)]


def tool_streamed() -> object:
    chunks = chat(ASKED, tools=[CHAT_TOOL], stream=True)
    calls = [call for chunk in chunks for call in chunk.choices[0].delta.tool_calls or []]
    return [calls[0].function.name, json.loads("".join(call.function.arguments for call in calls))]


def response() -> object:
    answer = respond("Tell me a joke")
    return [answer.output_text, answer.usage.input_tokens, answer.status]


def response_streamed() -> object:
    events = list(respond("Tell me a joke", stream=True))
    text = "".join(e.delta for e in events if e.type == "response.output_text.delta")
    return [text, events[-1].type, events[-1].response.usage.output_tokens]


def response_incomplete() -> object:
    answer = respond("Write 100 words", max_output_tokens=16)
    return [answer.status, answer.incomplete_details.reason, answer.usage.output_tokens]


def response_tool() -> object:
    (call,) = respond(ASKED, tools=[FLAT_TOOL]).output
    return [call.name, json.loads(call.arguments)]


def embeddings() -> object:
    answer = client().embeddings.create(model="text-embedding-3-small", input=["one", "two"])
    return [len(answer.data), len(answer.data[0].embedding), answer.usage.total_tokens]


def completion() -> object:
    answer = client().completions.create(model="gpt-3.5-turbo-instruct", prompt="hello")
    return [answer.choices[0].text, answer.usage.completion_tokens]


def moderation() -> object:
    return client().moderations.create(input="violence").results[0].flagged


def chat_to_end(text: str, situation: str = "ok") -> object:
    return len(list(chat(text, situation, stream=True)))


def respond_to_end(text: str) -> object:
    return len(list(respond(text, stream=True)))


def models() -> object:
    return "gpt-4o" in [model.id for model in client().models.list()]


for each in (plain, streamed, stream_usage, tool, tool_streamed):
    step(each.__name__, each)
for each in (response, response_streamed, response_incomplete, response_tool):
    step(each.__name__, each)
for each in (embeddings, completion, moderation, models):
    step(each.__name__, each)
for mishap in ("break", "error-event"):
    step(f"chat {mishap}", chat_to_end, f"Write 12 words [demo:{mishap}]")
step("response break", respond_to_end, "Write 12 words [demo:break]")
step("failing", chat, "hello [demo:server-error]", "failing")
for name in REFUSALS:
    step(name, chat, "hello", name)
    step(f"{name} streamed", chat_to_end, "hello", name)
tell()
