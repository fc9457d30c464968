"""Gemini's own `generateContent` and `streamGenerateContent` (reference wire.md A.6).

A stream is events where the client asks for them (`?alt=sse`), else one JSON array of the same
objects. Each tells the usage so far; no word says that it was the last, but every candidate has a
reason why it ended.
"""

import re

import msgspec

from llmproxy.dialects.answers import (
    ABSENT,
    decoded,
    generated_bytes,
    is_given,
    text_of,
    unreadable,
)
from llmproxy.dialects.base import InputFacts, Reading, RequestFacts, written_bytes
from llmproxy.dialects.gemini_chunks import (
    BYTES_PER_SEEN_BYTE,
    GeminiStreamReader,
    Grounding,
    candidate_decoder,
    read_reading,
)
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
from llmproxy.dialects.json_gate import parse_object

GENERATE, STREAM = "generateContent", "streamGenerateContent"
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
        return read_reading(
            bytes(answer.usage) if is_given(answer.usage) else None,
            self._billed(_searches_in(parts) if parts and _GROUNDED in body else 0),
            model=text_of(answer.model),
            seen_bytes=_seen_bytes(body, parts) if is_whole else written_bytes(body),
            is_final=True,
            has_error=is_given(answer.error),
        )

    def stream_reader(self, *, withholds_usage: bool) -> GeminiStreamReader:
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


class _Grounded(msgspec.Struct):
    grounding: Grounding | None = msgspec.field(name="groundingMetadata", default=None)


_GROUNDED = b'"groundingMetadata"'
_DATA = b'"inlineData"'
_answer_decoder = msgspec.json.Decoder(_Answer)


def _seen_bytes(body: bytes, candidates: list[msgspec.Raw] | None) -> int:
    """Return how much of a plain answer counts as generated text: of images little."""
    seen = generated_bytes(body, candidates)
    if _DATA not in body:
        return seen
    for raw in candidates or ():
        candidate, _ = decoded(candidate_decoder, bytes(raw))
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
