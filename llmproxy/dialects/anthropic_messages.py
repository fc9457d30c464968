"""Anthropic messages (reference wire.md A.4).

`input_tokens` excludes cached tokens here. A stream reports its input at the start and repeats
everything, cumulative, at its end; the later report wins, field by field.
"""

import re
from typing import Any, NamedTuple

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import (
    ABSENT,
    NO_COUNTS,
    call_bytes,
    decoded,
    generated_bytes,
    is_given,
    text_bytes,
    text_of,
    unreadable,
)
from llmproxy.dialects.anthropic_usage import merged, read_reading, usage_in
from llmproxy.dialects.base import (
    KEPT,
    SEARCHES_MAX_DEFAULT,
    InputFacts,
    Reading,
    RequestFacts,
    not_metered,
    parts,
    refuse_members,
    what_rereads,
    written_bytes,
)
from llmproxy.dialects.json_gate import flag, parse_object, required_model, text, whole
from llmproxy.dialects.media import Embedded, in_base64
from llmproxy.dialects.sse import Deferral, EventStream
from llmproxy.dialects.stream_readers import DeferringStreamReader
from llmproxy.usage import TOKENS_MAX, Movers

_BILLED = frozenset(
    {"model", "stream", "max_tokens", "service_tier", "speed", "inference_geo", "tools"}
    | {"messages", "system", "cache_control", "context_management", "thinking"}
    | {"fallbacks", "thread", "mcp_servers", "container", "billing_policy", "user_profile_id"}
)
REFUSED = {
    "fallbacks": "another model could answer at another price",
    "thread": KEPT,
    "mcp_servers": "what they cost is not bounded by the request",
    "container": "their cost is not reported, and none can have been made through this proxy",
    "billing_policy": "it would bill somebody else",
    "user_profile_id": "it would bill somebody else",
}
_CLIENT_TOOLS = ("custom", "bash_", "text_editor_", "computer_", "memory_")
_WEB_SEARCH = "web_search_"
_MEDIA_BLOCKS = ("image", "document")
_CACHE_TTLS_SHORT = (None, "5m")


class AnthropicMessages:
    """`messages`."""

    name = "messages"
    upstream_path = "/v1/messages"
    output_members: tuple[str, ...] = ("max_tokens",)
    read_output_members = output_members
    is_free = False
    bytes_per_seen_byte = 1

    def __init__(self, *, answers_nothing_for_0: bool = True) -> None:
        """Say whether a maximum of 0 is read as such: Anthropic fills its cache then (wire.md A.4).

        Whoever else speaks its dialect may read it as "not set".
        """
        self._answers_nothing_for_0 = answers_nothing_for_0

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields = parse_object(body, _BILLED)
        refuse_members(fields, REFUSED)
        contents = _read_contents(fields)
        searches = _searches(fields)
        rereads = what_rereads(fields, searches)
        output_max = whole(fields, "max_tokens", lowest=0, highest=TOKENS_MAX)
        return RequestFacts(
            model=required_model(fields),
            is_stream=flag(fields, "stream"),
            output_max=output_max if self._answers_nothing_for_0 else output_max or None,
            choices=1,
            input=InputFacts(
                written_bytes(body) - contents.data_bytes,
                has_tools=bool(fields.get("tools")),
                media=contents.media,
                pdf_pages=contents.pdf_pages,
                rereads=rereads,
            ),
            movers=Movers(
                service_tier=text(fields, "service_tier"),
                speed=text(fields, "speed"),
                geo=text(fields, "inference_geo"),
            ),
            may_write_cache=contents.may_write_cache,
            may_write_cache_1h=contents.may_write_cache_1h,
            searches=searches,
            hides_output=rereads is not None or _thinks(fields.get("thinking")),
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: this dialect always reports usage."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        answer, is_whole = decoded(_message_decoder, body)
        if not (is_whole or is_given(answer.usage)):
            return unreadable(body)
        return read_reading(
            usage_in(answer.usage),
            text_of(answer.model),
            generated_bytes(body, answer.content) if is_whole else written_bytes(body),
            is_final=True,
            has_error=text_of(answer.type) == "error",
        )

    def stream_reader(self, *, withholds_usage: bool) -> "MessageStreamReader":
        """Return a reader for one stream; nothing is ever withheld in this dialect."""
        del withholds_usage
        return MessageStreamReader()


def _thinks(thinking: object) -> bool:
    """Say whether thinking is switched on: it is billed in full and shown as a summary."""
    return thinking is not None and thinking != {"type": "disabled"}


def _searches(fields: dict[str, Any]) -> int:
    """Return how many web searches the request may cause; refuse other server tools."""
    searches = 0
    tools = fields.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        kind = tool.get("type") if isinstance(tool, dict) else None
        if not isinstance(kind, str) or kind.startswith(_CLIENT_TOOLS):
            continue
        if not kind.startswith(_WEB_SEARCH):
            raise not_metered(f"tools: {kind:.60}", "it runs at the provider and has no price here")
        uses = whole(tool, "max_uses", lowest=0, highest=1000)
        searches += SEARCHES_MAX_DEFAULT if uses is None else uses
    return searches


class _Contents(NamedTuple):
    """What messages, system text and tools say about the cost."""

    may_write_cache: bool
    may_write_cache_1h: bool
    media: int
    """Images and documents that are not PDFs in the body."""
    pdf_pages: int
    data_bytes: int
    """Of the images and PDFs in the body."""


def _read_contents(fields: dict[str, Any]) -> _Contents:
    """Read all content blocks, in tool results and documents too; refuse files by their id."""
    tools = fields.get("tools")
    marked = [fields, *(tools if isinstance(tools, list) else ())]
    media = pdf_pages = data_bytes = 0
    for part in parts(fields.get("messages"), fields.get("system")):
        kind = part.get("type")
        if part.get("file_id") is not None or kind == "container_upload":
            raise not_metered("file_id", KEPT)
        if kind == "url":
            media += 1
        elif kind in _MEDIA_BLOCKS and (embedded := _embedded(part.get("source"))):
            data_bytes += embedded.data_bytes
            pdf_pages += embedded.pdf_pages
            media += not embedded.pdf_pages
        if "cache_control" in part:
            marked.append(part)
    marks = [part.get("cache_control") for part in marked if isinstance(part, dict)]
    lifetimes = [
        mark.get("ttl") if isinstance(mark, dict) else None for mark in marks if mark is not None
    ]
    is_hour = any(ttl not in _CACHE_TTLS_SHORT for ttl in lifetimes)
    return _Contents(bool(lifetimes), is_hour, media, pdf_pages, data_bytes)


def _embedded(source: object) -> Embedded | None:
    """Return what a block carries in the body; files of other kinds count by their bytes too."""
    if not isinstance(source, dict) or source.get("type") != "base64":
        return None
    return in_base64(source.get("data"), source.get("media_type")) or Embedded(0, 0)


class _Message(msgspec.Struct):
    type: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    content: list[msgspec.Raw] | None = None


class _Delta(msgspec.Struct):
    text: msgspec.Raw = ABSENT
    thinking: msgspec.Raw = ABSENT
    partial_json: msgspec.Raw = ABSENT
    content: msgspec.Raw = ABSENT
    """Of a compaction."""


class _Block(msgspec.Struct):
    name: msgspec.Raw = ABSENT


class _Event(msgspec.Struct):
    type: str = ""
    content_block: _Block | None = None
    message: _Message | None = None
    delta: _Delta | None = None
    usage: msgspec.Raw = ABSENT


_message_decoder = msgspec.json.Decoder(_Message)
_event_decoder = msgspec.json.Decoder(_Event)

_CONTENT = Deferral(ends=(b"}\n\n",), mark=re.compile(b"message_"))
"""What comes between `message_start`, `message_delta` and `message_stop`."""


class MessageStreamReader(DeferringStreamReader[_Event]):
    """Reads one stream of events; see `StreamReader`."""

    def __init__(self) -> None:
        """Start with nothing read."""
        super().__init__(_event_decoder)
        self.events = EventStream(self, _CONTENT)
        self._started: object = None
        """The usage that the beginning reported."""
        self._usage: object = None
        """… and what has been reported in all since then."""
        self._has_final_usage = False
        self._problem: str | None = None
        self._model: str | None = None
        self._has_error = False

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event; none is ever withheld."""
        if name == b"ping":
            return False
        event, is_whole = decoded(_event_decoder, data)
        if name == b"error":
            self._has_error = True
        self._take_one(event, data, is_whole=is_whole)
        if event.type == "message_stop":
            self._end()
        return False

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return what has been read so far; only the usage of `message_delta` is final.

        When that cannot be trusted, what the beginning told of the input still can.
        """
        final = self._read_usage(self._usage, seen_bytes, is_final=self._has_final_usage)
        problem = self._problem or final.problem
        if problem is None:
            return final
        started = self._read_usage(self._started, seen_bytes, is_final=False)
        return msgspec.structs.replace(
            started, raw_usage=final.raw_usage, movers=final.movers, problem=problem
        )

    def _read_usage(self, usage: object, seen_bytes: int, *, is_final: bool) -> Reading:
        return read_reading(
            usage, self._model, seen_bytes, is_final=is_final, has_error=self._has_error
        )

    @override
    def _take(self, event: _Event) -> None:
        if event.type == "message_start":
            if event.message is not None:
                self._model = text_of(event.message.model)
                self._started = self._usage = usage_in(event.message.usage)
        elif event.type == "message_delta":
            if is_given(event.usage):
                self._take_final(usage_in(event.usage))
        elif event.type == "error":
            self._has_error = True
        else:
            self.counted_bytes += _generated_bytes(event)

    def _take_final(self, usage: object) -> None:
        """Take a report that is cumulative: it goes on from what was reported before."""
        if not isinstance(usage, dict):
            self._usage = usage
            return
        before = self._usage if isinstance(self._usage, dict) else {}
        if usage.get("output_tokens") is None:
            self._problem = NO_COUNTS
        elif self._has_final_usage and _is_less(usage, before):
            self._problem = "usage contradicts itself: the output becomes less"
        self._usage = merged(before, usage)
        self._has_final_usage = True


def _generated_bytes(event: _Event) -> int:
    """Return how much text an event has: deltas, and the name of a tool where a call begins."""
    if event.delta is not None:
        delta = event.delta
        texts = (delta.text, delta.thinking, delta.partial_json, delta.content)
        return sum(map(text_bytes, texts))
    return call_bytes(event.content_block.name) if event.content_block is not None else 0


def _is_less(usage: dict[str, Any], before: dict[str, Any]) -> bool:
    now, then = usage.get("output_tokens"), before.get("output_tokens")
    return isinstance(now, int) and isinstance(then, int) and now < then
