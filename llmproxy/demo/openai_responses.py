"""The demo provider's `responses`, and its `input_tokens` and `compact`: request in, `Answer` out.

The answer is built whole; `openai_responses_events` tells it as a stream.
"""

from base64 import b64encode
from typing import Any

import msgspec

from llmproxy.demo.openai_responses_events import stream_events
from llmproxy.demo.openai_wire import (
    CREATED_S,
    Part,
    TokensMax,
    cached_tokens,
    count_media,
    json_answer,
    missing,
    read_body,
    read_functions,
    refusal,
    refuse_model,
    share_reasoning,
    stream_answer,
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

_INCOMPLETE = {"length": "max_output_tokens", "filter": "content_filter"}
_THOUGHT = "The question is short, and I know nothing: I shall say so."


class _Item(msgspec.Struct):
    type: str = "message"
    role: str = ""
    content: str | list[Part] | None = None
    output: str | list[Part] | None = None
    arguments: str = ""
    encrypted_content: str | None = None

    def text(self) -> str:
        given = self.output if self.content is None else self.content
        if isinstance(given, str):
            return given
        texts = "".join(part.text for part in given or ())
        return texts + self.arguments + (self.encrypted_content or "")

    def media(self) -> int:
        return count_media(self.content)


class _Reasoning(msgspec.Struct):
    effort: str | None = None
    summary: str | None = None


class _Format(msgspec.Struct):
    type: str = "text"
    schema: dict[str, Any] | None = None


class _Text(msgspec.Struct):
    format: _Format | None = None


class _Create(msgspec.Struct):
    model: str = ""
    input: str | list[_Item] | None = None
    instructions: str | None = None
    max_output_tokens: TokensMax | None = None
    stream: bool | None = None
    tools: msgspec.Raw = msgspec.Raw()
    tool_choice: Any = None
    reasoning: _Reasoning | None = None
    text: _Text | None = None
    background: bool | None = None
    metadata: dict[str, str] | None = None
    store: bool | None = None
    temperature: float | None = None
    top_p: float | None = None

    def items(self) -> list[_Item]:
        """The input as items, whatever its form."""
        if isinstance(self.input, str):
            return [_Item(role="user", content=self.input)]
        return self.input or []


def answer(request: Request, cache: PromptCache) -> Answer:
    """Answer one request.

    Raises:
        RefusalError: the request is wrong.
    """
    create = _read(request)
    if create.background:
        raise refusal(400, "The demo provider answers at once only.", "background")
    effort = create.reasoning.effort if create.reasoning else None
    reasoning, tokens_max = share_reasoning(create.model, effort, create.max_output_tokens)
    reply = generate(_question(request, create, tokens_max))
    prompt, media = _prompt(create)
    cached = cached_tokens(request, create.model, prompt, cache)
    usage = _usage(count_tokens(len(prompt)) + media, cached, reply.tokens + reasoning, reasoning)
    has_failed = request.mishap == "failed"
    response = _response(request, create, reply, reasoning)
    response |= _failure() if has_failed else {"usage": usage}
    counted = None if has_failed else _counted(request, create, usage)
    if not create.stream:
        shown = response | {"output": []} if has_failed else response
        return json_answer(request, shown, counted)
    events = stream_events(response, reply.pieces(), has_failed=has_failed)
    return stream_answer(request, events, counted)


def count_input(request: Request, _cache: PromptCache) -> Answer:
    """Count the input of a request; it costs nothing.

    Raises:
        RefusalError: the request is wrong.
    """
    prompt, media = _prompt(_read(request))
    tokens = count_tokens(len(prompt)) + media
    return json_answer(request, {"object": "response.input_tokens", "input_tokens": tokens})


def compact(request: Request, cache: PromptCache) -> Answer:
    """Shorten a conversation: its user's messages and one item that stands for the rest.

    Raises:
        RefusalError: the request is wrong.
    """
    create = _read(request)
    prompt, media = _prompt(create)
    cached = cached_tokens(request, create.model, prompt, cache)
    summary = " ".join(prompt.split())[:80]
    tokens = count_tokens(len(summary))
    usage = _usage(count_tokens(len(prompt)) + media, cached, tokens, 0)
    output: list[dict[str, Any]] = [
        {
            "id": f"msg_{request.digest()}{number}",
            "type": "message",
            "role": "user",
            "status": "completed",
            "content": [{"type": "input_text", "text": item.text()}],
        }
        for number, item in enumerate(create.items())
        if item.role == "user"
    ]
    sealed = b64encode(summary.encode("utf-8", "replace")).decode()
    output.append({"id": f"cmp_{request.digest()}", "type": "compaction"})
    output[-1]["encrypted_content"] = sealed
    body = {
        "id": f"resp_{request.digest()}",
        "object": "response.compaction",
        "created_at": CREATED_S,
        "output": output,
        "usage": usage,
    }
    return json_answer(request, body, _counted(request, create, usage))


def _read(request: Request) -> _Create:
    create = read_body(request, _Create)
    refuse_model(create.model)
    if create.input in (None, "", []):
        raise missing("input", is_empty=create.input is not None)
    return create


def _question(request: Request, create: _Create, tokens_max: int | None) -> Question:
    items = create.items()
    last = items[-1]
    wanted = create.text.format if create.text else None
    return Question(
        prompt=last_asked(items),
        tool_result=last.text() if last.type.endswith("_call_output") else None,
        tools=read_functions(create.tools),
        tool_choice=create.tool_choice,
        schema=wanted.schema if wanted else None,
        tokens_max=tokens_max,
        is_filtered=request.mishap == "incomplete",
    )


def _prompt(create: _Create) -> tuple[str, int]:
    """Return the input as one text, and the tokens of what is not text."""
    items = create.items()
    told = "".join(f"{item.role or item.type}: {item.text()}\n" for item in items)
    text = f"{bytes(create.tools).decode()}{create.instructions or ''}{told}"
    return text, sum(item.media() for item in items) * MEDIA_TOKENS


def _usage(tokens: int, cached: int, output: int, reasoning: int) -> dict[str, Any]:
    return {
        "input_tokens": tokens,
        "input_tokens_details": {"cached_tokens": cached, "cache_write_tokens": 0},
        "output_tokens": output,
        "output_tokens_details": {"reasoning_tokens": reasoning},
        "total_tokens": tokens + output,
    }


def _counted(request: Request, create: _Create, usage: dict[str, Any]) -> Counted:
    cached = usage["input_tokens_details"]["cached_tokens"]
    fresh = usage["input_tokens"] - cached
    return Counted(request.path, create.model, fresh, usage["output_tokens"], cached)


def _response(request: Request, create: _Create, reply: Reply, reasoning: int) -> dict[str, Any]:
    reason = _INCOMPLETE.get(reply.ended)
    asked = create.reasoning or _Reasoning()
    tools = msgspec.json.decode(create.tools) if bytes(create.tools) else []
    return {
        "id": f"resp_{request.digest()}",
        "object": "response",
        "created_at": CREATED_S,
        "status": "incomplete" if reason else "completed",
        "background": False,
        "error": None,
        "incomplete_details": {"reason": reason} if reason else None,
        "instructions": create.instructions,
        "max_output_tokens": create.max_output_tokens,
        "metadata": create.metadata or {},
        "model": create.model,
        "output": _output(request, create, reply, reasoning),
        "parallel_tool_calls": True,
        "previous_response_id": None,
        "reasoning": {"effort": asked.effort, "summary": asked.summary},
        "service_tier": "default",
        "store": create.store is not False,
        "temperature": 1.0 if create.temperature is None else create.temperature,
        "text": {"format": {"type": "text"}},
        "tool_choice": create.tool_choice or "auto",
        "tools": tools or [],
        "top_p": 1.0 if create.top_p is None else create.top_p,
        "truncation": "disabled",
        "usage": None,
        "user": None,
    }


def _output(
    request: Request, create: _Create, reply: Reply, reasoning: int
) -> list[dict[str, Any]]:
    """Return the items: the thoughts of a reasoning model, then a message or a call."""
    items: list[dict[str, Any]] = []
    digest = request.digest()
    if reasoning:
        told = create.reasoning is not None and create.reasoning.summary
        summary = [{"type": "summary_text", "text": _THOUGHT}] if told else []
        items.append({"id": f"rs_{digest}", "type": "reasoning", "summary": summary})
    status = "incomplete" if reply.ended in _INCOMPLETE else "completed"
    if reply.call is not None:
        call = {"id": f"fc_{digest}", "type": "function_call", "status": status}
        call |= {"arguments": reply.call.arguments, "call_id": f"call_{digest}"}
        items.append({**call, "name": reply.call.name})
    elif reply.text:
        part = {"type": "output_text", "annotations": [], "logprobs": [], "text": reply.text}
        message = {"id": f"msg_{digest}", "type": "message", "status": status}
        items.append({**message, "role": "assistant", "content": [part]})
    return items


def _failure() -> dict[str, Any]:
    message = "The demo provider was told to fail."
    return {"status": "failed", "error": {"code": "server_error", "message": message}}
