"""The gate by itself: what happens between two turns of the loop, where no client can look."""

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from typing_extensions import override

from llmproxy import accounts, ledger, limit_store
from llmproxy.accounts import NEVER_MS, Principal
from llmproxy.catalog import Model
from llmproxy.clock import Clock, RequestIds
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.errors import ApiError, DatabaseError
from llmproxy.gate import Gate
from llmproxy.growing import GrowingHold
from llmproxy.limits import Limits
from llmproxy.meters import Spent
from llmproxy.pricing import Bound
from llmproxy.quote import Quote
from llmproxy.usage import Leg
from tests.support.books import PRICES, Book

T = TypeVar("T")
NOTHING = Spent(0, 0, [], [])


class HandQueue:
    """A writer whose writes are answered by the test."""

    def __init__(self) -> None:
        self.asked: list[asyncio.Future[Any]] = []
        self.arguments: list[tuple[object, ...]] = []
        self.written: list[tuple[object, ...]] = []

    def submit(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        self.arguments.append((function, *args))
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self.asked.append(future)
        return future

    def enqueue(self, function: Callable[..., object], *args: object) -> None:
        self.written.append((function, *args))

    def offer(self, function: Callable[..., object], *args: object) -> None:
        self.written.append((function, *args))


def costing(amount_nanousd: int) -> Quote:
    """A quote of so many tokens of output, each of which costs a nano-dollar."""
    body = b'{"model": "m", "max_tokens": 1, "messages": []}'
    model = Model("p", "m", (), "chat", PRICES, 1_000_000, None, None, reasoning=False)
    bound = Bound(0, 1_000_000)
    facts = OpenAIChat().read_request(body)
    return Quote(facts, model, bound, 0, amount_nanousd, amount_nanousd, 1_000_000)


def principal(limits: Limits | None) -> Principal:
    return Principal(1, "ann", 1, 1, "laptop", 1_000_000, NEVER_MS, None, limits)


class HandClock(Clock):
    """A clock whose calendar the test sets."""

    def __init__(self) -> None:
        self.later_ms = 0

    @override
    def now_ms(self) -> int:
        """Return the machine's time, moved."""
        return super().now_ms() + self.later_ms


class Scene:
    """A gate with one limited key."""

    def __init__(self, **limits: Any) -> None:  # noqa: ANN401
        self.queue = HandQueue()
        self.clock = HandClock()
        self.gate = Gate(self.queue, self.clock, answer_s_max=600)
        self.principal = principal(Limits(1, **limits))
        self.publish(self.principal)
        self._ids = RequestIds()

    def set_limits(self, **limits: Any) -> None:  # noqa: ANN401
        """Do as the operator who changes the limits of the key."""
        self.principal = principal(Limits(1, **limits))
        self.publish(self.principal)

    def publish(self, *principals: Principal) -> None:
        self.gate.publish({bytes([n]): each for n, each in enumerate(principals)})

    async def reserve(self, amount: int = 10) -> bytes:
        hold_id = self._ids.new(self.clock.now_ms())
        await self.gate.reserve(self.principal, costing(amount), hold_id, may_fit=False)
        return hold_id


async def turns() -> None:
    """Let everything run that is due."""
    for _ in range(5):
        await asyncio.sleep(0)


def test_who_comes_just_when_the_database_has_answered_is_served() -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=25)
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        # Its callbacks have not run yet: the answer is there, and in no books.
        await asyncio.wait_for(scene.reserve(), 5)
        await first
        assert len(scene.queue.asked) == 1

    asyncio.run(run())


def test_all_who_come_meanwhile_share_one_question() -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=25)
        waiting = [asyncio.ensure_future(scene.reserve()) for _ in range(3)]
        await turns()
        waiting[0].cancel()
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        done = await asyncio.gather(*waiting[1:])
        assert len(done) == 2
        assert len(scene.queue.asked) == 1
        with pytest.raises(ApiError, match="daily budget"):
            await scene.reserve()

    asyncio.run(run())


def test_a_question_that_failed_is_put_again() -> None:
    async def run() -> None:
        scene = Scene(monthly_budget_nanousd=25)
        waiting = [asyncio.ensure_future(scene.reserve()) for _ in range(2)]
        await turns()
        scene.queue.asked[0].set_exception(DatabaseError("busy"))
        results = await asyncio.gather(*waiting, return_exceptions=True)
        assert [type(each) for each in results] == [DatabaseError] * 2
        again = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.queue.asked[1].set_result(NOTHING)
        await again

    asyncio.run(run())


def test_limits_lifted_and_set_again_while_the_database_is_asked() -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=25)
        entry = scene.gate.enter(scene.principal, "openai")
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.publish()
        scene.publish(scene.principal)
        second = asyncio.ensure_future(scene.reserve())
        await turns()
        for question in scene.queue.asked:
            question.set_result(Spent(15, 15, [], []))
        results = await asyncio.gather(first, second, return_exceptions=True)
        # Each of the two asked; there is room for one, and what was spent counts once.
        assert len(scene.queue.asked) == 2
        assert [isinstance(each, ApiError) for each in results].count(True) == 1
        entry.leave()

    asyncio.run(run())


def test_ends_that_are_queued_behind_the_question_are_counted_once() -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=100)
        running = RequestIds().new(Clock().now_ms())
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.gate.note_end(scene.principal, running, 30)
        scene.queue.asked[0].set_result(Spent(0, 0, [(running, 90, Clock().now_ms())], []))
        await first
        # 30 are spent and 10 held: 60 are left, not 61.
        with pytest.raises(ApiError):
            await scene.reserve(61)
        await scene.reserve(60)

    asyncio.run(run())


def test_a_budget_that_is_set_again_counts_what_was_spent_without_it() -> None:
    async def run() -> None:
        scene = Scene(requests_per_minute=60, daily_budget_nanousd=100)
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        await first
        scene.set_limits(requests_per_minute=60)
        scene.clock.later_ms = 86_400_000
        await scene.reserve(90)  # which asks nobody, and of which nothing is noted
        scene.set_limits(requests_per_minute=60, daily_budget_nanousd=100)
        again = asyncio.ensure_future(scene.reserve(11))
        await turns()
        scene.queue.asked[1].set_result(Spent(90, 90, [], []))
        with pytest.raises(ApiError, match="daily budget"):
            await again
        await scene.reserve(10)
        # A change that leaves the budget as it is puts no new question.
        scene.set_limits(daily_budget_nanousd=100)
        with pytest.raises(ApiError, match="daily budget"):
            await scene.reserve(1)

    asyncio.run(run())


def test_a_speed_that_is_set_beside_a_budget_counts_what_was_spent_before() -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=100)
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        await first
        scene.set_limits(daily_budget_nanousd=100, spend_per_hour_nanousd=60)
        again = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.queue.asked[1].set_result(Spent(11, 11, [], [(scene.clock.now_ms() - 1000, 11)]))
        with pytest.raises(ApiError, match="faster than"):
            await again

    asyncio.run(run())


@pytest.mark.parametrize(
    ("limits", "came_s_ago", "is_read"),
    [
        ({"daily_budget_nanousd": 100}, 1, False),  # nobody wants to know
        ({"spend_per_hour_nanousd": 100}, 1, True),
        ({"spend_per_hour_nanousd": 100}, 1250, True),
        ({"spend_per_hour_nanousd": 100}, 1300, False),  # no answer takes so long
    ],
)
def test_the_database_is_asked_for_no_more_requests_than_there_must_be(
    limits: dict[str, Any], came_s_ago: int, is_read: bool, tmp_path: Path
) -> None:
    book = Book(tmp_path / "llmproxy.db")
    with book.write() as tx:
        (key,) = accounts.list_api_keys(tx, None, limit=-1)
        limits_id = limit_store.set_key_limits(tx, [key.id], {"concurrent_max": 1}).id
    book.now_ms = Clock().now_ms() - came_s_ago * 1000
    book.settled(Leg(output=100))
    with book.write() as tx:
        tx.execute("UPDATE requests SET duration_ms = ?", (came_s_ago * 1000,))

    async def run() -> None:
        scene = Scene(**limits)
        asking = asyncio.ensure_future(scene.reserve())
        await turns()
        find: Callable[..., Spent] = scene.queue.arguments[0][0]  # type: ignore[assignment]
        with book.read() as tx:
            assert bool(find(tx, book.user_id, limits_id).recent) == is_read
        asking.cancel()

    asyncio.run(run())


def test_an_answer_that_comes_after_midnight_is_of_the_day_before() -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=25)
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.clock.later_ms = 86_400_000
        scene.queue.asked[0].set_result(Spent(25, 25, [], []))
        await turns()
        # The one that asked has waited over midnight: it belongs to the new day.
        await first
        await scene.reserve(15)

    asyncio.run(run())


def test_a_key_is_suspended_once_and_by_the_time_of_the_trip() -> None:
    async def run() -> None:
        scene = Scene(spend_per_hour_nanousd=60)
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        hold_id = await first
        scene.gate.note_end(scene.principal, hold_id, 10)
        assert scene.queue.written == []  # exactly at the limit
        for _ in range(3):
            scene.gate.note_end(scene.principal, hold_id, 1)
        assert len(scene.queue.written) == 1
        with pytest.raises(ApiError, match="llmproxy keys resume ann laptop"):
            scene.gate.enter(scene.principal, "openai")
        _, limits_id, _, at_ms = scene.queue.written[0]
        assert (limits_id, isinstance(at_ms, int)) == (1, True)
        # The operator resumes it: it works, and what was spent before is forgotten.
        assert isinstance(at_ms, int)
        resumed = principal(Limits(1, spend_per_hour_nanousd=60, resumed_at_ms=at_ms))
        scene.publish(resumed)
        scene.gate.enter(resumed, "openai").leave()
        scene.gate.note_end(resumed, hold_id, 10)
        assert len(scene.queue.written) == 1
        scene.gate.note_end(resumed, hold_id, 1)
        assert len(scene.queue.written) == 2

    asyncio.run(run())


def growing(scene: Scene, hold_id: bytes) -> GrowingHold:
    """A stream of up to 5,000 tokens whose hold begins with 1,000 of them."""
    quote = msgspec.structs.replace(costing(5000), held_output_tokens=1000)
    hold = ledger.Hold(hold_id, 1, 1, 1, 1, "chat", 1_000_000, 1_000_000, 1000, 0)
    return GrowingHold(scene.queue, scene.gate, scene.principal, quote, hold)


@pytest.mark.parametrize("fails", [False, True])
def test_what_credit_did_not_allow_a_stream_to_hold_is_left_of_the_budget(fails: bool) -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=10_000)
        first = asyncio.ensure_future(scene.reserve(1000))
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        stream = growing(scene, await first)
        covering = asyncio.ensure_future(stream.covers(2002))
        await turns()
        # It asks for 1,000 more tokens; there is credit for 500, or the ledger cannot be written.
        with pytest.raises(ApiError):
            await scene.reserve(8000)
        if fails:
            scene.queue.asked[-1].set_exception(DatabaseError("full"))
        else:
            scene.queue.asked[-1].set_result(1500)
        await asyncio.wait({covering})
        held = 1000 if fails else 1500
        with pytest.raises(ApiError):
            await scene.reserve(10_001 - held)
        await scene.reserve(10_000 - held)

    asyncio.run(run())


def test_a_stream_asks_for_no_more_than_the_budget_has_left() -> None:
    async def run() -> None:
        scene = Scene(daily_budget_nanousd=3000, monthly_budget_nanousd=1400)
        first = asyncio.ensure_future(scene.reserve(1000))
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        stream = growing(scene, await first)
        covering = asyncio.ensure_future(stream.covers(2002))
        await turns()
        assert scene.queue.arguments[-1][-1] == 1400
        scene.queue.asked[-1].set_result(1400)
        assert await covering
        assert stream.is_budget_short
        # Nothing more is to be had before it ends.
        assert stream.look_at_bytes == stream.held_bytes == 2800

    asyncio.run(run())


def test_a_running_stream_is_kept_to_a_budget_that_is_set_while_it_runs() -> None:
    async def run() -> None:
        scene = Scene(requests_per_minute=60)
        entry = scene.gate.enter(scene.principal, "openai")
        hold_id = await scene.reserve(1000)
        stream = growing(scene, hold_id)
        scene.set_limits(requests_per_minute=60, daily_budget_nanousd=1400)
        # It is asked at once what is spent: no other request need come.
        scene.queue.asked[0].set_result(Spent(0, 0, [(hold_id, 1000, scene.clock.now_ms())], []))
        await turns()
        covering = asyncio.ensure_future(stream.covers(2002))
        await turns()
        assert scene.queue.arguments[-1][-1] == 1400
        assert stream.is_budget_short
        covering.cancel()
        entry.leave()

    asyncio.run(run())


def test_a_stream_that_came_before_any_limit_is_kept_to_a_budget_all_the_same() -> None:
    async def run() -> None:
        scene = Scene()
        scene.publish(early := principal(None))
        hold_id = RequestIds().new(scene.clock.now_ms())
        scene.principal = early
        stream = growing(scene, hold_id)
        scene.set_limits(daily_budget_nanousd=2400)
        next_one = asyncio.ensure_future(scene.reserve(1000))
        await turns()
        scene.queue.asked[0].set_result(Spent(0, 0, [(hold_id, 1000, scene.clock.now_ms())], []))
        await next_one
        covering = asyncio.ensure_future(stream.covers(2002))
        await turns()
        assert scene.queue.arguments[-1][-1] == 1400
        scene.queue.asked[-1].set_result(1400)
        assert await covering
        # What it holds by now counts for others.
        with pytest.raises(ApiError, match=r"0\.00 of 0\.0000024 USD left"):
            await scene.reserve(1)

    asyncio.run(run())


def test_what_was_spent_before_a_resumption_suspends_nobody_however_late_it_is_known() -> None:
    async def run() -> None:
        scene = Scene(spend_per_hour_nanousd=60)
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        now_ms = scene.clock.now_ms()
        # The operator resumes the key while the database is asked, and allows more.
        scene.set_limits(spend_per_hour_nanousd=120, resumed_at_ms=now_ms)
        recent = [(now_ms - 5000, 1000), (now_ms, 1000), (now_ms + 1, 20)]
        scene.queue.asked[0].set_result(Spent(0, 0, [], recent))
        hold_id = await first
        assert scene.queue.written == []
        scene.gate.note_end(scene.principal, hold_id, 1)
        assert len(scene.queue.written) == 1

    asyncio.run(run())


def test_a_speed_that_is_lowered_suspends_who_was_faster_at_once() -> None:
    async def run() -> None:
        scene = Scene(spend_per_hour_nanousd=600)
        first = asyncio.ensure_future(scene.reserve())
        await turns()
        scene.queue.asked[0].set_result(NOTHING)
        scene.gate.note_end(scene.principal, await first, 50)
        scene.set_limits(spend_per_hour_nanousd=300)
        assert scene.queue.written == []  # exactly at the limit
        scene.set_limits(spend_per_hour_nanousd=299)
        with pytest.raises(ApiError, match="is suspended"):
            scene.gate.enter(scene.principal, "openai")
        assert len(scene.queue.written) == 1

    asyncio.run(run())
