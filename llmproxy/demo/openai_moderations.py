"""The demo provider's `moderations`: a text is flagged for the categories that it names."""

from typing import Any

import msgspec

from llmproxy.demo.openai_wire import json_answer, missing, read_body
from llmproxy.demo.replies import Answer, PromptCache, Request

MODEL = "omni-moderation-latest"
_CATEGORIES = (
    *("harassment", "harassment/threatening", "hate", "hate/threatening", "illicit"),
    *("illicit/violent", "self-harm", "self-harm/instructions", "self-harm/intent"),
    *("sexual", "sexual/minors", "violence", "violence/graphic"),
)


class _Create(msgspec.Struct):
    input: str | list[str | dict[str, Any]] | None = None
    model: str = MODEL

    def texts(self) -> list[str]:
        """One text for each result: parts with a type are one input together."""
        if isinstance(self.input, str):
            return [self.input]
        texts = [each for each in self.input or () if isinstance(each, str)]
        parts = [str(each.get("text", "")) for each in self.input or () if isinstance(each, dict)]
        return [*texts, " ".join(parts)] if parts else texts


def answer(request: Request, _cache: PromptCache) -> Answer:
    """Answer one request; it costs nothing.

    Raises:
        RefusalError: the request is wrong.
    """
    create = read_body(request, _Create)
    if create.input in (None, []):
        raise missing("input", is_empty=create.input is not None)
    results = [_result(text) for text in create.texts()]
    body = {"id": f"modr-{request.digest()}", "model": create.model, "results": results}
    return json_answer(request, body)


def _result(text: str) -> dict[str, Any]:
    named = {category: category in text.lower() for category in _CATEGORIES}
    return {
        "flagged": any(named.values()),
        "categories": named,
        "category_scores": {name: 0.98 if is_named else 0.001 for name, is_named in named.items()},
        "category_applied_input_types": {name: ["text"] for name in _CATEGORIES},
    }
