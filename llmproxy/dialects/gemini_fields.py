"""Owns how Gemini's requests spell their members: each in two ways, which mean the same.

Google's parser takes `maxOutputTokens` and `max_output_tokens` alike. What money depends on is
looked up under the first of them here, and a request that has both is refused: which of them
counts would be the provider's to choose (reference security.md S13).
"""

import re
from collections.abc import Iterator
from typing import Any

from llmproxy.errors import invalid_request

_NAMES = frozenset(
    {"args", "candidateCount", "cachedContent", "computerUse", "content", "contents", "data"}
    | {"fps", "videoMetadata"}
    | {"fileData", "fileUri", "functionCall", "functionDeclarations", "functionResponse"}
    | {"generateContentRequest", "generationConfig", "googleSearch", "inlineData"}
    | {"maxOutputTokens", "mimeType", "model", "parts", "requests", "response"}
    | {"responseModalities", "role", "searchTypes", "serviceTier", "systemInstruction", "text"}
    | {"thinkingBudget", "thinkingConfig", "toolConfig", "tools", "webSearch"}
)
"""The members that are looked at here, and the ordinary ones beside them."""


def _snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda found: f"_{found[0].lower()}", name)


_BY_SPELLING = {spelling: name for name in _NAMES for spelling in (name, _snake(name))}
_BY_LETTERS = {name.casefold(): name for name in _NAMES}
_OPAQUE = frozenset({"args", "response", "functionDeclarations"})
"""Members that hold somebody else's JSON: names in there mean nothing."""


def spellings(name: str) -> tuple[str, str]:
    """Return both ways to write a member's name, the usual one first."""
    return name, _snake(name)


def spelled(given: dict[str, Any], name: str) -> str:
    """Return how an object writes a member's name; the usual way when it has none."""
    usual, other = spellings(name)
    return other if other in given and usual not in given else usual


def named(given: object) -> dict[str, Any]:
    """Return an object's members under their usual names; nothing of what is no object.

    Raises:
        ApiError: 400, for a member that is there twice, or written so that it may be another.
    """
    if not isinstance(given, dict):
        return {}
    found: dict[str, Any] = {}
    for key, value in given.items():
        name = _BY_SPELLING.get(key)
        if name is None:
            meant = _BY_LETTERS.get(key.replace("_", "").casefold())
            if meant is not None:
                raise invalid_request(f"The field {key!r:.60} must be written `{meant}`.")
            name = key
        elif name in found:
            raise invalid_request(
                f"The request body is ambiguous: `{name}` is there in both spellings.", param=name
            )
        found[name] = value
    return found


def objects(*contents: object) -> Iterator[dict[str, Any]]:
    """Yield every object within contents, at whatever depth, under the usual names.

    Raises:
        ApiError: 400, see `named`.
    """
    waiting = [*contents]
    while waiting:
        node = waiting.pop()
        if isinstance(node, list):
            waiting += [item for item in node if isinstance(item, dict | list)]
        elif isinstance(node, dict):
            members = named(node)
            yield members
            for name, value in members.items():
                if isinstance(value, dict | list) and name not in _OPAQUE:
                    waiting.append(value)


def listed(given: object) -> list[object]:
    """Return a repeated member as a list; Google takes a single value for a list of one."""
    if given is None:
        return []
    return given if isinstance(given, list) else [given]
