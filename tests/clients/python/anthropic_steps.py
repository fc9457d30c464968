"""The anthropic package, any major version, as a user writes it."""

# ruff: noqa: ANN401 - one script for several versions of its package.

from typing import Any

import anthropic
from shared import ASKED, REFUSALS, SITUATIONS, WEATHER, model_for, step, tell

TOOL: Any = {"name": "get_weather", "description": "Tells the weather.", "input_schema": WEATHER}


def client(situation: str = "ok") -> Any:
    where = SITUATIONS[situation]
    return anthropic.Anthropic(base_url=f"{where['url']}/v1/anthropic", api_key=where["key"])


def fields(text: str, situation: str = "ok", **more: Any) -> Any:
    message = {"role": "user", "content": text}
    model = model_for(situation, "claude-sonnet-5-5")
    return {"model": model, "max_tokens": 500, "messages": [message], **more}


def create(text: str, situation: str = "ok", **more: Any) -> Any:
    return client(situation).messages.create(**fields(text, situation, **more))


def plain() -> object:
    answer = create("Tell me a joke")
    return [answer.content[0].text, answer.usage.output_tokens]


def streamed() -> object:
    with client().messages.stream(**fields("Tell me a joke")) as stream:
        text = "".join(stream.text_stream)
        return [text, stream.get_final_message().usage.output_tokens]


def tool() -> object:
    (block,) = create(ASKED, tools=[TOOL]).content
    return [block.name, block.input]


def tool_streamed() -> object:
    with client().messages.stream(**fields(ASKED, tools=[TOOL])) as stream:
        (block,) = stream.get_final_message().content
    return [block.name, block.input]


def counted() -> object:
    asked = fields("Tell me a joke")
    del asked["max_tokens"]
    return client().messages.count_tokens(**asked).input_tokens


def beta() -> object:
    answer = client().beta.messages.create(**fields("Tell me a joke"), betas=["files-2025-04-14"])
    return answer.usage.input_tokens


def to_end(text: str, situation: str = "ok") -> object:
    return len(list(create(text, situation, stream=True)))


def models() -> object:
    return "claude-sonnet-5-5" in [model.id for model in client().models.list()]


for each in (plain, streamed, tool, tool_streamed, counted, beta, models):
    step(each.__name__, each)
for mishap in ("break", "error-event"):
    step(mishap, to_end, f"Write 12 words [demo:{mishap}]")
step("failing", create, "hello [demo:server-error]", "failing")
for name in REFUSALS:
    step(name, create, "hello", name)
    step(f"{name} streamed", to_end, "hello", name)
tell()
