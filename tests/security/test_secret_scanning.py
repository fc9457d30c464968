"""S22: scanners find keys of ours that were published by mistake, and none in this repository."""

import math
import re
import subprocess
import tomllib
from collections import Counter
from pathlib import Path

import pytest

from llmproxy import vault

ROOT = Path(__file__).parents[2]
CONFIG = tomllib.loads((ROOT / "packaging" / "gitleaks.toml").read_text("utf-8"))
(RULE,) = CONFIG["rules"]
PATTERN = re.compile(RULE["regex"])


def entropy(text: str) -> float:
    """Shannon's, in bits per character, as gitleaks counts it."""
    counts = Counter(text).values()
    return -sum(n / len(text) * math.log2(n / len(text)) for n in counts)


def found_in(text: str) -> list[str]:
    return [key for key in PATTERN.findall(text) if entropy(key) >= RULE["entropy"]]


def test_every_key_of_ours_is_found_wherever_it_stands() -> None:
    for _ in range(500):
        key = vault.new_api_key()
        assert any(keyword in key for keyword in RULE["keywords"])
        for text in (key, f'"{key}"', f"KEY={key}\n", f"https://x/?key={key}&y", f"({key})"):
            assert found_in(text) == [key]


@pytest.mark.parametrize(
    "text", ["llmp_", "llmp_short", "xllmp_" + "a1" * 24 + "b", "sk-" + "a" * 49]
)
def test_what_is_no_key_is_not_found(text: str) -> None:
    assert found_in(text) == []


def test_there_is_none_in_this_repository() -> None:
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=False
    )
    if listed.returncode:
        pytest.skip("not a clone")
    names = [name for name in listed.stdout.decode().split("\0") if name]
    assert len(names) > 100
    found = {
        name: keys
        for name in names
        if (ROOT / name).is_file()
        and (keys := found_in((ROOT / name).read_bytes().decode("latin-1")))
    }
    assert found == {}


def test_the_docs_give_the_same_pattern() -> None:
    page = (ROOT / "docs" / "security.md").read_text("utf-8")
    assert RULE["regex"].strip("\\b") in page
