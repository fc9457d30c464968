"""What is billed by its input alone: OpenAI's embeddings, and moderations where they cost anything.

See reference wire.md A.5.
"""

import msgspec

from llmproxy.dialects.answers import ABSENT, decoded, generated_bytes, is_given, unreadable
from llmproxy.dialects.base import InputFacts, Reading, RequestFacts, not_metered, written_bytes
from llmproxy.dialects.json_gate import text
from llmproxy.dialects.openai_options import REFUSED, read_metered
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
    bytes_per_seen_byte = 1

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields, model = read_metered(body, _BILLED, REFUSED)
        if fields.get("stream"):
            raise not_metered("stream", f"{self.name} come in one piece")
        given = fields.get("input")
        if isinstance(given, dict) or (isinstance(given, list) and _has_objects(given)):
            raise not_metered("input", "only text has a price here")
        return RequestFacts(
            model=model,
            is_stream=False,
            output_max=0,
            choices=1,
            input=InputFacts(written_bytes(body), has_token_ids=has_token_ids(given)),
            movers=Movers(service_tier=text(fields, "service_tier")),
            may_write_cache=False,
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: an answer always reports usage."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        answer, is_whole = decoded(_answer_decoder, body)
        if not (is_whole or is_given(answer.usage)):
            return unreadable(body)
        came = answer.results if answer.data is None else answer.data
        return read_reading(
            answer.usage,
            EMBEDDED,
            model=answer.model,
            service_tier=ABSENT,
            seen_bytes=generated_bytes(body, came) if is_whole else written_bytes(body),
            is_final=True,
            has_error=is_given(answer.error),
        )

    def stream_reader(self, *, withholds_usage: bool) -> UnmeteredStreamReader:
        """Return a reader for a stream that nobody asked for: all of it is estimated."""
        del withholds_usage
        return UnmeteredStreamReader()


class OpenAIModerations(OpenAIEmbeddings):
    """`moderations` of a provider that bills them: Mistral's answer has no usage, another's may."""

    name = "moderations"
    upstream_path = "/moderations"


def _has_objects(inputs: list[object]) -> bool:
    return any(isinstance(one, dict) for one in inputs)


class _Answer(msgspec.Struct):
    model: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    data: list[msgspec.Raw] | None = None
    results: list[msgspec.Raw] | None = None
    error: msgspec.Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)
