"""OpenAI's responses, plain and streamed, and their compaction (reference wire.md A.3).

Usage comes once, in the answer itself or in the stream's last event; web searches stand beside it.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import (
    ABSENT,
    UNREADABLE,
    call_bytes,
    decoded,
    generated_bytes,
    is_given,
    text_bytes,
    text_of,
    unreadable,
)
from llmproxy.dialects.base import (
    KEPT,
    PREVIOUS,
    SEARCHES_MAX_DEFAULT,
    Reading,
    RequestFacts,
    not_metered,
    what_rereads,
    written_bytes,
)
from llmproxy.dialects.json_gate import (
    flag,
    maximum,
    text,
    whole,
)
from llmproxy.dialects.openai_options import (
    CACHE_MEMBERS,
    REFUSED,
    caches_any_long,
    image_classes,
    input_facts,
    read_contents,
    read_metered,
    refuse_references,
    refuse_server_tool,
    thinks,
)
from llmproxy.dialects.openai_usage import INPUT, read_reading
from llmproxy.dialects.sse import Deferral, EventStream
from llmproxy.dialects.stream_readers import DeferringStreamReader
from llmproxy.usage import Movers

STATEFUL = {"conversation": KEPT, "prompt": KEPT}
"""Members that point to what is stored at the provider, and was made there."""
_REFUSED = {**REFUSED, **STATEFUL}
_CLIENT_TOOLS = (
    *("function", "custom", "local_shell", "apply_patch", "computer", "computer_use_preview"),
)
"""Tools whose calls the client carries out itself."""
_WEB_SEARCH = "web_search"
_SEARCH_CALL = b"web_search_call"
_MODES = (None, "standard")
_BILLED = frozenset(
    {"model", "stream", "max_output_tokens", "max_tool_calls", "service_tier", "reasoning"}
    | {*CACHE_MEMBERS, "tools", "input", "modalities", "context_management"}
    | {PREVIOUS, "store"}
    | _REFUSED.keys()
)


class OpenAIResponses:
    """`responses`, or `responses/compact`."""

    is_free = False
    bytes_per_seen_byte = 1

    def __init__(self, name: str = "responses") -> None:
        """Take the path below the provider's base URL."""
        self.name = name
        self.upstream_path = f"/{name}"
        self.output_members: tuple[str, ...] = ("max_output_tokens",) if name == "responses" else ()
        self.read_output_members: tuple[str, ...] = self.output_members

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields, model = read_metered(body, _BILLED, _REFUSED)
        refuse_references(fields.get("input"))
        reasoning = fields.get("reasoning")
        if isinstance(reasoning, dict) and reasoning.get("mode") not in _MODES:
            raise not_metered("reasoning.mode", "it bills work that the request does not bound")
        searches = _searches(fields)
        rereads = what_rereads(fields, searches)
        contents = read_contents(_url_of, fields.get("input"), fields.get("instructions"))
        return RequestFacts(
            model=model,
            is_stream=flag(fields, "stream"),
            output_max=maximum(fields, "max_output_tokens"),
            choices=1,
            input=input_facts(fields, body, contents, rereads),
            movers=Movers(service_tier=text(fields, "service_tier")),
            may_write_cache=True,
            may_write_cache_1h=caches_any_long(fields, contents),
            media=image_classes(fields, contents),
            searches=searches,
            hides_output=rereads is not None or thinks(fields),
            previous_response_id=text(fields, PREVIOUS),
            # Not given, it is yes. What compaction returns cannot be gone on from.
            keeps_response=self.name == "responses" and fields.get("store") is not False,
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: this endpoint always reports usage."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        answer, is_whole = decoded(_response_decoder, body)
        if not (is_whole or is_given(answer.usage)):
            return unreadable(body)
        seen = generated_bytes(body, answer.output) if is_whole else written_bytes(body)
        return _reading(answer, seen, is_final=True, has_error=is_given(answer.error))

    def stream_reader(self, *, withholds_usage: bool) -> "ResponseStreamReader":
        """Return a reader for one stream; nothing is ever withheld in this dialect."""
        del withholds_usage
        return ResponseStreamReader()


def _searches(fields: dict[str, Any]) -> int:
    """Return how many web searches the request may cause; refuse other tools of the provider."""
    tools = fields.get("tools")
    asks = False
    waiting = list(tools) if isinstance(tools, list) else []
    while waiting:
        tool = waiting.pop()
        if not isinstance(tool, dict):
            continue
        kind = tool.get("type")
        if kind == "namespace":  # a group of tools
            grouped = tool.get("tools")
            waiting += grouped if isinstance(grouped, list) else []
        elif isinstance(kind, str) and kind.startswith(_WEB_SEARCH):
            asks = True
        elif kind == "shell" and _is_local(tool.get("environment")):
            continue
        else:
            refuse_server_tool(tool, _CLIENT_TOOLS)
    if not asks:
        return 0
    calls = whole(fields, "max_tool_calls", lowest=0, highest=1000)
    return SEARCHES_MAX_DEFAULT if calls is None else calls


def _url_of(part: dict[str, Any]) -> object:
    """Return the link or `data:` URL of an image or file."""
    return part.get("image_url") or part.get("file_data")


def _is_local(environment: object) -> bool:
    return isinstance(environment, dict) and environment.get("type") == "local"


class _Searched(msgspec.Struct):
    num_requests: int | None = None


class _ToolUsage(msgspec.Struct):
    web_search: _Searched | None = None


class _Response(msgspec.Struct):
    id: msgspec.Raw = ABSENT
    store: msgspec.Raw = ABSENT
    model: msgspec.Raw = ABSENT
    service_tier: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    tool_usage: msgspec.Raw = ABSENT
    output: list[msgspec.Raw] | None = None
    error: msgspec.Raw = ABSENT


class _Event(msgspec.Struct):
    type: str = ""
    delta: msgspec.Raw = ABSENT
    item: msgspec.Raw = ABSENT
    response: _Response | None = None
    error: msgspec.Raw = ABSENT


class _Action(msgspec.Struct):
    type: str | None = None


class _Item(msgspec.Struct):
    type: str | None = None
    name: msgspec.Raw = ABSENT
    action: _Action | None = None


_response_decoder = msgspec.json.Decoder(_Response)
_item_decoder = msgspec.json.Decoder(_Item)
_event_decoder = msgspec.json.Decoder(_Event)
_NOT_STORED = b"false"
"""So says an account whose provider keeps nothing, whatever was asked for."""
_BEGINNINGS = frozenset({b"response.created", b"response.queued", b"response.in_progress"})
_LAST = frozenset({"response.completed", "response.incomplete", "response.failed"})
_WHOLE = re.compile(rb'"response"\s*:')
_OUTPUT = Deferral(ends=(b"}\n\n",), mark=_WHOLE)
"""What comes between the events that tell of the whole response."""


class ResponseStreamReader(DeferringStreamReader[_Event]):
    """Reads one stream of events; see `StreamReader`."""

    def __init__(self) -> None:
        """Start with nothing read."""
        super().__init__(_event_decoder)
        self.events = EventStream(self, _OUTPUT)
        self._last = _Response()
        self._beginning = b""
        """An event that repeats the request, read only where none follows that tells more."""
        self._has_error = False
        self._has_failed = False

    @override
    def on_event(self, name: bytes, data: bytes) -> bool:
        """Take an event; none is ever withheld."""
        if data == b"[DONE]":  # some followers of OpenAI add it
            return False
        is_beginning = name in _BEGINNINGS and data.startswith(b'{"type":"%b",' % name)
        if is_beginning and _WHOLE.search(data):
            self._beginning = data
            return False
        event, is_whole = decoded(_event_decoder, data)
        if name == b"error":
            self._has_error = True
        self._take_one(event, data, is_whole=is_whole)
        if event.type in _LAST:
            self._end()
        return False

    @override
    def _may_wait(self, events: list[_Event]) -> bool:
        """Say whether events could pass unread: the last word could not."""
        return not any(event.type in _LAST for event in events)

    @override
    def _make_reading(self, seen_bytes: int) -> Reading:
        """Return what has been read so far; only the last event has usage."""
        if self._beginning:
            self._last = decoded(_event_decoder, self._beginning)[0].response or self._last
            self._beginning = b""
        has_error = self._has_failed if self._is_complete else self._has_error
        return _reading(self._last, seen_bytes, is_final=self._is_complete, has_error=has_error)

    @override
    def _tell(self) -> Reading:
        """Count the whole answer, where nothing of it came before and its usage is not told."""
        if self._is_complete and not self.counted_bytes and not is_given(self._last.usage):
            self.counted_bytes = sum(written_bytes(bytes(part)) for part in self._last.output or ())
        return super()._tell()

    @override
    def _take(self, event: _Event) -> None:
        if event.response is not None:
            # Events at the beginning repeat the response without its usage.
            self._last, self._beginning = event.response, b""
        if event.type in _LAST:
            self._has_failed = event.type == "response.failed"
        elif event.type == "error" or is_given(event.error):
            self._has_error = True
        elif event.type.endswith(".delta"):
            self.counted_bytes += text_bytes(event.delta)
        elif event.type == "response.output_item.added":
            self.counted_bytes += call_bytes(decoded(_item_decoder, bytes(event.item))[0].name)


def _reading(response: _Response, seen_bytes: int, *, is_final: bool, has_error: bool) -> Reading:
    searches, steps = _web_searches(response)
    reading = read_reading(
        response.usage,
        INPUT,
        model=response.model,
        service_tier=response.service_tier,
        seen_bytes=seen_bytes,
        is_final=is_final,
        has_error=has_error,
        web_searches=searches,
        rounds_max=steps + 1,
    )
    if not reading.is_final or bytes(response.store) == _NOT_STORED:
        return reading
    return msgspec.structs.replace(reading, response_id=text_of(response.id))


def _web_searches(response: _Response) -> tuple[int, int]:
    """Return the billed searches, as reported or else in the output, and how many calls there were.

    A call may also open a page that was found, which is not billed but makes a round as well.
    """
    calls = _search_calls(response.output or ())
    if is_given(response.tool_usage):
        try:
            used = msgspec.json.decode(response.tool_usage, type=_ToolUsage)
        except UNREADABLE:
            used = _ToolUsage()
        if used.web_search is not None and used.web_search.num_requests is not None:
            searches = used.web_search.num_requests
            return searches, max(searches, len(calls))
    return sum(call.action is None or call.action.type == "search" for call in calls), len(calls)


def _search_calls(output: Sequence[msgspec.Raw]) -> list[_Item]:
    found = []
    for raw in output:
        written = bytes(raw)
        if written.find(_SEARCH_CALL) >= 0:  # most are none, and this is quick
            item, _ = decoded(_item_decoder, written)
            if item.type == "web_search_call":
                found.append(item)
    return found
