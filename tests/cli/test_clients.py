"""`clients list` and `clients show`: settings for this server, ready to paste."""

import ast
import json
import re
import subprocess
import tomllib
from pathlib import Path

import pytest

from llmproxy.client_settings import clients
from llmproxy.vault import new_api_key
from tests.cli.conftest import Program, Quick
from tests.support.proxy import RunningProxy

PAGE = (Path(__file__).parents[2] / "docs" / "clients.md").read_text("utf-8")
NAMES = [client.name for client in clients()]
ELSEWHERE = "https://llm.example.org/ai"
BASES = ("/v1/openai", "/v1/anthropic", "/v1/gemini")


def fence(title: str) -> str:
    """The block of a client on docs/clients.md."""
    section = PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]
    found = re.search(r"^```\w+\n(.*?)^```$", section, re.DOTALL | re.MULTILINE)
    assert found, title
    return found[1]


def parses(language: str, text: str) -> None:
    """Fails where a text is not what it is said to be."""
    if language == "python":
        tree = ast.parse(text)
        imported = {
            a.asname or a.name for n in tree.body if isinstance(n, ast.Import) for a in n.names
        }
        used = {node.id for node in ast.walk(tree) if isinstance(node, ast.Name)}
        assert imported <= used
    elif language == "json":
        json.loads(text)
    elif language == "toml":
        tomllib.loads(text)
    elif language == "sh":
        subprocess.run(["sh", "-n"], input=text, text=True, check=True)
    else:
        assert language in {"js", "yaml", "text"}


@pytest.mark.parametrize("client", clients(), ids=NAMES)
def test_each_prints_the_setting_of_the_page_for_the_address_it_is_given(
    quick: Quick, client: object
) -> None:
    assert isinstance(client, tuple)
    name, title, language = client[:3]
    out = quick.ok("clients", "show", name, "--base-url", ELSEWHERE + "/")
    assert out == fence(title).replace("http://127.0.0.1:8000", ELSEWHERE)
    assert "127.0.0.1" not in out
    assert name == "shell" or any(ELSEWHERE + base in out for base in BASES)
    parses(language, out)


@pytest.mark.parametrize("client", clients(), ids=NAMES)
def test_each_has_the_key_in_it_where_it_is_given(quick: Quick, client: object) -> None:
    assert isinstance(client, tuple)
    name, _, language = client[:3]
    key = new_api_key()
    out = quick.ok("clients", "show", name, "--key", "-", stdin=f"{key}\n")
    parses(language, out)
    # Codex takes the name of a variable alone, llm keeps its keys itself.
    assert (key in out) == (name not in {"codex", "llm"})
    assert "llmp_…" not in out
    assert quick.ok("clients", "show", name, "--key", "$KEY") == out.replace(key, "$KEY")


def test_a_pipe_gets_the_setting_alone_and_a_terminal_gets_it_unbroken(program: Program) -> None:
    piped = program.run("clients", "show", "claude-code", "--base-url", ELSEWHERE)
    assert json.loads(piped.out)["env"]["ANTHROPIC_BASE_URL"] == f"{ELSEWHERE}/v1/anthropic"
    assert "~/.claude/settings.json" in piped.err
    assert "CLAUDE_CODE_MAX_OUTPUT_TOKENS" in piped.err
    shown = program.run_in_terminal(
        *("clients", "show", "claude-code", "--base-url", ELSEWHERE), COLUMNS="30"
    )
    assert piped.out in shown.out.replace("\r\n", "\n")
    assert "\x1b" not in shown.out


def test_the_document_has_text_and_notes(quick: Quick) -> None:
    told = quick.json("clients", "show", "cursor", "--base-url", ELSEWHERE)
    assert told["base_url"] == ELSEWHERE
    assert f"{ELSEWHERE}/v1/openai" in told["text"]
    assert "does not work with its built-in models" in " ".join(told["notes"])
    assert [each["name"] for each in quick.json("clients", "list")] == NAMES
    assert [line.split()[0] for line in quick.ok("clients", "list").splitlines()[1:]] == NAMES


@pytest.mark.parametrize(
    ("wrong", "nearest"),
    [
        ("claude", "claude-code"),
        ("open-ai-python", "openai-python"),
        ("webui", "open-webui"),
        ("genai", "google-genai, google-genai-node"),
        ("vercel", "vercel-ai-sdk"),
        ("lamaindex", "llamaindex"),
    ],
)
def test_an_unknown_name_is_answered_with_the_nearest(
    quick: Quick, wrong: str, nearest: str
) -> None:
    said = quick.fails(3, "clients", "show", wrong)
    assert f"Nearest: {nearest}" in said
    assert "llmproxy clients list" in said


def test_a_name_like_none_is_refused_too(quick: Quick) -> None:
    assert "Nearest" not in quick.fails(3, "clients", "show", "zzz")
    assert "Nearest" not in quick.fails(3, "clients", "show", "")
    assert quick.ok("clients", "show", "Claude-Code")


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("llm.example.org", "is no address"),
        ("https://llm.example.org/$(id)", "is no address"),
        ('https://llm.example.org/"', "is no address"),
        ("https://llm.example.org/v1/openai", "without '/v1/openai'"),
        ("https://llm.example.org/v1/", "without '/v1'"),
    ],
)
def test_an_address_that_would_not_work_is_refused(quick: Quick, url: str, why: str) -> None:
    assert why in quick.fails(4, "clients", "show", "curl", "--base-url", url)


def test_an_api_key_among_the_arguments_is_refused_and_not_repeated(quick: Quick) -> None:
    key = new_api_key()
    said = quick.fails(2, "clients", "show", "shell", "--key", key)
    assert "--key -" in said
    assert key not in said
    for unsafe in ('a"b', "$(id)", "`id`", "a b", "", "x" * 300, "a\\"):
        assert "--key takes" in quick.fails(2, "clients", "show", "shell", "--key", unsafe)


def test_the_address_is_that_of_the_server_that_runs(tmp_path: Path) -> None:
    with RunningProxy(tmp_path) as proxy:
        before = proxy.try_run("clients", "show", "curl")
        assert "http://127.0.0.1:8000/v1/openai" in before.stdout
        proxy.start()
        running = proxy.try_run("clients", "show", "curl")
        assert f"{proxy.url}/v1/openai" in running.stdout
        assert "--base-url" in running.stderr
        proxy.stop()
        assert proxy.try_run("clients", "show", "curl").stdout == before.stdout


@pytest.mark.parametrize(
    "environ",
    [
        {"LLMPROXY_DASHBOARD": "false"},
        {"LLMPROXY_DASHBOARD_PORT": "0", "LLMPROXY_PUBLIC_URL": ELSEWHERE},
    ],
)
def test_a_server_tells_where_it_is_however_it_was_set(
    tmp_path: Path, environ: dict[str, str]
) -> None:
    with RunningProxy(tmp_path, environ) as proxy:
        proxy.start()
        # Told by the server, not by the settings of whoever asks.
        asking = RunningProxy(tmp_path)
        wanted = environ.get("LLMPROXY_PUBLIC_URL", proxy.url)
        assert f"{wanted}/v1/openai" in asking.run("clients", "show", "curl")
