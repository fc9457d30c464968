"""Owns which options of OpenAI's endpoints can be metered, and what their content may cost.

One table for all providers that speak this dialect: an option that some of them bill by more than
the tokens that the answer reports is refused by name (reference wire.md C.3, C.6).
"""

import re
from collections.abc import Callable, Collection, Mapping
from typing import Any, NamedTuple

from llmproxy.dialects.base import (
    KEPT,
    PREVIOUS,
    InputFacts,
    not_metered,
    parts,
    refuse_members,
    written_bytes,
)
from llmproxy.dialects.json_gate import parse_object, required_model
from llmproxy.dialects.media import in_data_url

_SEARCH = "it searches the web for a fee that is not reported with the answer"
_SEVERAL = "another model or host could answer at another price"
_OWN_CONTENT = {
    "image_generation_call": "result",
    "compaction": "encrypted_content",
    "message": "content",
}
"""Where items have what they are about: without it, the provider would look for it by the id."""
_BY_ID = f"whose item it is cannot be told; send the item itself, or `{PREVIOUS}`"
_HIDDEN = "what it asks for beyond the ordinary has no price here"
_LATER = "the answer would be fetched later, unmetered"

REFUSED: Mapping[str, str] = {
    "web_search_options": _SEARCH,
    "search_parameters": _SEARCH,
    "search_mode": _SEARCH,
    "search_options": _SEARCH,
    "search_settings": _SEARCH,
    "enable_search": _SEARCH,
    "web_search": _SEARCH,
    "plugins": _SEARCH,
    "compound_custom": "tools that run at the provider have no price here",
    "deferred": _LATER,
    "background": _LATER,
    "models": _SEVERAL,
    "fallbacks": _SEVERAL,
    "route": _SEVERAL,
    "provider": _SEVERAL,
    "extra_body": _HIDDEN,
    "google": _HIDDEN,
    "cached_content": KEPT,
}
"""Members of some provider each (xAI, Groq, Gemini, OpenRouter, Perplexity, Qwen, vLLM, …)."""

_GEMINI_TOOLS = frozenset(
    {"google_search", "googleSearch", "google_search_retrieval", "googleSearchRetrieval"}
    | {"url_context", "urlContext", "code_execution", "codeExecution", "google_maps", "googleMaps"}
)
_SEARCHING_MODEL = re.compile(r"-search-preview|-search-api|(?:^|/)compound(?:-|$)", re.IGNORECASE)
"""Models with a search of their own, billed by the search."""
_UNPRICED_PARTS = ("input_audio", "audio_url", "input_video", "video_url")
_MEDIA = ("file", "input_file", "image_url", "document_url")
THINKING = frozenset(
    {"reasoning_effort", "reasoning", "thinking", "enable_thinking", "chat_template_kwargs"}
)
"""Members that switch a model's thinking on (OpenAI, OpenRouter, DeepSeek, Qwen, vLLM)."""
_NO_THINKING: tuple[object, ...] = ("none", {}, {"type": "disabled"}, {"enabled": False})
_NO_THINKING += ({"effort": "none"}, {"enable_thinking": False}, {"thinking": False})
_KEPT_IDS = frozenset({"file_id", "container_id"})
CACHE_MEMBERS = ("prompt_cache_options", "cache_control")
"""Members of a request by which all of it is cached."""
_CACHE_MARKS = frozenset({"cache_control", "prompt_cache_breakpoint"})
_CACHE_TTLS = (None, "5m", "30m")
"""Lifetimes of a cached prompt that cost the ordinary price of a cache write."""
_LONG_CACHE_TTLS = ("1h", "12h")
"""Lifetimes that cost the price of a write for an hour (OpenAI: 12 h; OpenRouter: 1 h)."""


def thinks(fields: dict[str, Any]) -> bool:
    """Say whether a request asks for thinking, in whatever words: it is billed and may be hidden.

    Whether a model thinks unasked says the catalog.
    """
    if THINKING.isdisjoint(fields):
        return False
    return any(
        given is not None and given is not False and given not in _NO_THINKING
        for given in (fields.get(key) for key in THINKING)
    )


def read_metered(
    body: bytes, billed: Collection[str], refused: Mapping[str, str]
) -> tuple[dict[str, Any], str]:
    """Return a request's members and its model; refuse what is billed by more than its tokens.

    Args:
        body: the request body.
        billed: members that money depends on; see `parse_object`.
        refused: members that cannot be metered, each with the reason.

    Raises:
        ApiError: 400, naming what is wrong or cannot be metered.
    """
    fields = parse_object(body, billed)
    model = required_model(fields)
    if _SEARCHING_MODEL.search(model):
        raise not_metered(f"model: {model:.60}", "it searches the web for a fee it does not report")
    refuse_members(fields, refused)
    modalities = fields.get("modalities")
    if modalities is not None and modalities != ["text"]:
        raise not_metered("modalities", "only text output has a price here")
    return fields, model


def refuse_server_tool(tool: dict[str, Any], client_tools: tuple[str, ...]) -> None:
    """Refuse a tool that is not run by the client, such as `browser_search`.

    Raises:
        ApiError: 400.
    """
    kind = tool.get("type")
    if kind not in client_tools and not (kind is None and "function" in tool):
        named = kind if isinstance(kind, str) else next(iter(tool), "{}")
        why = "only functions that you run yourself, with `function` or `custom`, have a price here"
        raise not_metered(f"tools: {named:.60}", why)
    for key in tool.keys() & _GEMINI_TOOLS:
        raise not_metered(f"tools: {key}", "it runs at the provider and has no price here")


class Contents(NamedTuple):
    """The images and documents in a request's messages."""

    media: int
    """Those that are not PDFs in the body."""
    pdf_pages: int
    data_bytes: int
    """Of the images and PDFs in the body."""
    thoughts_by_id: int
    """Items of reasoning without what was thought."""
    is_cached_long: bool
    """Some of it is to be cached at the price of a write for an hour."""


def read_contents(url_of: Callable[[dict[str, Any]], object], *contents: object) -> Contents:
    """Return what images and documents there are in messages, at whatever depth.

    Args:
        url_of: returns the URL of an image or document, which is where this endpoint carries its
            data too. The same text must not be returned for two parts.
        contents: messages or instructions.

    Raises:
        ApiError: 400, for content that cannot be metered, or that lives at the provider.
    """
    media = pdf_pages = data_bytes = thoughts = 0
    is_cached_long = False
    for part in parts(*contents):
        kind = part.get("type")
        if kind == "reasoning":
            thoughts += not (part.get("encrypted_content") or _has_text(part.get("content")))
        if kind in _UNPRICED_PARTS or "input_audio" in part:
            name = kind if kind in _UNPRICED_PARTS else "input_audio"
            raise not_metered(name, "only text, images and documents have a price here")
        if not _KEPT_IDS.isdisjoint(part):
            refuse_kept(part)
        if "role" in part and part.get("audio") is not None:
            raise not_metered("audio", "audio tokens have no price here")
        for key in _CACHE_MARKS & part.keys():
            is_cached_long |= caches_long(key, part[key])
        if kind in _MEDIA or "image_url" in part:
            embedded = in_data_url(url_of(part))
            if embedded is None:
                media += 1
                continue
            data_bytes += embedded.data_bytes
            pdf_pages += embedded.pdf_pages
            media += not embedded.pdf_pages
    return Contents(media, pdf_pages, data_bytes, thoughts, is_cached_long)


def _has_text(content: object) -> bool:
    pieces = content if isinstance(content, list) else ()
    return any(isinstance(piece, dict) and piece.get("text") for piece in pieces)


def refuse_kept(part: dict[str, Any]) -> None:
    """Refuse a part that names what is kept at the provider.

    Raises:
        ApiError: 400.
    """
    for key in sorted(_KEPT_IDS & part.keys()):
        if part[key] is not None:
            raise not_metered(key, KEPT)


def refuse_references(items: object) -> None:
    """Refuse items of a response's input that are only named: the provider would fill them in.

    Raises:
        ApiError: 400.
    """
    for item in items if isinstance(items, list) else ():
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        # The type may be left out: then an item with nothing but its id is a reference.
        if kind == "item_reference" or (kind is None and "id" in item and "role" not in item):
            raise not_metered("item_reference", _BY_ID)
        # So is what was made before and does not come along.
        own = _OWN_CONTENT.get(kind) if isinstance(kind, str) else None
        if own is not None and not item.get(own):
            raise not_metered(str(kind), _BY_ID)


def caches_any_long(fields: dict[str, Any], contents: Contents) -> bool:
    """Say whether any of a request is to be cached at the price of an hour.

    That may stand at the request itself, at a tool, or within what is said.

    Raises:
        ApiError: 400, for a lifetime without a price.
    """
    is_long = contents.is_cached_long
    for key in CACHE_MEMBERS:
        is_long |= caches_long(key, fields.get(key))
    tools = fields.get("tools")
    for part in parts(tools if isinstance(tools, list) else ()):
        for key in _CACHE_MARKS & part.keys():
            is_long |= caches_long(key, part[key])
    return is_long


def image_classes(fields: dict[str, Any], contents: Contents) -> tuple[str, ...]:
    """Return the classes of tokens besides text that a request's input may have: of images.

    Of an earlier response that the provider reads again nobody knows what is in it.
    """
    may_be = contents.media or contents.pdf_pages or fields.get(PREVIOUS) is not None
    return ("input_image",) if may_be else ()


def caches_long(key: str, options: object) -> bool:
    """Say whether a cache is asked for whose writes cost the price of an hour.

    Raises:
        ApiError: 400, for a lifetime without a price.
    """
    ttl = options.get("ttl") if isinstance(options, dict) else None
    if ttl in _CACHE_TTLS:
        return False
    if ttl in _LONG_CACHE_TTLS:
        return True
    raise not_metered(f"{key}.ttl", "lifetimes other than 5m, 30m, 1h and 12h have no price here")


def input_facts(
    fields: dict[str, Any], body: bytes, contents: Contents, rereads: str | None = None
) -> InputFacts:
    """Return what a request with tools and contents says about its input."""
    return InputFacts(
        written_bytes(body) - contents.data_bytes,
        has_tools=bool(fields.get("tools") or fields.get("functions")),
        media=contents.media,
        pdf_pages=contents.pdf_pages,
        rereads=rereads,
        thoughts_by_id=contents.thoughts_by_id,
    )
