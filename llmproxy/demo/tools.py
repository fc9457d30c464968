"""Whether the demo provider calls a tool, and with what: from the tools' schemas and the prompt.

Must not know a dialect's shapes; the dialects hand over names and schemas.
"""

import re
from collections.abc import Sequence
from typing import Any

import msgspec

PIECE_CHARS = 12
WORD_CHARS_MIN = 4


class Tool(msgspec.Struct, frozen=True):
    """A function that the client can run: its name and the JSON schema of its arguments."""

    name: str
    schema: dict[str, Any]


class ToolCall(msgspec.Struct, frozen=True):
    """A call of a tool; `arguments` is JSON text."""

    name: str
    arguments: str

    def pieces(self) -> list[str]:
        """The arguments in pieces, as a stream sends them."""
        starts = range(0, len(self.arguments), PIECE_CHARS)
        return [self.arguments[at : at + PIECE_CHARS] for at in starts]


def choose_call(tools: Sequence[Tool], choice: object, prompt: str) -> ToolCall | None:
    """Return the call that answers a prompt, or None for an answer in words.

    Without being told, a tool is called when a word of its name is in the prompt: `get_weather`
    for "What is the weather in Paris?".

    Args:
        tools: what may be called.
        choice: `tool_choice` in the form of any dialect.
        prompt: the user's last words.
    """
    kind, wanted = _read_choice(choice)
    if kind == "none":
        return None
    if wanted is not None:
        tools = [tool for tool in tools if tool.name == wanted]
    words = set(re.findall(r"[a-z]+", prompt.lower()))
    for tool in tools:
        if kind in {"required", "any"} or wanted or words & _words(tool.name):
            arguments = json_sample(tool.schema, prompt)
            return ToolCall(tool.name, msgspec.json.encode(arguments).decode())
    return None


def _read_choice(choice: object) -> tuple[str, str | None]:
    """Return the kind of choice and the tool that it names, if it names one."""
    if not isinstance(choice, dict):
        return (choice if isinstance(choice, str) else "auto"), None
    function = choice.get("function")
    named = function.get("name") if isinstance(function, dict) else choice.get("name")
    return str(choice.get("type", "auto")), named if isinstance(named, str) else None


def _words(name: str) -> set[str]:
    apart = re.sub(r"(?<=[a-z])(?=[A-Z])", " ", name).lower()
    return {word for word in re.findall(r"[a-z]+", apart) if len(word) >= WORD_CHARS_MIN}


def json_sample(schema: dict[str, Any], prompt: str) -> Any:  # noqa: ANN401 - any JSON value
    """Return a value that fits a simple JSON schema; its texts are a word of the prompt."""
    if "const" in schema:
        return schema["const"]
    if schema.get("enum"):
        return schema["enum"][0]
    for key in ("anyOf", "oneOf", "allOf"):
        if schema.get(key):
            return json_sample(schema[key][0], prompt)
    kinds = schema.get("type", "object" if "properties" in schema else "string")
    kind = kinds if isinstance(kinds, str) else next(iter(kinds), "string")
    if kind == "object":
        properties: dict[str, Any] = schema.get("properties") or {}
        return {name: json_sample(inner, prompt) for name, inner in properties.items()}
    if kind == "array":
        return [json_sample(schema.get("items") or {}, prompt)]
    plain: dict[str, Any] = {"integer": 1, "number": 1, "boolean": True, "null": None}
    return plain[kind] if kind in plain else _name_in(prompt)


def _name_in(prompt: str) -> str:
    """Return a name from the prompt: a capitalised word inside it, else its last word."""
    plain = re.sub(r"\[demo:[a-z-]+\]", "", prompt)
    words: list[str] = re.findall(r"\w+", plain) or ["nothing"]
    return next((word for word in words[1:] if word[:1].isupper()), words[-1])
