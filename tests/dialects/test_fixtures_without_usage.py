"""Recorded shapes that report no usage: an error, what is free, what is estimated.

However such a stream is cut, the same passes and the same is seen of it. The estimate of each was
worked out by hand and is checked here on its own.
"""

import random
import re
from decimal import ROUND_CEILING, Decimal
from itertools import pairwise

import pytest

from llmproxy.dialects.base import Reading
from tests.every_cut import delicate, endpoint_of, wrong_cuts
from tests.fixtures import WITHOUT_USAGE, Case

CUTS = 30
STREAMS = {name: case for name, case in WITHOUT_USAGE.items() if case.is_stream}
PLAIN = {name: case for name, case in WITHOUT_USAGE.items() if not case.is_stream}
_LINE = re.compile(r"(\d+) (input|output) × (\d+) = (\d+)")


def check(case: Case, reading: Reading) -> None:
    assert reading.usage is None
    assert not reading.is_final
    assert reading.has_error == case.has_error
    assert case.seen_bytes in {None, reading.seen_bytes}
    assert reading.seen_bytes or case.basis == "none"


@pytest.mark.parametrize("name", WITHOUT_USAGE)
def test_the_arithmetic_of_a_fixture_is_right_and_is_that_of_the_estimate(name: str) -> None:
    case = WITHOUT_USAGE[name]
    total, counted = Decimal(0), {}
    for line in case.arithmetic:
        match = _LINE.fullmatch(line)
        assert match is not None, line
        assert int(match[1]) * int(match[3]) == int(match[4]), line
        total += int(match[4])
        counted[match[2]] = int(match[1])
    assert total.to_integral_value(ROUND_CEILING) == case.nanousd
    assert (case.basis == "estimate") == bool(counted)
    if counted:
        assert counted["input"] == -(-len(case.request) // 3)
        assert counted.get("output", 0) == -(-(case.seen_bytes or 0) // 3)


@pytest.mark.parametrize("name", WITHOUT_USAGE)
def test_a_request_is_taken(name: str) -> None:
    case = WITHOUT_USAGE[name]
    endpoint = endpoint_of(case)
    facts = endpoint.read_request(case.request)
    assert (facts.model, facts.is_stream) == (case.model, case.is_stream)
    assert endpoint.is_free == (case.basis == "none" and case.state == "settled")


@pytest.mark.parametrize("name", PLAIN)
def test_a_plain_answer_reports_nothing(name: str) -> None:
    case = PLAIN[name]
    check(case, endpoint_of(case).read_answer(case.answer))


def read_in(case: Case, pieces: list[bytes]) -> None:
    reader = endpoint_of(case).stream_reader(withholds_usage=True)
    passed = b"".join([reader.events.feed(piece) for piece in pieces]) + reader.events.finish()
    assert passed == case.answer
    check(case, reader.reading())


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_passes_and_is_seen_the_same_however_it_is_cut(name: str) -> None:
    case, stream = STREAMS[name], STREAMS[name].answer
    read_in(case, [stream])
    read_in(case, case.events)
    read_in(case, [stream[at : at + 1] for at in range(len(stream))])
    for seed in range(CUTS):
        rng = random.Random(f"{name} {seed}")
        ends = sorted(rng.randrange(len(stream) + 1) for _ in range(rng.choice([2, 5, 20])))
        read_in(case, [stream[a:b] for a, b in pairwise([0, *ends, len(stream)])])


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_in_two_anywhere_or_in_three_where_it_may_matter_is_the_same(
    name: str,
) -> None:
    case = STREAMS[name]
    assert list(wrong_cuts(case, ((at,) for at in range(1, len(case.answer))))) == []
    assert list(wrong_cuts(case, pairwise(delicate(case.answer)))) == []
