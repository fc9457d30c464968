"""Claude Code and Codex, set up with what `clients show` prints, at work without a person.

Nothing of theirs may leave this machine: what they would send elsewhere is switched off, and what
they send all the same is led into a trap, which must stay empty.
"""

import json
import subprocess
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from llmproxy.client_settings import find_client, setting_of
from llmproxy.demo.replies import Question, generate
from tests.clients.checks import MESSAGES, tokens
from tests.clients.conftest import CREDIT_NANOUSD, WITHIN_S, Place, clean_environ
from tests.clients.environments import node_project, why_no_node
from tests.clients.trap import Trap

JOKE = "Tell me a joke."
ANSWER = generate(Question(JOKE)).text
QUIET = {
    "CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC": "1",
    "DISABLE_AUTOUPDATER": "1",
    "DISABLE_ERROR_REPORTING": "1",
    "DISABLE_TELEMETRY": "1",
}
CODEX_QUIET = (
    *("-c", "analytics.enabled=false", "-c", "check_for_update_on_startup=false"),
    *("--disable", "plugins", "--disable", "apps"),
)
CODEX_TRIES_ONCE = (
    *("-c", "model_providers.llmproxy.request_max_retries=0"),
    *("-c", "model_providers.llmproxy.stream_max_retries=0"),
)
SITUATIONS = ["poor", "wrong", "paused", "keyless"]


class Told(NamedTuple):
    """How a run of a program ended."""

    code: int
    out: str
    err: str

    def documents(self) -> list[dict[str, Any]]:
        """The JSON documents that it printed, one a line."""
        return [json.loads(line) for line in self.out.splitlines() if line.startswith("{")]


class Programs:
    """Runs the programs as one user, each time in an empty home of its own."""

    def __init__(self, homes: pytest.TempPathFactory, trap: Trap) -> None:
        self._homes = homes
        self._trap = trap
        self._folder = node_project("programs") / "node_modules" / ".bin"

    def claude(self, place: Place, key: str, *arguments: str, **environ: str) -> Told:
        return self._run("claude-code", place, key, ["claude", "-p", *arguments], environ)

    def codex(self, place: Place, key: str, *arguments: str) -> Told:
        command = ["codex", "exec", "--skip-git-repo-check", "--json", *CODEX_QUIET, *arguments]
        return self._run("codex", place, key, command, {"APP_API_KEY": key})

    def _run(
        self, name: str, place: Place, key: str, command: list[str], environ: dict[str, str]
    ) -> Told:
        home = self._homes.mktemp(name)
        setting = setting_of(find_client(name), place.front.url, key)
        file = home / setting.place.removeprefix("~/")
        file.parent.mkdir()
        file.write_text(setting.text)
        folder = home / "work"
        folder.mkdir()
        done = subprocess.run(
            [str(self._folder / command[0]), *command[1:]],
            cwd=folder,
            env=clean_environ(home) | QUIET | self._trap.environ() | environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        return Told(done.returncode, done.stdout, done.stderr)


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Programs]:
    if why := why_no_node():
        pytest.skip(why)
    with Trap() as trap:
        yield Programs(tmp_path_factory, trap)
        assert trap.asked == []


def assert_paid_by_usage(place: Place, name: str) -> list[tuple[int, int]]:
    """What was charged is the sum of the rows, each by its usage; return their tokens."""
    balance = place.books.settled_wallet(name)
    rows = place.books.rows(name)
    charged = [row for row in rows if row["cost_nanousd"]]
    assert [row["basis"] for row in charged] == ["usage"] * len(charged)
    assert sum(row["charged_nanousd"] for row in charged) == CREDIT_NANOUSD - balance > 0
    return [tokens(row) for row in charged]


def user_for(place: Place, situation: str) -> str:
    """An API key in one of the situations."""
    if situation == "wrong":
        return f"llmp_wrong_{place.books.user('5')[0]}"
    return place.books.user("0.00001" if situation == "poor" else "5")[1]


# --- Claude Code ---


def test_claude_code_answers_and_counts_as_the_books_do(
    programs: Programs, places: dict[str, Place]
) -> None:
    place = places["serving"]
    name, key = place.books.user("5")
    told = programs.claude(place, key, JOKE, "--output-format", "json")
    assert told.code == 0, told
    (document,) = told.documents()
    usage = document["usage"]
    # Which joke it is depends on what Claude Code puts beside the question.
    assert usage["output_tokens"] == -(-len(document["result"]) // 4) > 10
    read = usage["cache_creation_input_tokens"] + usage["cache_read_input_tokens"]
    counted = (usage["input_tokens"] + read, usage["output_tokens"])
    assert assert_paid_by_usage(place, name) == [counted]


def test_claude_code_uses_a_tool_and_goes_on(programs: Programs, places: dict[str, Place]) -> None:
    place = places["serving"]
    name, key = place.books.user("5")
    told = programs.claude(
        *(place, key, "Please read it.", "--tools", "Read"),
        *("--output-format", "stream-json", "--verbose"),
    )
    assert told.code == 0, told
    content = [
        part
        for document in told.documents()
        if document["type"] == "assistant"
        for part in document["message"]["content"]
    ]
    assert [part["type"] for part in content] == ["tool_use", "text"]
    assert content[0]["name"] == "Read"
    assert content[1]["text"].startswith("The tool says: ")
    assert len(assert_paid_by_usage(place, name)) == 2


@pytest.mark.parametrize("situation", SITUATIONS)
def test_claude_code_shows_a_refusal(
    programs: Programs, places: dict[str, Place], situation: str
) -> None:
    place = places.get(situation, places["serving"])
    key = user_for(place, situation)
    told = programs.claude(place, key, JOKE, CLAUDE_CODE_MAX_RETRIES="0")
    assert told.code == 1
    assert MESSAGES[situation] in told.out


def test_claude_code_shows_an_unknown_model(programs: Programs, places: dict[str, Place]) -> None:
    place = places["serving"]
    told = programs.claude(place, user_for(place, ""), JOKE, "--model", "claude-sonnet-5-5-x")
    assert told.code == 1
    assert MESSAGES["unknown"] in told.out


# --- Codex ---


def test_codex_answers_and_counts_as_the_books_do(
    programs: Programs, places: dict[str, Place]
) -> None:
    place = places["serving"]
    name, key = place.books.user("5")
    told = programs.codex(place, key, JOKE)
    assert told.code == 0, told
    items = [each["item"] for each in told.documents() if each["type"] == "item.completed"]
    assert items[-1] == {"id": items[-1]["id"], "type": "agent_message", "text": ANSWER}
    usage = told.documents()[-1]["usage"]
    counted = (usage["input_tokens"], usage["output_tokens"])
    assert assert_paid_by_usage(place, name) == [counted]


def test_codex_uses_a_tool_and_goes_on(programs: Programs, places: dict[str, Place]) -> None:
    place = places["serving"]
    name, key = place.books.user("5")
    told = programs.codex(place, key, "Please exec a command")
    assert told.code == 0, told
    items = [each["item"] for each in told.documents() if each["type"] == "item.completed"]
    (ran,) = [item for item in items if item["type"] == "command_execution"]
    assert (ran["status"], ran["exit_code"]) == ("completed", 0)
    assert items[-1]["text"].startswith("The tool says: ")
    assert len(assert_paid_by_usage(place, name)) == 2


@pytest.mark.parametrize("situation", SITUATIONS)
def test_codex_shows_a_refusal(
    programs: Programs, places: dict[str, Place], situation: str
) -> None:
    place = places.get(situation, places["serving"])
    key = user_for(place, situation)
    told = programs.codex(place, key, *CODEX_TRIES_ONCE, JOKE)
    assert told.code == 1
    # Of a 429 it shows the status and the request id alone.
    shown = "429 Too Many Requests, request id: req_" if situation == "paused" else None
    assert (shown or MESSAGES[situation]) in told.documents()[-1]["error"]["message"]
    assert place.front.attempts[key] == 1


def test_codex_shows_an_unknown_model_and_tries_once(
    programs: Programs, places: dict[str, Place]
) -> None:
    place = places["serving"]
    key = user_for(place, "")
    told = programs.codex(place, key, "-m", "gpt-5-x", JOKE)
    assert told.code == 1
    assert MESSAGES["unknown"] in told.documents()[-1]["error"]["message"]
    assert place.front.attempts[key] == 1
