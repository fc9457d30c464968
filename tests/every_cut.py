"""Cuts every recorded stream in two and in three: the same bytes, the same usage, the same price.

    python -m tests.every_cut [NAME…]     at every pair of positions: minutes for each short stream

The tests cut at every position, and at the pairs of those where something may go wrong: around the
ends of lines and within characters of several bytes.
"""

import re
import sys
import time
from collections.abc import Iterator
from itertools import combinations

import msgspec

from llmproxy.dialects.base import Endpoint, Reading
from llmproxy.dialects.families import faces_of
from llmproxy.presets import PRESETS
from llmproxy.routes import endpoints_of
from tests.fixtures import STREAMS, Case

SHORT_BYTES = 2048
"""A stream below this is cut by the command at every pair of positions."""
_AROUND = re.compile(rb"\r?\n|[\x80-\xff]+")


def endpoint_of(case: Case) -> Endpoint:
    """Return the endpoint that reads a fixture."""
    dialect = PRESETS[case.provider].dialect if case.provider in PRESETS else "openai"
    for face in faces_of(case.provider, dialect):
        if case.endpoint in face.by_model:
            return face.by_model[case.endpoint].make(case.model)
    return next(one for one in endpoints_of(case.provider, dialect) if one.name == case.endpoint)


def read_cut(case: Case, endpoint: Endpoint, cuts: tuple[int, ...]) -> tuple[bytes, Reading]:
    """Return what passes of a stream that comes in pieces, and what is read of it."""
    reader = endpoint.stream_reader(withholds_usage=case.is_usage_withheld)
    stream = case.answer
    passed = b"".join(
        [reader.events.feed(stream[a:b]) for a, b in zip((0, *cuts), (*cuts, None), strict=True)]
    )
    return passed + reader.events.finish(), reader.reading()


def delicate(stream: bytes) -> list[int]:
    """Return the positions before, within and behind ends of lines and characters of many bytes."""
    found = {
        at for match in _AROUND.finditer(stream) for at in range(match.start(), match.end() + 1)
    }
    return sorted(found - {0, len(stream)})


def wrong_cuts(case: Case, cuts: Iterator[tuple[int, ...]]) -> Iterator[tuple[int, ...]]:
    """Yield the cuts by which something else passes, or is read."""
    endpoint = endpoint_of(case)
    wanted = case.passed(), read_cut(case, endpoint, ())[1]
    for cut in cuts:
        if read_cut(case, endpoint, cut) != wanted:
            yield cut


def main(names: list[str]) -> int:
    """Cut the short streams, or the named ones, at every pair of positions."""
    short = [name for name, case in STREAMS.items() if len(case.answer) < SHORT_BYTES]
    failures = 0
    for name in names or short:
        case = STREAMS[name]
        pairs = combinations(range(1, len(case.answer)), 2)
        begun = time.monotonic()
        wrong = list(wrong_cuts(case, pairs))
        failures += len(wrong)
        count = (len(case.answer) - 1) * (len(case.answer) - 2) // 2
        print(f"{name}: {count:,} pairs, {len(wrong)} wrong, {time.monotonic() - begun:.0f} s")
        for cut in wrong[:3]:
            print("  ", cut, msgspec.json.encode(read_cut(case, endpoint_of(case), cut)[1].usage))
    return min(failures, 1)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
