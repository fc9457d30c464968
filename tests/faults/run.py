"""Runs cells against the real program, many at once, and says what is not as expected."""

from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from tests.faults.cell import Cell, Limits
from tests.faults.memory import Memory
from tests.faults.site import Site, open_site

AT_ONCE = 48


class Outcome(NamedTuple):
    """What a cell came to, and what of it was not expected."""

    cell: Cell
    problems: list[str]


def run(cells: Iterable[Cell], home: Path) -> list[Outcome]:
    """Run cells; the books must be right at the end."""
    outcomes = []
    for limits in Limits:
        chosen = [cell for cell in cells if cell.limits is limits]
        if chosen:
            outcomes += _run_with(limits, chosen, home / limits.name.lower())
    return outcomes


def _run_with(limits: Limits, cells: list[Cell], home: Path) -> list[Outcome]:
    with open_site(limits, cells, home) as site:
        if limits is Limits.WATCHED:
            memory = Memory(site.pid)
            # What has once taken much may keep it: a later one would not be seen to take more.
            cells = sorted(cells, key=lambda cell: cell.case.memory_mib_max)
            viewed = [_visit_watched(site, memory, cell) for cell in cells]
        else:
            with ThreadPoolExecutor(AT_ONCE) as pool:
                viewed = list(pool.map(site.visit, cells))
        rows = site.settled_rows()
        outcomes = []
        for cell, seen in zip(cells, viewed, strict=True):
            booked = site.check_books(cell, rows.get(f"u{cell.number}", []))
            outcomes.append(Outcome(cell, [*seen, *booked]))
    return outcomes


def _visit_watched(site: Site, memory: Memory, cell: Cell) -> list[str]:
    """Be a cell's client while nothing else happens, and look at the proxy's memory."""
    memory.begin()
    problems = site.visit(cell)
    site.wait_for_ends()
    if (grown_mib := memory.grown_mib()) > cell.case.memory_mib_max:
        problems.append(f"{grown_mib} MiB of memory, more than {cell.case.memory_mib_max}")
    return problems
