"""OpenAI chat completions, and the many servers that speak it (reference wire.md A.1, A.2, A.7).

`prompt_tokens` includes cached tokens here; they are taken out of the fresh input.
"""

import re
from typing import Any

import msgspec

from llmproxy.dialects.base import (
    BYTES_PER_TOKEN,
    INPUT_TOKENS_EXTRA,
    INPUT_TOKENS_EXTRA_TOOLS,
    REFERENCE_TOKENS,
    UNREADABLE,
    Reading,
    RequestFacts,
    not_metered,
    parts,
    refuse_zero,
)
from llmproxy.dialects.json_gate import (
    flag,
    parse_object,
    text,
    whole,
    with_member,
    with_new_member,
)
from llmproxy.dialects.sse import EventStream
from llmproxy.usage import TOKENS_MAX, Leg, Movers, Usage, UsageError, count

CHOICES_MAX = 128

_SEARCH = "it searches the web for a fee that is not reported with the answer"
_SEVERAL = "another model or host could answer at another price"
_HIDDEN = "what it asks for beyond the ordinary has no price here"
_REFUSED = {
    "web_search_options": _SEARCH,
    "search_parameters": _SEARCH,
    "search_mode": _SEARCH,
    "search_options": _SEARCH,
    "search_settings": _SEARCH,
    "enable_search": _SEARCH,
    "web_search": _SEARCH,
    "plugins": _SEARCH,
    "compound_custom": "tools that run at the provider have no price here",
    "deferred": "the answer would be fetched later, unmetered",
    "background": "the answer would be fetched later, unmetered",
    "models": _SEVERAL,
    "fallbacks": _SEVERAL,
    "route": _SEVERAL,
    "provider": _SEVERAL,
    "extra_body": _HIDDEN,
    "google": _HIDDEN,
    "best_of": "answers that are thrown away are billed too; use `n`",
    "cached_content": "what is kept at the provider belongs to its account, not to you",
}
"""Members of some provider each (xAI, Groq, Gemini, OpenRouter, Perplexity, Qwen, vLLM, …)."""
_CLIENT_TOOLS = ("function", "custom")
_GEMINI_TOOLS = frozenset(
    {"google_search", "googleSearch", "google_search_retrieval", "googleSearchRetrieval"}
    | {"url_context", "urlContext", "code_execution", "codeExecution", "google_maps", "googleMaps"}
)
_SEARCHING_MODEL = re.compile(r"-search-preview|-search-api|(?:^|/)compound(?:-|$)", re.IGNORECASE)
"""Models with a search of their own, billed by the search."""
_UNPRICED_PARTS = ("input_audio", "audio_url", "input_video", "video_url")
_CACHE_MARKS = frozenset({"cache_control", "prompt_cache_breakpoint"})
_CACHE_TTLS = (None, "5m", "30m")
"""Lifetimes of a cached prompt that cost the ordinary price of a cache write."""

_BILLED = frozenset(
    {"model", "stream", "stream_options", "max_tokens", "max_completion_tokens", "n"}
    | {"service_tier", "prediction", "modalities", "prompt_cache_options", "tools", "messages"}
    | _REFUSED.keys()
)


class OpenAIChat:
    """`chat/completions`."""

    name = "chat/completions"
    upstream_path = "/chat/completions"

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields = parse_object(body, _BILLED)
        model = text(fields, "model", required=True)
        assert model is not None
        _refuse_unmetered(fields, model)
        # Some servers read the one field, some the other: the larger bounds them both.
        limits = [
            whole(fields, key, lowest=0, highest=TOKENS_MAX)
            for key in ("max_completion_tokens", "max_tokens")
        ]
        given = [limit for limit in limits if limit is not None]
        options = fields.get("stream_options")
        return RequestFacts(
            model=model,
            is_stream=flag(fields, "stream"),
            output_max=max(given, default=None),
            choices=whole(fields, "n", lowest=1, highest=CHOICES_MAX) or 1,
            input_tokens_bound=_input_bound(fields, body, _read_content(fields)),
            movers=Movers(service_tier=text(fields, "service_tier")),
            # OpenAI writes its cache by itself, unasked; where it has no price, it costs nothing.
            may_write_cache=True,
            # Tokens of a prediction that was not accepted are billed as output.
            output_tokens_extra=len(body) if fields.get("prediction") else 0,
            asks_usage=isinstance(options, dict) and options.get("include_usage") is True,
            has_stream_options="stream_options" in fields,
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body, asking for usage in a stream whose client did not (wire.md A.2)."""
        if not (facts.is_stream and injects_usage) or facts.asks_usage:
            return body
        if not facts.has_stream_options:
            return with_new_member(body, "stream_options", {"include_usage": True})
        options = parse_object(body, _BILLED).get("stream_options")
        kept = options if isinstance(options, dict) else {}
        return with_member(body, "stream_options", {**kept, "include_usage": True})

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer."""
        try:
            answer = msgspec.json.decode(body, type=_Answer)
        except UNREADABLE:
            return Reading(seen_bytes=len(body), problem="the answer is not the expected JSON")
        return _reading(
            answer.usage,
            model=answer.model,
            service_tier=answer.service_tier,
            seen_bytes=sum(len(choice) for choice in answer.choices or ()),
            is_final=True,
            has_error=_is_given(answer.error),
        )

    def stream_reader(self, *, withholds_usage: bool) -> "ChatStreamReader":
        """Return a reader for one stream."""
        return ChatStreamReader(withholds_usage=withholds_usage)


def _refuse_unmetered(fields: dict[str, Any], model: str) -> None:
    """Refuse what is billed by more than the tokens that the answer reports (wire.md C.6)."""
    if _SEARCHING_MODEL.search(model):
        raise not_metered(f"model: {model:.60}", "it searches the web for a fee it does not report")
    if not _REFUSED.keys().isdisjoint(fields):
        for key, why in _REFUSED.items():
            if fields.get(key) is not None and fields[key] is not False:
                raise not_metered(key, why)
    modalities = fields.get("modalities")
    if modalities is not None and modalities != ["text"]:
        raise not_metered("modalities", "only text output has a price here")
    cache_options = fields.get("prompt_cache_options")
    if isinstance(cache_options, dict):
        _refuse_long_cache("prompt_cache_options", cache_options)
    tools = fields.get("tools")
    for tool in tools if isinstance(tools, list) else ():
        if isinstance(tool, dict):
            _refuse_server_tool(tool)


def _refuse_server_tool(tool: dict[str, Any]) -> None:
    """Refuse a tool that is not run by the client, such as `browser_search`."""
    kind = tool.get("type")
    if kind not in _CLIENT_TOOLS and not (kind is None and "function" in tool):
        named = kind if isinstance(kind, str) else next(iter(tool), "{}")
        why = "only functions that you run yourself, with `function` or `custom`, have a price here"
        raise not_metered(f"tools: {named:.60}", why)
    for key in tool.keys() & _GEMINI_TOOLS:
        raise not_metered(f"tools: {key}", "it runs at the provider and has no price here")


def _read_content(fields: dict[str, Any]) -> int:
    """Return how many images and documents the messages have; refuse what cannot be metered."""
    references = 0
    for part in parts(fields.get("messages")):
        kind = part.get("type")
        if kind in _UNPRICED_PARTS or "input_audio" in part:
            name = kind if kind in _UNPRICED_PARTS else "input_audio"
            raise not_metered(name, "only text, images and documents have a price here")
        if part.get("file_id") is not None:
            why = "files at the provider belong to its account, not to you"
            raise not_metered("file_id", why)
        if "role" in part and part.get("audio") is not None:
            raise not_metered("audio", "audio tokens have no price here")
        for key in _CACHE_MARKS & part.keys():
            if isinstance(part[key], dict):
                _refuse_long_cache(key, part[key])
        if kind == "file" or "image_url" in part or kind == "image_url":
            references += 1
    return references


def _refuse_long_cache(key: str, options: dict[str, Any]) -> None:
    if options.get("ttl") not in _CACHE_TTLS:
        why = "the answer does not report what was cached for longer, which costs more"
        raise not_metered(f"{key}.ttl", why)


def _input_bound(fields: dict[str, Any], body: bytes, references: int) -> int:
    tools = INPUT_TOKENS_EXTRA_TOOLS if fields.get("tools") or fields.get("functions") else 0
    flat = INPUT_TOKENS_EXTRA + tools + REFERENCE_TOKENS * references
    return len(body) // BYTES_PER_TOKEN + flat


_ABSENT = msgspec.Raw()
_NULL = b"null"


class _Answer(msgspec.Struct):
    model: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = _ABSENT
    choices: list[msgspec.Raw] | None = None
    error: msgspec.Raw = _ABSENT


class _Function(msgspec.Struct):
    name: msgspec.Raw = _ABSENT
    arguments: msgspec.Raw = _ABSENT


class _ToolCall(msgspec.Struct):
    function: _Function | None = None


class _Delta(msgspec.Struct):
    content: msgspec.Raw = _ABSENT
    reasoning_content: msgspec.Raw = _ABSENT
    reasoning: msgspec.Raw = _ABSENT
    refusal: msgspec.Raw = _ABSENT
    tool_calls: list[_ToolCall] | None = None


class _Choice(msgspec.Struct):
    index: int | None = None
    delta: _Delta | None = None
    finish_reason: str | None = None


class _Groq(msgspec.Struct):
    usage: msgspec.Raw = _ABSENT


class _Chunk(msgspec.Struct):
    model: str | None = None
    service_tier: str | None = None
    usage: msgspec.Raw = _ABSENT
    choices: list[_Choice] | None = None
    error: msgspec.Raw = _ABSENT
    x_groq: _Groq | None = None


_chunk_decoder = msgspec.json.Decoder(_Chunk)


def _is_given(raw: msgspec.Raw) -> bool:
    return bytes(raw) not in {b"", _NULL}


def _text_bytes(raw: msgspec.Raw) -> int:
    """Return the length of a JSON string without its quotes; null and absent are 0."""
    length = len(bytes(raw))
    return length - 2 if length > 2 and bytes(raw) != _NULL else 0


class ChatStreamReader:
    """Reads one stream of chunks; see `StreamReader`."""

    def __init__(self, *, withholds_usage: bool) -> None:
        """Withhold the usage chunk when the client did not ask for it."""
        self.events = EventStream(self._on_event, holds_back=withholds_usage)
        self.is_complete = False
        self.is_over = False
        self._withholds_usage = withholds_usage
        self._usage: msgspec.Raw = _ABSENT
        self._model: str | None = None
        self._service_tier: str | None = None
        self._seen_bytes = 0
        self._has_error = False
        self._begun: set[int | None] = set()
        self._finished: set[int | None] = set()

    def reading(self) -> Reading:
        """Return what has been read so far: the last usage that was seen counts.

        Some servers report it with every chunk: it is the bill only once the answer is complete,
        or has ended in an error.
        """
        return _reading(
            self._usage,
            model=self._model,
            service_tier=self._service_tier,
            seen_bytes=self._seen_bytes,
            is_final=self.is_complete or self._has_error,
            has_error=self._has_error,
        )

    def _on_event(self, name: bytes, data: bytes) -> bool:
        if data == b"[DONE]":
            self.is_complete = self.is_over = True
            return False
        if name == b"error":
            self._has_error = True
        try:
            chunk = _chunk_decoder.decode(data)
        except UNREADABLE:
            self._seen_bytes += len(data)  # not the expected shape: count all of it as generated
            return False
        return self._take(chunk)

    def _take(self, chunk: _Chunk) -> bool:
        self._model = chunk.model or self._model
        self._service_tier = chunk.service_tier or self._service_tier
        if _is_given(chunk.error):
            self._has_error = True
        for choice in chunk.choices or ():
            if choice.finish_reason is not None:
                self._finished.add(choice.index)
            else:
                self._begun.add(choice.index)
            if choice.delta is not None:
                self._seen_bytes += _delta_bytes(choice.delta)
        if self._finished:
            self.is_complete = self._begun <= self._finished
        usage = chunk.usage
        if not _is_given(usage) and chunk.x_groq is not None:
            usage = chunk.x_groq.usage
        if not _is_given(usage):
            return False
        self._usage = usage
        # Not every chunk with usage is the extra one: some providers put it beside content.
        return self._withholds_usage and chunk.choices == []


def _delta_bytes(delta: _Delta) -> int:
    texts = (delta.content, delta.reasoning_content, delta.reasoning, delta.refusal)
    seen = sum(_text_bytes(raw) for raw in texts)
    for call in delta.tool_calls or ():
        if call.function is not None:
            seen += _text_bytes(call.function.name) + _text_bytes(call.function.arguments)
    return seen


def _reading(
    raw: msgspec.Raw,
    *,
    model: str | None,
    service_tier: str | None,
    seen_bytes: int,
    is_final: bool,
    has_error: bool,
) -> Reading:
    movers = Movers(service_tier=service_tier)
    if not _is_given(raw):
        return Reading(model=model, seen_bytes=seen_bytes, movers=movers, has_error=has_error)
    problem: str | None = None
    usage: Usage | None = None
    try:
        usage = Usage((read_usage(msgspec.json.decode(raw)),), service_tier=service_tier)
        refuse_zero(usage, seen_bytes)
    except (*UNREADABLE, UsageError) as error:
        usage, problem = None, str(error)
    return Reading(
        usage=usage,
        raw_usage=bytes(raw),
        is_final=is_final and usage is not None,
        model=model,
        seen_bytes=seen_bytes,
        movers=movers,
        has_error=has_error,
        problem=problem,
    )


def read_usage(usage: object) -> Leg:
    """Return the disjoint classes of a chat usage object.

    Raises:
        UsageError: not an object, or with counts that cannot be true.
    """
    if not isinstance(usage, dict):
        msg = "usage is not an object"
        raise UsageError(msg)
    prompt = count(usage.get("prompt_tokens"))
    completion = count(usage.get("completion_tokens"))
    total = count(usage.get("total_tokens"))
    if prompt + completion + total == 0 and not usage.keys() & {"prompt_tokens", "total_tokens"}:
        msg = "usage has no token counts"
        raise UsageError(msg)
    # Some providers leave reasoning out of completion_tokens, never out of the total (wire.md A.7).
    output = max(completion, total - prompt)
    prompt_details = _object(usage, "prompt_tokens_details")
    cached = max(
        count(prompt_details.get("cached_tokens")),
        count(usage.get("prompt_cache_hit_tokens")),
        count(usage.get("cached_tokens")),
        count(usage.get("num_cached_tokens")),
    )
    cached = min(cached, prompt)
    written = min(count(prompt_details.get("cache_write_tokens")), prompt - cached)
    reasoning = count(_object(usage, "completion_tokens_details").get("reasoning_tokens"))
    return Leg(
        input=prompt - cached - written,
        cache_read=cached,
        cache_write_5m=written,
        output=output,
        reasoning=min(reasoning, output),
    )


def _object(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}
