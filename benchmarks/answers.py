"""What the fake provider answers, byte for byte, made once. Pure.

Each kind of answer comes in eight variants of different usage, given in turn: so that a sum of
money that is right shows that each answer was metered by what it said itself.
"""

import json
from functools import lru_cache
from typing import NamedTuple

CHAT_MODEL = "gpt-4o-mini"
EMBEDDING_MODEL = "text-embedding-3-small"
EMBEDDING_LENGTH = 1536
STREAM_EVENTS = 20
SENTENCE = "A short answer of some tokens, neither more nor less. "
STAMP_MARK = b"at:"
STAMP_DIGITS = 19
STREAM_END = b"data: [DONE]\n\n"


class Usage(NamedTuple):
    """What an answer says that it used, in tokens."""

    prompt_tokens: int
    completion_tokens: int


USAGES = {
    "chat": tuple(Usage(24 + 7 * n, 9 + 5 * n) for n in range(8)),
    "embeddings": tuple(Usage(24 + 7 * n, 0) for n in range(8)),
}
"""The variants of each kind."""


def _plain(value: object) -> bytes:
    body = json.dumps(value).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _frame(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1_795_000_000, "model": CHAT_MODEL}


def _usage_value(usage: Usage) -> dict[str, int]:
    return {**usage._asdict(), "total_tokens": sum(usage)}


@lru_cache
def chat_answers(content_bytes: int) -> list[bytes]:
    """Return the variants of a plain chat completion whose text has so many bytes."""
    text = (SENTENCE * (content_bytes // len(SENTENCE) + 1))[:content_bytes]
    message = {"role": "assistant", "content": text}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    frame = {**_frame("chat.completion"), "choices": choices}
    return [_plain({**frame, "usage": _usage_value(usage)}) for usage in USAGES["chat"]]


@lru_cache
def embedding_answers() -> list[bytes]:
    """Return the variants of an embedding of one input."""
    vector = [round((n % 97 - 48) / 977, 8) for n in range(EMBEDDING_LENGTH)]
    data = [{"object": "embedding", "index": 0, "embedding": vector}]
    frame = {"object": "list", "model": EMBEDDING_MODEL, "data": data}
    return [
        _plain(
            {**frame, "usage": {"prompt_tokens": usage.prompt_tokens, "total_tokens": sum(usage)}}
        )
        for usage in USAGES["embeddings"]
    ]


def _event(choices: list[object], **members: object) -> bytes:
    value = {**_frame("chat.completion.chunk"), "choices": choices, **members}
    return _chunk(b"data: %b\n\n" % json.dumps(value).encode())


def _chunk(data: bytes) -> bytes:
    return b"%x\r\n%b\r\n" % (len(data), data)


def _choice(delta: dict[str, str], reason: str | None = None) -> list[object]:
    return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]


@lru_cache
def stream_answers(*, with_usage: bool, is_stamped: bool) -> list[list[bytes]]:
    """Return the variants of a stream of 20 events, each as its writes: head, events, end.

    With usage asked for, a further event has it. In a stamped stream every word is a place for the
    time at which it is sent: see `stamped`.
    """
    word = (STAMP_MARK.decode() + "0" * STAMP_DIGITS) if is_stamped else " word"
    extra: dict[str, object] = {"usage": None} if with_usage else {}
    events = [
        _event(_choice({"role": "assistant", "content": ""}), **extra),
        *[_event(_choice({"content": word}), **extra)] * (STREAM_EVENTS - 2),
        _event(_choice({}, "stop"), **extra),
    ]
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    end = _chunk(STREAM_END) + b"0\r\n\r\n"
    variants = []
    for usage in USAGES["chat"]:
        last = [_event([], usage=_usage_value(usage))] if with_usage else []
        variants.append([head, *events, *last, end])
    return variants


def stamped(event: bytes, now_ns: int) -> bytes:
    """Return an event of a stamped stream with a time of `time.monotonic_ns` written into it."""
    before, mark, after = event.partition(STAMP_MARK)
    if not mark:
        return event
    return before + mark + b"%0*d" % (STAMP_DIGITS, now_ns) + after[STAMP_DIGITS:]
