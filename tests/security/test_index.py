"""The index of attacks is whole, and every test in it is there."""

import ast
import re
from pathlib import Path

FOLDER = Path(__file__).parent
INDEX = (FOLDER / "README.md").read_text("utf-8")
ROWS = dict(re.findall(r"^\| S(\d+) \| .+? \| (.+) \|$", INDEX, re.MULTILINE))
WITHOUT_TESTS = {"29": "none are taken"}


def names_in(path: Path) -> set[str]:
    return {
        node.name
        for node in ast.walk(ast.parse(path.read_text("utf-8")))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.name.startswith("test_")
    }


def test_every_attack_has_a_row() -> None:
    assert list(ROWS) == [str(number) for number in range(1, 33)]


def test_every_row_names_a_test_or_says_why_there_is_none() -> None:
    for number, named in ROWS.items():
        if number in WITHOUT_TESTS:
            assert named == WITHOUT_TESTS[number]
        else:
            assert re.search(r"test_\w+\.py", named), number


def test_every_test_of_the_index_exists() -> None:
    named = re.findall(r"([\w./]*test_\w+\.py)(?:::(test_\w+))?", INDEX)
    assert len(named) > 60
    for file, test in named:
        path = (FOLDER / file).resolve()
        assert path.is_file(), file
        assert not test or test in names_in(path), f"{file}::{test}"


def test_every_file_here_is_in_the_index() -> None:
    named = set(re.findall(r"[ (](test_\w+\.py)", INDEX))
    others = {"test_index.py"}
    assert {path.name for path in FOLDER.glob("test_*.py")} - others <= named
