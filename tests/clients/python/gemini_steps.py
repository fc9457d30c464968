"""The google-genai package, as a user writes it."""

# ruff: noqa: ANN401 - what it returns is checked by the tests.

from functools import cache
from typing import Any

from google import genai
from google.genai import types
from shared import ASKED, REFUSALS, SITUATIONS, WEATHER, model_for, step, tell

MODEL = "gemini-2.5-flash"
DECLARED = types.FunctionDeclaration(name="get_weather", parameters_json_schema=WEATHER)
TOOLS = types.GenerateContentConfig(tools=[types.Tool(function_declarations=[DECLARED])])


@cache  # one that nobody holds closes its connections at once
def client(situation: str = "ok") -> Any:
    where = SITUATIONS[situation]
    options = types.HttpOptions(base_url=f"{where['url']}/v1/gemini")
    return genai.Client(api_key=where["key"], http_options=options)


def generate(text: str, situation: str = "ok", config: Any = None) -> Any:
    models = client(situation).models
    return models.generate_content(model=model_for(situation, MODEL), contents=text, config=config)


def stream(text: str, situation: str = "ok", config: Any = None) -> Any:
    models = client(situation).models
    return list(
        models.generate_content_stream(
            model=model_for(situation, MODEL), contents=text, config=config
        )
    )


def plain() -> object:
    answer = generate("Tell me a joke")
    counts = answer.usage_metadata
    return [answer.text, counts.prompt_token_count, counts.candidates_token_count]


def streamed() -> object:
    chunks = stream("Tell me a joke")
    counts = chunks[-1].usage_metadata
    return ["".join(chunk.text or "" for chunk in chunks), counts.candidates_token_count]


def tool() -> object:
    (call,) = generate(ASKED, config=TOOLS).function_calls
    return [call.name, call.args]


def tool_streamed() -> object:
    calls = [call for chunk in stream(ASKED, config=TOOLS) for call in chunk.function_calls or []]
    return [calls[0].name, calls[0].args]


def chat() -> object:
    talk = client().chats.create(model=MODEL)
    talk.send_message("Tell me a joke")
    return talk.send_message("hello").text


def counted() -> object:
    return client().models.count_tokens(model=MODEL, contents="Tell me a joke").total_tokens


def embedded() -> object:
    models = client().models
    answer = models.embed_content(model="gemini-embedding-001", contents=["one", "two"])
    return [len(answer.embeddings), len(answer.embeddings[0].values)]


def listed() -> object:
    return [model.name for model in client().models.list()]


step("plain", plain)
step("streamed", streamed)
step("tool", tool)
step("tool_streamed", tool_streamed)
step("chat", chat)
step("embedded", embedded)
step("counted", counted)
step("listed", listed)
for name in ("break", "error-event"):
    step(name, stream, f"Write 12 words [demo:{name}]")
step("failing", generate, "hello [demo:server-error]", "failing")
for name in REFUSALS:
    step(name, generate, "hello", name)
    step(f"{name} streamed", stream, "hello", name)
tell()
