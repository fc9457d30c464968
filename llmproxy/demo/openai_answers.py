"""The demo provider's OpenAI dialect: request in, `Answer` out."""

import re
from typing import Annotated, Any

import msgspec

from llmproxy.demo.replies import (
    CACHE_TOKENS_MIN,
    MEDIA_TOKENS,
    TOKEN_CHARS,
    Answer,
    PromptCache,
    Reply,
    Request,
    count_tokens,
    generate,
)

MODELS = ("gpt-4o", "gpt-4o-mini", "gpt-4.1-mini", "gpt-5", "gpt-5-mini", "o3", "o4-mini")
# A constant, so that an answer depends on nothing but its request.
CREATED_S = 1_795_000_000
CACHE_STEP_TOKENS = 128
CACHE_STEPS_MAX = 1024
_REASONING_TOKENS = {"none": 0, "minimal": 0, "low": 32, "medium": 64, "high": 192, "xhigh": 256}

Tokens = Annotated[int, msgspec.Meta(ge=1)]


class _Part(msgspec.Struct):
    type: str = "text"
    text: str = ""


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Part] | None = None

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or ())

    def media(self) -> int:
        parts = self.content if isinstance(self.content, list) else []
        return sum("text" not in part.type and part.type != "refusal" for part in parts)


class _StreamOptions(msgspec.Struct):
    include_usage: bool | None = None


class _Chat(msgspec.Struct):
    model: str = ""
    messages: list[_Message] | None = None
    max_tokens: Tokens | None = None
    max_completion_tokens: Tokens | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: _StreamOptions | None = None
    reasoning_effort: str | None = None
    tools: msgspec.Raw = msgspec.Raw()


def answer(request: Request, cache: PromptCache) -> Answer:
    """Answer one request in OpenAI's dialect, errors in OpenAI's shape."""
    refused = _refuse_key(request.key)
    if refused is not None:
        return refused
    route = (request.method, request.path)
    if route == ("GET", "/v1/models"):
        return _json(request, {"object": "list", "data": [_model(model) for model in MODELS]})
    if route != ("POST", "/v1/chat/completions"):
        return error(404, f"Invalid URL ({request.method} {request.path})")
    try:
        chat = msgspec.json.decode(request.body, type=_Chat)
    except msgspec.ValidationError as e:
        param = re.search(r"`\$\.?([^`]*)`", str(e))
        return error(400, f"Invalid value: {e}", param[1] if param else None, "invalid_type")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return error(400, "We could not parse the JSON body of your request.")
    return _refuse_chat(chat) or _complete(request, chat, cache)


def error(status: int, message: str, param: str | None = None, code: str | None = None) -> Answer:
    """An error answer in OpenAI's shape; its type follows from the code and the status."""
    kind = "insufficient_quota" if code == "insufficient_quota" else "invalid_request_error"
    body = {"error": {"message": message, "type": kind, "param": param, "code": code}}
    return Answer(status, body=msgspec.json.format(msgspec.json.encode(body), indent=4))


def _refuse_key(key: str) -> Answer | None:
    if not key:
        return error(401, "You didn't provide an API key: send it as Authorization: Bearer KEY.")
    if key.startswith("sk-demo-bad"):
        masked = f"{key[:8]}{'*' * max(len(key) - 12, 1)}{key[-4:]}"
        return error(401, f"Incorrect API key provided: {masked}.", None, "invalid_api_key")
    if key.startswith("sk-demo-quota"):
        message = "You exceeded your current quota, please check your plan and billing details."
        return error(429, message, None, "insufficient_quota")
    return None


def _refuse_chat(chat: _Chat) -> Answer | None:
    if not chat.model:
        return error(400, "you must provide a model parameter")
    if not chat.messages:
        code = "missing_required_parameter" if chat.messages is None else "empty_array"
        return error(400, "Missing required parameter: 'messages'.", "messages", code)
    if "missing" in chat.model:
        message = f"The model `{chat.model}` does not exist or you do not have access to it."
        return error(404, message, None, "model_not_found")
    return None


def _complete(request: Request, chat: _Chat, cache: PromptCache) -> Answer:
    messages = chat.messages or []
    asked = next((m.text() for m in reversed(messages) if m.role == "user"), messages[-1].text())
    tokens_max = chat.max_completion_tokens or chat.max_tokens
    reasoning = _reasoning_tokens(chat)
    if tokens_max is not None:
        reasoning = min(reasoning, tokens_max)
        tokens_max -= reasoning
    stops = [chat.stop] if isinstance(chat.stop, str) else chat.stop or []
    reply = generate(asked, tokens_max, stops)
    usage = _usage(request, chat, cache, reply, reasoning)
    if chat.stream:
        events = tuple(_stream(request, chat, reply, usage))
        return Answer(200, _headers(request), events=events)
    message = {"role": "assistant", "content": reply.text, "refusal": None}
    choice = {"message": message, "logprobs": None, "finish_reason": _finish_reason(reply)}
    choices = [{"index": i, **choice} for i in range(chat.n or 1)]
    frame = _frame(request, chat, "chat.completion")
    return _json(request, {**frame, "choices": choices, "usage": usage})


def _reasoning_tokens(chat: _Chat) -> int:
    if re.match(r"o\d|gpt-5", chat.model) is None:
        return 0
    return _REASONING_TOKENS.get(chat.reasoning_effort or "medium", 64)


def _finish_reason(reply: Reply) -> str:
    return "length" if reply.ended == "length" else "stop"


def _usage(
    request: Request, chat: _Chat, cache: PromptCache, reply: Reply, reasoning: int
) -> dict[str, Any]:
    messages = chat.messages or []
    prompt = bytes(chat.tools).decode() + "".join(f"{m.role}: {m.text()}\n" for m in messages)
    media = sum(m.media() for m in messages) * MEDIA_TOKENS
    step = CACHE_STEP_TOKENS * TOKEN_CHARS
    ends = range(CACHE_TOKENS_MIN * TOKEN_CHARS, len(prompt) + 1, step)[:CACHE_STEPS_MAX]
    scope = f"openai {request.key} {chat.model}"
    cached = cache.read_and_remember(scope, prompt, ends) // TOKEN_CHARS
    prompt_tokens = count_tokens(len(prompt)) + media
    # Reasoning is billed as output and is reported inside it.
    completion_tokens = (reply.tokens + reasoning) * (chat.n or 1)
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": {"cached_tokens": cached, "audio_tokens": 0},
        "completion_tokens_details": {
            "reasoning_tokens": reasoning * (chat.n or 1),
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def _stream(request: Request, chat: _Chat, reply: Reply, usage: dict[str, Any]) -> list[bytes]:
    wanted = chat.stream_options is not None and bool(chat.stream_options.include_usage)
    frame = _frame(request, chat, "chat.completion.chunk")
    null_usage = {"usage": None} if wanted else {}

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return _event({**frame, "choices": [choice], **null_usage})

    choices = range(chat.n or 1)
    events = [chunk(i, {"role": "assistant", "content": "", "refusal": None}) for i in choices]
    events += [chunk(i, {"content": piece}) for piece in reply.pieces() for i in choices]
    events += [chunk(i, {}, _finish_reason(reply)) for i in choices]
    if wanted:
        events.append(_event({**frame, "choices": [], "usage": usage}))
    events.append(b"data: [DONE]\n\n")
    return events


def _event(value: dict[str, Any]) -> bytes:
    return b"data: " + msgspec.json.encode(value) + b"\n\n"


def _frame(request: Request, chat: _Chat, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request.digest()}",
        "object": kind,
        "created": CREATED_S,
        "model": chat.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }


def _model(model: str) -> dict[str, Any]:
    return {"id": model, "object": "model", "created": CREATED_S, "owned_by": "demo"}


def _headers(request: Request) -> tuple[tuple[str, str], ...]:
    return (("x-request-id", f"req_{request.digest()}"), ("openai-version", "2020-10-01"))


def _json(request: Request, value: dict[str, Any]) -> Answer:
    # OpenAI indents its plain answers: a reader must not expect compact JSON.
    return Answer(200, _headers(request), msgspec.json.format(msgspec.json.encode(value), indent=2))
