"""llm, the command line by Simon Willison, set up with what `clients show llm` prints."""

import json
import subprocess
from pathlib import Path

import pytest

from llmproxy.client_settings import find_client, setting_of
from tests.clients.checks import MESSAGES, tokens
from tests.clients.conftest import WITHIN_S, Place, clean_environ
from tests.clients.environments import python_of


class Llm:
    """One user's `llm`: a model named `proxied`, served by the proxy."""

    def __init__(self, home: Path, base_url: str, key: str, model: str = "gpt-4o") -> None:
        self._command = [str(Path(python_of("frameworks")).parent / "llm")]
        self._environ = clean_environ(home) | {"LLM_USER_PATH": str(home)}
        (home / "keys.json").write_text(json.dumps({"llmproxy": key}))
        text = setting_of(find_client("llm"), base_url).text.replace("gpt-4o", model)
        (home / "extra-openai-models.yaml").write_text(text)

    def ask(
        self, *arguments: str, question: str = "Tell me a joke"
    ) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*self._command, "-m", "proxied", question, *arguments],
            env=self._environ,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )


def test_it_answers_streamed_and_plain_and_shows_the_usage(
    places: dict[str, Place], tmp_path: Path
) -> None:
    place = places["serving"]
    name, key = place.books.user("5")
    llm = Llm(tmp_path, place.front.url, key)
    streamed, plain = llm.ask("--usage"), llm.ask("--no-stream")
    assert (streamed.returncode, plain.returncode) == (0, 0), streamed.stderr + plain.stderr
    assert streamed.stdout == plain.stdout != ""
    place.books.settled_wallet(name)
    rows = place.books.rows(name)
    assert [row["basis"] for row in rows] == ["usage", "usage"]
    assert tokens(rows[0]) == tokens(rows[1])
    shown = "Token usage: {} input, {} output".format(*tokens(rows[0]))
    assert shown in streamed.stderr


@pytest.mark.parametrize("how", [(), ("--no-stream",)])
def test_it_calls_a_tool_and_goes_on(
    places: dict[str, Place], tmp_path: Path, how: tuple[str, ...]
) -> None:
    place = places["serving"]
    name, key = place.books.user("5")
    llm = Llm(tmp_path, place.front.url, key)
    done = llm.ask("--tool", "llm_time", "--td", *how, question="What time is it?")
    assert done.returncode == 0, done.stderr
    assert "Tool call: llm_time({})" in done.stderr
    assert done.stdout.startswith("The tool says: ")
    assert "utc_time" in done.stdout
    place.books.settled_wallet(name)
    assert [row["basis"] for row in place.books.rows(name)] == ["usage", "usage"]


def test_a_stream_that_breaks_is_told(places: dict[str, Place], tmp_path: Path) -> None:
    place = places["serving"]
    llm = Llm(tmp_path, place.front.url, place.books.user("5")[1])
    broken = llm.ask(question="Write 12 words [demo:break]")
    assert broken.returncode == 1
    assert "Proxy error: " in broken.stderr


def test_it_shows_an_unknown_model(places: dict[str, Place], tmp_path: Path) -> None:
    place = places["serving"]
    key = place.books.user("5")[1]
    refused = Llm(tmp_path, place.front.url, key, "gpt-4o-x").ask()
    assert refused.returncode == 1
    assert MESSAGES["unknown"] in refused.stderr
    assert place.front.attempts[key] == 1


@pytest.mark.parametrize("situation", ["poor", "wrong", "paused", "keyless"])
def test_it_shows_a_refusal_and_tries_once(
    places: dict[str, Place], tmp_path: Path, situation: str
) -> None:
    place = places.get(situation, places["serving"])
    _, key = place.books.user("0.00001" if situation == "poor" else "5")
    key = "llmp_wrong_llm" if situation == "wrong" else key
    refused = Llm(tmp_path, place.front.url, key).ask()
    assert refused.returncode == 1
    assert MESSAGES[situation] in refused.stderr
    assert place.front.attempts[key] == 1
