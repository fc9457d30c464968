"""The breaker against the rules it is to keep, told once more in plain words."""

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.breaker import PAUSE_MS_FIRST, TRIAL_MS, TRIAL_MS_MAX, Breaker

FAILURES_MAX = 3
PAUSE_MS_MAX = 60_000
ENDS_MS = PAUSE_MS_FIRST


def breaker() -> Breaker:
    return Breaker(FAILURES_MAX, PAUSE_MS_MAX)


def paused(now_ms: int = 0) -> Breaker:
    one = breaker()
    for _ in range(FAILURES_MAX - 1):
        assert not one.count()
    assert one.count()
    one.pause(now_ms, "it fails")
    return one


def test_it_pauses_after_so_many_failures_and_waits_until_the_pause_is_over() -> None:
    one = paused(now_ms=1000)
    assert one.wait_ms(1000) == PAUSE_MS_FIRST
    assert one.wait_ms(1000 + PAUSE_MS_FIRST - 1) == 1
    assert one.wait_ms(1000 + PAUSE_MS_FIRST) == 0
    assert one.is_open


def test_once_paused_only_a_trial_counts_for_all_else_was_sent_before() -> None:
    one = paused()
    assert not one.count()
    of_first = one.begin(ENDS_MS)
    assert one.count(of_first)
    one.pause(ENDS_MS, "it fails still")
    assert not one.count(of_first)  # another trial of that pause, which took longer
    assert one.count(one.begin(ENDS_MS + 2 * PAUSE_MS_FIRST))


def test_one_trial_at_a_time() -> None:
    one = paused()
    pause = one.begin(ENDS_MS)
    assert pause
    assert one.wait_ms(ENDS_MS) == TRIAL_MS
    one.end_trial(pause + 1)  # of another pause
    assert one.wait_ms(ENDS_MS) == TRIAL_MS
    one.end_trial(pause)
    assert one.wait_ms(ENDS_MS) == 0
    assert not breaker().begin(0)  # nothing is tried where nothing has failed


def test_a_trial_that_takes_long_does_not_keep_others_from_trying() -> None:
    one = paused()
    assert one.begin(ENDS_MS)
    assert one.wait_ms(ENDS_MS + TRIAL_MS_MAX - 1) == TRIAL_MS
    assert one.wait_ms(ENDS_MS + TRIAL_MS_MAX) == 0
    assert one.begin(ENDS_MS + TRIAL_MS_MAX)


def test_nothing_is_tried_while_a_failed_trial_is_looked_into() -> None:
    one = paused()
    one.is_asked_about = True
    assert one.wait_ms(ENDS_MS) == TRIAL_MS
    one.is_asked_about = False
    assert one.wait_ms(ENDS_MS) == 0


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


def test_what_is_left_of_a_pause_is_taken_over_from_an_earlier_process() -> None:
    one = breaker()
    one.go_on(now_ms=20_000, left_ms=1_000, reason="it failed")
    assert (one.wait_ms(20_000), one.reason, one.is_stored) == (1_000, "it failed", True)
    one.pause(21_000, "it fails still")
    assert one.pause_ms == 2 * PAUSE_MS_FIRST
    one.go_on(now_ms=0, left_ms=10**9, reason="a clock was set")
    assert one.wait_ms(0) == PAUSE_MS_MAX
