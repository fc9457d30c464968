"""The demo provider's Anthropic dialect: request in, `Answer` out."""

import re
from typing import Annotated, Any

import msgspec

from llmproxy.demo.replies import (
    CACHE_TOKENS_MIN,
    MEDIA_TOKENS,
    TOKEN_CHARS,
    Answer,
    Counted,
    PromptCache,
    Question,
    Reply,
    Request,
    count_tokens,
    generate,
    last_asked,
)
from llmproxy.demo.tools import Tool

MODELS = ("claude-opus-5-5", "claude-sonnet-5-5", "claude-haiku-5-5")
CREATED_AT = "2026-11-18T00:00:00Z"


class _CacheControl(msgspec.Struct):
    type: str = "ephemeral"
    ttl: str | None = None


class _Block(msgspec.Struct):
    type: str = "text"
    text: str = ""
    content: msgspec.Raw = msgspec.Raw()
    input: msgspec.Raw = msgspec.Raw()
    cache_control: _CacheControl | None = None


class _Message(msgspec.Struct):
    role: str
    content: str | list[_Block]

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(block.text for block in self.content)

    def tool_result(self) -> str | None:
        """What a tool said, when this message tells it."""
        blocks = self.content if isinstance(self.content, list) else []
        said = [bytes(each.content) for each in blocks if each.type == "tool_result"]
        return _text_of(said[-1]) if said else None


def _text_of(content: bytes) -> str:
    """Return the text of a tool's result, which is a text or a list of blocks."""
    told = msgspec.json.decode(content) if content else ""
    if isinstance(told, str):
        return told
    return "".join(str(block.get("text", "")) for block in told if isinstance(block, dict))


class _ToolGiven(msgspec.Struct):
    name: str = ""
    input_schema: dict[str, Any] = {}


class _Create(msgspec.Struct):
    model: str = ""
    messages: list[_Message] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    system: str | list[_Block] | None = None
    stop_sequences: list[str] | None = None
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw()
    tool_choice: Any = None
    cache_control: _CacheControl | None = None


class _Prompt:
    """The prompt as one text, with the places where a cached prefix may end."""

    def __init__(self, create: _Create) -> None:
        self.text = bytes(create.tools).decode()
        self.media_tokens = 0
        self.ends: list[int] = []
        self.ttl = "5m"
        self._add(create.system or "")
        for message in create.messages or ():
            self.text += f"{message.role}: "
            self._add(message.content)
            self.text += "\n"
        if create.cache_control is not None:
            self._end_prefix(create.cache_control)

    @property
    def tokens(self) -> int:
        return count_tokens(len(self.text)) + self.media_tokens

    def _add(self, content: str | list[_Block]) -> None:
        if isinstance(content, str):
            self.text += content
            return
        for block in content:
            self.text += block.text + bytes(block.content).decode() + bytes(block.input).decode()
            self.media_tokens += MEDIA_TOKENS * (block.type in {"image", "document"})
            if block.cache_control is not None:
                self._end_prefix(block.cache_control)

    def _end_prefix(self, control: _CacheControl) -> None:
        if len(self.text) >= CACHE_TOKENS_MIN * TOKEN_CHARS:
            self.ends.append(len(self.text))
            self.ttl = control.ttl or "5m"


def answer(request: Request, cache: PromptCache) -> Answer:
    """Answer one request in Anthropic's dialect, errors in Anthropic's shape."""
    refused = _refuse_key(request)
    if refused is not None:
        return refused
    route = (request.method, request.path)
    if route == ("GET", "/v1/models"):
        return _json(request, _models())
    if request.method == "GET" and request.path.removeprefix("/v1/models/") in MODELS:
        return _json(request, _model(request.path.removeprefix("/v1/models/")))
    if route not in {("POST", "/v1/messages"), ("POST", "/v1/messages/count_tokens")}:
        return error(request, 404, "Not Found")
    return _answer_body(request, cache)


def error(request: Request, status: int, message: str) -> Answer:
    """An error answer in Anthropic's shape; its type follows from the status."""
    kinds = {
        401: "authentication_error",
        404: "not_found_error",
        429: "rate_limit_error",
        500: "api_error",
        529: "overloaded_error",
    }
    detail = {"type": kinds.get(status, "invalid_request_error"), "message": message}
    body = {"type": "error", "error": detail, "request_id": f"req_{request.digest()}"}
    return Answer(status, _headers(request), msgspec.json.encode(body))


def _answer_body(request: Request, cache: PromptCache) -> Answer:
    try:
        create = msgspec.json.decode(request.body, type=_Create)
    except msgspec.ValidationError as e:
        param = re.search(r"`\$\.?([^`]*)`", str(e))
        return error(request, 400, f"{param[1] if param else 'body'}: {e}")
    except (msgspec.DecodeError, UnicodeDecodeError):
        return error(request, 400, "The request body is not valid JSON")
    counting = request.path.endswith("/count_tokens")
    refused = _refuse_create(request, create, counting=counting)
    if refused is not None:
        return refused
    if counting:
        return _json(request, {"input_tokens": _Prompt(create).tokens})
    return _create(request, create, cache)


def _refuse_key(request: Request) -> Answer | None:
    if not request.key:
        return error(request, 401, "x-api-key header is required")
    if request.key.startswith("sk-demo-bad"):
        return error(request, 401, "invalid x-api-key")
    if request.key.startswith("sk-demo-quota"):
        message = "Your credit balance is too low to access the Anthropic API."
        return error(request, 400, message)
    return None


def _refuse_create(request: Request, create: _Create, *, counting: bool) -> Answer | None:
    required: dict[str, object] = {"model": create.model or None, "messages": create.messages}
    if not counting:
        required["max_tokens"] = create.max_tokens
    for name, value in required.items():
        if value is None:
            return error(request, 400, f"{name}: Field required")
    if not create.messages:
        return error(request, 400, "messages: at least one message is required")
    if "missing" in create.model:
        return error(request, 404, f"model: {create.model}")
    return None


def _create(request: Request, create: _Create, cache: PromptCache) -> Answer:
    reply = generate(_question(request, create))
    usage = _usage(request, create, cache)
    counted = Counted(
        request.path,
        create.model,
        input=usage["input_tokens"],
        output=reply.tokens,
        cache_read=usage["cache_read_input_tokens"],
        cache_write=usage["cache_creation_input_tokens"],
    )
    frame: dict[str, Any] = {
        "id": f"msg_{request.digest()}",
        "type": "message",
        "role": "assistant",
        "model": create.model,
    }
    if create.stream:
        events = tuple(_stream(request, frame, reply, usage))
        return Answer(200, _headers(request), events=events, counted=counted)
    content: list[dict[str, Any]] = [{"type": "text", "text": reply.text}] if reply.text else []
    if reply.call is not None:
        arguments = msgspec.json.decode(reply.call.arguments)
        content.append(_tool_use(request, reply.call.name, arguments))
    usage["output_tokens"] = reply.tokens
    answered = {**frame, "content": content, **_ending(reply), "usage": usage}
    return _json(request, answered, counted)


def _question(request: Request, create: _Create) -> Question:
    messages = create.messages or []
    last = messages[-1]
    given = msgspec.json.decode(create.tools, type=list[_ToolGiven]) if create.tools else []
    return Question(
        prompt=last_asked(messages),
        tool_result=last.tool_result(),
        tools=tuple(Tool(tool.name, tool.input_schema) for tool in given),
        tool_choice=create.tool_choice,
        tokens_max=create.max_tokens,
        stops=tuple(create.stop_sequences or ()),
        is_filtered=request.mishap == "incomplete",
    )


def _tool_use(request: Request, name: str, arguments: dict[str, Any]) -> dict[str, Any]:
    return {"type": "tool_use", "id": f"toolu_{request.digest()}", "name": name, "input": arguments}


def _ending(reply: Reply) -> dict[str, str | None]:
    reasons = {"length": "max_tokens", "stop": "stop_sequence"}
    reasons |= {"call": "tool_use", "filter": "refusal"}
    return {"stop_reason": reasons.get(reply.ended, "end_turn"), "stop_sequence": reply.stop}


def _usage(request: Request, create: _Create, cache: PromptCache) -> dict[str, Any]:
    prompt = _Prompt(create)
    scope = f"anthropic {request.key} {create.model}"
    read = cache.read_and_remember(scope, prompt.text, prompt.ends) // TOKEN_CHARS
    written = prompt.ends[-1] // TOKEN_CHARS - read if prompt.ends else 0
    hour = prompt.ttl == "1h"
    return {
        # Unlike OpenAI's, this count leaves out what was read from the cache or written to it.
        "input_tokens": prompt.tokens - read - written,
        "cache_creation_input_tokens": written,
        "cache_read_input_tokens": read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": 0 if hour else written,
            "ephemeral_1h_input_tokens": written if hour else 0,
        },
        "output_tokens": min(1, create.max_tokens or 0),
        "service_tier": "standard",
    }


def _stream(
    request: Request, frame: dict[str, Any], reply: Reply, usage: dict[str, Any]
) -> list[bytes]:
    message = {**frame, "content": [], "stop_reason": None, "stop_sequence": None, "usage": usage}
    events = [_event("message_start", message=message)]
    block: dict[str, Any] = {"type": "text", "text": ""}
    deltas = [{"type": "text_delta", "text": piece} for piece in reply.pieces()]
    if reply.call is not None:
        block = _tool_use(request, reply.call.name, {})
        pieces = ["", *reply.call.pieces()]
        deltas = [{"type": "input_json_delta", "partial_json": piece} for piece in pieces]
    if deltas:
        events.append(_event("content_block_start", index=0, content_block=block))
    events.append(_event("ping"))
    events += [_event("content_block_delta", index=0, delta=delta) for delta in deltas]
    if deltas:
        events.append(_event("content_block_stop", index=0))
    # The last usage is cumulative; the split of the cache writes is in message_start only.
    repeated = ("input_tokens", "cache_creation_input_tokens", "cache_read_input_tokens")
    total = {**{name: usage[name] for name in repeated}, "output_tokens": reply.tokens}
    events.append(_event("message_delta", delta=_ending(reply), usage=total))
    events.append(_event("message_stop"))
    return events


def _event(kind: str, **fields: Any) -> bytes:  # noqa: ANN401 - any JSON value
    data = msgspec.json.encode({"type": kind, **fields})
    return b"event: %b\ndata: %b\n\n" % (kind.encode(), data)


def _models() -> dict[str, Any]:
    data = [_model(model) for model in MODELS]
    return {"data": data, "has_more": False, "first_id": MODELS[0], "last_id": MODELS[-1]}


def _model(model: str) -> dict[str, Any]:
    return {"type": "model", "id": model, "display_name": model, "created_at": CREATED_AT}


def _headers(request: Request) -> tuple[tuple[str, str], ...]:
    return (("request-id", f"req_{request.digest()}"),)


def _json(request: Request, value: dict[str, Any], counted: Counted | None = None) -> Answer:
    return Answer(200, _headers(request), msgspec.json.encode(value), counted=counted)
