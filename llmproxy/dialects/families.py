"""Owns the table of dialect families: what speaking one means. A new dialect is one row here.

A provider of a family has one face or several: endpoints under common paths, here and upstream,
with a credential and an error shape of their own. Must not know which providers there are now.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import NamedTuple

from llmproxy.dialects.anthropic_messages import REFUSED as ANTHROPIC_REFUSED
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint
from llmproxy.dialects.gemini_contents import GENERATE, STREAM, GeminiContents
from llmproxy.dialects.gemini_embeddings import (
    COUNT,
    EMBED,
    EMBED_BATCH,
    GeminiEmbeddings,
    GeminiTokenCount,
)
from llmproxy.dialects.openai_audio import TIMED_FORMATS, TRANSCRIPTION_FORMATS, OpenAIAudio
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_completions import OpenAICompletions
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings, OpenAIModerations
from llmproxy.dialects.openai_images import OpenAIImages
from llmproxy.dialects.openai_responses import STATEFUL, OpenAIResponses
from llmproxy.dialects.openai_speech import OpenAISpeech
from llmproxy.dialects.unmetered import FreeEndpoint
from llmproxy.presets import GEMINI_OPENAI_PATH, PRESETS, Preset


class Method(NamedTuple):
    """A method of `models/{model}:{method}`."""

    make: Callable[[str], Endpoint]
    """What makes the endpoint of a model."""
    query: bytes = b""
    """What of a client's query goes upstream, if it is there."""


class Face(NamedTuple):
    """Endpoints that a provider offers under common paths."""

    dialect: str
    """In whose shape lists of models and errors are, and how the key is sent."""
    endpoints: tuple[Endpoint, ...]
    inner: tuple[str, ...]
    """What may stand between `/v1/{provider}/` and an endpoint. Anthropic's SDKs add `v1` to the
    base URL themselves (reference wire.md F.2)."""
    by_model: Mapping[str, Method] = {}
    """Those that stand below a model, by the method's name."""
    upstream: str = ""
    """What stands between the provider's base URL and an endpoint's own upstream path."""
    query: bytes = b"beta=true"
    """What of a client's query goes upstream with those that stand below no model."""


class Family(NamedTuple):
    """One dialect: a row of the table."""

    faces: Callable[[str, Preset], tuple[Face, ...]]
    """The faces of a provider, by its name and what is known of it. Of paths that several have,
    such as the list of models, that of the first counts."""
    credential: bytes
    """The header that the provider's key is sent in."""
    scheme: bytes = b""
    """What stands before it there."""
    probe_path: str = ""
    """What answers 200 to a good key at no cost; empty where each provider has its own."""
    has_stream_options: bool = False
    """It may report usage in a stream only when asked."""


BASES = {
    "gemini": (f"{GEMINI_OPENAI_PATH[1:]}/", f"{GEMINI_OPENAI_PATH[1:]}/v1/"),
    "groq": ("openai/v1/",),
}
"""What some providers' own SDKs put between the base URL and the endpoint."""

_INNER = ("", "v1/")
_OPENAI_SHARED: tuple[Endpoint, ...] = (
    OpenAIResponses(),
    OpenAIResponses("responses/compact"),
    FreeEndpoint("responses/input_tokens", "/responses/input_tokens", STATEFUL),
    OpenAICompletions(),
    OpenAIEmbeddings(),
    OpenAIImages("images/generations"),
    OpenAIImages("images/edits"),
    OpenAISpeech(),
)
_FREE_MODERATIONS = FreeEndpoint("moderations", "/moderations", {})
_COUNT_TOKENS = FreeEndpoint(
    "messages/count_tokens", "/v1/messages/count_tokens", ANTHROPIC_REFUSED
)
_GEMINI_METHODS: Mapping[str, Method] = {
    GENERATE: Method(partial(GeminiContents, GENERATE)),
    # Elsewhere an answer of events is none that anybody reads.
    STREAM: Method(partial(GeminiContents, STREAM), b"alt=sse"),
    EMBED: Method(partial(GeminiEmbeddings, EMBED)),
    EMBED_BATCH: Method(partial(GeminiEmbeddings, EMBED_BATCH)),
    COUNT: Method(partial(GeminiTokenCount, COUNT)),
}


def _openai_faces(provider: str, preset: Preset) -> tuple[Face, ...]:
    chat = OpenAIChat(preset.output_members, preset.ignored_output_members)
    least_s = preset.audio_seconds_min
    formats = TRANSCRIPTION_FORMATS if preset.audio_json_tells else TIMED_FORMATS
    sound = (
        OpenAIAudio("audio/transcriptions", formats, least_s),
        OpenAIAudio("audio/translations", TIMED_FORMATS, least_s),
    )
    moderations = _FREE_MODERATIONS if preset.moderates_free else OpenAIModerations()
    endpoints = (chat, *_OPENAI_SHARED, *sound, moderations)
    return (Face("openai", endpoints, (*_INNER, *BASES.get(provider, ()))),)


def _anthropic_faces(provider: str, _preset: Preset) -> tuple[Face, ...]:
    messages = AnthropicMessages(answers_nothing_for_0=provider in PRESETS)
    return (Face("anthropic", (messages, _COUNT_TOKENS), _INNER),)


def _gemini_faces(provider: str, preset: Preset) -> tuple[Face, ...]:
    (openai,) = _openai_faces(provider, preset)
    beta = Face("gemini", (), ("v1beta/",), _GEMINI_METHODS, "/v1beta")
    return (
        beta,
        beta._replace(inner=("v1/",), upstream="/v1"),
        openai._replace(inner=(*_INNER, *BASES["gemini"]), upstream=GEMINI_OPENAI_PATH),
        beta._replace(inner=("",)),
    )


FAMILIES: Mapping[str, Family] = {
    "openai": Family(_openai_faces, b"authorization", b"Bearer ", has_stream_options=True),
    "anthropic": Family(_anthropic_faces, b"x-api-key", probe_path="/v1/models"),
    "gemini": Family(
        _gemini_faces,
        b"x-goog-api-key",
        probe_path="/v1beta/models?pageSize=1000",
        has_stream_options=True,
    ),
}


def faces_of(provider: str, dialect: str) -> tuple[Face, ...]:
    """Return the faces of a provider, each as this very provider reads its requests."""
    preset = PRESETS.get(provider, Preset(dialect, base_url=""))
    return FAMILIES[dialect].faces(provider, preset)
