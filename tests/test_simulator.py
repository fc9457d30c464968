"""The request path in simulated worlds: see `tests/simulator`."""

import random
from collections.abc import Iterator

import pytest

from tests.simulator.plan import KINDS_OF_TROUBLE, draw
from tests.simulator.world import Home, Result, run_seed, simulated_home

QUICK_SEEDS = range(60)
SLOW_SEEDS = range(1_000, 1_800)
ONCE_FAILED = {
    43: "text that passed twice its maximum of tokens asked for more of its hold without end",
    83: "a crash charged for a stream of which nothing but half an event had come",
    1246: "a last event that waited for its end was lost where the provider broke off instead",
}
"""Seeds that once went wrong, and what they found. A seed means another world once `plan.py` or
`answers.py` draws otherwise: then look for one that fails without the correction, and name that."""


@pytest.fixture(scope="module")
def home() -> Iterator[Home]:
    with simulated_home() as home:
        yield home


def check(result: Result) -> None:
    if result.violations:
        pytest.fail(f"seed {result.seed}:\n" + "\n".join([*result.trace, *result.violations]))


def test_no_money_is_lost_in_many_worlds(home: Home) -> None:
    for seed in QUICK_SEEDS:
        check(run_seed(home, seed))


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_no_money_is_lost_in_very_many_worlds(home: Home) -> None:
    for seed in SLOW_SEEDS:
        check(run_seed(home, seed))


@pytest.mark.parametrize("seed", ONCE_FAILED)
def test_what_once_went_wrong_does_not_again(home: Home, seed: int) -> None:
    check(run_seed(home, seed))


def test_a_seed_always_makes_the_same_world(home: Home) -> None:
    for seed in range(20):
        first, second = run_seed(home, seed), run_seed(home, seed)
        assert first.trace == second.trace
        assert first.steps == second.steps


def test_every_kind_of_trouble_is_drawn_and_every_end_of_a_hold_is_met(home: Home) -> None:
    drawn = set().union(*(draw(seed).troubles for seed in range(200)))
    assert drawn == set(KINDS_OF_TROUBLE)


def test_worlds_differ() -> None:
    rng = random.Random(1)
    seeds = rng.sample(range(10_000), 20)
    assert len({str(draw(seed)) for seed in seeds}) == 20
