"""Reads streams of OpenAI's chunks: chat completions and legacy ones (reference wire.md A.2)."""

import msgspec

from llmproxy.dialects.base import ABSENT, UNREADABLE, Reading, is_given, text_bytes
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
    tool_calls: list[_ToolCall] | None = None
    function_call: _Function | None = None
    """What tool calls were before there were several."""


class _Choice(msgspec.Struct):
    index: int | None = None
    text: msgspec.Raw = ABSENT
    """Of legacy completions, which have no delta."""
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Groq(msgspec.Struct):
    usage: msgspec.Raw = ABSENT


class _Chunk(msgspec.Struct):
    model: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = ABSENT
    choices: list[_Choice] | None = None
    error: msgspec.Raw = ABSENT
    x_groq: _Groq | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)


class ChunkStreamReader:
    """Reads one stream of chunks; see `StreamReader`."""

    def __init__(self, *, withholds_usage: bool) -> None:
        """Withhold the usage chunk when the client did not ask for it."""
        self.events = EventStream(self._on_event, holds_back=withholds_usage)
        self.is_complete = False
        self.is_over = False
        self._withholds_usage = withholds_usage
        self._usage: msgspec.Raw = ABSENT
        self._model: str | None = None
        self._service_tier: str | None = None
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

    def _on_event(self, name: bytes, data: bytes) -> bool:
        if self.is_over:
            return False  # whatever comes behind the last word counts for nothing
        if data == b"[DONE]":
            self.is_complete = self.is_over = True
            return False
        if name == b"error":
            self._has_error = True
        try:
            chunk = _chunk_decoder.decode(data)
        except UNREADABLE:
            self.seen_bytes += self.events.unread_bytes(data)
            return False
        return self._take(chunk)

    def _take(self, chunk: _Chunk) -> bool:
        self._model = chunk.model or self._model
        self._service_tier = chunk.service_tier or self._service_tier
        if is_given(chunk.error):
            self._has_error = True
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
            else:
                self._begun.add(choice.index)
            self.seen_bytes += text_bytes(choice.text)
            if choice.delta is not None:
                self.seen_bytes += _delta_bytes(choice.delta)
        if self._finished:
            self.is_complete = self._begun <= self._finished
        usage = chunk.usage
        if not is_given(usage) and chunk.x_groq is not None:
            usage = chunk.x_groq.usage
        if not is_given(usage):
            return False
        self._usage = usage
        # Not every chunk with usage is the extra one: some providers put it beside content.
        return self._withholds_usage and chunk.choices == []


def _delta_bytes(delta: _Delta) -> int:
    texts = (delta.content, delta.reasoning_content, delta.reasoning, delta.refusal)
    seen = sum(text_bytes(raw) for raw in texts)
    if delta.function_call is not None:
        seen += _call_bytes(delta.function_call)
    for call in delta.tool_calls or ():
        if call.function is not None:
            seen += _call_bytes(call.function)
        if call.custom is not None:
            seen += text_bytes(call.custom.name) + text_bytes(call.custom.input)
    return seen


def _call_bytes(call: _Function) -> int:
    return text_bytes(call.name) + text_bytes(call.arguments)
