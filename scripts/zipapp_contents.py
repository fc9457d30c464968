"""What may be in the one file: nothing that runs by itself, and no package that is not locked.

python scripts/zipapp_contents.py dist/llmproxy      exit 1: there is something else in it
"""

import re
import sys
import zipfile
from pathlib import Path

LOCK = Path(__file__).parent.parent / "requirements.lock"
OWN = "llmproxy"
RUN_AT_START = re.compile(r"\.pth$|(^|/)(sitecustomize|usercustomize)\.py$", re.IGNORECASE)
"""Python runs these before any program, whether it imports them or not."""


def locked_names(lock: str) -> set[str]:
    """Return the names of all packages in a lock file, as they stand in names of folders."""
    return {
        name.lower().replace("-", "_") for name in re.findall(r"^([\w.-]+)==", lock, re.MULTILINE)
    }


def problems(names: list[str], locked: set[str]) -> list[str]:
    """Say what there is among a build's files that must not be.

    Args:
        names: of all files in it.
        locked: the names of the packages that may be in it.
    """
    found = [f"{name} would be run by Python itself" for name in names if RUN_AT_START.search(name)]
    for info in sorted(
        {name for part in names for name in re.findall(r"([^/]+)\.dist-info/", part)}
    ):
        package = info.rpartition("-")[0].lower().replace("-", "_")
        if package not in locked | {OWN}:
            found.append(f"{info} is not in requirements.lock")
    return found


def main() -> int:
    """Print what is wrong; return the exit code."""
    with zipfile.ZipFile(sys.argv[1]) as build:
        found = problems(build.namelist(), locked_names(LOCK.read_text("utf-8")))
    print("\n".join(found) or "contents: as they are locked, nothing that runs by itself")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
