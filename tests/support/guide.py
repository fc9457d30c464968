"""The snippets of docs/user-guide.md, taken out of the page and run as they are printed."""

import re
import subprocess
from dataclasses import dataclass
from pathlib import Path

from llmproxy.demo.replies import Question, generate

PAGE = Path(__file__).parents[2] / "docs" / "user-guide.md"
RUN = ("sh", "python", "js")
"""The languages of what is run; other blocks show settings, formulas and answers."""

JOKE = generate(Question("Tell me a joke.")).text
HAIKU = generate(Question("Stream a tiny haiku.")).text
HELLO = generate(Question("Say hello.")).text
PROXY_JOKE = generate(Question("One-line proxy joke.")).text


@dataclass(frozen=True)
class Snippet:
    """One block of code: where it stands, such as `Python/openai/1`, its language, its text."""

    name: str
    language: str
    code: str


def snippets() -> dict[str, Snippet]:
    """Every block of code of the page, in its order, by its name."""
    found: dict[str, Snippet] = {}
    chapter = section = ""
    number = 0
    parts = re.split(r"^(```\w*\n.*?^```)$", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
    for prose, block in zip(parts[::2], [*parts[1::2], ""], strict=True):
        for marks, title in re.findall(r"^(##+) (.*)$", prose, re.MULTILINE):
            chapter, section = (title, "") if marks == "##" else (chapter, title)
            number = 0
        if block:
            number += 1
            name = "/".join(part for part in (chapter, section, str(number)) if part)
            first, _, rest = block.partition("\n")
            found[name] = Snippet(name, first.removeprefix("```"), rest.removesuffix("```"))
    return found


def run(
    snippet: Snippet, command: list[str], folder: Path, environ: dict[str, str]
) -> subprocess.CompletedProcess[str]:
    """Write a snippet, unchanged, into a file and run it."""
    ending = {"sh": "sh", "python": "py", "js": "mjs"}[snippet.language]
    file = folder / f"snippet.{ending}"
    file.write_text(snippet.code)
    return subprocess.run(
        [*command, str(file)],
        env=environ,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
