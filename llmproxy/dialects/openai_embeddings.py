"""OpenAI's embeddings: input alone is billed (reference wire.md A.5)."""

import msgspec

from llmproxy.dialects.base import (
    ABSENT,
    UNREADABLE,
    InputFacts,
    Reading,
    RequestFacts,
    is_given,
    not_metered,
    unreadable,
)
from llmproxy.dialects.json_gate import parse_object, required_model, text
from llmproxy.dialects.openai_options import REFUSED, refuse_unmetered
from llmproxy.dialects.openai_usage import EMBEDDED, has_token_ids, read_reading
from llmproxy.dialects.unmetered import UnmeteredStreamReader
from llmproxy.usage import Movers

_BILLED = frozenset({"model", "input", "service_tier", "stream"} | REFUSED.keys())


class OpenAIEmbeddings:
    """`embeddings`."""

    name = "embeddings"
    upstream_path = "/embeddings"
    output_members: tuple[str, ...] = ()
    read_output_members = output_members
    is_free = False

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields = parse_object(body, _BILLED)
        model = required_model(fields)
        refuse_unmetered(fields, model, REFUSED)
        if fields.get("stream"):
            raise not_metered("stream", "embeddings come in one piece")
        given = fields.get("input")
        if isinstance(given, dict) or (isinstance(given, list) and _has_objects(given)):
            raise not_metered("input", "only text has a price here")
        return RequestFacts(
            model=model,
            is_stream=False,
            output_max=0,
            choices=1,
            input=InputFacts(len(body), has_token_ids=has_token_ids(given)),
            movers=Movers(service_tier=text(fields, "service_tier")),
            may_write_cache=False,
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: an answer always reports usage."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except UNREADABLE:
            return unreadable(body)
        return read_reading(
            answer.usage,
            EMBEDDED,
            model=answer.model,
            service_tier=None,
            seen_bytes=sum(len(bytes(vector)) for vector in answer.data or ()),
            is_final=True,
            has_error=is_given(answer.error),
        )

    def stream_reader(self, *, withholds_usage: bool) -> UnmeteredStreamReader:
        """Return a reader for a stream that nobody asked for: all of it is estimated."""
        del withholds_usage
        return UnmeteredStreamReader()


def _has_objects(inputs: list[object]) -> bool:
    return any(isinstance(one, dict) for one in inputs)


class _Answer(msgspec.Struct):
    model: str | None = None
    usage: msgspec.Raw = ABSENT
    data: list[msgspec.Raw] | None = None
    error: msgspec.Raw = ABSENT
