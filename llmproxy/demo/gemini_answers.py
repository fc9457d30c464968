"""The demo provider's Gemini dialect: request in, `Answer` out."""

import re
from typing import Any

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
)
from llmproxy.demo.tools import Tool

MODELS = ("gemini-2.5-flash", "gemini-2.5-pro", "gemini-embedding-001")
DIMENSIONS = 8
_PATH = re.compile(r"/v1beta/models/([\w.-]+):(\w+)")
_STATUSES = {
    401: "UNAUTHENTICATED",
    404: "NOT_FOUND",
    429: "RESOURCE_EXHAUSTED",
    500: "INTERNAL",
    503: "UNAVAILABLE",
}
_ENDED = {"length": "MAX_TOKENS", "filter": "SAFETY"}


class _Blob(msgspec.Struct, rename="camel"):
    mime_type: str = ""


class _Part(msgspec.Struct, rename="camel"):
    text: str = ""
    inline_data: _Blob | None = None
    function_call: msgspec.Raw = msgspec.Raw()
    function_response: dict[str, Any] | None = None


class _Content(msgspec.Struct):
    role: str = "user"
    parts: list[_Part] = []


class _Declared(msgspec.Struct, rename="camel"):
    name: str = ""
    parameters: dict[str, Any] | None = None
    parameters_json_schema: dict[str, Any] | None = None
    # Google takes both spellings of every member, and its SDK for Python writes this one so.
    snake: dict[str, Any] | None = msgspec.field(name="parameters_json_schema", default=None)

    def tool(self) -> Tool:
        """The tool that is declared."""
        schema = self.parameters_json_schema or self.snake
        return Tool(self.name, schema or _as_json_schema(self.parameters or {}))


class _ToolGiven(msgspec.Struct, rename="camel"):
    function_declarations: list[_Declared] = []


class _Config(msgspec.Struct, rename="camel"):
    max_output_tokens: int | None = None
    stop_sequences: list[str] = []


class _Create(msgspec.Struct, rename="camel"):
    contents: list[_Content] = []
    system_instruction: _Content | None = None
    tools: list[_ToolGiven] = []
    generation_config: _Config = msgspec.field(default_factory=_Config)


class _Embed(msgspec.Struct):
    content: _Content = msgspec.field(default_factory=_Content)


class _EmbedBatch(msgspec.Struct):
    requests: list[_Embed] = []


def answer(request: Request, cache: PromptCache) -> Answer:
    """Answer one request in Gemini's dialect, errors in Google's shape."""
    refused = _refuse_key(request)
    if refused is not None:
        return refused
    if (request.method, request.path) == ("GET", "/v1beta/models"):
        models = [{"name": f"models/{model}", "displayName": model} for model in MODELS]
        return _json({"models": models})
    found = _PATH.fullmatch(request.path)
    if request.method != "POST" or found is None:
        return error(request, 404, "Not Found")
    model, method = found.groups()
    if "missing" in model:
        return error(request, 404, f"models/{model} is not found for API version v1beta")
    try:
        return _answer_method(request, model, method, cache)
    except (msgspec.DecodeError, UnicodeDecodeError) as e:
        return error(request, 400, f"Invalid JSON payload received. {e}")


def error(_request: Request, status: int, message: str, reason: str = "") -> Answer:
    """An error answer in Google's shape; its status follows from the HTTP status."""
    told: dict[str, Any] = {
        "code": status,
        "message": message,
        "status": _STATUSES.get(status, "INVALID_ARGUMENT"),
    }
    if reason:
        kind = "type.googleapis.com/google.rpc.ErrorInfo"
        told["details"] = [{"@type": kind, "reason": reason, "domain": "googleapis.com"}]
    return Answer(status, body=msgspec.json.format(msgspec.json.encode({"error": told})))


def as_array(events: tuple[bytes, ...]) -> tuple[bytes, ...]:
    """Return the pieces of a JSON array in the place of events."""
    data = [event.removeprefix(b"data: ").strip() for event in events]
    starts = [b"[", *[b"\n,\r\n"] * len(data)]
    pieces = [start + one for start, one in zip(starts, data, strict=False)]
    return (*pieces, b"\n]\n")


def _refuse_key(request: Request) -> Answer | None:
    if not request.key:
        return error(request, 403, "Method doesn't allow unregistered callers.")
    if request.key.startswith("sk-demo-bad"):
        message = "API key not valid. Please pass a valid API key."
        return error(request, 400, message, "API_KEY_INVALID")
    if request.key.startswith("sk-demo-quota"):
        # Prepaid credit that is used up (reference wire.md E).
        told = {"code": 402, "message": "Your prepayment credits are depleted."}
        body = {"error": {**told, "status": "RESOURCE_EXHAUSTED"}}
        return Answer(402, body=msgspec.json.encode(body))
    return None


def _answer_method(request: Request, model: str, method: str, cache: PromptCache) -> Answer:
    if method in {"embedContent", "batchEmbedContents"}:
        return _embed(request, model, is_batch=method == "batchEmbedContents")
    if method not in {"generateContent", "streamGenerateContent", "countTokens"}:
        return error(request, 404, f"{method} is not found for models/{model}")
    create = msgspec.json.decode(request.body, type=_Create)
    if not create.contents:
        return error(request, 400, "* GenerateContentRequest.contents: contents is not specified")
    prompt, media_tokens = _prompt(create)
    tokens = count_tokens(len(prompt)) + media_tokens
    if method == "countTokens":
        return _json({"totalTokens": tokens})
    ends = [len(prompt)] if len(prompt) >= CACHE_TOKENS_MIN * TOKEN_CHARS else []
    scope = f"gemini {request.key} {model}"
    cached = cache.read_and_remember(scope, prompt, ends) // TOKEN_CHARS
    reply = generate(_question(request, create))
    counted = Counted(
        request.path, model, input=tokens - cached, output=reply.tokens, cache_read=cached
    )
    chunks = _chunks(model, reply, tokens, cached)
    if method == "generateContent":
        return _json(_joined(chunks), counted)
    events = tuple(b"data: %b\r\n\r\n" % msgspec.json.encode(chunk) for chunk in chunks)
    return Answer(200, events=events, counted=counted, is_array="alt=sse" not in request.query)


def _prompt(create: _Create) -> tuple[str, int]:
    """Return the prompt as one text, and the tokens of the media beside it."""
    contents = [*([create.system_instruction] if create.system_instruction else ())]
    contents += create.contents
    parts = [part for content in contents for part in content.parts]
    text = "".join(
        part.text
        + bytes(part.function_call).decode()
        + (msgspec.json.encode(part.function_response).decode() if part.function_response else "")
        for part in parts
    )
    return text, MEDIA_TOKENS * sum(part.inline_data is not None for part in parts)


def _question(request: Request, create: _Create) -> Question:
    last = create.contents[-1]
    results = [part.function_response for part in last.parts if part.function_response]
    told = results[-1].get("response") if results else None
    asked = [content for content in create.contents if content.role == "user"] or [last]
    declared = [one for tool in create.tools for one in tool.function_declarations]
    return Question(
        prompt="".join(part.text for part in asked[-1].parts),
        tool_result=None if told is None else msgspec.json.encode(told).decode(),
        tools=tuple(one.tool() for one in declared),
        tokens_max=create.generation_config.max_output_tokens,
        stops=tuple(create.generation_config.stop_sequences),
        is_filtered=request.mishap == "incomplete",
    )


def _as_json_schema(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a schema of Google's as JSON Schema writes it: `STRING` is `string` there."""
    written: dict[str, Any] = {}
    for name, value in schema.items():
        if name == "type" and isinstance(value, str):
            written[name] = value.lower()
        else:
            written[name] = _as_json_schema(value) if isinstance(value, dict) else value
    return written


def _chunks(model: str, reply: Reply, tokens: int, cached: int) -> list[dict[str, Any]]:
    """Return the objects of a stream; the last one has the whole usage."""
    parts: list[dict[str, Any]] = [{"text": piece} for piece in reply.pieces()]
    if reply.call is not None:
        arguments = msgspec.json.decode(reply.call.arguments)
        parts = [{"functionCall": {"name": reply.call.name, "args": arguments}}]
    chunks: list[dict[str, Any]] = []
    for number, part in enumerate(parts or [{"text": ""}], 1):
        usage: dict[str, int] = {"promptTokenCount": tokens, "totalTokenCount": tokens}
        candidate: dict[str, Any] = {"content": {"parts": [part], "role": "model"}, "index": 0}
        if number >= len(parts):
            candidate["finishReason"] = _ENDED.get(reply.ended, "STOP")
            usage |= {"candidatesTokenCount": reply.tokens}
            usage["totalTokenCount"] = tokens + reply.tokens
        if cached:
            usage["cachedContentTokenCount"] = cached
        chunks.append({"candidates": [candidate], "usageMetadata": usage, "modelVersion": model})
    return chunks


def _joined(chunks: list[dict[str, Any]]) -> dict[str, Any]:
    """Return the plain answer that a stream's objects make up together."""
    last = chunks[-1]
    parts = [part for chunk in chunks for part in chunk["candidates"][0]["content"]["parts"]]
    if all("text" in part for part in parts):
        parts = [{"text": "".join(part["text"] for part in parts)}]
    candidate = {**last["candidates"][0], "content": {"parts": parts, "role": "model"}}
    return {**last, "candidates": [candidate]}


def _embed(request: Request, model: str, *, is_batch: bool) -> Answer:
    if is_batch:
        asked = msgspec.json.decode(request.body, type=_EmbedBatch).requests
    else:
        asked = [msgspec.json.decode(request.body, type=_Embed)]
    texts = ["".join(part.text for part in one.content.parts) for one in asked]
    tokens = sum(count_tokens(len(text)) for text in texts)
    vectors = [{"values": [1.0, *[0.0] * (DIMENSIONS - 1)]} for _ in texts]
    answered = {"embeddings": vectors} if is_batch else {"embedding": vectors[0]}
    usage = {"promptTokenCount": tokens, "totalTokenCount": tokens}
    return _json({**answered, "usageMetadata": usage}, Counted(request.path, model, tokens))


def _json(value: dict[str, Any], counted: Counted | None = None) -> Answer:
    body = msgspec.json.format(msgspec.json.encode(value), indent=2)
    return Answer(200, body=body, counted=counted)
