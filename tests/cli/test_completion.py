"""Completion as bash itself asks for it, with the real script and the real protocol."""

import shlex
import subprocess
import sys
from pathlib import Path

import pytest

from llmproxy import accounts
from llmproxy.storage.database import AdminDatabase
from tests.cli.conftest import Program

# What bash does on Tab: split the line, call the registered function, take COMPREPLY.
ON_TAB = """
{script}
COMP_WORDS=({words})
COMP_CWORD={last}
handler=$(complete -p llmproxy | sed 's/.*-F \\([^ ]*\\).*/\\1/')
$handler llmproxy
printf '%s\\n' "${{COMPREPLY[@]}}"
"""


class Bash:
    """A bash that knows a program named `llmproxy` and its completion."""

    def __init__(self, program: Program, folder: Path) -> None:
        self.program = program
        self.path = folder / "llmproxy"
        self.path.write_text(f'#!/bin/sh\nexec {shlex.quote(sys.executable)} -m llmproxy "$@"\n')
        self.path.chmod(0o755)
        self.script = self.run("llmproxy --show-completion; true")
        assert "_LLMPROXY_COMPLETE=complete_bash" in self.script

    def run(self, code: str, **environ: str) -> str:
        """Run code in it; return what it printed."""
        paths = {"PATH": f"{self.path.parent}:{self.program.environ['PATH']}"}
        done = subprocess.run(
            ["bash", "--norc", "-c", code],
            env=self.program.environ | paths | environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert (done.returncode, done.stderr) == (0, "")
        return done.stdout

    def tab(self, line: str) -> list[str]:
        """Return what Tab would offer behind a line."""
        words = shlex.split(line) + ([""] if line.endswith(" ") else [])
        quoted = " ".join(shlex.quote(word) for word in words)
        code = ON_TAB.format(script=self.script, words=quoted, last=len(words) - 1)
        return self.run(code).split()


@pytest.fixture
def bash(program: Program, tmp_path: Path) -> Bash:
    return Bash(program, tmp_path)


def test_commands_options_and_names_are_completed_in_bash(program: Program, bash: Bash) -> None:
    database = AdminDatabase(program.database)
    with database.write() as tx:
        for name in ("ann", "anton", "ben"):
            accounts.create_user(tx, name, now_ms=0)
    database.close()
    assert bash.tab("llmproxy us") == ["users", "usage"]
    assert "rotate" in bash.tab("llmproxy keys ")
    assert bash.tab("llmproxy usage summary --s") == ["--since"]
    assert bash.tab("llmproxy keys rotate an") == ["ann", "anton"]
    assert bash.tab("llmproxy usage requests --user b") == ["ben"]
    assert bash.tab("llmproxy usage requests --provider anth") == ["anthropic"]
    assert "gpt-4o-mini" in bash.tab("llmproxy usage requests --model gpt-4o")
    assert bash.tab("llmproxy usage summary --by ") == ["day", "user", "model", "provider", "key"]
    assert bash.tab("llmproxy usage requests --state se") == ["settled"]


def test_without_a_database_nothing_is_completed_and_nothing_is_made(
    program: Program, bash: Bash
) -> None:
    assert bash.tab("llmproxy keys rotate ") == []
    assert bash.tab("llmproxy usage requests --provider anth") == ["anthropic"]
    assert not program.home.exists()


def test_a_broken_database_is_silence(program: Program, bash: Bash) -> None:
    program.run("users", "create", "ann")
    program.database.write_bytes(b"no database" * 1000)
    assert bash.tab("llmproxy keys rotate ") == []


def test_completion_is_installed_for_the_shell_that_asks(bash: Bash, tmp_path: Path) -> None:
    home = tmp_path / "person"
    home.mkdir()
    assert "installed" in bash.run("llmproxy --install-completion; true", HOME=str(home))
    (script,) = (home / ".bash_completions").iterdir()
    assert "_LLMPROXY_COMPLETE=complete_bash" in script.read_text()
    assert str(script) in (home / ".bashrc").read_text()


@pytest.mark.parametrize("shell", ["zsh", "fish"])
def test_other_shells_have_a_script_too(program: Program, shell: str) -> None:
    """They need not be here: Typer is told the shell instead of finding it out."""
    told = {"_TYPER_COMPLETE_TEST_DISABLE_SHELL_DETECTION": "1"}
    assert f"complete_{shell}" in program.run("--show-completion", shell, **told).out
