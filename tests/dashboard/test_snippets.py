"""What is shown with a new key runs with the limits of that key."""

import json
import re
from html import unescape

import pytest

from llmproxy.dashboard.pages import SHOWN_CLIENTS
from tests.dashboard.helpers import KEYS, Desk

ALL = list(SHOWN_CLIENTS)


def texts(html: str) -> dict[str, str]:
    found = re.findall(r'<code id="([\w-]+)-text">(.*?)</code>', html, re.DOTALL)
    return {name: unescape(text) for name, text in found}


@pytest.mark.parametrize(
    ("limits", "shown"),
    [
        ({}, ALL),
        ({"providers": "openai"}, [name for name in ALL if name != "claude-code"]),
        ({"providers": "anthropic"}, ["shell", "claude-code"]),
        ({"models": "claude-*"}, ["shell", "claude-code"]),
        ({"models": "gpt-4o-mini"}, [name for name in ALL if name != "claude-code"]),
        ({"providers": "groq"}, ["shell"]),
        ({"models": "gpt-4o-mini", "providers": "anthropic"}, ["shell"]),
    ],
)
def test_what_no_allowed_model_serves_is_left_out(
    desk: Desk, limits: dict[str, str], shown: list[str]
) -> None:
    html = desk.signed_in().submit(KEYS, name="laptop", **limits).text
    assert list(texts(html)) == shown
    assert ("Anthropic’s clients take" in html) == (limits.get("providers") in {None, "anthropic"})


def test_each_names_a_model_that_is_allowed_after_a_rotation_too(desk: Desk) -> None:
    ann = desk.signed_in()
    made = ann.submit(KEYS, name="laptop", models="gpt-4o-mini, claude-opus-*")
    key_id = ann.key_ids()["laptop"]
    for html in (made.text, ann.submit(f"{KEYS}/{key_id}/rotate", overlap="1").text):
        found = texts(html)
        for name in ("curl", "openai-python", "openai-node", "langchain", "codex"):
            assert '"gpt-4o-mini"' in found[name], name
        settings = json.loads(found["claude-code"])["env"]
        assert settings["ANTHROPIC_MODEL"].startswith("claude-opus-")
    free = texts(ann.submit(KEYS, name="free").text)
    assert '"model": "gpt-4o",' in free["curl"]
    assert "ANTHROPIC_MODEL" not in free["claude-code"]


def test_a_model_whose_id_could_end_its_quotes_is_not_named(desk: Desk) -> None:
    desk.site.proxy.run(
        *("catalog", "set", "openai", "a'b", "--in-price", "1", "--out-price", "1", "--yes")
    )
    html = desk.signed_in().submit(KEYS, name="laptop", models="a'b").text
    assert list(texts(html)) == ["shell"]
