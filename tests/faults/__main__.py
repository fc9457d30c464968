"""Run the whole matrix, and print how many cells there are and which of them fail."""

import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

from tests.faults.matrix import all_cells
from tests.faults.run import run


def main() -> int:
    """Run all cells, or those whose name contains an argument."""
    wanted = sys.argv[1:]
    cells = [cell for cell in all_cells() if all(word in str(cell) for word in wanted)]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as home:
        outcomes = run(cells, Path(home))
    taken_s = time.monotonic() - started
    failed = [outcome for outcome in outcomes if outcome.problems]
    for outcome in failed:
        print(outcome.cell)
        for problem in outcome.problems:
            print(f"    {problem}")
    faults = len({cell.case.fault for cell in cells})
    for name, count in Counter(cell.dialect.name for cell in cells).items():
        print(f"{name:12}{count:6,} cells")
    print(f"{faults} faults, {len(cells):,} cells, {len(failed)} failed, {taken_s:.0f} s")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
