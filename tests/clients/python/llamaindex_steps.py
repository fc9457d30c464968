"""llama-index-llms-openai and -openai-like, as a user writes them."""

# ruff: noqa: ANN401 - the package has no types that mypy can see here.

from typing import Any

from llama_index.core.tools import FunctionTool
from llama_index.llms.openai import OpenAI, OpenAIResponses
from llama_index.llms.openai_like import OpenAILike
from shared import ASKED, REFUSALS, SITUATIONS, model_for, step, tell


def settings(situation: str) -> dict[str, Any]:
    where = SITUATIONS[situation]
    return {
        "api_base": f"{where['url']}/v1/openai",
        "api_key": where["key"],
        "model": model_for(situation, "gpt-4o"),
    }


def chat(situation: str = "ok") -> Any:
    return OpenAI(**settings(situation))


def responses() -> Any:
    return OpenAIResponses(**settings("ok"))


def like(situation: str = "ok") -> Any:
    """What LlamaIndex recommends for servers whose models it does not know."""
    return OpenAILike(
        **settings(situation), is_chat_model=True, is_function_calling_model=True, max_retries=0
    )


def text_and_tokens(llm: Any) -> object:
    answer = llm.complete("Tell me a joke")
    usage = answer.raw.usage
    return [answer.text, usage.total_tokens]


def streamed(llm: Any) -> object:
    return "".join(piece.delta or "" for piece in llm.stream_complete("Tell me a joke"))


def get_weather(city: str, days: int) -> str:
    """Tells the weather."""
    return f"{city}: sun for {days} days"


TOOL = FunctionTool.from_defaults(get_weather)


def tool(llm: Any) -> object:
    answer = llm.chat_with_tools([TOOL], user_msg=ASKED)
    (call,) = llm.get_tool_calls_from_response(answer)
    return [call.tool_name, call.tool_kwargs]


def tool_streamed(llm: Any) -> object:
    *_, last = llm.stream_chat_with_tools([TOOL], user_msg=ASKED)
    (call,) = llm.get_tool_calls_from_response(last)
    return [call.tool_name, call.tool_kwargs]


def to_end(llm: Any, text: str) -> object:
    return len(list(llm.stream_complete(text)))


for name, make in (("chat", chat), ("responses", responses), ("like", like)):
    for each in (text_and_tokens, streamed, tool, tool_streamed):
        step(f"{name} {each.__name__}", each, make())
step("break", to_end, chat(), "Write 12 words [demo:break]")
for situation in REFUSALS:
    step(situation, text_and_tokens, like(situation))
    step(f"{situation} streamed", streamed, like(situation))
# With its own retries, which it makes of any 429 and 5xx.
step("poor by default", text_and_tokens, chat("poor"))
tell()
