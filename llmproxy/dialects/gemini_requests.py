"""Owns what Gemini's requests say about their cost, and which of their options can be metered."""

from typing import Any, NamedTuple
from urllib.parse import urlsplit

from llmproxy.dialects.base import KEPT, SEARCHES_MAX_DEFAULT, ClipTokens, not_metered
from llmproxy.dialects.gemini_clips import Clip, frames_per_second, is_clip, read_clip
from llmproxy.dialects.gemini_fields import listed, named, objects
from llmproxy.dialects.json_gate import maximum, text, whole
from llmproxy.dialects.media import in_base64
from llmproxy.errors import invalid_request
from llmproxy.usage import Movers

CHOICES_MAX = 128
_CLIENT_TOOLS = frozenset({"functionDeclarations", "computerUse"})
_SEARCH = "googleSearch"
_MADE = {"IMAGE": "output_image", "AUDIO": "output_audio"}
"""The class of each modality of output that has one of its own."""
_SEARCH_TYPES = frozenset({"webSearch"})
_LINKED_MEDIA = ("image/", "application/pdf")
_GOOGLES = ("googleapis.com", "youtube.com", "youtu.be", "youtube-nocookie.com")
_TIER_PREFIX = "service_tier_"


class Contents(NamedTuple):
    """The images, documents, audio and video in a request's contents."""

    media: int
    """Those that are not PDFs in the body."""
    pdf_pages: int
    data_bytes: int
    """Of all of these in the body."""
    clip_tokens: ClipTokens
    """Of audio and video."""
    unsure_clips: int
    """Those of which the most is no bound."""
    has_clips: bool


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
    """Return what there is in contents besides text.

    Raises:
        ApiError: 400, for content that cannot be metered, or that lives at the provider.
    """
    media = pdf_pages = data_bytes = 0
    clips: list[Clip] = []
    fps = 1
    for part in objects(*contents):
        if "fileUri" in part:
            _require_link(part)
            media += 1
        elif "data" in part and "mimeType" in part:
            kind = _media_type(part)
            if is_clip(kind) and isinstance(part["data"], str):
                clips.append(read_clip(part["data"], kind))
                continue
            embedded = in_base64(part["data"], kind)
            if embedded is not None:
                data_bytes += embedded.data_bytes
                pdf_pages += embedded.pdf_pages
                media += not embedded.pdf_pages
        elif part.get("fps") is not None:
            fps = max(fps, frames_per_second(part["fps"]))
    return Contents(
        media,
        pdf_pages,
        data_bytes + sum(clip.data_bytes for clip in clips),
        _clip_tokens(clips, fps),
        sum(not clip.is_sure for clip in clips),
        has_clips=bool(clips),
    )


def _clip_tokens(clips: list[Clip], fps: int) -> ClipTokens:
    """Return what clips have together; `fps` frames of each second of a video are read."""
    seen = [(clip.tokens, fps if clip.is_video else 1) for clip in clips]
    return ClipTokens(
        sum(tokens.most * times for tokens, times in seen),
        sum(tokens.likely * times for tokens, times in seen),
    )


def require_text(*contents: object) -> None:
    """Check that contents have nothing but text in them.

    Raises:
        ApiError: 400, they have.
    """
    for part in objects(*contents):
        if "fileUri" in part or "data" in part:
            raise not_metered("inlineData", "only text has a price here")


def _media_type(part: dict[str, Any]) -> str:
    """Return what kind of data a part has, in lower case; empty where it does not say."""
    given = part.get("mimeType")
    return given.strip().lower() if isinstance(given, str) else ""


def _require_link(part: dict[str, Any]) -> None:
    """Check that a file is an image or PDF somewhere on the web.

    Raises:
        ApiError: 400, it is kept at the provider, or a video, or cannot be told.
    """
    uri = part["fileUri"]
    host = _host(uri)
    if not host or host.endswith(_GOOGLES):
        why = (
            "files that are kept at the provider, and linked videos, have no bound that the "
            "request tells. Put the file into `inlineData`"
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
    media: tuple[str, ...]
    """The classes of what it may make besides text. Models that make images do so unasked."""
    asks_media: bool
    """It names one of them."""


def read_config(fields: dict[str, Any]) -> Config:
    """Return how much a request lets the model answer.

    Raises:
        ApiError: 400, for numbers that are none, and for kinds of output that are not known.
    """
    given = fields.get("generationConfig")
    if given is not None and not isinstance(given, dict):
        raise invalid_request("`generationConfig` must be an object.", param="generationConfig")
    config = named(given)
    kinds = {
        kind.upper() if isinstance(kind, str) else ""
        for kind in listed(config.get("responseModalities"))
    }
    if not kinds <= _MADE.keys() | {"TEXT"}:
        raise not_metered("responseModalities", "only text, images and audio have a price here")
    asked = tuple(made for name, made in _MADE.items() if name in kinds)
    thinking = config.get("thinkingConfig")
    return Config(
        maximum(config, "maxOutputTokens"),
        whole(config, "candidateCount", lowest=1, highest=CHOICES_MAX) or 1,
        thinking is not None and named(thinking) != {"thinkingBudget": 0},
        asked if kinds else (_MADE["IMAGE"],),
        asks_media=bool(asked),
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
