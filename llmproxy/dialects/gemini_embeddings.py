"""Gemini's `embedContent`, `batchEmbedContents` and `countTokens` (reference wire.md A.6).

Of embeddings the input alone is billed; older models do not report it, and it is estimated then.
Counting tokens costs nothing.
"""

from typing import Any

import msgspec

from llmproxy.dialects.answers import (
    ABSENT,
    decoded,
    generated_bytes,
    is_given,
    make_reading,
    unreadable,
)
from llmproxy.dialects.base import InputFacts, Reading, RequestFacts, written_bytes
from llmproxy.dialects.gemini_fields import listed, named
from llmproxy.dialects.gemini_requests import (
    read_contents,
    read_fields,
    require_model,
    require_text,
)
from llmproxy.dialects.gemini_usage import read_usage
from llmproxy.dialects.json_gate import parse_object
from llmproxy.dialects.unmetered import UnmeteredStreamReader
from llmproxy.usage import Movers

EMBED, EMBED_BATCH, COUNT = "embedContent", "batchEmbedContents", "countTokens"


class _OneAnswer:
    """What the methods have in common that answer in one piece and make no text."""

    output_members: tuple[str, ...] = ()
    read_output_members = output_members

    def __init__(self, method: str, model: str) -> None:
        """Take the method and the model, whose name is safe to stand in a path."""
        self.name = method
        self.upstream_path = f"/models/{model}:{method}"
        self._model = model

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is."""
        del facts, injects_usage
        return body

    def stream_reader(self, *, withholds_usage: bool) -> UnmeteredStreamReader:
        """Return a reader for a stream that nobody asked for: all of it is estimated."""
        del withholds_usage
        return UnmeteredStreamReader()

    def _facts(self, text_bytes: int) -> RequestFacts:
        return RequestFacts(
            model=self._model,
            is_stream=False,
            output_max=0,
            choices=1,
            input=InputFacts(text_bytes),
            movers=Movers(),
            may_write_cache=False,
        )


class GeminiEmbeddings(_OneAnswer):
    """`embedContent`, of one content, or `batchEmbedContents`, of several."""

    is_free = False
    bytes_per_seen_byte = 1

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields = read_fields(parse_object(body, ()), self._model)
        require_text(fields.get("content"))
        for one in listed(fields.get("requests")):
            inner = named(one)
            require_model(inner, self._model)
            require_text(inner.get("content"))
        return self._facts(written_bytes(body))

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        answer, is_whole = decoded(_answer_decoder, body)
        if not (is_whole or is_given(answer.usage)):
            return unreadable(body)
        vectors = [answer.embedding] if is_given(answer.embedding) else answer.embeddings
        raw = bytes(answer.usage) if is_given(answer.usage) else None
        return make_reading(
            raw,
            lambda: read_usage(raw or b""),
            model=None,
            movers=Movers(),
            seen_bytes=generated_bytes(body, vectors) if is_whole else written_bytes(body),
            is_final=True,
            has_error=is_given(answer.error),
        )


class GeminiTokenCount(_OneAnswer):
    """`countTokens`, which costs nothing."""

    is_free = True
    bytes_per_seen_byte = 1

    def read_request(self, body: bytes) -> RequestFacts:
        """Read no more than whether something is asked for that is not the user's own."""
        fields = read_fields(parse_object(body, ()), self._model)
        inner: dict[str, Any] = named(fields.get("generateContentRequest"))
        read_fields(inner, self._model)
        for one in (fields, inner):
            read_contents(one.get("contents"), one.get("systemInstruction"))
        return self._facts(0)

    def read_answer(self, body: bytes) -> Reading:
        """Read nothing: there is nothing to bill."""
        del body
        return Reading()


class _Answer(msgspec.Struct):
    embedding: msgspec.Raw = ABSENT
    embeddings: list[msgspec.Raw] | None = None
    usage: msgspec.Raw = msgspec.field(name="usageMetadata", default=ABSENT)
    error: msgspec.Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)
