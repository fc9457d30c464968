"""Reads streams of OpenAI's chunks: chat completions and legacy ones (reference wire.md A.2)."""

import re

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import (
    ABSENT,
    UNREADABLE,
    call_bytes,
    decoded,
    is_given,
    text_bytes,
)
from llmproxy.dialects.base import Reading
from llmproxy.dialects.event_lines import may_tell_error
from llmproxy.dialects.openai_usage import read_reading
from llmproxy.dialects.sse import Deferral, EventStream
from llmproxy.dialects.stream_readers import DeferringStreamReader


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
    audio: msgspec.Raw = ABSENT
    images: msgspec.Raw = ABSENT
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
    object: msgspec.Raw = ABSENT
    x_groq: _Groq | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)

BYTES_PER_MEDIA_BYTE = 256
"""So many of sound and images, which stand in base64, count as one of text."""
_LAST_WORD = b"[DONE]"
_CHUNKS = Deferral(ends=(b"}\n\n",))
_USAGE_CHUNK = re.compile(
    rb'\[(?:(?=\s*\])(?:(?<="choices":\[)|(?<="choices": \[)|(?<="choices" : \[))|DONE\])'
)
"""No choices, as that has; and the last word, behind which nothing is withheld.

Brackets are few, and looked for more quickly than a name.
"""
_NO_USAGE_CHUNKS = _CHUNKS._replace(mark=_USAGE_CHUNK)
_BEGIN, _BLANK = b"data: ", b"\n\n"
_TIER = b'"service_tier"'


class ChunkStreamReader(DeferringStreamReader[_Chunk]):
    """Reads one stream of chunks; see `StreamReader`."""

    def __init__(self, *, withholds_usage: bool) -> None:
        """Withhold the usage chunk when the client did not ask for it."""
        super().__init__(_chunk_decoder)
        deferral = _NO_USAGE_CHUNKS if withholds_usage else _CHUNKS
        self.events: EventStream = EventStream(self, deferral, holds_back=withholds_usage)
        self._withholds_usage = withholds_usage
        self._withheld: _Chunk | None = None
        """The usage chunk, as long as what came before it has not been read."""
        self._usage: msgspec.Raw = ABSENT
        self._is_usage_old = False
        """Text has come since it was told."""
        self._model = ABSENT
        self._service_tier = ABSENT
        self._has_error = False
        self._begun: set[int | None] = set()
        self._finished: set[int | None] = set()

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event; return whether it is the usage chunk that is to be withheld."""
        if data == _LAST_WORD:
            self._end()
            return False
        chunk, is_whole = decoded(_chunk_decoder, data)
        # Not every chunk with usage is the extra one: some providers put it beside content.
        if self._withholds_usage and chunk.choices == [] and _usage_in(chunk) is not ABSENT:
            self._withhold(chunk)
            return True
        was_over = self.is_over
        self._catch_up()
        if self.is_over != was_over:
            return False  # the last word was among what had passed
        if name == b"error":
            self._has_error = True
        before = self.counted_bytes
        self._take_one(chunk, data, is_whole=is_whole)
        if self.counted_bytes != before and _usage_in(chunk) is ABSENT:
            self._is_usage_old = True
        return False

    def _withhold(self, chunk: _Chunk) -> None:
        """Keep the usage chunk: nothing but the last word should follow."""
        self.events.defer_nothing()
        if self._withheld is not None:
            self._catch_up()
        self._withheld = chunk

    @override
    def _catch_up(self) -> None:
        """Read what has passed unread, and then what was withheld behind it."""
        withheld, self._withheld = self._withheld, None
        super()._catch_up()
        found, self._withheld = self._withheld, None
        for chunk in (found, withheld):
            if chunk is not None:
                self._take(chunk)

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return what has been read so far: the last usage that was seen counts.

        Some servers report it with every chunk: it is the bill only once the answer is complete,
        or has ended in an error. What was told before the last text is none after an error, nor
        where it knew of no output yet.
        """
        reading = read_reading(
            self._usage,
            model=self._model,
            service_tier=self._service_tier,
            seen_bytes=seen_bytes,
            is_final=self._is_complete or self._has_error,
            has_error=self._has_error,
        )
        if not (self._is_usage_old and reading.usage is not None):
            return reading
        has_output = any(leg.output for leg in reading.usage.legs)
        is_final = reading.is_final and has_output and not self._has_error
        return msgspec.structs.replace(reading, is_final=is_final)

    @override
    def _read_at_end(self, unread: bytes) -> Reading | None:
        """Return what the last chunk tells, if it tells all: most have the usage, and the model."""
        last = self._withheld or _last_of(unread)
        if last is None or last.model is ABSENT or is_given(last.error):
            return None
        if may_tell_error(unread):
            return None
        # Where usage is withheld, the last word has a mark and is never left unread.
        if not self._withholds_usage and unread.rfind(_LAST_WORD) >= 0:
            return None
        tier = last.service_tier
        if not is_given(tier):
            if unread.rfind(_TIER) >= 0:
                return None
            tier = self._service_tier
        return read_reading(
            _usage_in(last),
            model=last.model,
            service_tier=tier,
            seen_bytes=0,
            is_final=True,
            has_error=self._has_error,
        )

    @override
    def _take(self, event: _Chunk) -> None:
        before = self.counted_bytes
        if event.model is not ABSENT:
            self._model = event.model
        if event.service_tier is not ABSENT and is_given(event.service_tier):
            self._service_tier = event.service_tier
        if is_given(event.error) or bytes(event.object) == b'"error"':
            self._has_error = True
        if event.choices is not None:
            for choice in event.choices:
                self._take_choice(choice)
            if self._finished and not self.is_over:
                self._is_complete = self._begun <= self._finished
        usage = _usage_in(event)
        if usage is not ABSENT:
            self._usage, self._is_usage_old = usage, False
        elif self.counted_bytes != before:
            self._is_usage_old = True

    def _take_choice(self, choice: _Choice) -> None:
        if choice.finish_reason is not ABSENT and is_given(choice.finish_reason):
            self._finished.add(choice.index)
        else:
            self._begun.add(choice.index)
        if choice.delta is not None:
            self.counted_bytes += _delta_bytes(choice.delta)
        if choice.text is not ABSENT:
            self.counted_bytes += text_bytes(choice.text)


def _last_of(unread: bytes) -> _Chunk | None:
    """Return the last chunk; None where there is none that can be read by itself."""
    begin = unread.rfind(_BLANK, 0, -len(_BLANK))
    event = unread[begin + len(_BLANK) if begin >= 0 else 0 : -len(_BLANK)]
    if not event.startswith(_BEGIN) or event.find(b"\n") >= 0 or event.find(b"\r") >= 0:
        return None
    try:
        return _chunk_decoder.decode(event[len(_BEGIN) :])
    except UNREADABLE:
        return None


def _usage_in(chunk: _Chunk) -> msgspec.Raw:
    """Return the usage that a chunk reports, absent where it is null; Groq's stands elsewhere."""
    if chunk.usage is not ABSENT and is_given(chunk.usage):
        return chunk.usage
    groqs = chunk.x_groq
    return groqs.usage if groqs is not None and is_given(groqs.usage) else ABSENT


def _delta_bytes(delta: _Delta) -> int:
    seen = 0
    if delta.content is not ABSENT:
        seen += text_bytes(delta.content)
    if delta.reasoning_content is not ABSENT:
        seen += text_bytes(delta.reasoning_content)
    if delta.reasoning is not ABSENT:
        seen += text_bytes(delta.reasoning)
    if delta.refusal is not ABSENT:
        seen += text_bytes(delta.refusal)
    for media in (delta.audio, delta.images):
        if len(media) > len("null"):  # and more than an empty list
            seen += -(-len(media) // BYTES_PER_MEDIA_BYTE)
    if delta.function_call is not None:
        seen += _call_bytes(delta.function_call)
    if delta.tool_calls is not None:
        seen += sum(map(_tool_call_bytes, delta.tool_calls))
    return seen


def _tool_call_bytes(call: _ToolCall | None) -> int:
    seen = 0
    if call is not None and call.function is not None:
        seen += _call_bytes(call.function)
    if call is not None and call.custom is not None:
        seen += call_bytes(call.custom.name) + text_bytes(call.custom.input)
    return seen


def _call_bytes(call: _Function) -> int:
    return call_bytes(call.name) + text_bytes(call.arguments)
