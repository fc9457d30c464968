"""What OpenAI's endpoints share on the demo provider: errors, frames, cached prompts, reasoning."""

import re
from typing import Annotated, Any, TypeVar

import msgspec

from llmproxy.demo.replies import (
    CACHE_TOKENS_MIN,
    TOKEN_CHARS,
    Answer,
    Counted,
    PromptCache,
    Request,
)
from llmproxy.demo.tools import Tool

# A constant, so that an answer depends on nothing but its request.
CREATED_S = 1_795_000_000
CACHE_STEP_TOKENS = 128
CACHE_STEPS_MAX = 1024
_REASONING_TOKENS = {"none": 0, "minimal": 0, "low": 32, "medium": 64, "high": 192, "xhigh": 256}

TokensMax = Annotated[int, msgspec.Meta(ge=1)]
T = TypeVar("T")


class Part(msgspec.Struct):
    """A part of a message, of which only text is read."""

    type: str = "text"
    text: str = ""


class StreamOptions(msgspec.Struct):
    """What a client wants of a stream."""

    include_usage: bool | None = None


class RefusalError(Exception):
    """A request that is answered with an error: `answer`."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.status)
        self.answer = answer


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> Answer:
    """An error answer in OpenAI's shape; its type follows from the code and the status."""
    kind = {429: "requests", 500: "server_error", 503: "server_error"}.get(
        status, "invalid_request_error"
    )
    if code == "insufficient_quota":
        kind = code
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Answer(status, body=msgspec.json.format(msgspec.json.encode(body), indent=4))


def refusal(
    status: int, message: str, param: str | None = None, code: str | None = None
) -> RefusalError:
    """The same, to be raised."""
    return RefusalError(error(status, message, param, code))


def read_body(request: Request, kind: type[T]) -> T:
    """Decode the body.

    Raises:
        RefusalError: 400, not JSON or a field of a wrong type.
    """
    try:
        return msgspec.json.decode(request.body, type=kind)
    except msgspec.ValidationError as e:
        param = re.search(r"`\$\.?([^`]*)`", str(e))
        raise refusal(
            400, f"Invalid value: {e}", param[1] if param else None, "invalid_type"
        ) from e
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        raise refusal(400, "We could not parse the JSON body of your request.") from e


def refuse_model(model: str) -> None:
    """Refuse a request without a model, or for one that is said to be missing.

    Raises:
        RefusalError: 400 or 404.
    """
    if not model:
        raise refusal(400, "you must provide a model parameter")
    if "missing" in model:
        message = f"The model `{model}` does not exist or you do not have access to it."
        raise refusal(404, message, None, "model_not_found")


def missing(param: str, *, is_empty: bool = False) -> RefusalError:
    """The refusal of a request that lacks a parameter."""
    code = "empty_array" if is_empty else "missing_required_parameter"
    return refusal(400, f"Missing required parameter: '{param}'.", param, code)


def read_functions(raw: msgspec.Raw) -> tuple[Tool, ...]:
    """Return the functions of a `tools` list, of chat's nested form or of the flat one.

    Raises:
        RefusalError: 400, it is not a list of objects.
    """
    if bytes(raw) in {b"", b"null"}:
        return ()
    try:
        tools = msgspec.json.decode(raw, type=list[dict[str, Any]])
    except msgspec.ValidationError as e:
        raise refusal(400, f"Invalid value: {e}", "tools", "invalid_type") from e
    functions = [tool.get("function", tool) for tool in tools if tool.get("type") == "function"]
    return tuple(Tool(str(f.get("name")), f.get("parameters") or {}) for f in functions)


def count_media(content: str | list[Part] | None) -> int:
    """How many parts of a message are no text."""
    parts = content if isinstance(content, list) else []
    return sum("text" not in part.type and part.type != "refusal" for part in parts)


def read_stops(stop: str | list[str] | None) -> tuple[str, ...]:
    """The sequences before which a text ends; one may stand for itself."""
    return (stop,) if isinstance(stop, str) else tuple(stop or ())


def wants_usage(options: StreamOptions | None) -> bool:
    """Whether a stream has usage at its end."""
    return options is not None and bool(options.include_usage)


def share_reasoning(
    model: str, effort: str | None, tokens_max: int | None
) -> tuple[int, int | None]:
    """How much a model thinks, and how much of a maximum that leaves for its answer."""
    reasoning = reasoning_tokens(model, effort)
    if tokens_max is None:
        return reasoning, None
    reasoning = min(reasoning, tokens_max)
    return reasoning, tokens_max - reasoning


def reasoning_tokens(model: str, effort: str | None) -> int:
    """How much a model thinks: nothing, unless it is one that reasons."""
    if re.match(r"o\d|gpt-5", model) is None:
        return 0
    return _REASONING_TOKENS.get(effort or "medium", 64)


def cached_tokens(request: Request, model: str, prompt: str, cache: PromptCache) -> int:
    """How much of a prompt was seen before: whole steps above a least length."""
    step = CACHE_STEP_TOKENS * TOKEN_CHARS
    ends = range(CACHE_TOKENS_MIN * TOKEN_CHARS, len(prompt) + 1, step)[:CACHE_STEPS_MAX]
    scope = f"openai {request.key} {model}"
    return cache.read_and_remember(scope, prompt, ends) // TOKEN_CHARS


def event(value: dict[str, Any]) -> bytes:
    """An unnamed event."""
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def headers(request: Request) -> tuple[tuple[str, str], ...]:
    """The headers of every answer."""
    return (("x-request-id", f"req_{request.digest()}"), ("openai-version", "2020-10-01"))


def json_answer(request: Request, value: dict[str, Any], counted: Counted | None = None) -> Answer:
    """A plain answer. OpenAI indents it: a reader must not expect compact JSON."""
    body = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return Answer(200, headers(request), body, counted=counted)


def stream_answer(request: Request, events: list[bytes], counted: Counted | None) -> Answer:
    """A streamed answer."""
    return Answer(200, headers(request), events=tuple(events), counted=counted)
