"""What holds for every command: examples that parse, one JSON document, exit codes."""

import json
import re
import shlex
from collections.abc import Iterator
from typing import Any

import pytest
from typer.main import get_command

from llmproxy.cli.app import app
from tests.cli.conftest import Quick

ROOT: Any = get_command(app)
GROUPS = [name for name, each in ROOT.commands.items() if hasattr(each, "commands")]
SHORT_LIST = "providers list"
"""It has a dozen rows, whether anything is set up or not: no --limit."""
RUNS_ON = {"serve", "demo"}
WRITES_ELSEWHERE = {"usage export": "its format is an option"}


def commands(command: Any, *words: str) -> Iterator[tuple[str, Any]]:  # noqa: ANN401 - Typer's own
    """Every command by its words."""
    if not hasattr(command, "commands"):
        yield " ".join(words), command
        return
    for name, inner in command.commands.items():
        yield from commands(inner, *words, name)


COMMANDS = dict(commands(ROOT))


def example_lines(command: Any) -> list[str]:  # noqa: ANN401 - Typer's own
    """The command lines of a help's epilog."""
    return [line.strip() for line in command.epilog.splitlines() if "llmproxy " in line]


def program_call(line: str) -> list[str]:
    """The words behind `llmproxy` in a line of shell, without what is around the call."""
    inner = re.search(r"\$\((.*)\)", line)
    call = (inner[1] if inner else line).split("|")[-1]
    words = shlex.split(call, comments=True)
    words = words[words.index("llmproxy") + 1 :]
    cut = next((i for i, word in enumerate(words) if word in {">", "<", "&&", ";"}), len(words))
    return words[:cut]


@pytest.mark.parametrize("name", COMMANDS)
def test_every_example_is_a_call_of_the_command_that_parses(name: str) -> None:
    command = COMMANDS[name]
    lines = example_lines(command)
    assert lines
    for line in lines:
        words = program_call(line)
        own = name.split()
        assert words[: len(own)] == own, line
        # Typer's own parser: unknown options, missing or surplus arguments, wrong types raise.
        command.make_context(name, words[len(own) :], resilient_parsing=False)


@pytest.mark.parametrize("name", COMMANDS)
def test_every_option_and_argument_has_a_help(name: str) -> None:
    silent = [each.name for each in COMMANDS[name].params if not each.help]
    assert silent == []


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_that_shows_something_has_json(name: str) -> None:
    options = {option for each in COMMANDS[name].params for option in each.opts}
    assert "--json" in options or name == "serve" or name in WRITES_ELSEWHERE


LISTS = [
    name
    for name, command in COMMANDS.items()
    if "--limit" in {option for each in command.params for option in each.opts}
]


def test_all_lists_are_known_to_be_lists() -> None:
    named = {name for name in COMMANDS if name.endswith((" list", " requests"))}
    assert named - {SHORT_LIST} <= set(LISTS)
    assert len(LISTS) >= 7


@pytest.mark.parametrize("name", LISTS)
def test_an_empty_list_is_a_json_document_and_a_sentence_for_people(
    quick: Quick, name: str
) -> None:
    quick.ok("users", "create", "ann")
    arguments = ("ann",) if name == "credits list" else ()
    document = quick.json(*name.split(), *arguments)
    rows = document["rows"] if isinstance(document, dict) else document
    assert isinstance(rows, list)
    ran = quick.run(*name.split(), *arguments)
    assert ran.code == 0
    assert ran.out or re.search(r"\.$|llmproxy \w+", ran.err.strip())


@pytest.mark.parametrize(
    "name",
    [name for name, each in COMMANDS.items() if all(not p.required for p in each.params)],
)
def test_what_runs_without_arguments_prints_one_json_document_or_says_why_not(
    quick: Quick, name: str
) -> None:
    """On an empty home: nothing may end in a traceback, or in half a document."""
    if name in RUNS_ON or name in WRITES_ELSEWHERE:
        pytest.skip("runs until it is stopped, or has no --json")
    ran = quick.run(*name.split(), "--json")
    assert ran.code in {0, 1, 2, 5}
    if ran.out:
        json.loads(ran.out)
    else:
        assert ran.err.startswith(("Error: ", "Usage: "))


@pytest.mark.parametrize("group", GROUPS)
def test_every_example_of_a_group_is_a_call_of_one_of_its_commands(group: str) -> None:
    lines = example_lines(ROOT.commands[group])
    assert lines
    for line in lines:
        noun, verb, *rest = program_call(line)
        assert noun == group
        COMMANDS[f"{noun} {verb}"].make_context(verb, rest, resilient_parsing=False)


def test_no_line_about_a_command_is_cut_short(quick: Quick) -> None:
    for words in ([], *([group] for group in GROUPS)):
        lines = quick.ok(*words, "--help").splitlines()
        assert [line for line in lines if line.endswith("...") and "Usage: " not in line] == []


@pytest.mark.parametrize("group", GROUPS)
def test_a_group_alone_shows_its_commands(quick: Quick, group: str) -> None:
    ran = quick.run(group)
    assert ran.code == 2
    assert f"llmproxy {group} [OPTIONS] COMMAND" in ran.out + ran.err
    assert "mmands" in ran.out + ran.err
