"""The demo provider's `chat/completions`: request in, `Answer` out."""

from typing import Annotated, Any

import msgspec

from llmproxy.demo.openai_wire import (
    CREATED_S,
    Part,
    StreamOptions,
    TokensMax,
    cached_tokens,
    count_media,
    event,
    json_answer,
    missing,
    read_body,
    read_functions,
    read_stops,
    refuse_model,
    share_reasoning,
    stream_answer,
    wants_usage,
)
from llmproxy.demo.replies import (
    MEDIA_TOKENS,
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

_FINISH_REASONS = {"length": "length", "filter": "content_filter", "call": "tool_calls"}


class _Message(msgspec.Struct):
    role: str
    content: str | list[Part] | None = None
    tool_calls: msgspec.Raw = msgspec.Raw()

    def text(self) -> str:
        if isinstance(self.content, str):
            return self.content
        return "".join(part.text for part in self.content or ())

    def media(self) -> int:
        return count_media(self.content)


class _JsonSchema(msgspec.Struct):
    schema: dict[str, Any] | None = None


class _Format(msgspec.Struct):
    type: str = "text"
    json_schema: _JsonSchema | None = None


class _Chat(msgspec.Struct):
    model: str = ""
    messages: list[_Message] | None = None
    max_tokens: TokensMax | None = None
    max_completion_tokens: TokensMax | None = None
    n: Annotated[int, msgspec.Meta(ge=1, le=128)] | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None
    reasoning_effort: str | None = None
    tools: msgspec.Raw = msgspec.Raw()
    tool_choice: Any = None
    response_format: _Format | None = None


def answer(request: Request, cache: PromptCache) -> Answer:
    """Answer one request.

    Raises:
        RefusalError: the request is wrong.
    """
    chat = read_body(request, _Chat)
    refuse_model(chat.model)
    if not chat.messages:
        raise missing("messages", is_empty=chat.messages is not None)
    tokens_max = chat.max_completion_tokens or chat.max_tokens
    reasoning, tokens_max = share_reasoning(chat.model, chat.reasoning_effort, tokens_max)
    reply = generate(_question(request, chat, tokens_max))
    usage = _usage(request, chat, cache, reply, reasoning)
    cached = usage["prompt_tokens_details"]["cached_tokens"]
    counted = Counted(
        request.path,
        chat.model,
        input=usage["prompt_tokens"] - cached,
        output=usage["completion_tokens"],
        cache_read=cached,
    )
    if chat.stream:
        return stream_answer(request, _stream(request, chat, reply, usage), counted)
    finish_reason = _FINISH_REASONS.get(reply.ended, "stop")
    choice = {"message": _message(request, reply), "finish_reason": finish_reason}
    choices = [{"index": i, "logprobs": None, **choice} for i in range(chat.n or 1)]
    frame = _frame(request, chat, "chat.completion")
    return json_answer(request, {**frame, "choices": choices, "usage": usage}, counted)


def _question(request: Request, chat: _Chat, tokens_max: int | None) -> Question:
    messages = chat.messages or []
    last = messages[-1]
    wanted = chat.response_format.json_schema if chat.response_format else None
    return Question(
        prompt=last_asked(messages),
        tool_result=last.text() if last.role == "tool" else None,
        tools=read_functions(chat.tools),
        tool_choice=chat.tool_choice,
        schema=wanted.schema if wanted else None,
        tokens_max=tokens_max,
        stops=read_stops(chat.stop),
        is_filtered=request.mishap == "incomplete",
    )


def _usage(
    request: Request, chat: _Chat, cache: PromptCache, reply: Reply, reasoning: int
) -> dict[str, Any]:
    messages = chat.messages or []
    prompt = bytes(chat.tools).decode() + "".join(
        f"{m.role}: {m.text()}{bytes(m.tool_calls).decode()}\n" for m in messages
    )
    media = sum(m.media() for m in messages) * MEDIA_TOKENS
    cached = cached_tokens(request, chat.model, prompt, cache)
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


def _message(request: Request, reply: Reply) -> dict[str, Any]:
    message: dict[str, Any] = {"role": "assistant", "content": reply.text, "refusal": None}
    if reply.call is not None:
        function = {"name": reply.call.name, "arguments": reply.call.arguments}
        message["content"] = None
        message["tool_calls"] = [{"id": _call_id(request), "type": "function"}]
        message["tool_calls"][0]["function"] = function
    return message


def _call_id(request: Request) -> str:
    return f"call_{request.digest()}"


def _stream(request: Request, chat: _Chat, reply: Reply, usage: dict[str, Any]) -> list[bytes]:
    wanted = wants_usage(chat.stream_options)
    frame = _frame(request, chat, "chat.completion.chunk")
    null_usage = {"usage": None} if wanted else {}

    def chunk(index: int, delta: dict[str, Any], reason: str | None = None) -> bytes:
        choice = {"index": index, "delta": delta, "logprobs": None, "finish_reason": reason}
        return event({**frame, "choices": [choice], **null_usage})

    choices = range(chat.n or 1)
    deltas = [{"content": piece} for piece in reply.pieces()] + _call_deltas(request, reply)
    finish_reason = _FINISH_REASONS.get(reply.ended, "stop")
    first = {"role": "assistant", "content": None if reply.call else "", "refusal": None}
    events = [chunk(i, first) for i in choices]
    events += [chunk(i, delta) for delta in deltas for i in choices]
    events += [chunk(i, {}, finish_reason) for i in choices]
    if wanted:
        events.append(event({**frame, "choices": [], "usage": usage}))
    events.append(b"data: [DONE]\n\n")
    return events


def _call_deltas(request: Request, reply: Reply) -> list[dict[str, Any]]:
    if reply.call is None:
        return []
    function = {"name": reply.call.name, "arguments": ""}
    begin = {"index": 0, "id": _call_id(request), "type": "function", "function": function}
    pieces = [{"index": 0, "function": {"arguments": piece}} for piece in reply.call.pieces()]
    return [{"tool_calls": [each]} for each in (begin, *pieces)]


def _frame(request: Request, chat: _Chat, kind: str) -> dict[str, Any]:
    return {
        "id": f"chatcmpl-{request.digest()}",
        "object": kind,
        "created": CREATED_S,
        "model": chat.model,
        "service_tier": "default",
        "system_fingerprint": "fp_demo",
    }
