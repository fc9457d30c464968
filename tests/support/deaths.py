"""Kills a command at each line of what makes and changes master keys, and looks what is left.

    python -m tests.support.deaths SOURCE TARGET COMMAND …

A program of its own, since it forks. SOURCE is a home that is copied to TARGET for each death. As
after a kill -9, what was written is there, and nothing is cleaned up. Prints how many deaths there
were; whatever could not be opened or gone on with ends it with a traceback.
"""

import json
import os
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from types import FrameType
from typing import Any

from typer.testing import CliRunner

import llmproxy
from llmproxy import key_pool
from llmproxy.cli.app import app
from llmproxy.config import find_paths, load_vault
from llmproxy.master_key import path_of_new
from llmproxy.storage.database import AdminDatabase

WATCHED = {
    str(Path(llmproxy.__file__).parent / name)
    for name in ("master_key.py", "files.py", "sealing.py")
}
DIED = 77


def in_fork(function: Callable[[], None]) -> int:
    """Run something in a fork; return its exit code."""
    child = os.fork()
    if child == 0:
        function()
        os._exit(0)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(*command: str) -> str:
    """Run a command, which must succeed; return what it printed."""
    done = CliRunner().invoke(app, list(command), prog_name="llmproxy")
    assert done.exit_code == 0, (command, done.output)
    return done.stdout


def die_at(line: int, command: list[str]) -> None:
    """Run a command, and die before so many lines of what is watched have run."""
    left = line

    def trace(frame: FrameType, event: str, _: Any) -> Any:  # noqa: ANN401
        nonlocal left
        if frame.f_code.co_filename not in WATCHED:
            return None
        if event == "line":
            left -= 1
            if left < 0:
                os._exit(DIED)
        return trace

    sys.settrace(trace)
    run(*command)
    sys.settrace(None)


def opened() -> dict[str, str]:
    """Return all secrets by their providers, as a server would open them now."""
    paths = find_paths()
    vault = load_vault(paths)
    database = AdminDatabase(paths.database)
    with database.read() as tx:
        urls = {provider.name: provider.base_url for provider in key_pool.list_providers(tx)}
        keys = key_pool.list_provider_keys(tx)
    database.close()
    assert vault is not None or not keys
    return {
        key.provider: vault.open(
            key.sealed, row_id=key.id, provider=key.provider, base_url=urls[key.provider]
        )
        for key in keys
        if vault is not None
    }


def look(expected: dict[str, str], another: Path) -> None:
    """Look at what a death has left: everything opens, and every command goes on."""
    found = opened()
    assert found.items() >= expected.items()
    checks = json.loads(CliRunner().invoke(app, ["doctor", "--json"]).stdout)["checks"]
    assert [each["status"] for each in checks if each["name"] == "master key"] != ["fail"]
    run("provider-keys", "add", "groq", "--key-file", str(another))
    more = {**found, "groq": another.read_text().strip()}
    assert opened() == more
    run("provider-keys", "rekey", "--yes")
    assert opened() == more
    assert not path_of_new(find_paths().master_key).exists()


def main(source: Path, target: Path, command: list[str]) -> None:
    """Die at every line; see above."""
    shutil.copytree(source, target)
    os.environ["LLMPROXY_HOME"] = str(target)
    expected = opened()
    another = source.parent / "another.key"
    another.write_text("gsk-0123456789abcdef")
    look(expected, another)  # what is imported once need not be in each fork
    line = 0
    while True:
        shutil.rmtree(target)
        shutil.copytree(source, target)
        code = in_fork(lambda: die_at(line, command))  # noqa: B023 - it has run by then
        if code == 0:
            break
        assert code == DIED, (line, code)
        assert in_fork(lambda: look(expected, another)) == 0, f"died at line {line}"
        line += 1
    print(line)


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
