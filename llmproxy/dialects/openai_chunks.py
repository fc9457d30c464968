"""Reads streams of OpenAI's chunks: chat completions and legacy ones (reference wire.md A.2)."""

from collections.abc import Iterator

import msgspec

from llmproxy.dialects.answers import (
    ABSENT,
    call_bytes,
    decoded,
    is_given,
    text_bytes,
)
from llmproxy.dialects.base import Reading
from llmproxy.dialects.openai_usage import read_reading
from llmproxy.dialects.sse import EventStream


class _Function(msgspec.Struct):
    name: msgspec.Raw = ABSENT
    arguments: msgspec.Raw = ABSENT


class _Custom(msgspec.Struct):
    name: msgspec.Raw = ABSENT
    input: msgspec.Raw = ABSENT


class _ToolCall(msgspec.Struct):
    function: _Function | None = None
    custom: _Custom | None = None


class _Delta(msgspec.Struct):
    content: msgspec.Raw = ABSENT
    reasoning_content: msgspec.Raw = ABSENT
    reasoning: msgspec.Raw = ABSENT
    refusal: msgspec.Raw = ABSENT
    tool_calls: list[_ToolCall | None] | None = None
    function_call: _Function | None = None
    """What tool calls were before there were several."""


class _Choice(msgspec.Struct):
    index: int | None = None
    text: msgspec.Raw = ABSENT
    """Of legacy completions, which have no delta."""
    delta: _Delta | None = None
    finish_reason: msgspec.Raw = ABSENT


class _Groq(msgspec.Struct):
    usage: msgspec.Raw = ABSENT


class _Chunk(msgspec.Struct):
    model: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    choices: list[_Choice] | None = None
    error: msgspec.Raw = ABSENT
    x_groq: _Groq | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)


class ChunkStreamReader:
    """Reads one stream of chunks; see `StreamReader`."""

    def __init__(self, *, withholds_usage: bool) -> None:
        """Withhold the usage chunk when the client did not ask for it."""
        self.events = EventStream(self, holds_back=withholds_usage)
        self.is_complete = False
        self.is_over = False
        self._withholds_usage = withholds_usage
        self._usage: msgspec.Raw = ABSENT
        self._model = ABSENT
        self._service_tier = ABSENT
        self.seen_bytes = 0
        self._has_error = False
        self._begun: set[int | None] = set()
        self._finished: set[int | None] = set()

    def reading(self) -> Reading:
        """Return what has been read so far: the last usage that was seen counts.

        Some servers report it with every chunk: it is the bill only once the answer is complete,
        or has ended in an error.
        """
        return read_reading(
            self._usage,
            model=self._model,
            service_tier=self._service_tier,
            seen_bytes=self.seen_bytes,
            is_final=self.is_complete or self._has_error,
            has_error=self._has_error,
        )

    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event; return whether it is the usage chunk that is to be withheld."""
        if self.is_over:
            return False  # whatever comes behind the last word counts for nothing
        if data == b"[DONE]":
            self.is_complete = self.is_over = True
            self.events.repeats.forget()
            return False
        if name == b"error":
            self._has_error = True
        chunk, is_whole = decoded(_chunk_decoder, data)
        before = self.seen_bytes
        is_withheld = self._take(chunk)
        generated = self.seen_bytes - before
        if not is_whole:
            self.seen_bytes = before + max(generated, self.events.unread_bytes(data))
        elif generated and self.events.repeats.may_learn:
            self._learn(data, chunk, generated)
        return is_withheld

    def _learn(self, data: bytes, chunk: _Chunk, generated: int) -> None:
        """Expect more chunks like this one, if it says nothing but one text of so many bytes."""
        if chunk.choices is None or len(chunk.choices) != 1 or chunk.x_groq is not None:
            return
        (choice,) = chunk.choices
        if is_given(choice.finish_reason) or is_given(chunk.usage) or is_given(chunk.error):
            return
        for member, text in _texts(choice):
            if text is not ABSENT and text_bytes(text) == generated:
                self.events.repeats.learn(data, member, bytes(text), b"obfuscation")
                return

    def _take_names(self, chunk: _Chunk) -> None:
        """Take what others repeat: repeats of an older chunk would have to take it back."""
        if chunk.model is not ABSENT and chunk.model != self._model:
            self._model = chunk.model
            self.events.repeats.forget()
        tier = chunk.service_tier
        if tier is not ABSENT and tier != self._service_tier and is_given(tier):
            self._service_tier = tier
            self.events.repeats.forget()

    def _take(self, chunk: _Chunk) -> bool:
        self._take_names(chunk)
        if chunk.error is not ABSENT and is_given(chunk.error):
            self._has_error = True
        for choice in chunk.choices or ():
            self._take_choice(choice)
        if self._finished:
            self.is_complete = self._begun <= self._finished
        usage = chunk.usage if chunk.x_groq is None or is_given(chunk.usage) else chunk.x_groq.usage
        if usage is ABSENT or not is_given(usage):
            return False
        self._usage = usage
        # Not every chunk with usage is the extra one: some providers put it beside content.
        return self._withholds_usage and chunk.choices == []

    def _take_choice(self, choice: _Choice) -> None:
        if choice.finish_reason is not ABSENT and is_given(choice.finish_reason):
            self._finished.add(choice.index)
        else:
            self._begun.add(choice.index)
        if choice.text is not ABSENT:
            self.seen_bytes += text_bytes(choice.text)
        if choice.delta is not None:
            self.seen_bytes += _delta_bytes(choice.delta)


def _texts(choice: _Choice) -> Iterator[tuple[bytes, msgspec.Raw]]:
    """Yield the texts that events repeat, with the names of their members."""
    delta = choice.delta
    if delta is None:
        yield b"text", choice.text
        return
    yield b"content", delta.content
    yield b"reasoning_content", delta.reasoning_content
    yield b"reasoning", delta.reasoning
    for call in delta.tool_calls or ():
        if call is not None and call.function is not None:
            yield b"arguments", call.function.arguments


def _delta_bytes(delta: _Delta) -> int:
    seen = 0
    for raw in (delta.content, delta.reasoning_content, delta.reasoning, delta.refusal):
        if raw is not ABSENT:
            seen += text_bytes(raw)
    if delta.function_call is not None:
        seen += _call_bytes(delta.function_call)
    for call in delta.tool_calls or ():
        if call is None:
            continue
        if call.function is not None:
            seen += _call_bytes(call.function)
        if call.custom is not None:
            seen += call_bytes(call.custom.name) + text_bytes(call.custom.input)
    return seen


def _call_bytes(call: _Function) -> int:
    return call_bytes(call.name) + text_bytes(call.arguments)
