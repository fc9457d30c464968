"""The fault matrix against the real program; see tests/faults/__init__.py."""

import random
from pathlib import Path

import pytest

from tests.faults.matrix import all_cells, sample
from tests.faults.run import Outcome, run


def check(outcomes: list[Outcome]) -> None:
    """Print how many cells there were; fail with each one that is not as expected."""
    print(f"{len(outcomes):,} cells")
    failed = [outcome for outcome in outcomes if outcome.problems]
    told = [f"{outcome.cell}: {'; '.join(outcome.problems)}" for outcome in failed]
    assert not told, "\n" + "\n".join(told)


@pytest.mark.timeout(300)
def test_every_fault_ends_as_written_for_one_client_of_one_endpoint(tmp_path: Path) -> None:
    check(run(sample(all_cells()), tmp_path))


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_a_third_of_all_cells_ends_as_written(tmp_path: Path) -> None:
    # All of them, `python -m tests.faults`, take four minutes.
    cells = all_cells()
    check(run(random.Random(7).sample(cells, len(cells) // 3), tmp_path))


def test_every_fault_of_plain_answers_is_there_for_every_endpoint() -> None:
    of_some = ("usage: ", "another ", "a stream for ", "a plain answer of ", "502 with a page of ")
    faults: dict[str, set[str]] = {}
    for cell in all_cells():
        if not cell.is_stream and not cell.case.fault.startswith(of_some):
            faults.setdefault(cell.dialect.name, set()).add(cell.case.fault)
    assert len(faults) == 5
    assert all(found == faults["chat"] for found in faults.values())
