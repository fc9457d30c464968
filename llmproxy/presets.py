"""Owns what holds of a provider before it is set up: known ones, good names and base URLs. Pure.

Must not know the database: what has been set up is key_pool's.
"""

import ipaddress
import re
from urllib.parse import SplitResult, urlsplit

import msgspec

from llmproxy.errors import RefusedError


class Preset(msgspec.Struct, frozen=True):
    """What is known of a provider before anybody configures it.

    `injects_usage`: it reports usage in a stream only when asked (reference wire.md A.2).
    `output_members`: by what names it surely reads the maximum of output tokens in chat
    completions; the first is the one to write. `ignored_output_members`: those that it surely does
    not read. What is in neither may be read or not.
    `audio_seconds_min`: shorter sound is billed as so much.
    `audio_json_tells`: a transcript in the format `json` surely reports its usage.
    `moderates_free`: it bills nothing for moderations.
    `probe_path`: what answers 200 to a good key at no cost, and only to a good one.
    """

    dialect: str
    base_url: str
    injects_usage: bool = True
    output_members: tuple[str, ...] = ("max_tokens",)
    ignored_output_members: tuple[str, ...] = ()
    probe_path: str = "/models"
    audio_seconds_min: int = 0
    audio_json_tells: bool = False
    moderates_free: bool = False


GEMINI_OPENAI_PATH = "/v1beta/openai"
"""Where Google's servers speak OpenAI's dialect."""

PRESETS = {
    "openai": Preset(
        "openai",
        "https://api.openai.com/v1",
        # Its reasoning models refuse the older `max_tokens`.
        output_members=("max_completion_tokens", "max_tokens"),
        audio_json_tells=True,
        moderates_free=True,
    ),
    "anthropic": Preset("anthropic", "https://api.anthropic.com", injects_usage=False),
    "gemini": Preset("gemini", "https://generativelanguage.googleapis.com"),
    "xai": Preset("openai", "https://api.x.ai/v1"),
    "groq": Preset(
        "openai",
        "https://api.groq.com/openai/v1",
        output_members=("max_tokens", "max_completion_tokens"),
        audio_seconds_min=10,
    ),
    "mistral": Preset(
        "openai", "https://api.mistral.ai/v1", injects_usage=False, audio_json_tells=True
    ),
    "deepseek": Preset(
        "openai",
        "https://api.deepseek.com/v1",
        # As if it were not there: no error, and an answer as long as the model can.
        ignored_output_members=("max_completion_tokens",),
    ),
    # It lists its models to everybody.
    "openrouter": Preset("openai", "https://openrouter.ai/api/v1", probe_path="/key"),
    "together": Preset("openai", "https://api.together.xyz/v1"),
    "fireworks": Preset("openai", "https://api.fireworks.ai/inference/v1"),
    "cerebras": Preset("openai", "https://api.cerebras.ai/v1"),
    "perplexity": Preset("openai", "https://api.perplexity.ai", injects_usage=False),
    # It refuses a request with `stream_options`.
    "cohere": Preset("openai", "https://api.cohere.ai/compatibility/v1", injects_usage=False),
}

RESERVED_NAMES = frozenset(
    {"chat", "completions", "responses", "messages", "models", "embeddings", "images", "audio"}
    | {"moderations", "files", "batches", "key", "usage", "v1"}
)
"""Words that follow `/v1/` in paths that are no provider's (reference wire.md F.2)."""


def root_url(dialect: str, base_url: str) -> str:
    """Return what the paths of a dialect are appended to.

    That is the base URL. Gemini's may end in the path of its OpenAI-compatible face, as it did when
    that was the only one, and as Google's documentation gives it.
    """
    return base_url.removesuffix(GEMINI_OPENAI_PATH) if dialect == "gemini" else base_url


_NAME = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")


def check_new_name(name: str) -> str:
    """Return a name that a provider of the operator's own may have.

    Raises:
        RefusedError: not a name, or one that has a meaning already.
    """
    if not _NAME.fullmatch(name):
        msg = (
            f"{name!r:.80} cannot be a provider's name: up to 64 small letters, digits, - and _, "
            "beginning with a letter or digit."
        )
        raise RefusedError(msg)
    if name in RESERVED_NAMES:
        msg = f"{name!r} means something else in a path (/v1/{name}); choose another name."
        raise RefusedError(msg)
    if name in PRESETS:
        msg = (
            f"{name} is known already. Only its key is needed: llmproxy provider-keys add {name}. "
            f"To point it elsewhere: llmproxy providers set {name} --base-url URL"
        )
        raise RefusedError(msg)
    return name


def check_base_url(url: str, *, allow_http: bool) -> str:
    """Return a base URL without its trailing slash.

    Raises:
        RefusedError: not an http(s) URL with a host and nothing after the path, or plain http to
            a host that is not this machine without `allow_http`.
    """
    parts = _split_url(url.strip())
    if parts is None:
        msg = f"{url!r:.200} cannot be a base URL; write one such as https://api.openai.com/v1"
        raise RefusedError(msg)
    assert parts.hostname is not None
    if parts.scheme == "http" and not (allow_http or is_loopback(parts.hostname)):
        msg = f"{url} is not encrypted and not on this machine. Use https, or add --allow-http."
        raise RefusedError(msg)
    return url.strip().rstrip("/")


def _split_url(url: str) -> SplitResult | None:
    """Return the parts of an http(s) URL with a host and nothing after its path, else None."""
    try:
        parts = urlsplit(url)
        has_good_port = parts.port != 0
        (parts.hostname or "").encode("idna")
    except ValueError:  # a port that is no number, brackets that do not close, a name that is none
        return None
    has_extras = parts.query or parts.fragment or parts.username or parts.password
    is_plain = url.isascii() and url.isprintable() and " " not in url
    if parts.scheme not in {"http", "https"} or not parts.hostname or has_extras:
        return None
    return parts if is_plain and has_good_port else None


def is_loopback(host: str) -> bool:
    """Say whether a host is this machine, by its name or address alone."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
