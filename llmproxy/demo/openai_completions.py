"""The demo provider's legacy `completions`: several prompts, each answered as often as asked."""

from typing import Annotated, Any

import msgspec

from llmproxy.demo.openai_wire import (
    CREATED_S,
    StreamOptions,
    event,
    json_answer,
    missing,
    read_body,
    read_stops,
    refuse_model,
    stream_answer,
    wants_usage,
)
from llmproxy.demo.replies import (
    Answer,
    Counted,
    PromptCache,
    Question,
    Reply,
    Request,
    count_tokens,
    generate,
)

TOKENS_MAX_DEFAULT = 16  # wire.md C.1
_FINISH_REASONS = {"length": "length", "filter": "content_filter"}

Times = Annotated[int, msgspec.Meta(ge=1, le=20)]


class _Create(msgspec.Struct):
    model: str = ""
    prompt: str | list[str | int | list[int]] | None = None
    max_tokens: Annotated[int, msgspec.Meta(ge=0)] | None = None
    n: Times | None = None
    best_of: Times | None = None
    echo: bool | None = None
    stop: str | list[str] | None = None
    stream: bool | None = None
    stream_options: StreamOptions | None = None


def answer(request: Request, _cache: PromptCache) -> Answer:
    """Answer one request.

    Raises:
        RefusalError: the request is wrong.
    """
    create = read_body(request, _Create)
    refuse_model(create.model)
    if create.prompt in (None, []):
        raise missing("prompt", is_empty=create.prompt is not None)
    prompts = read_texts(create.prompt)
    replies = [_reply(request, create, text) for text, _ in prompts]
    times = create.n or 1
    made = max(create.best_of or 1, times)
    prompt_tokens = sum(tokens for _, tokens in prompts)
    completion_tokens = sum(reply.tokens for reply in replies) * made
    usage = {
        "prompt_tokens": prompt_tokens,
        "completion_tokens": completion_tokens,
        "total_tokens": prompt_tokens + completion_tokens,
    }
    counted = Counted(request.path, create.model, prompt_tokens, completion_tokens)
    echoes = [text if create.echo else "" for text, _ in prompts]
    shown = [each for each in zip(echoes, replies, strict=True) for _ in range(times)]
    frame = {
        "id": f"cmpl-{request.digest()}",
        "object": "text_completion",
        "created": CREATED_S,
        "model": create.model,
    }
    if create.stream:
        return stream_answer(request, _stream(create, frame, shown, usage), counted)
    choices = [_choice(i, echo + r.text, _reason(r)) for i, (echo, r) in enumerate(shown)]
    return json_answer(request, {**frame, "choices": choices, "usage": usage}, counted)


def read_texts(given: object) -> list[tuple[str, int]]:
    """Return texts with their tokens: of one text, of several, or of token ids."""
    if isinstance(given, str):
        return [(given, count_tokens(len(given)))]
    parts = given if isinstance(given, list) else []
    if parts and all(isinstance(part, int) for part in parts):
        return [("tokens", len(parts))]
    return [
        ("tokens", len(part)) if isinstance(part, list) else (str(part), count_tokens(len(part)))
        for part in parts
        if isinstance(part, list | str)
    ]


def _reply(request: Request, create: _Create, prompt: str) -> Reply:
    limit = TOKENS_MAX_DEFAULT if create.max_tokens is None else create.max_tokens
    stops = read_stops(create.stop)
    is_filtered = request.mishap == "incomplete"
    return generate(Question(prompt, tokens_max=limit, stops=stops, is_filtered=is_filtered))


def _reason(reply: Reply) -> str:
    return _FINISH_REASONS.get(reply.ended, "stop")


def _choice(index: int, text: str, reason: str | None) -> dict[str, Any]:
    return {"text": text, "index": index, "logprobs": None, "finish_reason": reason}


def _stream(
    create: _Create, frame: dict[str, Any], shown: list[tuple[str, Reply]], usage: dict[str, int]
) -> list[bytes]:
    wanted = wants_usage(create.stream_options)
    null_usage = {"usage": None} if wanted else {}
    choices = []
    for i, (echo, reply) in enumerate(shown):
        pieces = [echo] if echo else []
        choices += [_choice(i, piece, None) for piece in (*pieces, *reply.pieces())]
        choices.append(_choice(i, "", _reason(reply)))
    events = [event({**frame, "choices": [choice], **null_usage}) for choice in choices]
    if wanted:
        events.append(event({**frame, "choices": [], "usage": usage}))
    events.append(b"data: [DONE]\n\n")
    return events
