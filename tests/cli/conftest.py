"""The program as a person runs it: in a process of its own, or (quicker) inside the test's."""

import json
import os
import pty
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from typer.testing import CliRunner

from llmproxy.cli.app import app
from tests.support.books import Book


class Ran(NamedTuple):
    """How a run of the program ended."""

    code: int
    out: str
    err: str


class Program:
    """Runs `llmproxy` on a home directory of its own."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = home / "data" / "llmproxy.db"
        kept = {key: os.environ[key] for key in os.environ if not key.startswith("LLMPROXY_")}
        self.environ = kept | {"LLMPROXY_HOME": str(home), "USER": "olga"}

    def run(self, *args: str, stdin: str = "", **environ: str) -> Ran:
        """Run it in a process of its own."""
        return self._run([sys.executable, "-m", "llmproxy", *args], stdin, environ)

    def run_python(self, code: str) -> Ran:
        """Run Python code in the program's surroundings."""
        return self._run([sys.executable, "-c", code], "", {})

    def run_shell(self, python_arguments: str) -> Ran:
        """Run Python with these arguments through the shell."""
        return self._run(["sh", "-c", f"{sys.executable} {python_arguments}"], "", {})

    def _run(self, command: list[str], stdin: str, environ: dict[str, str]) -> Ran:
        done = subprocess.run(
            command,
            input=stdin,
            env=self.environ | environ,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        return Ran(done.returncode, done.stdout, done.stderr)

    def run_in_terminal(self, *args: str, typed: str = "", **environ: str) -> Ran:
        """Run it in a terminal 120 columns wide; all that is shown comes back as `out`."""
        ours, theirs = pty.openpty()
        environment = {**self.environ, "COLUMNS": "120", "TERM": "xterm-256color", **environ}
        process = subprocess.Popen(
            [sys.executable, "-m", "llmproxy", *args],
            stdin=theirs,
            stdout=theirs,
            stderr=theirs,
            env=environment,
            start_new_session=True,
        )
        os.close(theirs)
        shown = b""
        waits_to_type = bool(typed)
        while True:
            try:
                chunk = os.read(ours, 65536)
            except OSError:  # the other end has closed
                break
            if not chunk:
                break
            shown += chunk
            if waits_to_type and shown.rstrip().endswith(b":"):
                os.write(ours, typed.encode() + b"\n")
                waits_to_type = False
        code = process.wait(timeout=30)
        os.close(ours)
        return Ran(code, shown.decode(), "")


@pytest.fixture
def program(tmp_path: Path) -> Program:
    return Program(tmp_path / "home")


class Quick:
    """The same program inside the test's process."""

    def __init__(self, home: Path) -> None:
        self.home = home
        self.database = home / "data" / "llmproxy.db"

    def run(self, *args: str, stdin: str = "") -> Ran:
        """Run it whatever comes of it."""
        done = CliRunner().invoke(app, list(args), input=stdin, prog_name="llmproxy")
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Ran(done.exit_code, done.stdout, done.stderr)

    def ok(self, *args: str, stdin: str = "") -> str:
        """Run it and return what it printed on stdout; it must succeed."""
        ran = self.run(*args, stdin=stdin)
        assert ran.code == 0, ran
        return ran.out

    def json(self, *args: str, stdin: str = "") -> Any:  # noqa: ANN401 - any JSON value
        """Run it with --json and return the document."""
        return json.loads(self.ok(*args, "--json", stdin=stdin))

    def fails(self, code: int, *args: str, stdin: str = "") -> str:
        """Run it and return what it said on stderr; it must end with this exit code."""
        ran = self.run(*args, stdin=stdin)
        assert ran.code == code, ran
        assert ran.out == ""
        return ran.err


@pytest.fixture
def quick(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Quick:
    for variable in [name for name in os.environ if name.startswith("LLMPROXY_")]:
        monkeypatch.delenv(variable)
    monkeypatch.setenv("LLMPROXY_HOME", str(tmp_path / "home"))
    monkeypatch.setenv("USER", "olga")
    return Quick(tmp_path / "home")


@pytest.fixture
def book(quick: Quick) -> Iterator[Book]:
    book = Book(quick.database)
    yield book
    book.close()
