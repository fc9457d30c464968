"""langchain-openai and langchain-anthropic, as a user writes them."""

# ruff: noqa: ANN401 - one script for several versions of its package.

from typing import Any

from langchain_anthropic import ChatAnthropic
from langchain_openai import ChatOpenAI, OpenAIEmbeddings
from shared import ASKED, REFUSALS, SITUATIONS, WEATHER, model_for, step, tell

TOOL = {"title": "get_weather", "description": "Tells the weather.", **WEATHER}


def gpt(situation: str = "ok", **fields: Any) -> Any:
    where = SITUATIONS[situation]
    return ChatOpenAI(
        base_url=f"{where['url']}/v1/openai",
        api_key=where["key"],
        model=model_for(situation, "gpt-4o"),
        **fields,
    )


def claude(situation: str = "ok") -> Any:
    where = SITUATIONS[situation]
    return ChatAnthropic(
        base_url=f"{where['url']}/v1/anthropic",
        api_key=where["key"],
        model=model_for(situation, "claude-sonnet-5-5"),
    )


def text_and_tokens(model: Any) -> object:
    answer = model.invoke("Tell me a joke")
    return [answer.text, answer.usage_metadata["total_tokens"]]


def streamed(model: Any) -> object:
    return "".join(chunk.text for chunk in model.stream("Tell me a joke"))


def tool(model: Any) -> object:
    (call,) = model.bind_tools([TOOL]).invoke(ASKED).tool_calls
    return [call["name"], call["args"]]


def embedded() -> object:
    where = SITUATIONS["ok"]
    model: Any = OpenAIEmbeddings
    made = model(
        base_url=f"{where['url']}/v1/openai",
        api_key=where["key"],
        model="text-embedding-3-small",
        check_embedding_ctx_length=False,  # its own counting would fetch a tokenizer
    ).embed_query("one")
    return len(made)


for name, make in (("gpt", gpt), ("claude", claude)):
    step(f"{name} text", text_and_tokens, make())
    step(f"{name} streamed", streamed, make())
    step(f"{name} tool", tool, make())
    for situation in REFUSALS:
        step(f"{name} {situation}", text_and_tokens, make(situation))
step("responses text", text_and_tokens, gpt(use_responses_api=True))
step("responses streamed", streamed, gpt(use_responses_api=True))
step("embedded", embedded)
tell()
