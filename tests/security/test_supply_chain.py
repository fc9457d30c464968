"""S30: what the program is built from is what was locked, and nothing in it runs by itself."""

import re
import runpy
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
CONTENTS = runpy.run_path(str(ROOT / "scripts" / "zipapp_contents.py"))
GOOD = ["__main__.py", "site-packages/llmproxy/__init__.py", "site-packages/httptools/a.so"]
GOOD += ["site-packages/httptools-0.9.0.dist-info/METADATA"]
GOOD += ["site-packages/llmproxy-1.0.dist-info/METADATA"]


@pytest.mark.parametrize("name", ["requirements.lock", "requirements-build.lock"])
def test_every_package_of_the_program_has_a_version_and_hashes(name: str) -> None:
    text = (ROOT / name).read_text("utf-8").replace("\\\n", " ")
    lines = [
        line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")
    ]
    assert len(lines) > 3
    for line in lines:
        assert re.match(r"[\w.-]+==[\w.]+ ", line), line
        assert "--hash=sha256:" in line, line
    assert "://" not in re.sub(r"^\s*#.*$", "", text, flags=re.MULTILINE)


def test_the_build_takes_nothing_without_its_hash() -> None:
    script = (ROOT / "build_zipapp.sh").read_text("utf-8")
    installs = [line for line in script.splitlines() if re.search(r"\bpip\"? install\b", line)]
    for line in installs:
        assert (
            "--require-hashes" in line or "--no-index" in line or line.lstrip().startswith("#")
        ), line
    assert "scripts/zipapp_contents.py" in (ROOT / ".ci" / "run").read_text("utf-8")


def problems(*more: str) -> list[str]:
    locked = CONTENTS["locked_names"]((ROOT / "requirements.lock").read_text("utf-8"))
    found: list[str] = CONTENTS["problems"]([*GOOD, *more], locked)
    return found


def test_a_clean_build_has_nothing_to_complain_of() -> None:
    assert problems() == []


@pytest.mark.parametrize(
    "name", ["litellm_init.pth", "a/b.PTH", "sitecustomize.py", "site-packages/usercustomize.py"]
)
def test_a_file_that_runs_by_itself_is_found_in_a_build(name: str) -> None:
    assert problems(name) == [f"{name} would be run by Python itself"]


def test_a_package_that_nobody_locked_is_found_in_a_build() -> None:
    assert problems("site-packages/evil_pkg-1.0.dist-info/METADATA") == [
        "evil_pkg-1.0 is not in requirements.lock"
    ]
