"""Answers of the providers, byte for byte in their shapes, and handlers that give them.

The shapes are those of the recorded answers of OpenAI and Anthropic.
"""

# ruff: noqa: ANN401 - fields take any JSON value.

import json
from collections.abc import Awaitable, Callable, Iterable, Sequence
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

if TYPE_CHECKING:
    from tests.support.stub_provider import Out, SeenRequest

    Handler = Callable[[SeenRequest, Out], Awaitable[None]]

CREATED_S = 1_795_000_000
JSON = dict[str, Any]


class CannedError(NamedTuple):
    """An error answer: status, headers and body."""

    status: int
    headers: list[tuple[str, str]]
    body: bytes


# OpenAI


def openai_usage(
    prompt_tokens: int = 12,
    completion_tokens: int = 3,
    *,
    cached: int = 0,
    cache_write: int = 0,
    reasoning: int = 0,
) -> JSON:
    """A usage object; cached and written tokens are inside the prompt's, reasoning in the rest."""
    prompt_details = {"cached_tokens": cached, "audio_tokens": 0}
    if cache_write:
        prompt_details["cache_write_tokens"] = cache_write
    return {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
        "prompt_tokens_details": prompt_details,
        "completion_tokens_details": {
            "reasoning_tokens": reasoning,
            "audio_tokens": 0,
            "accepted_prediction_tokens": 0,
            "rejected_prediction_tokens": 0,
        },
    }


def openai_chat(
    text: str = "Hello there!",
    prompt_tokens: int = 12,
    completion_tokens: int = 3,
    *,
    cached: int = 0,
    cache_write: int = 0,
    reasoning: int = 0,
    model: str = "gpt-4o-mini-2024-07-18",
    finish_reason: str = "stop",
    **fields: Any,
) -> bytes:
    """A chat completion; `fields` replace or add top-level fields, such as `usage=None`."""
    message: JSON = {"role": "assistant", "content": text, "refusal": None, "annotations": []}
    usage = openai_usage(
        prompt_tokens,
        completion_tokens,
        cached=cached,
        cache_write=cache_write,
        reasoning=reasoning,
    )
    choice = {"index": 0, "message": message, "logprobs": None, "finish_reason": finish_reason}
    body = {**_openai_frame("chat.completion", model), "choices": [choice], "usage": usage}
    return json.dumps({**body, **fields}, indent=2).encode()


def openai_chat_stream(
    pieces: Iterable[str] = ("Hello", " there", "!"),
    usage: JSON | None = None,
    *,
    include_usage: bool = True,
    model: str = "gpt-4o-mini-2024-07-18",
    finish_reason: str = "stop",
    done: bool = True,
    **fields: Any,
) -> list[bytes]:
    """The events of a chat completion stream.

    Args:
        pieces: content, one event each.
        usage: what the usage chunk says; None for `openai_usage()`.
        include_usage: whether the request asked for usage: only then there is a usage chunk,
            and every other chunk has `"usage": null`.
        model: the answering model.
        finish_reason: what the finish chunk says.
        done: whether `data: [DONE]` ends the stream.
        **fields: further top-level fields of every chunk.
    """
    frame = {**_openai_frame("chat.completion.chunk", model), **fields}
    null_usage = {"usage": None} if include_usage else {}

    def chunk(delta: JSON, reason: str | None = None) -> bytes:
        choice = {"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}
        return data_event({**frame, "choices": [choice], **null_usage})

    events = [chunk({"role": "assistant", "content": "", "refusal": None})]
    events += [chunk({"content": piece}) for piece in pieces]
    events.append(chunk({}, finish_reason))
    if include_usage:
        events.append(data_event({**frame, "choices": [], "usage": usage or openai_usage()}))
    if done:
        events.append(b"data: [DONE]\n\n")
    return events


def data_event(value: object) -> bytes:
    """An unnamed event, compact as OpenAI sends it."""
    return b"data: " + json.dumps(value, separators=(",", ":")).encode() + b"\n\n"


def _openai_frame(kind: str, model: str) -> JSON:
    return {
        "id": "chatcmpl-CSTUB0000000000000000000001",
        "object": kind,
        "created": CREATED_S,
        "model": model,
        "service_tier": "default",
        "system_fingerprint": "fp_560af6e559",
    }


# Anthropic


def anthropic_usage(
    input_tokens: int = 12,
    output_tokens: int = 3,
    *,
    cache_read: int = 0,
    cache_write_5m: int = 0,
    cache_write_1h: int = 0,
    **fields: Any,
) -> JSON:
    """A usage object; cached and written tokens are NOT inside `input_tokens`."""
    return {
        "input_tokens": input_tokens,
        "cache_creation_input_tokens": cache_write_5m + cache_write_1h,
        "cache_read_input_tokens": cache_read,
        "cache_creation": {
            "ephemeral_5m_input_tokens": cache_write_5m,
            "ephemeral_1h_input_tokens": cache_write_1h,
        },
        "output_tokens": output_tokens,
        "service_tier": "standard",
        **fields,
    }


def anthropic_message(
    text: str = "Hello there!",
    usage: JSON | None = None,
    *,
    model: str = "claude-sonnet-4-6",
    stop_reason: str = "end_turn",
    **fields: Any,
) -> bytes:
    """A message; `usage` is None for `anthropic_usage()`, `fields` replace or add fields."""
    body = {
        **_anthropic_frame(model),
        "content": [{"type": "text", "text": text}],
        "stop_reason": stop_reason,
        "stop_sequence": None,
        "usage": usage or anthropic_usage(),
    }
    return json.dumps({**body, **fields}, separators=(",", ":")).encode()


def anthropic_stream(
    pieces: Iterable[str] = ("Hello", " there", "!"),
    usage: JSON | None = None,
    *,
    model: str = "claude-sonnet-4-6",
    stop_reason: str = "end_turn",
    start: JSON | None = None,
    final: JSON | None = None,
) -> list[bytes]:
    """The events of a message stream.

    Args:
        pieces: text, one delta each.
        usage: the usage of the whole answer; None for `anthropic_usage()`.
        model: the answering model.
        stop_reason: what message_delta says.
        start: fields of message_start's usage that differ from it.
        final: fields of message_delta's (cumulative) usage that differ from it.
    """
    usage = usage or anthropic_usage()
    message = {
        **_anthropic_frame(model),
        "content": [],
        "stop_reason": None,
        "stop_sequence": None,
        "usage": {**usage, "output_tokens": 1, **(start or {})},
    }
    once = ("cache_creation", "service_tier", "speed", "inference_geo")
    cumulative = {name: value for name, value in usage.items() if name not in once}
    block = {"type": "text", "text": ""}
    deltas = [{"type": "text_delta", "text": piece} for piece in pieces]
    return [
        named_event("message_start", message=message),
        named_event("content_block_start", index=0, content_block=block),
        named_event("ping"),
        *(named_event("content_block_delta", index=0, delta=delta) for delta in deltas),
        named_event("content_block_stop", index=0),
        named_event(
            "message_delta",
            delta={"stop_reason": stop_reason, "stop_sequence": None},
            usage={**cumulative, **(final or {})},
        ),
        named_event("message_stop"),
    ]


def named_event(kind: str, **fields: Any) -> bytes:
    """A named event, compact as Anthropic sends it."""
    data = json.dumps({"type": kind, **fields}, separators=(",", ":"))
    return f"event: {kind}\ndata: {data}\n\n".encode()


def _anthropic_frame(model: str) -> JSON:
    return {
        "id": "msg_01STUB00000000000000001",
        "type": "message",
        "role": "assistant",
        "model": model,
    }


# Errors

ErrorCase = Literal["bad_key", "quota", "rate_limit", "overloaded", "server_error", "bad_request"]

_OPENAI_ERRORS: dict[ErrorCase, tuple[int, str, str | None, str]] = {
    "bad_key": (
        401,
        "invalid_request_error",
        "invalid_api_key",
        "Incorrect API key provided: sk-test-****1234.",
    ),
    "quota": (
        429,
        "insufficient_quota",
        "insufficient_quota",
        "You exceeded your current quota, please check your plan and billing details.",
    ),
    "rate_limit": (
        429,
        "tokens",
        "rate_limit_exceeded",
        "Rate limit reached for gpt-4o-mini in organization org-stub on tokens per min (TPM).",
    ),
    "overloaded": (503, "server_error", None, "The server is overloaded or not ready yet."),
    "server_error": (500, "server_error", None, "The server had an error while processing."),
    "bad_request": (400, "invalid_request_error", "invalid_value", "Invalid 'temperature'."),
}

_ANTHROPIC_ERRORS: dict[ErrorCase, tuple[int, str, str]] = {
    "bad_key": (401, "authentication_error", "invalid x-api-key"),
    "quota": (
        400,
        "invalid_request_error",
        "Your credit balance is too low to access the Anthropic API.",
    ),
    "rate_limit": (429, "rate_limit_error", "This request would exceed your rate limit."),
    "overloaded": (529, "overloaded_error", "Overloaded"),
    "server_error": (500, "api_error", "Internal server error"),
    "bad_request": (400, "invalid_request_error", "messages: at least one message is required"),
}


def openai_error(case: ErrorCase, retry_after: str | None = None) -> CannedError:
    """An error of OpenAI's; a rate limit comes with `retry-after: 7` unless told otherwise."""
    status, kind, code, message = _OPENAI_ERRORS[case]
    error = {"message": message, "type": kind, "param": None, "code": code}
    headers = [("x-request-id", "req_stub"), *_retry_after(case, retry_after)]
    return CannedError(status, headers, json.dumps({"error": error}, indent=4).encode())


def anthropic_error(case: ErrorCase, retry_after: str | None = None) -> CannedError:
    """An error of Anthropic's; a rate limit comes with `retry-after: 7` unless told otherwise."""
    status, kind, message = _ANTHROPIC_ERRORS[case]
    error = {"type": kind, "message": message}
    body = {"type": "error", "error": error, "request_id": "req_011STUB"}
    headers = [("request-id", "req_011STUB"), *_retry_after(case, retry_after)]
    return CannedError(status, headers, json.dumps(body, separators=(",", ":")).encode())


def _retry_after(case: ErrorCase, retry_after: str | None) -> list[tuple[str, str]]:
    if retry_after is None and case == "rate_limit":
        retry_after = "7"
    return [] if retry_after is None else [("retry-after", retry_after)]


# Handlers


def plain(body: bytes, status: int = 200, headers: Sequence[tuple[str, str]] = ()) -> "Handler":
    """Answer everything with this JSON."""

    async def handle(request: "SeenRequest", out: "Out") -> None:
        await out.json(status, body, headers)

    return handle


def stream(events: Iterable[bytes], gap_s: float = 0.0) -> "Handler":
    """Answer everything with these events, `gap_s` apart."""
    parts = list(events)

    async def handle(request: "SeenRequest", out: "Out") -> None:
        await out.sse(parts, gap_s)

    return handle


def broken_stream(events: Iterable[bytes], *, reset: bool = False) -> "Handler":
    """Send these events and break off without an end, with FIN or with RST."""
    parts = list(events)

    async def handle(request: "SeenRequest", out: "Out") -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        for part in parts:
            await out.chunk(part)
        if reset:
            out.abort()
        else:
            out.close()

    return handle


def failing(error: CannedError) -> "Handler":
    """Answer everything with this error."""
    return plain(error.body, error.status, error.headers)


async def silent(request: "SeenRequest", out: "Out") -> None:
    """Answer nothing until the client hangs up."""
    await out.client_gone.wait()


def in_turn(*handlers: "Handler") -> "Handler":
    """Answer the first request with the first handler and so on; the last one stays."""
    left = list(handlers)

    async def handle(request: "SeenRequest", out: "Out") -> None:
        handler = left.pop(0) if len(left) > 1 else left[0]
        await handler(request, out)

    return handle
