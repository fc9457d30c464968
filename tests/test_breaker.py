"""The breaker against the rules it is to keep, told once more in plain words."""

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.breaker import PAUSE_MS_FIRST, TRIAL_MS, Breaker

FAILURES_MAX = 3
PAUSE_MS_MAX = 60_000


def breaker() -> Breaker:
    return Breaker(FAILURES_MAX, PAUSE_MS_MAX)


def paused(now_ms: int = 0) -> Breaker:
    one = breaker()
    for _ in range(FAILURES_MAX - 1):
        assert not one.count(now_ms)
    assert one.count(now_ms)
    one.pause(now_ms, "it fails")
    return one


def test_it_pauses_after_so_many_failures_and_waits_until_the_pause_is_over() -> None:
    one = paused(now_ms=1000)
    assert one.wait_ms(1000) == PAUSE_MS_FIRST
    assert one.wait_ms(1000 + PAUSE_MS_FIRST - 1) == 1
    assert one.wait_ms(1000 + PAUSE_MS_FIRST) == 0
    assert one.is_open


def test_what_fails_during_a_pause_was_sent_before_it_and_is_not_counted() -> None:
    one = paused()
    assert not one.count(PAUSE_MS_FIRST - 1)
    assert one.count(PAUSE_MS_FIRST)  # the trial


def test_one_trial_at_a_time() -> None:
    one = paused()
    assert one.begin()
    assert one.wait_ms(PAUSE_MS_FIRST) == TRIAL_MS
    one.end_trial()
    assert one.wait_ms(PAUSE_MS_FIRST) == 0
    assert not breaker().begin()  # nothing is tried where nothing has failed


@given(st.lists(st.integers(0, 100_000), max_size=12))
def test_each_pause_in_a_row_is_twice_as_long_or_as_told_and_never_too_long(
    told: list[int],
) -> None:
    one, now_ms, last_ms = breaker(), 0, 0
    for told_ms in told:
        one.pause(now_ms, "it fails", told_ms)
        wanted = min(max(last_ms * 2, PAUSE_MS_FIRST, told_ms), PAUSE_MS_MAX)
        assert one.wait_ms(now_ms) == one.pause_ms == wanted
        now_ms, last_ms = now_ms + wanted, wanted


def test_a_pause_is_taken_over_from_an_earlier_process() -> None:
    one = breaker()
    one.go_on(since_ms=1_000, until_ms=21_000, reason="it failed")
    assert (one.wait_ms(20_000), one.reason, one.is_stored) == (1_000, "it failed", True)
    one.pause(21_000, "it fails still")
    assert one.pause_ms == 40_000
