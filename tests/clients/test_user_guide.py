"""The snippets of docs/user-guide.md that need packages of their own, run as they are printed."""

from pathlib import Path

import pytest

from tests.clients.conftest import Place, clean_environ
from tests.clients.environments import node_project, python_of, why_no_node
from tests.support.guide import HAIKU, JOKE, PROXY_JOKE, run, snippets

TOKENS_OUT = -(-len(JOKE) // 4)
EXPECTED = {
    "Python/requests/1": f"{JOKE}\nIt cost ",
    "Python/LangChain/1": f"{PROXY_JOKE}\n{PROXY_JOKE}\n",
    "Python/LangChain/2": f"{PROXY_JOKE}\n",
    "JavaScript/fetch/1": f"{HAIKU}\n",
    "JavaScript/openai/1": f"{JOKE}\n{HAIKU}\n",
    "JavaScript/@anthropic-ai/sdk/1": f"{JOKE}\n{TOKENS_OUT} tokens out\n",
    "JavaScript/Vercel AI SDK/1": f"{JOKE}\n{HAIKU}\n",
}
"""How the output of each begins; all of it, where it ends with a line."""

SNIPPETS = snippets()


@pytest.mark.parametrize("name", EXPECTED)
def test_a_snippet_does_as_it_says(name: str, places: dict[str, Place], tmp_path: Path) -> None:
    snippet = SNIPPETS[name]
    folder = tmp_path
    if snippet.language == "js":
        if why := why_no_node():
            pytest.skip(why)
        command, folder = ["node"], node_project()
    else:
        command = [python_of("frameworks")]
    place = places["serving"]
    user, key = place.books.user("5")
    variables = {"BASE_URL": place.proxy.url, "APP_API_KEY": key}
    done = run(snippet, command, folder, clean_environ(tmp_path) | variables)
    assert done.returncode == 0, done.stdout + done.stderr
    expected = EXPECTED[name]
    assert done.stdout[: len(expected)] == expected
    assert not expected.endswith("\n") or done.stdout == expected
    place.books.settled_wallet(user)
    assert {row["basis"] for row in place.books.rows(user)} == {"usage"}
