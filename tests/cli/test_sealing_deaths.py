"""Killed at any line while a secret is sealed or the master key is changed, nothing is lost."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import Quick
from tests.cli.rekeying import fill

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
ROOT = Path(__file__).parents[2]


def deaths(quick: Quick, *command: str) -> int:
    """How many lines a command could be killed at, and was."""
    target = quick.home.parent / "copy"
    line = [sys.executable, "-m", "tests.support.deaths", str(quick.home), str(target), *command]
    done = subprocess.run(line, cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stderr
    return int(done.stdout)


def test_the_first_key_that_is_sealed(quick: Quick, tmp_path: Path) -> None:
    quick.ok("users", "create", "ann")
    secret = tmp_path / "first.key"
    secret.write_text("sk-0123456789abcdef")
    assert deaths(quick, "provider-keys", "add", "openai", "--key-file", str(secret)) > 20


def test_the_change_of_the_master_key(quick: Quick) -> None:
    fill(quick)
    quick.ok("providers", "remove", "ollama", "--yes")
    assert deaths(quick, "provider-keys", "rekey", "--yes") > 60
