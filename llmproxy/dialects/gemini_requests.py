"""Owns what Gemini's requests say about their cost, and which of their options can be metered."""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from llmproxy.dialects.base import KEPT, SEARCHES_MAX_DEFAULT, not_metered
from llmproxy.dialects.gemini_fields import listed, named, objects
from llmproxy.dialects.json_gate import maximum, text, whole
from llmproxy.dialects.media import in_base64
from llmproxy.errors import invalid_request
from llmproxy.usage import Movers

CHOICES_MAX = 128
_CLIENT_TOOLS = frozenset({"functionDeclarations", "computerUse"})
_SEARCH = "googleSearch"
_SEARCH_TYPES = frozenset({"webSearch"})
_UNPRICED_MEDIA = ("audio/", "video/")
_LINKED_MEDIA = ("image/", "application/pdf")
_GOOGLES = ("googleapis.com", "youtube.com", "youtu.be", "youtube-nocookie.com")
_TIER_PREFIX = "service_tier_"


class Contents(NamedTuple):
    """The images and documents in a request's contents."""

    media: int
    """Those that are not PDFs in the body."""
    pdf_pages: int
    data_bytes: int
    """Of the images and PDFs in the body."""


def read_fields(given: dict[str, Any], model: str) -> dict[str, Any]:
    """Return a request's members under their usual names.

    Args:
        given: the request as it was parsed.
        model: the model in the path; the body may name it too, but no other.

    Raises:
        ApiError: 400, the body is ambiguous, or asks for what is kept at the provider.
    """
    fields = named(given)
    require_model(fields, model)
    if fields.get("cachedContent") is not None:
        raise not_metered("cachedContent", KEPT)
    return fields


def require_model(fields: dict[str, Any], model: str) -> None:
    """Check that a request names no other model than its path does.

    Raises:
        ApiError: 400, it does.
    """
    if fields.get("model") not in (None, model, f"models/{model}"):
        message = f"`model` must be the one in the path, `models/{model}`, or be left out."
        raise invalid_request(message, param="model")


def read_contents(*contents: object) -> Contents:
    """Return what images and documents there are in contents.

    Raises:
        ApiError: 400, for content that cannot be metered, or that lives at the provider.
    """
    media = pdf_pages = data_bytes = 0
    for part in objects(*contents):
        if "fileUri" in part:
            _require_link(part)
            media += 1
        elif "data" in part and "mimeType" in part:
            kind = _media_type(part)
            embedded = in_base64(part["data"], kind)
            if embedded is not None:
                data_bytes += embedded.data_bytes
                pdf_pages += embedded.pdf_pages
                media += not embedded.pdf_pages
    return Contents(media, pdf_pages, data_bytes)


def require_text(*contents: object) -> None:
    """Check that contents have nothing but text in them.

    Raises:
        ApiError: 400, they have.
    """
    for part in objects(*contents):
        if "fileUri" in part or "data" in part:
            raise not_metered("inlineData", "only text has a price here")


def _media_type(part: dict[str, Any]) -> str:
    """Return what kind of data a part has.

    Raises:
        ApiError: 400, it is audio or video, which a text's tokens say nothing of.
    """
    given = part.get("mimeType")
    kind = given.strip().lower() if isinstance(given, str) else ""
    if kind.startswith(_UNPRICED_MEDIA):
        why = "only text, images and documents have a price here"
        raise not_metered(f"mimeType: {kind:.60}", why)
    return kind


def _require_link(part: dict[str, Any]) -> None:
    """Check that a file is an image or PDF somewhere on the web.

    Raises:
        ApiError: 400, it is kept at the provider, or a video, or cannot be told.
    """
    uri = part["fileUri"]
    host = _host(uri)
    if not host or host.endswith(_GOOGLES):
        why = (
            "files that are kept at the provider, and videos, have no bound that the request "
            "tells. Put an image or PDF into `inlineData`"
        )
        raise not_metered("fileData", why)
    if not _media_type(part).startswith(_LINKED_MEDIA):
        why = "only links to images and PDFs have a price here, and `mimeType` must say so"
        raise not_metered("fileData", why)


def _host(uri: object) -> str:
    """Return the host of a link; empty for what is none."""
    try:
        parts = urlsplit(uri) if isinstance(uri, str) else None
        host = parts.hostname if parts is not None else None
    except ValueError:
        return ""
    if parts is None or parts.scheme not in {"http", "https"}:
        return ""
    return (host or "").rstrip(".")


def read_tools(fields: dict[str, Any]) -> int:
    """Return how many web searches the tools may cause.

    Raises:
        ApiError: 400, for a tool that runs at the provider and has no price.
    """
    searches = 0
    for tool in listed(fields.get("tools")):
        for name, options in named(tool).items():
            if options is None or name in _CLIENT_TOOLS:
                continue
            kinds = named(named(options).get("searchTypes"))
            if name != _SEARCH or kinds.keys() - _SEARCH_TYPES:
                raise not_metered(
                    f"tools: {name:.60}", "it runs at the provider and has no price here"
                )
            searches = SEARCHES_MAX_DEFAULT
    return searches


class Config(NamedTuple):
    """What a `generationConfig` says about the output."""

    output_max: int | None
    choices: int
    thinks: bool
    is_text_only: bool
    """It asks for text, and says so: models that make images do so where it does not."""


def read_config(fields: dict[str, Any]) -> Config:
    """Return how much a request lets the model answer.

    Raises:
        ApiError: 400, for numbers that are none, and for output other than text.
    """
    given = fields.get("generationConfig")
    if given is not None and not isinstance(given, dict):
        raise invalid_request("`generationConfig` must be an object.", param="generationConfig")
    config = named(given)
    kinds = listed(config.get("responseModalities"))
    if any(not isinstance(kind, str) or kind.upper() != "TEXT" for kind in kinds):
        raise not_metered("responseModalities", "only text output has a price here")
    thinking = config.get("thinkingConfig")
    return Config(
        maximum(config, "maxOutputTokens"),
        whole(config, "candidateCount", lowest=1, highest=CHOICES_MAX) or 1,
        thinking is not None and named(thinking) != {"thinkingBudget": 0},
        is_text_only=bool(kinds),
    )


def read_movers(fields: dict[str, Any]) -> Movers:
    """Return the service tier that a request asks for.

    Raises:
        ApiError: 400, it is no text.
    """
    tier = text(fields, "serviceTier")
    return Movers(service_tier=normal_tier(tier))


def normal_tier(tier: str | None) -> str | None:
    """Return a service tier as the catalog writes it; None where none is named."""
    name = (tier or "").lower().removeprefix(_TIER_PREFIX)
    return None if name in {"", "unspecified"} else name
