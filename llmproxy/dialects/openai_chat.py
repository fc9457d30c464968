"""OpenAI chat completions, and the many servers that speak it (reference wire.md A.1, A.2, A.7)."""

from typing import Any

import msgspec

from llmproxy.dialects.answers import ABSENT, decoded, generated_bytes, is_given, unreadable
from llmproxy.dialects.base import Reading, RequestFacts, written_bytes
from llmproxy.dialects.json_gate import (
    flag,
    maximum,
    parse_object,
    text,
    whole,
    with_member,
    with_new_member,
)
from llmproxy.dialects.openai_chunks import ChunkStreamReader
from llmproxy.dialects.openai_options import (
    CACHE_MEMBERS,
    REFUSED,
    THINKING,
    caches_any_long,
    image_classes,
    input_facts,
    read_contents,
    read_metered,
    refuse_server_tool,
    thinks,
)
from llmproxy.dialects.openai_usage import read_reading
from llmproxy.usage import Movers

CHOICES_MAX = 128
OUTPUT_MEMBERS = ("max_completion_tokens", "max_tokens")

_REFUSED = {**REFUSED, "best_of": "answers that are thrown away are billed too; use `n`"}
_CLIENT_TOOLS = ("function", "custom")
_BILLED = frozenset(
    {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n", *THINKING}
    | {"service_tier", "prediction", "modalities", *CACHE_MEMBERS, "tools", "messages"}
    | _REFUSED.keys()
)


class OpenAIChat:
    """`chat/completions`, of a provider that reads these maxima of output tokens."""

    name = "chat/completions"
    upstream_path = "/chat/completions"
    output_members: tuple[str, ...] = OUTPUT_MEMBERS
    is_free = False
    bytes_per_seen_byte = 1

    def __init__(
        self, read: tuple[str, ...] = OUTPUT_MEMBERS, ignored: tuple[str, ...] = ()
    ) -> None:
        """Take the members that the provider surely reads, and those that it surely does not."""
        self.read_output_members = read
        self._ignored = frozenset(ignored)

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields, model = read_metered(body, _BILLED, _REFUSED)
        tools = fields.get("tools")
        for tool in tools if isinstance(tools, list) else ():
            if isinstance(tool, dict):
                refuse_server_tool(tool, _CLIENT_TOOLS)
        output_max, unread_max = self._maxima(fields)
        contents = read_contents(_url_of, fields.get("messages"))
        return RequestFacts(
            model=model,
            is_stream=flag(fields, "stream"),
            output_max=output_max,
            unread_max=unread_max,
            choices=whole(fields, "n", lowest=1, highest=CHOICES_MAX) or 1,
            input=input_facts(fields, body, contents),
            movers=Movers(service_tier=text(fields, "service_tier")),
            # OpenAI writes its cache by itself, unasked; where it has no price, it costs nothing.
            may_write_cache=True,
            may_write_cache_1h=caches_any_long(fields, contents),
            media=image_classes(fields, contents),
            # Tokens of a prediction that was not accepted are billed as output.
            output_tokens_extra=len(body) if fields.get("prediction") else 0,
            hides_output=bool(fields.get("prediction")) or thinks(fields),
            asks_usage=asks_usage(fields),
            has_stream_options="stream_options" in fields,
        )

    def _maxima(self, fields: dict[str, Any]) -> tuple[int | None, int | None]:
        """Return the maximum that counts, and the one that the provider may not read."""
        given = [key for key in OUTPUT_MEMBERS if key in fields]
        limits = {key: limit for key in given if (limit := maximum(fields, key))}
        if not limits:
            return None, None
        # Of two, some servers read the one, some the other: the larger bounds them both.
        largest = max(limits.values())
        if not limits.keys().isdisjoint(self.read_output_members):
            return largest, None
        return largest if limits.keys() <= self._ignored else None, largest

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body, asking for usage in a stream whose client did not (wire.md A.2)."""
        return with_usage_asked(body, facts) if injects_usage else body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        return read_choices(body)

    def stream_reader(self, *, withholds_usage: bool) -> ChunkStreamReader:
        """Return a reader for one stream."""
        return ChunkStreamReader(withholds_usage=withholds_usage)


def _url_of(part: dict[str, Any]) -> object:
    """Return the link or `data:` URL of an image or file."""
    image, file = part.get("image_url"), part.get("file")
    if isinstance(image, dict):
        return image.get("url")
    return file.get("file_data") if isinstance(file, dict) else image


def asks_usage(fields: dict[str, Any]) -> bool:
    """Say whether the client itself asks for a usage chunk."""
    options = fields.get("stream_options")
    return isinstance(options, dict) and options.get("include_usage") is True


def with_usage_asked(body: bytes, facts: RequestFacts) -> bytes:
    """Return the body of a stream with `stream_options.include_usage` in it; others unchanged."""
    if not facts.is_stream or facts.asks_usage:
        return body
    if not facts.has_stream_options:
        return with_new_member(body, "stream_options", {"include_usage": True})
    options = parse_object(body, _BILLED).get("stream_options")
    kept = options if isinstance(options, dict) else {}
    return with_member(body, "stream_options", {**kept, "include_usage": True})


class _Answer(msgspec.Struct):
    model: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    choices: list[msgspec.Raw] | None = None
    error: msgspec.Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)


def read_choices(body: bytes) -> Reading:
    """Read a whole plain answer with `choices`: of chat, or of legacy completions."""
    answer, is_whole = decoded(_answer_decoder, body)
    if not (is_whole or is_given(answer.usage)):
        return unreadable(body)
    return read_reading(
        answer.usage,
        model=answer.model,
        service_tier=answer.service_tier,
        seen_bytes=generated_bytes(body, answer.choices) if is_whole else written_bytes(body),
        is_final=True,
        has_error=is_given(answer.error),
    )
