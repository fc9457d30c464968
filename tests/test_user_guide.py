"""docs/user-guide.md: its curl lines and Python SDKs run as printed; its tables and settings hold.

The snippets that need other packages are run by tests/clients/test_user_guide.py.
"""

import json
import os
import re
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy.client_settings import find_client
from llmproxy.demo.mishaps import MISHAPS
from llmproxy.money import format_usd
from tests.clients.test_user_guide import EXPECTED as EXPECTED_OF_CLIENTS
from tests.service.helpers import Books
from tests.support.demo import RunningDemo
from tests.support.guide import HAIKU, HELLO, JOKE, PAGE, RUN, run, snippets
from tests.support.proxy import RunningProxy

SNIPPETS = snippets()
TEXT = PAGE.read_text()
SETTINGS = {"Programs/Claude Code/1": "json", "Programs/Codex/1": "toml"}


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RunningProxy]:
    with RunningDemo() as demo, RunningProxy(tmp_path_factory.mktemp("guide")) as proxy:
        proxy.use_provider("openai", demo.provider.openai_base_url, ("sk-demo-0001",))
        proxy.use_provider("anthropic", demo.provider.anthropic_base_url, ("sk-demo-0002",))
        proxy.start()
        yield proxy
        proxy.verify_ledger()


@pytest.fixture(scope="module")
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


def shown(proxy: RunningProxy, books: Books, name: str, folder: Path, credit: str = "5") -> str:
    """What a snippet prints."""
    snippet = SNIPPETS[name]
    command = ["sh", "-eu"] if snippet.language == "sh" else [sys.executable]
    kept = {key: os.environ[key] for key in ("PATH", "LANG") if key in os.environ}
    environ = kept | {"BASE_URL": proxy.url, "APP_API_KEY": books.user(credit)[1]}
    done = run(snippet, command, folder, environ | {"HOME": str(folder), "NO_PROXY": "*"})
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.skipif(shutil.which("curl") is None, reason="curl is not installed")
class TestCurl:
    def test_a_plain_answer(self, proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
        answer = json.loads(shown(proxy, books, "curl/1", tmp_path))
        assert answer["choices"][0]["message"]["content"] == JOKE

    def test_a_stream(self, proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
        lines = shown(proxy, books, "curl/2", tmp_path).splitlines()
        assert lines[-2:] == ["data: [DONE]", ""]
        chunks = [json.loads(line.removeprefix("data: ")) for line in lines[:-2] if line]
        pieces = [chunk["choices"][0]["delta"].get("content", "") for chunk in chunks]
        assert "".join(pieces) == HAIKU

    def test_a_response(self, proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
        answer = json.loads(shown(proxy, books, "curl/3", tmp_path))
        assert answer["output"][0]["content"][0]["text"] == JOKE

    def test_a_message(self, proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
        answer = json.loads(shown(proxy, books, "curl/4", tmp_path))
        assert answer["content"][0]["text"] == JOKE

    def test_the_models(self, proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
        listed = json.loads(shown(proxy, books, "curl/5", tmp_path))
        assert "gpt-4o" in [model["id"] for model in listed["data"]]

    def test_the_balance(self, proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
        told = json.loads(shown(proxy, books, "curl/6", tmp_path, credit="3"))
        assert (told["balance_usd"], told["available_usd"]) == ("3.00", "3.00")


def test_openai(proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
    said = shown(proxy, books, "Python/openai/1", tmp_path)
    used = f"6 tokens in, {-(-len(JOKE) // 4)} out"
    assert said == f"{JOKE}\n{used}\n{HAIKU}\n{HELLO}\n"


def test_anthropic(proxy: RunningProxy, books: Books, tmp_path: Path) -> None:
    said = shown(proxy, books, "Python/anthropic/1", tmp_path)
    used = f"6 tokens in, {-(-len(JOKE) // 4)} out"
    assert said == f"{JOKE}\n{used}\n{JOKE}\n"


def test_a_402_says_what_fits_and_that_fits(
    proxy: RunningProxy, books: Books, tmp_path: Path
) -> None:
    said = shown(proxy, books, "Errors/1", tmp_path, credit="0.05")
    told, _, answered = said.partition("\n")
    assert "Insufficient credit balance — top up or lower max_tokens. Needed 0.16" in told
    assert answered == f"{JOKE}\n"


def test_a_repeat_under_the_same_key_hears_what_the_first_one_cost(
    proxy: RunningProxy, books: Books, tmp_path: Path
) -> None:
    said = shown(proxy, books, "Sending a request only once/1", tmp_path)
    cost = format_usd(6 * 2500 + -(-len(JOKE) // 4) * 10_000)
    assert said == f"{JOKE}\nidempotency_key_used settled {cost}\n"


def test_every_snippet_of_the_page_is_run() -> None:
    here = {*(f"curl/{number}" for number in range(1, 7))}
    here |= {"Python/openai/1", "Python/anthropic/1", "Errors/1"}
    here |= {"Sending a request only once/1"}
    code = {name for name, snippet in SNIPPETS.items() if snippet.language in RUN}
    assert code == here | set(EXPECTED_OF_CLIENTS)
    shapes = {name: s.language for name, s in SNIPPETS.items() if s.language not in {*RUN, ""}}
    assert shapes == SETTINGS


@pytest.mark.parametrize("name", ["claude-code", "codex"])
def test_the_settings_of_a_program_are_those_that_are_known_of_it(name: str) -> None:
    client = find_client(name)
    assert SNIPPETS[f"Programs/{client.title}/1"].code == client.text
    assert f"`{client.place}`" in TEXT


def test_the_mishaps_of_the_demo_are_those_of_the_page() -> None:
    table = dict(re.findall(r"^\| `\[demo:([a-z-]+)\]` \| (.*) \|$", TEXT, re.MULTILINE))
    assert table == MISHAPS


def test_the_errors_of_the_page_are_in_the_list_of_all() -> None:
    table = TEXT.partition("## Errors")[2].partition("\n## ")[0]
    codes = re.findall(r"`([a-z]+_[a-z_]+)`", table)
    everything = (PAGE.parent / "errors.md").read_text()
    named = {code for code in codes if code not in {"max_tokens", "retry_after"}}
    assert {code for code in named if f"`{code}`" not in everything} == set()
    assert len(named) >= 8
