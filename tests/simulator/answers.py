"""What a provider sends, written down twice: as bytes, and as what they mean for the bill.

The bytes go through the real readers; the oracle only sees the meaning. Nothing here may use
`llmproxy`, or a mistake in there could not show.
"""

import json
import random
from dataclasses import dataclass, field
from typing import Any, NamedTuple

Counts = dict[str, int]
"""Tokens by class: `input`, `cache_read`, `output`; the classes are disjoint."""


class Absurd:
    """A usage report that nobody may believe."""


ABSURD = Absurd()


class Event(NamedTuple):
    """One event of a stream and its meaning."""

    data: bytes
    text_bytes: int = 0
    usage: Counts | Absurd | None = None
    """What it reports; of Anthropic only the counts that it names."""
    is_final: bool = False
    """Of Anthropic: it is the report that counts."""
    finishes: bool = False
    is_last: bool = False
    is_error: bool = False
    is_only_usage: bool = False
    """It was sent because usage was asked for, and says nothing else."""


@dataclass
class Script:
    """One answer with status 200 as it will be sent."""

    is_stream: bool
    events: list[Event]
    """Of a plain answer one, whose data is the body."""
    chunks: list[tuple[float, bytes]] = field(default_factory=list)
    """When each piece comes, in seconds after the head, and the piece."""
    ends: str = "eof"
    """`eof`, `reset`, or `silence`: nothing more, and no end either."""
    end_s: float = 0.0
    is_honest: bool = True
    """The input is within the bound that is held for it, and the output not denser than two bytes
    a token, nor above its maximum: then the operator must lose nothing."""

    @property
    def body(self) -> bytes:
        """All that would be sent."""
        return b"".join(event.data for event in self.events)


class Wanted(NamedTuple):
    """What the provider reads in the request."""

    dialect: str
    model: str
    is_stream: bool
    output_max: int
    asks_usage: bool
    body_bytes: int


class Manners(NamedTuple):
    """Which oddities the provider of this world has."""

    odd_usage: bool
    breaks_off: bool
    splits: bool
    is_slow: bool
    is_endless: bool
    is_dishonest: bool


def compose(rng: random.Random, wanted: Wanted, manners: Manners) -> Script:
    """Return an answer to a request."""
    density = rng.choice((2, 3, 4, 6))
    is_honest = True
    text_bytes = rng.choice((0, 5, 40, 200, 200, 900, 3000))
    tokens = -(-text_bytes // density)
    if tokens > wanted.output_max:
        tokens = wanted.output_max
        text_bytes = tokens * density
    input_tokens = rng.randint(1, wanted.body_bytes // 3 + 600)
    if manners.is_dishonest and rng.random() < 0.4:
        is_honest = False
        if rng.random() < 0.5:
            input_tokens *= rng.choice((3, 40))
        else:
            tokens = tokens * rng.choice((3, 40)) + 7
    cached = rng.choice((0, 0, input_tokens // 2))
    used = {"input": input_tokens - cached, "cache_read": cached, "output": tokens}
    hidden = 0
    if wanted.model == "sim-think":  # what it thinks is billed, and nobody sees it
        hidden = rng.randint(0, max(0, wanted.output_max - used["output"]))
        used["output"] += hidden
    text = _text(rng, text_bytes)
    odd = rng.choice(_ODD) if manners.odd_usage and rng.random() < 0.5 else ""
    if not wanted.is_stream:
        events = [_plain(wanted, text, used, odd)]
    elif wanted.dialect == "openai":
        events = _chat_events(rng, wanted, text, used, odd)
    else:
        events = _message_events(rng, text, used, odd)
    script = Script(wanted.is_stream, events, is_honest=is_honest and odd != "dense")
    _deliver(rng, script, manners)
    return script


_ODD = ("none", "negative", "fraction", "huge", "zero", "text", "twice", "every", "error", "no end")


def _text(rng: random.Random, size: int) -> str:
    letters = rng.choice(("abcdefgh ", "xyz", '"\\n'))
    text = "".join(rng.choice(letters) for _ in range(size))
    while text and len(json.dumps(text)) - 2 > size:  # escapes take two bytes
        text = text[: -max(1, (len(json.dumps(text)) - 2 - size) // 2)]
    return text


def _pieces(rng: random.Random, text: str) -> list[str]:
    size = rng.choice((7, 30, 120, 100_000))
    return [text[start : start + size] for start in range(0, len(text), size)]


def _json(value: object) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _json_bytes(text: str) -> int:
    return len(json.dumps(text)) - 2


# OpenAI


def _openai_usage(used: Counts, odd: str) -> tuple[Any, Counts | Absurd | None]:
    prompt = used["input"] + used["cache_read"]
    reported: dict[str, Any] = {
        "prompt_tokens": prompt,
        "completion_tokens": used["output"],
        "total_tokens": prompt + used["output"],
        "prompt_tokens_details": {"cached_tokens": used["cache_read"]},
    }
    if odd == "zero":
        zero = dict.fromkeys(used, 0)
        return {"prompt_tokens": 0, "completion_tokens": 0, "total_tokens": 0}, zero
    wrong: dict[str, object] = {
        "negative": -5, "fraction": 2.5, "huge": 2**40, "text": "many",
    }  # fmt: skip
    if odd in wrong:
        reported["completion_tokens"] = wrong[odd]
        return reported, ABSURD
    return reported, dict(used)


def _chat_events(
    rng: random.Random, wanted: Wanted, text: str, used: Counts, odd: str
) -> list[Event]:
    frame = {"id": "chatcmpl-1", "object": "chat.completion.chunk", "model": wanted.model}
    usage, meaning = _openai_usage(used, odd)

    def chunk(delta: object, finish: str | None = None, **more: object) -> bytes:
        choice = {"index": 0, "delta": delta, "finish_reason": finish}
        return b"data: " + _json({**frame, "choices": [choice], **more}) + b"\n\n"

    events = [Event(chunk({"role": "assistant", "content": ""}))]
    if rng.random() < 0.3:
        events.append(Event(b": keep-alive\n\n"))
    for number, piece in enumerate(_pieces(rng, text)):
        delta = {"content": piece}
        size = _json_bytes(piece)
        if odd == "every":
            partly = {**used, "output": min(used["output"], number)}
            reported, so_far = _openai_usage(partly, "")
            events.append(Event(chunk(delta, usage=reported), size, so_far))
        else:
            events.append(Event(chunk(delta), size))
    if odd == "error":
        return [*events, Event(b'data: {"error":{"message":"overloaded"}}\n\n', is_error=True)]
    if odd == "no end":
        return events
    events.append(Event(chunk({}, "stop"), finishes=True))
    if wanted.asks_usage and odd != "none":
        last = b"data: " + _json({**frame, "choices": [], "usage": usage}) + b"\n\n"
        events += [Event(last, usage=meaning, is_only_usage=True)] * (2 if odd == "twice" else 1)
    return [*events, Event(b"data: [DONE]\n\n", is_last=True)]


# Anthropic


def _anthropic_usage(used: Counts, odd: str) -> tuple[dict[str, Any], Counts | Absurd]:
    reported: dict[str, Any] = {
        "input_tokens": used["input"],
        "cache_read_input_tokens": used["cache_read"],
        "output_tokens": used["output"],
    }
    if odd == "zero":
        return dict.fromkeys(reported, 0), dict.fromkeys(used, 0)
    wrong: dict[str, object] = {
        "negative": -5, "fraction": 2.5, "huge": 2**40, "text": "many",
    }  # fmt: skip
    if odd in wrong:
        reported["output_tokens"] = wrong[odd]
        return reported, ABSURD
    return reported, dict(used)


def _message_events(rng: random.Random, text: str, used: Counts, odd: str) -> list[Event]:
    def event(kind: str, **fields: object) -> bytes:
        return f"event: {kind}\ndata: ".encode() + _json({"type": kind, **fields}) + b"\n\n"

    first, meaning = _anthropic_usage({**used, "output": 1}, "zero" if odd == "zero" else "")
    message: dict[str, Any] = {"id": "msg_1", "model": "sim-claude", "content": [], "usage": first}
    if odd == "none":
        del message["usage"]
    events = [
        Event(event("message_start", message=message), usage=None if odd == "none" else meaning)
    ]
    if rng.random() < 0.5:
        events.append(Event(event("ping")))
    for piece in _pieces(rng, text):
        delta = {"type": "text_delta", "text": piece}
        events.append(Event(event("content_block_delta", index=0, delta=delta), _json_bytes(piece)))
    if odd == "error":
        error = {"type": "overloaded_error", "message": "Overloaded"}
        return [*events, Event(event("error", error=error), is_error=True)]
    if odd == "no end":
        return events
    last, meaning = _anthropic_usage(used, odd)
    if odd == "" and rng.random() < 0.3:  # only what has changed
        last, meaning = {"output_tokens": used["output"]}, {"output": used["output"]}
    stop = {"stop_reason": "end_turn"}
    if odd == "none":
        events.append(Event(event("message_delta", delta=stop)))
    else:
        ends = Event(event("message_delta", delta=stop, usage=last), usage=meaning, is_final=True)
        events += [ends] * (2 if odd == "twice" else 1)
    return [*events, Event(event("message_stop"), is_last=True)]


# Plain answers


def _plain(wanted: Wanted, text: str, used: Counts, odd: str) -> Event:
    meaning: Counts | Absurd | None
    if wanted.dialect == "openai":
        usage, meaning = _openai_usage(used, odd)
        part = _json({"index": 0, "message": {"role": "assistant", "content": text}})
        frame = {"id": "chatcmpl-1", "model": wanted.model, "usage": usage}
        name = b'"choices"'
    else:
        usage, meaning = _anthropic_usage(used, odd)
        part = _json({"type": "text", "text": text})
        frame = {"type": "message", "id": "msg_1", "model": wanted.model, "usage": usage}
        name = b'"content"'
    if odd in {"none", "error", "no end"}:
        frame["usage"], meaning = None, None
    body = _json(frame)[:-1] + b"," + name + b":[" + part + b"]}"
    return Event(body, text_bytes=len(part), usage=meaning, is_final=True)


# How it comes


def _deliver(rng: random.Random, script: Script, manners: Manners) -> None:
    """Cut an answer into pieces, and give each its time; perhaps it does not come to its end."""
    body = script.body
    if manners.breaks_off and rng.random() < 0.6:
        script.ends = rng.choice(("eof", "reset", "reset", "silence"))
        first = rng.choice((0, 0, max(0, len(body) - 150)))  # often in its last events
        body = body[: rng.randint(first, len(body))]
    if script.is_stream and manners.splits and rng.random() < 0.7:
        size = rng.choice((3, 50, 400))
        pieces = [body[at : at + size] for at in range(0, len(body), size)]
    elif script.is_stream and rng.random() < 0.7:
        pieces, left = [], len(body)
        for event in script.events:
            pieces.append(event.data[:left])
            left = max(0, left - len(event.data))
    else:
        pieces = [body]
    gaps: tuple[float, ...] = (0.0, 0.0, 0.001, 0.02)
    if manners.is_slow:
        gaps = (0.0, 0.05, 0.5, 3.0)
    if manners.is_endless and script.is_stream and script.ends == "eof" and rng.random() < 0.4:
        # It goes on and on, and would send its end only after every patience.
        filler = Event(b": still there\n\n")
        script.events[1:1] = [filler] * 80
        pieces = [event.data for event in script.events]
        gaps = (0.4, 0.5)
    at_s = 0.0
    for piece in pieces:
        at_s += rng.choice(gaps)
        if piece:
            script.chunks.append((at_s, piece))
    script.end_s = at_s + rng.choice((0.0, 0.001))
