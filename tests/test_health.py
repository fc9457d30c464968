"""States of keys and providers in an order of events that no real server can be made to keep."""

import asyncio
from typing import Any, NamedTuple

import msgspec
import pytest
from typing_extensions import override

from llmproxy.breaker import PAUSE_MS_FIRST, TRIAL_MS, TRIAL_MS_MAX
from llmproxy.clock import Clock
from llmproxy.dialects.failures import Failure, FailureKind
from llmproxy.errors import ApiError
from llmproxy.health import NO_TRIAL, Health
from llmproxy.key_pool import KEYLESS, Provider, ProviderKey
from llmproxy.key_states import Tried
from llmproxy.live_keys import LiveKey
from llmproxy.probe import Probe, unasked
from llmproxy.questions import ASK_AGAIN_MS, Questions
from tests.support.books import NOW_MS

FAILURES = 3
DOWN = Probe("unreachable", None, "no connection")
UP = Probe("ok", 200, "it answers")
WORDS = Failure(FailureKind.SUSPECT, "401: perhaps")


class HandClock(Clock):
    """A clock that stands still until it is moved."""

    seconds = 1000.0

    @override
    def now_ms(self) -> int:
        return NOW_MS

    @override
    def monotonic_s(self) -> float:
        return self.seconds


class Sent(NamedTuple):
    """What health knows of a request."""

    provider: Provider
    scope: str = "gpt-4o"


PROVIDER = Provider(*(1, "own", "openai", "http://x/v1", False), *(None,) * 5, 0)
SENT = Sent(PROVIDER)


def live_key(key_id: int = 1) -> LiveKey:
    row = (key_id, "own", f"key-{key_id}", KEYLESS, "", "active", None, 0, None, "cli", 0)
    return LiveKey(ProviderKey(*row), "")


class Bench:
    """Health whose questions are answered by hand, and whose writes are counted."""

    def __init__(self) -> None:
        self.clock = HandClock()
        self.written: list[str] = []
        self.asked: list[asyncio.Future[Probe]] = []
        self.health = Health(self._enqueue, self.clock, self._ask, FAILURES)
        self.health.publish([PROVIDER])

    def _enqueue(self, function: Any, *args: object) -> None:  # noqa: ANN401 - any f(tx, …)
        del args
        self.written.append(function.__name__)

    def _ask(self, provider: Provider, secret: str) -> asyncio.Future[Probe]:
        del provider, secret
        self.asked.append(asyncio.get_running_loop().create_future())
        return self.asked[-1]

    async def answer(self, found: Probe) -> None:
        self.asked[-1].set_result(found)
        await asyncio.sleep(0)
        await asyncio.sleep(0)

    async def fail(self, times: int = FAILURES) -> None:
        """Let requests be sent and not be answered."""
        for _ in range(times):
            self.health.note_unanswered(SENT, Tried.now(live_key()), NO_TRIAL, "broke off", 0)
        await asyncio.sleep(0)

    def refusal(self) -> ApiError | None:
        return self.health.refusal("own", "gpt-4o")

    def wait_s(self) -> int:
        refusal = self.refusal()
        assert refusal is not None
        return refusal.retry_after_s or 0


def test_a_provider_found_down_in_two_ways_at_once_is_paused_once() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.fail()
        bench.health.note_unreachable(SENT, NO_TRIAL, "refused")  # while it is asked
        assert bench.wait_s() == PAUSE_MS_FIRST // 1000
        await bench.answer(DOWN)
        assert bench.wait_s() == PAUSE_MS_FIRST // 1000
        assert bench.written == ["_write_pause"]

    asyncio.run(run())


def test_a_question_that_could_not_be_asked_leaves_all_as_it_was() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.fail()
        await bench.answer(unasked("no files"))
        assert bench.refusal() is None
        assert bench.written == []
        bench.clock.seconds += ASK_AGAIN_MS / 1000
        await bench.fail(1)  # one more is enough to ask again
        assert len(bench.asked) == 2
        await bench.answer(DOWN)
        assert bench.written == ["_write_pause"]
        bench.clock.seconds += PAUSE_MS_FIRST / 1000
        trial = bench.health.begin(SENT)
        bench.health.note_unanswered(SENT, Tried.now(live_key()), trial, "broke off", 0)
        for breaker, number in trial.items():
            breaker.end_trial(number)
        await asyncio.sleep(0)
        assert bench.wait_s() == TRIAL_MS // 1000  # nothing is sent while it is asked
        await bench.answer(unasked("no files"))
        assert bench.refusal() is None  # neither resumed nor paused: the next one is a trial
        assert bench.health.begin(SENT)
        assert bench.written == ["_write_pause"]

    asyncio.run(run())


def test_a_key_is_asked_about_once_in_a_while_and_at_once_after_it_was_found_dead() -> None:
    async def run() -> None:
        bench, key = Bench(), live_key()
        for found in (UP, Probe("refused", 401, "401: no", refuses_key=True)):
            bench.health.note_refusal(SENT, Tried.now(key), NO_TRIAL, WORDS, 401)
            bench.health.note_refusal(SENT, Tried.now(key), NO_TRIAL, WORDS, 401)
            await asyncio.sleep(0)
            await bench.answer(found)
            bench.clock.seconds += ASK_AGAIN_MS / 1000
        assert len(bench.asked) == 2
        assert key.state == "dead"
        bench.clock.seconds -= ASK_AGAIN_MS / 1000
        key.state = "active"  # an operator has enabled it
        bench.health.note_refusal(SENT, Tried.now(key), NO_TRIAL, WORDS, 401)
        await asyncio.sleep(0)
        assert len(bench.asked) == 3

    asyncio.run(run())


def test_a_key_that_is_asked_about_where_its_provider_was_stays_in_use() -> None:
    async def run() -> None:
        bench, key = Bench(), live_key()
        bench.health.note_refusal(SENT, Tried.now(key), NO_TRIAL, WORDS, 401)
        await asyncio.sleep(0)
        bench.health.publish([msgspec.structs.replace(PROVIDER, base_url="http://y/v1")])
        await bench.answer(Probe("refused", 401, "401: no", refuses_key=True))
        assert key.state == "active"

    asyncio.run(run())


def test_what_was_asked_about_long_ago_is_not_remembered() -> None:
    """Keys come and go; a server runs for months."""

    async def run() -> None:
        async def ask(provider: Provider, secret: str) -> Probe:
            del provider, secret
            return UP

        questions = Questions(ask)
        for number in range(100):
            now_ms = number * ASK_AGAIN_MS // 4
            assert questions.put(number, PROVIDER, "", lambda _: None, now_ms)
            assert not questions.put(number, PROVIDER, "", lambda _: None, now_ms)
        assert len(questions._asked_ms) == 4
        await asyncio.sleep(0)

    asyncio.run(run())


@pytest.mark.parametrize(
    "now",
    [
        Provider(*(1, "own", "openai", "http://y/v1", False), *(None,) * 5, 0),
        Provider(*(2, "own", "openai", "http://x/v1", False), *(None,) * 5, 1),
    ],
    ids=["moved", "set up again"],
)
def test_a_key_is_not_rested_for_what_was_said_elsewhere(now: Provider) -> None:
    bench, key = Bench(), live_key()
    limited = Failure(FailureKind.COOLDOWN, "429: slow down", 60)
    bench.health.publish([now])
    bench.health.note_refusal(SENT, Tried.now(key), NO_TRIAL, limited, 429)
    assert key.rest_left_ms("gpt-4o", NOW_MS) == 0
    bench.health.note_refusal(Sent(now), Tried.now(key), NO_TRIAL, limited, 429)
    assert key.rest_left_ms("gpt-4o", NOW_MS) == 60_000


def test_trials_that_ran_at_once_and_all_fail_make_a_pause_longer_once() -> None:
    """One that waits for ten minutes has let many others go; the first to fail speaks for all."""

    async def run() -> None:
        bench = Bench()
        bench.health.note_unreachable(SENT, NO_TRIAL, "refused")
        for _ in range(FAILURES - 1):
            bench.health.note_unreachable(SENT, NO_TRIAL, "refused")
        trials = []
        for _ in range(4):
            bench.clock.seconds += max(PAUSE_MS_FIRST, TRIAL_MS_MAX) / 1000
            assert bench.refusal() is None
            trials.append(bench.health.begin(SENT))
        for trial in trials:
            bench.health.note_unanswered(SENT, Tried.now(live_key()), trial, "silent", 0)
            await asyncio.sleep(0)
            if not bench.asked[-1].done():
                await bench.answer(DOWN)
            for breaker, number in trial.items():
                breaker.end_trial(number)
        assert len(bench.asked) == 1
        assert bench.written == ["_write_pause"] * 2
        assert bench.wait_s() == 2 * PAUSE_MS_FIRST // 1000

    asyncio.run(run())


def test_a_trial_that_finds_the_provider_overloaded_lets_it_be_asked() -> None:
    """As a server of one's own answers while it loads its model: it is there again."""

    async def run() -> None:
        bench = Bench()
        for _ in range(FAILURES):
            bench.health.note_unreachable(SENT, NO_TRIAL, "refused")
        bench.clock.seconds += PAUSE_MS_FIRST / 1000
        trial = bench.health.begin(SENT)
        busy = Failure(FailureKind.BUSY, "503: loading")
        bench.health.note_busy(SENT, Tried.now(live_key()), trial, busy, 503)
        for breaker, number in trial.items():
            breaker.end_trial(number)
        await asyncio.sleep(0)
        assert bench.wait_s() == TRIAL_MS // 1000  # one question, and no other trial meanwhile
        await bench.answer(UP)
        assert bench.refusal() is None
        assert bench.written == ["_write_pause", "_write_resume"]

    asyncio.run(run())


def test_what_is_left_alone_is_told_until_an_operator_ends_it() -> None:
    async def run() -> None:
        bench = Bench()
        busy = Failure(FailureKind.BUSY, "503: too much")
        for _ in range(FAILURES):
            assert not bench.health.is_left_alone("own")
            bench.health.note_busy(SENT, Tried.now(live_key()), NO_TRIAL, busy, 503)
        assert bench.health.is_left_alone("own")
        assert not bench.health.is_left_alone("another")
        assert not bench.health.is_paused(PROVIDER)
        bench.health.publish([msgspec.structs.replace(PROVIDER, resumed_at_ms=NOW_MS)])
        assert not bench.health.is_left_alone("own")

    asyncio.run(run())


def test_what_was_asked_about_the_old_place_does_not_keep_the_new_one_from_being_asked() -> None:
    async def run() -> None:
        bench = Bench()
        await bench.fail()
        moved = msgspec.structs.replace(PROVIDER, base_url="http://y/v1")
        bench.health.publish([moved])
        await bench.answer(DOWN)
        assert bench.written == []
        for _ in range(FAILURES):
            bench.health.note_unanswered(
                Sent(moved), Tried.now(live_key()), NO_TRIAL, "broke off", 0
            )
        await asyncio.sleep(0)
        assert len(bench.asked) == 2

    asyncio.run(run())


def test_an_answer_from_where_the_provider_was_puts_no_key_back() -> None:
    bench, key = Bench(), live_key()
    key.state = "out_of_quota"
    bench.health.publish([msgspec.structs.replace(PROVIDER, base_url="http://y/v1")])
    bench.health.note_answer(SENT, Tried.now(key), NO_TRIAL)
    assert (key.state, bench.written) == ("out_of_quota", [])
