"""OpenAI's legacy completions (reference wire.md A.2, A.5, C.1)."""

from llmproxy.dialects.base import InputFacts, Reading, RequestFacts, written_bytes
from llmproxy.dialects.json_gate import (
    flag,
    maximum,
    text,
    whole,
)
from llmproxy.dialects.openai_chat import CHOICES_MAX, asks_usage, read_choices, with_usage_asked
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.openai_options import REFUSED, read_metered
from llmproxy.dialects.openai_usage import count_prompts, has_token_ids
from llmproxy.usage import Movers

_BILLED = frozenset(
    {"model", "stream", "stream_options", "max_tokens", "n", "best_of", "prompt", "service_tier"}
    | REFUSED.keys()
)


class OpenAICompletions:
    """`completions`: each prompt is answered `n` times, or `best_of` times unseen."""

    name = "completions"
    upstream_path = "/completions"
    output_members: tuple[str, ...] = ("max_tokens",)
    read_output_members = output_members
    is_free = False
    bytes_per_seen_byte = 1

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields, model = read_metered(body, _BILLED, REFUSED)
        answers = [
            whole(fields, key, lowest=1, highest=CHOICES_MAX) or 1 for key in ("n", "best_of")
        ]
        prompts = fields.get("prompt")
        return RequestFacts(
            model=model,
            is_stream=flag(fields, "stream"),
            # OpenAI's default is 16 tokens, other servers have none: the model's own maximum.
            output_max=maximum(fields, "max_tokens"),
            choices=count_prompts(prompts) * max(answers),
            input=InputFacts(written_bytes(body), has_token_ids=has_token_ids(prompts)),
            movers=Movers(service_tier=text(fields, "service_tier")),
            may_write_cache=True,
            # What is thrown away of the best of many is billed, and never seen.
            hides_output=answers[1] > answers[0],
            asks_usage=asks_usage(fields),
            has_stream_options="stream_options" in fields,
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body, asking for usage in a stream whose client did not (wire.md A.2)."""
        return with_usage_asked(body, facts) if injects_usage else body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        return read_choices(body)

    def stream_reader(self, *, withholds_usage: bool) -> ChunkStreamReader:
        """Return a reader for one stream."""
        return ChunkStreamReader(withholds_usage=withholds_usage)
