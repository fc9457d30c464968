"""What `clients show` prints, run as it is printed; programs have tests of their own."""

import subprocess
import sys
from pathlib import Path

import pytest

from llmproxy.client_settings import find_client, setting_of
from llmproxy.demo.replies import Question, generate
from tests.clients.conftest import DEV, WITHIN_S, Place, clean_environ
from tests.clients.environments import node_project, python_of, why_no_node

JOKE = generate(Question("Tell me a joke.")).text
PYTHON = {
    "openai-python": DEV,
    "anthropic-python": DEV,
    "langchain": "frameworks",
    "llamaindex": "llamaindex",
}
"""The environment of each."""
NODE = ("openai-node", "anthropic-node", "vercel-ai-sdk")


def run(place: Place, name: str, command: list[str], folder: Path, home: Path) -> str:
    """What a setting prints that is written into a file of `folder` and run."""
    user, key = place.books.user("5")
    setting = setting_of(find_client(name), place.proxy.url, key)
    file = folder / f"{name}-{user}.{ {'python': 'py', 'js': 'mjs', 'sh': 'sh'}[setting.language] }"
    file.write_text(setting.text)
    done = subprocess.run(
        [*command, str(file)],
        env=clean_environ(home) | {"APP_API_KEY": key},
        capture_output=True,
        text=True,
        timeout=WITHIN_S,
        check=False,
    )
    file.unlink()
    assert done.returncode == 0, done.stdout + done.stderr
    place.books.settled_wallet(user)
    assert [row["basis"] for row in place.books.rows(user)] == ["usage"]
    return done.stdout


@pytest.mark.parametrize("name", PYTHON)
def test_python(name: str, places: dict[str, Place], tmp_path: Path) -> None:
    python = sys.executable if PYTHON[name] == DEV else python_of(PYTHON[name])
    assert run(places["serving"], name, [python], tmp_path, tmp_path) == f"{JOKE}\n"


@pytest.mark.parametrize("name", NODE)
def test_node(name: str, places: dict[str, Place], tmp_path: Path) -> None:
    if why := why_no_node():
        pytest.skip(why)
    # Node looks for packages beside the program.
    assert run(places["serving"], name, ["node"], node_project(), tmp_path) == f"{JOKE}\n"


def test_curl(places: dict[str, Place], tmp_path: Path) -> None:
    assert JOKE in run(places["serving"], "curl", ["sh", "-eu"], tmp_path, tmp_path)
