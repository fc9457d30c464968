"""All cells: every fault × every dialect × plain and streamed × what the client does."""

from collections.abc import Iterator

from tests.faults import (
    arrays,
    bodies,
    bulk,
    candidates,
    connections,
    handshakes,
    pings,
    statuses,
    streams,
    usages,
)
from tests.faults.cell import Case, Cell, Client, Limits
from tests.faults.dialects import DIALECTS, Dialect
from tests.faults.gemini import ARRAY, EVENTS

PAGES = (connections, handshakes, statuses, bodies, streams, pings, usages, bulk)
GEMINI_PAGES = (connections, statuses, bodies, streams, candidates, pings)
"""What becomes of a usage record is the same in a stream as in a plain answer, where it is tested
(tests/dialects/test_gemini_answers.py)."""
ARRAY_PAGES = (arrays,)
"""Before a stream has begun it is all one in which form it would have come."""
PAGES_OF = {EVENTS.name: GEMINI_PAGES, ARRAY.name: ARRAY_PAGES}


def all_cells() -> list[Cell]:
    """The whole matrix."""
    cells: list[Cell] = []
    for dialect in (*DIALECTS, EVENTS, ARRAY):
        for is_stream in dialect.modes:
            for case in cases(dialect, is_stream=is_stream):
                for client, limits in _clients(case):
                    cells.append(Cell(len(cells), dialect, is_stream, case, client, limits))
    return cells


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of an endpoint."""
    for page in PAGES_OF.get(dialect.name, PAGES):
        yield from page.cases(dialect, is_stream=is_stream)


def _clients(case: Case) -> Iterator[tuple[Client, Limits]]:
    limits = case.limits or (Limits.PATIENT if case.abandoned is None else Limits.HASTY)
    yield Client.STAYS, limits
    if not case.place.takes_requests:
        return  # there is no moment before the fault that a test could wait for
    leaving = [Client.LEAVES_EARLY, Client.HALF_CLOSES]
    if limits is not Limits.WATCHED:  # all of it is only sent when it is read
        leaving.append(Client.LEAVES_LATE)
    if case.has_middle:
        leaving += [Client.LEAVES_MIDWAY, Client.HALF_CLOSES_MIDWAY]
    for client in leaving:
        yield client, limits
        if case.abandoned is not None:
            yield client, Limits.BRIEF_DRAIN


def sample(cells: list[Cell]) -> list[Cell]:
    """Every fault once, the endpoints, modes and clients taking turns."""
    by_fault: dict[str, list[Cell]] = {}
    for cell in cells:
        by_fault.setdefault(cell.case.fault, []).append(cell)
    chosen = []
    for number, group in enumerate(by_fault.values()):
        chosen.append(group[number * 7 % len(group)])
    return chosen
