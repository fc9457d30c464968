"""The refused options in docs/endpoints.md are those of the code: none more, none less."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Mapping
from pathlib import Path

import pytest

from llmproxy import dialects
from llmproxy.dialects import openai_options
from llmproxy.dialects.gemini_fields import spellings

PAGE = (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text("utf-8")
SECTION = PAGE.partition("## Refused options\n")[2].partition("\n## ")[0]
FIRSTS = [row.split(" | ")[0] for row in SECTION.splitlines() if row.startswith("| ")]
DOCUMENTED = {re.split(r"[.:]", one)[0] for one in re.findall(r"`([^`]+)`", " ".join(FIRSTS))}
MODULES = [
    importlib.import_module(f"llmproxy.dialects.{each.name}")
    for each in pkgutil.iter_modules(dialects.__path__)
]
SOURCES = [ast.parse(Path(str(module.__file__)).read_text("utf-8")) for module in MODULES]
EXAMPLES = {
    "code_interpreter",
    "file_search",
    "image_generation",
    "mcp",
    "shell",
    "svg",
    "compound",
}
EXAMPLES |= {"urlContext", "codeExecution", "googleMaps", "fileSearch", "text", "srt", "vtt"}
EXAMPLES |= {"gif", "standard", "TEXT", '["text"]', "…-search-preview", "…-search-api"}
"""Examples of what is refused because it is not among what is taken."""


TABLES = [
    (module, table)
    for module in MODULES
    for name, table in vars(module).items()
    if name.endswith("REFUSED") and isinstance(table, Mapping)
]


def in_calls() -> set[str]:
    """The options that are refused by name beside the tables, each up to its first `.` or `:`."""
    found = set()
    for call in (node for tree in SOURCES for node in ast.walk(tree)):
        is_call = isinstance(call, ast.Call) and isinstance(call.func, ast.Name)
        if is_call and call.func.id == "not_metered":  # type: ignore[attr-defined]
            option = call.args[0]  # type: ignore[attr-defined]
            if isinstance(option, ast.JoinedStr):
                option = option.values[0]
            if isinstance(option, ast.Constant):
                found.add(re.split(r"[.:]", str(option.value))[0])
    return found


REFUSED = {key for _, table in TABLES for key in table} | in_calls()
REFUSED |= {*openai_options._UNPRICED_PARTS, *openai_options._KEPT_IDS, "context_management"}
ORDINARY = {"model", "tools"}
"""Members that are refused for what stands in them, which the document says in words."""


def test_the_tables_of_every_dialect_are_found() -> None:
    having = {module.__name__.rpartition(".")[2] for module, _ in TABLES}
    assert {"openai_options", "openai_chat", "openai_responses", "openai_images"} <= having
    assert "anthropic_messages" in having
    assert {"modalities", "cachedContent", "file_id", "reasoning", "voice"} <= in_calls()


@pytest.mark.parametrize("option", sorted(REFUSED - ORDINARY))
def test_every_refused_option_is_documented(option: str) -> None:
    assert not DOCUMENTED.isdisjoint(spellings(option))


def test_every_documented_option_is_refused() -> None:
    """Its name stands in the code, as a whole, though what is done with it is for other tests."""
    known = {
        str(node.value)
        for tree in SOURCES
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant)
    }
    assert DOCUMENTED - known - EXAMPLES == set()


def test_no_reason_for_a_refusal_says_that_there_is_none() -> None:
    assert all(why and not why.endswith(".") for _, table in TABLES for why in table.values())
