"""Owns the exact table of paths: only what is listed here ever reaches a provider.

Matched on the raw bytes of the path, so that no decoding can make two paths one (security S4).
"""

from collections.abc import Iterable
from typing import NamedTuple
from urllib.parse import unquote

from llmproxy.dialects.anthropic_messages import REFUSED as ANTHROPIC_REFUSED
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint
from llmproxy.dialects.openai_audio import TRANSCRIPTION_FORMATS, TRANSLATION_FORMATS, OpenAIAudio
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_completions import OpenAICompletions
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings
from llmproxy.dialects.openai_images import OpenAIImages
from llmproxy.dialects.openai_responses import STATEFUL, OpenAIResponses
from llmproxy.dialects.openai_speech import OpenAISpeech
from llmproxy.dialects.unmetered import FreeEndpoint
from llmproxy.errors import ApiError, unknown_path, wrong_method
from llmproxy.presets import PRESETS, Preset
from llmproxy.refused_endpoints import find_refused

_SHARED: dict[str, tuple[Endpoint, ...]] = {
    "openai": (
        OpenAIResponses(),
        OpenAIResponses("responses/compact"),
        FreeEndpoint("responses/input_tokens", "/responses/input_tokens", STATEFUL),
        OpenAICompletions(),
        OpenAIEmbeddings(),
        OpenAIImages("images/generations"),
        OpenAIImages("images/edits"),
        OpenAISpeech(),
        FreeEndpoint("moderations", "/moderations", {}),
    ),
    "anthropic": (
        FreeEndpoint("messages/count_tokens", "/v1/messages/count_tokens", ANTHROPIC_REFUSED),
    ),
}
"""The endpoints that are the same for every provider of a dialect family."""

BASES = {"gemini": ("v1beta/openai/", "v1beta/openai/v1/"), "groq": ("openai/v1/",)}
"""What some providers' own SDKs put between the base URL and the endpoint."""


def endpoints_of(provider: str, dialect: str) -> tuple[Endpoint, ...]:
    """Return a provider's endpoints, the one for conversations as this very provider reads it."""
    preset = PRESETS.get(provider, Preset(dialect, base_url=""))
    if dialect == "anthropic":
        is_known = provider in PRESETS
        return (AnthropicMessages(answers_nothing_for_0=is_known), *_SHARED[dialect])
    chat = OpenAIChat(preset.output_members, preset.ignored_output_members)
    least_s = preset.audio_seconds_min
    return (
        chat,
        *_SHARED[dialect],
        OpenAIAudio("audio/transcriptions", TRANSCRIPTION_FORMATS, least_s),
        OpenAIAudio("audio/translations", TRANSLATION_FORMATS, least_s),
    )


_MODELS = b"models"
_BETA = b"beta=true"


class Route(NamedTuple):
    """Where a path leads: an endpoint of a provider, or (endpoint None) what we answer ourselves.

    That is the list of models, one model of it by its id, or nothing at all, for clients that
    look whether the base URL is there.
    """

    provider: str
    dialect: str
    endpoint: Endpoint | None = None
    model_id: str | None = None
    is_base: bool = False


class Routes:
    """The table for the providers that are known now: `{name: dialect}`."""

    def __init__(self, providers: Iterable[tuple[str, str]]) -> None:
        """Build the table."""
        self._post: dict[bytes, Route] = {}
        self._get: dict[bytes, Route] = {}
        self._bases: dict[bytes, Route] = {}
        for provider, dialect in providers:
            root = f"/v1/{provider}"
            endpoints = endpoints_of(provider, dialect)
            self._bases |= dict.fromkeys(
                (root.encode(), f"{root}/".encode()), Route(provider, dialect, is_base=True)
            )
            # Anthropic's SDKs add "/v1" to the base URL themselves (wire.md F.2).
            for inner in ("", "v1/", *BASES.get(provider, ())):
                base = f"{root}/{inner}".encode()
                self._get[base + _MODELS] = Route(provider, dialect)
                for endpoint in endpoints:
                    path = base + endpoint.name.encode()
                    self._post[path] = Route(provider, dialect, endpoint)

    def find(self, method: str, raw_path: bytes) -> Route:
        """Return where a request goes.

        Raises:
            ApiError: 404 for a path that leads nowhere, 405 for another method, 400 for an
                endpoint of a provider that cannot be metered.
        """
        if method == "POST":
            route = self._post.get(raw_path)
        elif method in {"GET", "HEAD"}:
            route = self._get.get(raw_path) or self._bases.get(raw_path) or self._model(raw_path)
        else:
            route = None
        if route is None:
            raise self._refusal(raw_path)
        return route

    def _model(self, raw_path: bytes) -> Route | None:
        """Return the route of one model of a list; its id is looked up, never sent on."""
        before, found, model = raw_path.partition(b"/" + _MODELS + b"/")
        route = self._get.get(before + b"/" + _MODELS) if found and model else None
        return route and route._replace(model_id=unquote(model.decode("latin-1")))

    def _refusal(self, raw_path: bytes) -> ApiError:
        if raw_path in self._post:
            return wrong_method("POST")
        if raw_path in self._get or self._model(raw_path):
            return wrong_method("GET")
        provider, _, endpoint = raw_path.removeprefix(b"/v1/").partition(b"/")
        # Of an endpoint that is served, "cannot be metered" would be a lie.
        has_stray_slash = b"//" in raw_path or raw_path.endswith(b"/")
        if b"/v1/" + provider not in self._bases or not endpoint or has_stray_slash:
            return unknown_path()
        name = provider.decode(errors="replace")
        known = ", ".join(sorted(path.decode() for path in self._paths_of(provider)))
        shown = endpoint.decode(errors="replace")[:100]
        refused = find_refused(shown)
        reason = f": {refused.why}. {refused.instead}." if refused else "."
        return ApiError(
            400,
            "endpoint_not_metered",
            f'"{shown}" of {name} cannot be metered and is not forwarded{reason} '
            f"Available: {known}.",
        )

    def _paths_of(self, provider: bytes) -> list[bytes]:
        """Return a provider's paths, each once: without the aliases below other bases."""
        base = b"/v1/" + provider + b"/"
        served = endpoints_of(provider.decode(), self._bases[base].dialect)
        return [base + endpoint.name.encode() for endpoint in served] + [base + _MODELS]


def passed_query(query: bytes) -> str:
    """Return what of a client's query goes upstream; all but `beta=true` is dropped."""
    return "?beta=true" if query and _BETA in query.split(b"&") else ""
