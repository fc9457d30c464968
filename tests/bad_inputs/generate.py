"""Writes the bad requests as files, one each: `python -m tests.bad_inputs.generate`.

A file's name ends in the status that its request must get: `NAME.STATUS.http`; with several
requests in it, one status for each, joined by hyphens. The same sources make the same files.
"""

from pathlib import Path

from tests.bad_inputs import bodies, framing, heads, paths
from tests.bad_inputs.raw import Bad

FOLDER = Path(__file__).parent / "requests"


def all_inputs() -> list[Bad]:
    """Return every bad request, sorted by name."""
    found = [*framing.inputs(), *paths.inputs(), *heads.inputs(), *bodies.inputs()]
    return sorted(found, key=lambda bad: bad.name)


def main() -> None:
    """Write all files, and delete those that nothing makes any more."""
    FOLDER.mkdir(exist_ok=True)
    made = {bad.file_name: bad.raw for bad in all_inputs()}
    for old in FOLDER.glob("*.http"):
        if old.name not in made:
            old.unlink()
    for name, raw in made.items():
        (FOLDER / name).write_bytes(raw)
    print(f"{len(made)} requests, {sum(map(len, made.values())):,} bytes")


if __name__ == "__main__":
    main()
