"""Gemini's own `generateContent` and `streamGenerateContent` (reference wire.md A.6).

A stream is events where the client asks for them (`?alt=sse`), else one JSON array of the same
objects. Each tells the usage so far; no word says that it was the last, but every candidate has a
reason why it ended.
"""

import re
from collections.abc import Callable

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import (
    ABSENT,
    UNREADABLE,
    decoded,
    generated_bytes,
    is_given,
    make_reading,
    text_bytes,
    text_of,
    unreadable,
)
from llmproxy.dialects.base import InputFacts, Reading, RequestFacts, written_bytes
from llmproxy.dialects.gemini_fields import spelled, spellings
from llmproxy.dialects.gemini_requests import (
    Config,
    Contents,
    read_config,
    read_contents,
    read_fields,
    read_movers,
    read_tools,
)
from llmproxy.dialects.gemini_usage import UsageRecords, read_usage
from llmproxy.dialects.json_arrays import ArrayStream, EventsOrArray
from llmproxy.dialects.json_gate import parse_object
from llmproxy.dialects.sse import Deferral, Splitter
from llmproxy.dialects.stream_readers import DeferringStreamReader
from llmproxy.usage import Movers

GENERATE, STREAM = "generateContent", "streamGenerateContent"
BYTES_PER_SEEN_BYTE = 256
"""Of an image in an answer, which has some 1,300 tokens in a mebibyte or two of base64."""
_BILLED_BY_PROMPT = re.compile(r"gemini-[12][.-]")
"""Models whose search is billed once for a prompt, however often they search."""


class GeminiContents:
    """One of both methods, for one model: it stands in the path."""

    output_members: tuple[str, ...] = spellings("maxOutputTokens")
    read_output_members = output_members
    is_free = False
    bytes_per_seen_byte = BYTES_PER_SEEN_BYTE

    def __init__(self, method: str, model: str) -> None:
        """Take the method and the model, whose name is safe to stand in a path."""
        self.name = method
        self.upstream_path = f"/models/{model}:{method}"
        self._model = model

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        given = parse_object(body, ())
        fields = read_fields(given, self._model)
        searches = read_tools(fields)
        config = read_config(fields)
        contents = read_contents(fields.get("contents"), fields.get("systemInstruction"))
        return RequestFacts(
            model=self._model,
            is_stream=self.name == STREAM,
            may_stream_array=self.name == STREAM,
            output_max=config.output_max,
            output_within=spelled(given, "generationConfig"),
            choices=config.choices,
            input=InputFacts(
                written_bytes(body) - contents.data_bytes,
                has_tools=bool(fields.get("tools")),
                media=contents.media,
                pdf_pages=contents.pdf_pages,
                clip_tokens=contents.clip_tokens,
                unsure_clips=contents.unsure_clips,
                rereads="tools: googleSearch" if searches else None,
            ),
            movers=read_movers(fields),
            may_write_cache=False,
            searches=searches,
            media=_media_classes(contents, config),
            names_output=True,
            hides_output=config.thinks or searches > 0 or config.asks_media,
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: this dialect always reports usage."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        answer, is_whole = decoded(_answer_decoder, body)
        if not (is_whole or is_given(answer.usage)):
            return unreadable(body)
        parts = answer.candidates
        return _read_reading(
            bytes(answer.usage) if is_given(answer.usage) else None,
            self._billed(_searches_in(parts) if parts and _GROUNDED in body else 0),
            model=text_of(answer.model),
            seen_bytes=_seen_bytes(body, parts) if is_whole else written_bytes(body),
            is_final=True,
            has_error=is_given(answer.error),
        )

    def stream_reader(self, *, withholds_usage: bool) -> "GeminiStreamReader":
        """Return a reader for one stream; nothing is ever withheld in this dialect."""
        del withholds_usage
        return GeminiStreamReader(self._billed)

    def _billed(self, searches: int) -> int:
        """Return how many of the searches that were made are billed."""
        return min(searches, 1) if _BILLED_BY_PROMPT.match(self._model) else searches


def _media_classes(contents: Contents, config: Config) -> tuple[str, ...]:
    """Return the classes of tokens besides text that a request may cause, read and made."""
    images = ("input_image",) if contents.media or contents.pdf_pages else ()
    # The frames of a video may be called images.
    clips = ("input_audio", "input_image") if contents.has_clips else ()
    return (*(clips or images), *config.media)


class _Answer(msgspec.Struct):
    candidates: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.field(name="usageMetadata", default=ABSENT)
    model: msgspec.Raw = msgspec.field(name="modelVersion", default=ABSENT)
    error: msgspec.Raw = ABSENT


class _Grounding(msgspec.Struct):
    queries: list[msgspec.Raw] | None = msgspec.field(name="webSearchQueries", default=None)


class _Grounded(msgspec.Struct):
    grounding: _Grounding | None = msgspec.field(name="groundingMetadata", default=None)


class _Part(msgspec.Struct):
    text: msgspec.Raw = ABSENT
    call: msgspec.Raw = msgspec.field(name="functionCall", default=ABSENT)
    code: msgspec.Raw = msgspec.field(name="executableCode", default=ABSENT)
    result: msgspec.Raw = msgspec.field(name="codeExecutionResult", default=ABSENT)
    data: msgspec.Raw = msgspec.field(name="inlineData", default=ABSENT)


class _Content(msgspec.Struct):
    parts: list[_Part] | None = None


class _Candidate(msgspec.Struct):
    content: _Content | None = None
    index: int = 0
    finish_reason: msgspec.Raw = msgspec.field(name="finishReason", default=ABSENT)
    grounding: _Grounding | None = msgspec.field(name="groundingMetadata", default=None)


class _Chunk(msgspec.Struct):
    candidates: list[_Candidate] | None = None
    usage: msgspec.Raw = msgspec.field(name="usageMetadata", default=ABSENT)
    model: msgspec.Raw = msgspec.field(name="modelVersion", default=ABSENT)
    error: msgspec.Raw = ABSENT
    feedback: msgspec.Raw = msgspec.field(name="promptFeedback", default=ABSENT)


class _OddChunk(msgspec.Struct):
    candidates: msgspec.Raw = ABSENT


_GROUNDED = b'"groundingMetadata"'
_DATA = b'"inlineData"'
_answer_decoder = msgspec.json.Decoder(_Answer)
_chunk_decoder = msgspec.json.Decoder(_Chunk)
_candidate_decoder = msgspec.json.Decoder(_Candidate)
_odd_chunk_decoder = msgspec.json.Decoder(_OddChunk)


_CHUNKS = Deferral(ends=(b"}\r\n\r\n", b"}\n\n"))


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
        return _read_reading(
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
        if self._model is None:
            self._model = text_of(event.model)
        if event.error is not ABSENT and is_given(event.error):
            self._has_error = True
        if event.feedback is not ABSENT and b"blockReason" in bytes(event.feedback):
            self._is_blocked = True  # the prompt: there is no candidate then

    def _take_candidate(self, candidate: _Candidate) -> None:
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


def _odd_candidates(data: bytes) -> list[_Candidate]:
    """Return what can be read of candidates one of which is not as it should be.

    That it has ended is what matters: the stream has come to its end then.
    """
    written = decoded(_odd_chunk_decoder, data)[0].candidates
    try:
        raws = _raw_list_decoder.decode(written)
    except UNREADABLE:
        raws = [written]  # one alone, where a list should be
    return [decoded(_candidate_decoder, bytes(raw))[0] for raw in raws if bytes(raw)[:1] == b"{"]


_raw_list_decoder = msgspec.json.Decoder(list[msgspec.Raw])


def _part_bytes(part: _Part) -> int:
    """Return how much generated text a part has."""
    seen = text_bytes(part.text)
    for raw in (part.call, part.code, part.result):
        if raw is not ABSENT:
            seen += written_bytes(bytes(raw))
    if part.data is not ABSENT:
        seen += -(-len(part.data) // BYTES_PER_SEEN_BYTE)
    return seen


def _seen_bytes(body: bytes, candidates: list[msgspec.Raw] | None) -> int:
    """Return how much of a plain answer counts as generated text: of images little."""
    seen = generated_bytes(body, candidates)
    if _DATA not in body:
        return seen
    for raw in candidates or ():
        candidate, _ = decoded(_candidate_decoder, bytes(raw))
        data = [] if candidate.content is None else candidate.content.parts or []
        seen -= sum(len(part.data) - len(part.data) // BYTES_PER_SEEN_BYTE for part in data)
    return seen


def _searches_in(candidates: list[msgspec.Raw]) -> int:
    """Return how many searches the candidates of a plain answer report."""
    searches = 0
    for raw in candidates:
        grounded, _ = decoded(_grounded_decoder, bytes(raw))
        if grounded.grounding is not None:
            searches += len(grounded.grounding.queries or ())
    return searches


_grounded_decoder = msgspec.json.Decoder(_Grounded)


def _read_reading(
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
