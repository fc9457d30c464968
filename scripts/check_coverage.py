"""Checks that quick tests reach every branch of what handles money.

Which modules and which tests: `[tool.mutmut]` in pyproject.toml, so that what is mutated and what
is measured are the same.
"""

import os
import subprocess
import sys
import tempfile
import tomllib
from pathlib import Path

ROOT = Path(__file__).parents[1]


def main() -> int:
    """Run the tests, print what they leave out; the exit code says whether that is nothing."""
    settings = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["mutmut"]
    modules: list[str] = settings["only_mutate"]
    tests: list[str] = settings["pytest_add_cli_args_test_selection"]
    with tempfile.TemporaryDirectory() as scratch:

        def coverage(*arguments: str) -> int:
            environment = {**os.environ, "COVERAGE_FILE": f"{scratch}/data"}
            command = [sys.executable, "-m", "coverage", *arguments]
            return subprocess.run(command, cwd=ROOT, env=environment, check=False).returncode

        return (
            coverage("run", "-m", "pytest", "--numprocesses=0", "-q", *tests)
            or coverage("combine", "--quiet")
            or coverage("report", "--fail-under=100", f"--include={','.join(modules)}")
        )


if __name__ == "__main__":
    sys.exit(main())
