"""Reads Gemini's streams, as events or as one JSON array (reference wire.md A.6).

Each chunk tells the usage so far, and leaves out at times what an earlier one told. No word says
that it was the last, but every candidate has a reason why it ended.
"""

import re
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
from llmproxy.dialects.gemini_usage import LEFT_OUT, PROMPT, UsageRecords, read_usage
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
_BEGIN = b"\ndata: "
_BLANK_LINE = (b"\n\n", b"\n\r\n")
_SEARCHES = b'"webSearchQueries"'
_OTHER_CANDIDATE = re.compile(rb'"index"\s*+:\s*+[^0\s]')
_QUOTED = {name: b'"%b"' % name.encode() for name in LEFT_OUT}


class GeminiStreamReader(DeferringStreamReader[_Chunk]):
    """Reads one stream, of events or as an array; see `StreamReader`."""

    def __init__(self, billed: Callable[[int], int]) -> None:
        """Start with nothing read; `billed` says how many of the searches count."""
        super().__init__(_chunk_decoder)
        self.events: Splitter = EventsOrArray(self, _CHUNKS)
        self._billed = billed
        self._usage = UsageRecords()
        self._model: str | None = None
        self._running: set[int] = set()
        self._ended: set[int] = set()
        """The candidates that have not ended yet, and those that have."""
        self._is_blocked = False
        self._searches: dict[int, int] = {}
        self._has_error = False

    @override
    def on_finish(self) -> None:
        """Take the end of a stream of events: what it tells is told now.

        How much text there was changes no bill then.
        """
        reading = self._read_last()
        if reading is not None:
            self._is_complete = True
        else:
            self._catch_up()
            reading = self._tell()
            if reading.is_final:
                reading = msgspec.structs.replace(reading, seen_bytes=0)
        self._at_end = reading

    def _read_last(self) -> Reading | None:
        """Return what the last chunk tells, read alone; None if others that wait may change it."""
        unread = b"".join(self.events.deferred)
        # Within the end of its data, if it is that which comes last.
        begin, last = _chunk_around(unread, len(unread) - len(b"}\r\n\r\n"))
        if last is None or not last.candidates or not self._is_last_alone(unread):
            return None
        has_ended = all(is_given(candidate.finish_reason) for candidate in last.candidates)
        model = text_of(last.model)
        raw = self._completed(last.usage, unread, begin) if has_ended and model else None
        if raw is None:
            return None
        reading = read_reading(raw, 0, model=model, seen_bytes=0, is_final=True, has_error=False)
        return reading if self._is_believed(reading) else None

    def _is_last_alone(self, unread: bytes) -> bool:
        """Say whether no chunk has what makes a difference wherever it stands.

        That is an error, a search, and any candidate but the first.
        """
        if self._has_error or self._searches or self._running - {0}:
            return False
        if may_tell_error(unread) or unread.rfind(_SEARCHES) >= 0:
            return False
        return _OTHER_CANDIDATE.search(unread) is None

    def _completed(self, last: msgspec.Raw, unread: bytes, end: int) -> bytes | None:
        """Return the last usage, with what it leaves out of the chunks before `end`.

        Each member is taken from the last chunk that names it, or from what has been read already;
        None where that is not so simple.
        """
        records = UsageRecords()
        records.take(last)
        missing = records.missing()
        if PROMPT in missing:
            return None
        for name in missing:
            at = unread.rfind(_QUOTED[name], 0, end)
            if at >= 0:
                _, chunk = _chunk_around(unread, at)
                if chunk is None or not records.fill(name, chunk.usage):
                    return None
        records.follow(self._usage)
        return records.raw()

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take a chunk, whether it came as an event or in an array; none is ever withheld."""
        self._catch_up()
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
        self._is_complete = self._has_ended
        return True

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return what has been read so far; usage is final when all candidates have ended."""
        return read_reading(
            self._usage.raw(),
            self._billed(sum(self._searches.values())),
            model=self._model,
            seen_bytes=seen_bytes,
            is_final=self._has_ended,
            has_error=self._has_error,
        )

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
        if event.model is not ABSENT:
            self._model = text_of(event.model) or self._model
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


def _chunk_around(unread: bytes, at: int) -> tuple[int, _Chunk | None]:
    """Return where the event begins that has this position in its data, and its chunk.

    None where it is not so simple: data in several lines, or other lines beside them.
    """
    begin = unread.rfind(_BEGIN, 0, max(at, 0)) + 1
    end = unread.find(b"\n", begin)
    is_first = not begin or unread.endswith(_BLANK_LINE, 0, begin)
    is_last = unread.startswith(_BLANK_LINE, end)
    if not (begin <= at < end and is_first and is_last and unread.startswith(_BEGIN[1:], begin)):
        return begin, None
    try:
        return begin, _chunk_decoder.decode(unread[begin + len(_BEGIN) - 1 : end])
    except UNREADABLE:
        return begin, None


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
