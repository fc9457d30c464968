"""What README.md and docs/ say is so: commands, settings, error codes, links, versions."""

import re
import shlex
from pathlib import Path
from typing import Any

import pytest
from typer.main import get_command

import llmproxy
from llmproxy.cli.app import app
from llmproxy.settings import SETTINGS

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
# The demo provider makes up other people's codes.
SOURCES = [
    path.read_text()
    for path in sorted((ROOT / "llmproxy").rglob("*.py"))
    if path.parent.name != "demo"
]
ALL_TEXT = "".join(page.read_text() for page in PAGES)
COMMANDS: dict[str, Any] = get_command(app).commands  # type: ignore[attr-defined]

TRY = "./build_zipapp.sh && dist/llmproxy demo"
TEST = "python3 -m venv .venv && .venv/bin/pip install -e '.[dev]' && .venv/bin/pytest"


def code_blocks(text: str) -> str:
    blocks = re.findall(r"^```(\w*)\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return "".join(block for language, block in blocks if language in {"", "console"})


def test_the_two_commands_stand_alone_in_the_readme() -> None:
    blocks = code_blocks(README)
    assert f"\n{TRY}\n" in f"\n{blocks}"
    assert f"\n{TEST}\n" in f"\n{blocks}"


def test_they_are_what_ci_runs() -> None:
    script = (ROOT / ".ci" / "run").read_text()
    assert f'readme_line="{TEST}"' in script
    assert 'bash -euo pipefail -c "$readme_line"' in script
    assert "\n./build_zipapp.sh\n" in script
    assert "\nalone demo\n" in script


def test_every_command_is_named_in_the_readme_or_a_page_of_it() -> None:
    missing = [name for name in COMMANDS if f"llmproxy {name}" not in ALL_TEXT]
    assert missing == []
    assert "docs/cli.md" in README


def test_every_setting_is_documented() -> None:
    page = (ROOT / "docs" / "settings.md").read_text()
    assert [each.name for each in SETTINGS if f"`{each.name}`" not in page] == []
    assert "docs/settings.md" in README


def test_every_command_line_of_the_pages_exists() -> None:
    names = ("first-run.md", "adding-a-provider.md", "catalog.md")
    text = "".join((README, *((ROOT / "docs" / name).read_text() for name in names)))
    lines = re.findall(r"^(?:\$ )?(?:echo .* \| )?llmproxy (.*)$", code_blocks(text), re.MULTILINE)
    words = [shlex.split(line.partition("|")[0].rstrip("& "), comments=True) for line in lines]
    words = [each for each in words if each[0] != "demo" and not each[0][0].isdigit()]
    assert len(words) > 20
    for each in words:
        assert_exists(each)


def assert_exists(words: list[str]) -> None:
    command = COMMANDS[words[0]]
    if hasattr(command, "commands"):
        assert words[1] in command.commands, words
        command = command.commands[words[1]]
    options = {name for parameter in command.params for name in parameter.opts}
    for word in words:
        assert not word.startswith("-") or word.partition("=")[0] in options, words


def test_every_error_code_is_in_the_readme() -> None:
    text = "".join(SOURCES)
    codes = set(re.findall(r'ApiError\(\s*\d{3},\s*"(\w+)"', text))
    codes |= set(re.findall(r'\bcode(?:: str)? ?= ?"(\w+)"', text))
    codes |= set(re.findall(r'_error_event\(\w+, "(\w+)"\)', text))
    assert len(codes) > 12
    table = README.partition("## Errors")[2].partition("\n## ")[0]
    assert sorted(code for code in codes if f"`{code}`" not in table) == []


def test_the_changelog_has_this_version() -> None:
    versions = re.findall(r"^## \[([^]]+)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert versions[:2] == ["Unreleased", llmproxy.__version__]


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_to_files_lead_somewhere(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#]+)(?:#[^)]*)?\)", page.read_text())
    local = [target for target in targets if "://" not in target]
    assert [target for target in local if not (page.parent / target).exists()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    linked = re.findall(r"\]\(([^)#]+)", README)
    pages = [str(page.relative_to(ROOT)) for page in PAGES if page.name != "README.md"]
    assert [each for each in pages if each not in linked and "docs/decisions/" not in each] == []


def test_the_picture_is_small_and_loads_nothing() -> None:
    picture = (ROOT / "docs" / "images" / "demo.svg").read_text()
    assert len(picture) < 150_000
    assert "url(http" not in picture
    assert "@import" not in picture
    assert "insufficient_credit" in picture


def test_the_first_run_shows_neutral_paths() -> None:
    page = (ROOT / "docs" / "first-run.md").read_text()
    paths = set(re.findall(r"(?<![\w.~/:])/[a-z]+/[\w./-]+", page))
    assert {path for path in paths if not path.startswith("/v1/")} == set()
    assert "Traceback" not in page
