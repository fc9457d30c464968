"""Reads Gemini's streams, as events or as one JSON array (reference wire.md A.6).

Each chunk tells the usage so far, and leaves out at times what an earlier one told. No word says
that it was the last, but every candidate has a reason why it ended.
"""

from collections.abc import Callable

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import (
    ABSENT,
    UNREADABLE,
    decoded,
    is_given,
    make_reading,
    text_bytes,
    text_of,
)
from llmproxy.dialects.base import Reading, written_bytes
from llmproxy.dialects.event_lines import may_tell_error
from llmproxy.dialects.gemini_usage import (
    CANDIDATES,
    PROMPT,
    THOUGHTS,
    TOOL_USE,
    UsageRecords,
    read_usage,
)
from llmproxy.dialects.json_arrays import ArrayStream, EventsOrArray
from llmproxy.dialects.sse import Deferral, Splitter
from llmproxy.dialects.stream_readers import DeferringStreamReader
from llmproxy.usage import Movers

BYTES_PER_SEEN_BYTE = 256
"""Of an image in an answer, which has some 1,300 tokens in a mebibyte or two of base64."""


class Grounding(msgspec.Struct):
    """What was searched for."""

    queries: list[msgspec.Raw] | None = msgspec.field(name="webSearchQueries", default=None)


class Part(msgspec.Struct):
    """A piece of what was generated."""

    text: msgspec.Raw = ABSENT
    call: msgspec.Raw = msgspec.field(name="functionCall", default=ABSENT)
    code: msgspec.Raw = msgspec.field(name="executableCode", default=ABSENT)
    result: msgspec.Raw = msgspec.field(name="codeExecutionResult", default=ABSENT)
    data: msgspec.Raw = msgspec.field(name="inlineData", default=ABSENT)


class _Content(msgspec.Struct):
    parts: list[Part] | None = None


class Candidate(msgspec.Struct):
    """What a chunk, or a plain answer, brings of one of the answers that were asked for."""

    content: _Content | None = None
    index: int = 0
    finish_reason: msgspec.Raw = msgspec.field(name="finishReason", default=ABSENT)
    grounding: Grounding | None = msgspec.field(name="groundingMetadata", default=None)


class _Chunk(msgspec.Struct):
    candidates: list[Candidate] | None = None
    usage: msgspec.Raw = msgspec.field(name="usageMetadata", default=ABSENT)
    model: msgspec.Raw = msgspec.field(name="modelVersion", default=ABSENT)
    error: msgspec.Raw = ABSENT
    feedback: msgspec.Raw = msgspec.field(name="promptFeedback", default=ABSENT)


class _OddChunk(msgspec.Struct):
    candidates: msgspec.Raw = ABSENT


candidate_decoder = msgspec.json.Decoder(Candidate)
_chunk_decoder = msgspec.json.Decoder(_Chunk)
_odd_chunk_decoder = msgspec.json.Decoder(_OddChunk)
_raw_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])

_CHUNKS = Deferral(ends=(b"}\r\n\r\n", b"}\n\n"))
_MATTERS = (b'"webSearchQueries"', b'"index": 1', b'"index":1')
"""What makes a difference wherever it stands; of several candidates each has to end."""
_NAMES = {name: b'"%b"' % name.encode() for name in (TOOL_USE, CANDIDATES, THOUGHTS)}
_BEGIN = b"\ndata: "


class GeminiStreamReader(DeferringStreamReader[_Chunk]):
    """Reads one stream, of events or as an array; see `StreamReader`."""

    def __init__(self, billed: Callable[[int], int]) -> None:
        """Start with nothing read; `billed` says how many of the searches count."""
        super().__init__(_chunk_decoder)
        self.events: Splitter = EventsOrArray(self, _CHUNKS)
        self._billed = billed
        self._usage = UsageRecords()
        self._model = ABSENT
        self._running: set[int] = set()
        self._ended: set[int] = set()
        """The candidates that have not ended yet, and those that have."""
        self._is_blocked = False
        self._searches: dict[int, int] = {}
        self._has_error = False
        self._is_unread = True
        """Nothing has been read of the stream yet."""
        self._told_by_few: tuple[int, Reading | None] = 0, None
        """What few of so many unread bytes tell."""

    @override
    def reading(self) -> Reading:
        """Return what has been read so far."""
        return self._read_few() or super().reading()

    @property
    @override
    def is_complete(self) -> bool:
        """The answer has come to its proper end."""
        return self._read_few() is not None or super().is_complete

    def _read_few(self) -> Reading | None:
        """Return what the last chunk tells, if no other can change it; None where that may be."""
        unread_bytes = self.events.deferred_bytes
        if not (self._is_unread and unread_bytes):
            return None
        if self._told_by_few[0] != unread_bytes:
            told = _told_by_few(b"".join(self.events.deferred))
            is_believed = told is not None and self._is_believed(told)
            self._told_by_few = unread_bytes, told if is_believed else None
        return self._told_by_few[1]

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take a chunk, whether it came as an event or in an array; none is ever withheld."""
        self._catch_up()
        self._is_unread = False
        chunk, is_whole = decoded(_chunk_decoder, data)
        if not is_whole and not chunk.candidates:
            chunk.candidates = _odd_candidates(data)
        is_error = name == b"error"
        self._has_error = self._has_error or is_error
        self._take_one(chunk, data, is_whole=is_whole or is_error)
        # An array is complete only with its closing bracket, and a lone object at the end.
        self._is_complete = self._has_ended and not isinstance(self.events, ArrayStream)
        return False

    @override
    def on_deferred(self, datas: list[bytes]) -> bool:
        """Take chunks that have passed unread; see `EventReader`."""
        if not super().on_deferred(datas):
            return False
        self._is_unread = False
        self._is_complete = self._has_ended
        return True

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return what has been read so far; usage is final when all candidates have ended."""
        return read_reading(
            self._usage.raw(),
            self._billed(sum(self._searches.values())),
            model=text_of(self._model),
            seen_bytes=seen_bytes,
            is_final=self._has_ended,
            has_error=self._has_error,
        )

    @override
    def _tell(self) -> Reading:
        """Return what has been read so far; how much text there was does not change a bill."""
        reading = super()._tell()
        return msgspec.structs.replace(reading, seen_bytes=0) if reading.is_final else reading

    @property
    def _has_ended(self) -> bool:
        # Of the candidates that have begun: a provider may send fewer than were asked for.
        return self._is_blocked or (bool(self._ended) and not self._running)

    def on_array_end(self) -> None:
        """Take note that the array has closed, or all of a lone object has come.

        The answer is complete only then.
        """
        self._is_complete = self.is_over = self._has_ended

    @override
    def _take(self, event: _Chunk) -> None:
        for candidate in event.candidates or ():
            self._take_candidate(candidate)
        # Twice, since asking costs little and looking more.
        if event.usage is not ABSENT and is_given(event.usage):
            self._usage.take(event.usage)
        if event.model is not ABSENT and is_given(event.model):
            self._model = event.model
        if event.error is not ABSENT and is_given(event.error):
            self._has_error = True
        if event.feedback is not ABSENT and b"blockReason" in bytes(event.feedback):
            self._is_blocked = True  # the prompt: there is no candidate then

    def _take_candidate(self, candidate: Candidate) -> None:
        index = candidate.index
        if candidate.finish_reason is not ABSENT and is_given(candidate.finish_reason):
            self._running.discard(index)
            self._ended.add(index)
        elif index not in self._ended:
            self._running.add(index)
        if candidate.content is not None:
            for part in candidate.content.parts or ():
                self.counted_bytes += _part_bytes(part)
        if candidate.grounding is not None and candidate.grounding.queries:
            # It is told again as it grows.
            queries = len(candidate.grounding.queries)
            self._searches[index] = max(self._searches.get(index, 0), queries)


def _told_by_few(unread: bytes) -> Reading | None:
    """Return what chunks tell of which only the last matters; None where that may not be so."""
    begin = unread.rfind(_BEGIN) + 1
    last = _chunk_at(unread, begin)
    if last is None or not last.candidates:
        return None
    has_ended = all(is_given(candidate.finish_reason) for candidate in last.candidates)
    model = text_of(last.model)
    if not has_ended or model is None or may_tell_error(unread):
        return None
    for name in _MATTERS:
        if unread.rfind(name) >= 0:
            return None
    raw = _completed(last.usage, unread, begin)
    if raw is None:
        return None
    return read_reading(raw, 0, model=model, seen_bytes=0, is_final=True, has_error=False)


def _completed(last: msgspec.Raw, unread: bytes, end: int) -> bytes | None:
    """Return the last usage, with what it leaves out of the chunks before `end`.

    Each count is taken from the last that names it; None where that is not so simple.
    """
    records = UsageRecords()
    records.take(last)
    missing = records.missing()
    if PROMPT in missing:
        return None
    for name in missing:
        at = unread.rfind(_NAMES[name], 0, end)
        if at >= 0:
            chunk = _chunk_at(unread, unread.rfind(_BEGIN, 0, at) + 1)
            if chunk is None or not records.fill(name, chunk.usage):
                return None
    return records.raw()


def _chunk_at(unread: bytes, begin: int) -> _Chunk | None:
    """Return the chunk whose event begins there; None where it has more than a line of data."""
    end = unread.find(b"\n", begin)
    is_whole = unread.startswith((b"\n", b"\r\n"), end + 1)
    is_first = not begin or unread.endswith((b"\n\n", b"\n\r\n"), 0, begin)
    if not (is_whole and is_first and unread.startswith(_BEGIN[1:], begin)):
        return None
    try:
        return _chunk_decoder.decode(unread[begin + len(_BEGIN) - 1 : end])
    except UNREADABLE:
        return None


def _odd_candidates(data: bytes) -> list[Candidate]:
    """Return what can be read of candidates one of which is not as it should be.

    That it has ended is what matters: the stream has come to its end then.
    """
    written = decoded(_odd_chunk_decoder, data)[0].candidates
    try:
        raws = _raw_list_decoder.decode(written)
    except UNREADABLE:
        raws = [written]  # one alone, where a list should be
    return [decoded(candidate_decoder, bytes(raw))[0] for raw in raws if bytes(raw)[:1] == b"{"]


def _part_bytes(part: Part) -> int:
    """Return how much generated text a part has."""
    seen = text_bytes(part.text)
    for raw in (part.call, part.code, part.result):
        if raw is not ABSENT:
            seen += written_bytes(bytes(raw))
    if part.data is not ABSENT:
        seen += -(-len(part.data) // BYTES_PER_SEEN_BYTE)
    return seen


def read_reading(
    raw: bytes | None,
    searches: int,
    *,
    model: str | None,
    seen_bytes: int,
    is_final: bool,
    has_error: bool,
) -> Reading:
    """Return what has been read of an answer, with its usage record in the normal form."""
    return make_reading(
        raw,
        lambda: read_usage(raw or b"", searches),
        model=model,
        movers=Movers(),
        seen_bytes=seen_bytes,
        is_final=is_final,
        has_error=has_error,
    )
