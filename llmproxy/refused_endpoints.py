"""Owns what is said of the providers' endpoints that are not served: why, and what to do instead.

Nothing here opens or shuts a path: `routes.py` serves what it lists and nothing else. These are the
endpoints that clients are known to ask for (reference wire.md A.3, A.4, A.5); docs/endpoints.md has
them all.
"""

import re
from typing import NamedTuple


class RefusedEndpoint(NamedTuple):
    """Endpoints below these paths, and what is said to who asks for one."""

    paths: tuple[str, ...]
    """Below the provider, without an inner `v1/`; a path stands for all below it too."""
    why: str
    instead: str
    is_below_only: bool = False
    """The paths themselves are served, or are another provider's: it is about what is below."""


_UNREAD = "what its answer reports that it used is not read here"

REFUSED_ENDPOINTS = (
    RefusedEndpoint(
        ("responses", "chat/completions", "completions", "messages"),
        "what a provider keeps of an answer cannot be fetched, changed or cancelled later: it was "
        "paid for, and sent, with the request that made it",
        "Keep the answer; `responses` can go on from it by `previous_response_id`",
        is_below_only=True,
    ),
    RefusedEndpoint(
        ("batches", "messages/batches", "batch", "batchGenerateContent"),
        "a batch reports what it used only in its results, not with an answer",
        "Send the requests one by one",
    ),
    RefusedEndpoint(
        (
            *("files", "uploads", "upload", "vector_stores", "containers", "skills"),
            *("cachedContents", "audio/voices", "audio/voice_consents"),
        ),
        "it would keep something in the operator's account, where everybody could use it",
        "Put the content into the request",
    ),
    RefusedEndpoint(
        (
            *("conversations", "threads", "assistants", "agents", "sessions", "interactions"),
            "chatkit",
        ),
        "a conversation that the provider keeps has no size that a request tells",
        "Send the messages with each request, or use `responses` with `previous_response_id`",
    ),
    RefusedEndpoint(
        ("realtime", "live"),
        "what is spoken over one connection has no bound that could be held",
        "Use `chat/completions`, `responses` or `messages`",
    ),
    RefusedEndpoint(
        ("images/variations", "videos"),
        "its answer does not report what it used",
        "Use `images/generations` where the provider has it",
    ),
    RefusedEndpoint(
        ("fine_tuning", "fine-tunes", "evals", "graders", "tunedModels"),
        "it runs at the provider for hours, without a bound",
        "Ask the operator to run it",
    ),
    RefusedEndpoint(
        (
            *("organization", "organizations", "vaults", "memory_stores", "projects", "admin"),
            *("dashboard", "webhooks", "oauth"),
        ),
        "it would reach into the operator's account, which is not yours alone",
        "Ask the operator",
    ),
    RefusedEndpoint(
        ("decisions",), _UNREAD, "Ask `responses` for JSON by a schema of yours (`text.format`)"
    ),
    RefusedEndpoint(
        ("fim/completions",),
        _UNREAD,
        "Use `completions` with a `suffix` where the provider has it, or `chat/completions`",
    ),
    RefusedEndpoint(("v2/chat", "api/chat", "api/generate"), _UNREAD, "Use `chat/completions`"),
    RefusedEndpoint(
        ("chat/moderations", "classifications", "chat/classifications"),
        _UNREAD,
        "Put the text into `moderations`",
    ),
    RefusedEndpoint(
        ("ocr",),
        "it is billed by the page, which has no price here",
        "Put the document into `chat/completions`, with a model that reads documents",
    ),
    RefusedEndpoint(
        ("rerank", "v2/rerank"),
        "it is billed by the search, which has no price here",
        "Compare the texts by their `embeddings`",
    ),
)


_BEFORE = re.compile(r"^(?:v1/|v1beta/|openai/(?:deployments/[^/]+/)?)+")
"""What clients put between the provider and an endpoint: Google's, Groq's and Azure's SDKs too."""


def find_refused(path: str) -> RefusedEndpoint | None:
    """Return what is said of a path below a provider; None for one that nobody is known to ask."""
    inner = _BEFORE.sub("", path, count=1)
    if inner.startswith("models/"):  # of Gemini's methods, `models/{model}:{method}`
        inner = inner.rpartition(":")[2]
    # The longest path that fits: batches of messages are no messages.
    fitting = [
        (len(begin), refused)
        for refused in REFUSED_ENDPOINTS
        for begin in refused.paths
        if inner.startswith((f"{begin}/", f"{begin}:"))
        or (inner == begin and not refused.is_below_only)
    ]
    return max(fitting, key=lambda found: found[0])[1] if fitting else None
