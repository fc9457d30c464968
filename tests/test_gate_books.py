"""Whatever is asked, ended and changed meanwhile, the books of the gate say what the ledger says.

A random walk with a real ledger and a writer that answers when the walk says so. It is drawn from a
seed, and so is the same each time.
"""

import asyncio
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import msgspec
import pytest
from typing_extensions import override

from llmproxy import accounts, ledger, limit_store
from llmproxy.accounts import Principal
from llmproxy.clock import Clock, RequestIds
from llmproxy.errors import ApiError
from llmproxy.gate import Gate
from llmproxy.rate_limits import Entry
from llmproxy.reports import find_spent
from llmproxy.storage.database import Tx
from tests.support.books import NOW_MS, Book, costing
from tests.test_gate import costing as quote_of
from tests.test_gate import turns

T = TypeVar("T")
Job = tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any] | None]
STEPS = 400
KEYS_KEPT_MS = 60 * 86_400_000
"""Longer than a walk lasts."""


class WalkClock(Clock):
    """A clock that the walk moves."""

    def __init__(self) -> None:
        self.at_ms = NOW_MS

    @override
    def now_ms(self) -> int:
        """Return the walk's time."""
        return self.at_ms

    @override
    def monotonic_s(self) -> float:
        """Return it as a span."""
        return self.at_ms / 1000


class Running:
    """A request that holds something."""

    def __init__(self, principal: Principal, hold: ledger.Hold, entry: Entry | None) -> None:
        self.principal = principal
        self.hold = hold
        self.entry = entry
        self.held = hold.amount_nanousd
        self.is_growing = False
        self.has_ended = False


class Walk:
    """Users' requests and an operator's changes, in an order that is drawn."""

    def __init__(self, path: Path, seed: int) -> None:
        self.draw = random.Random(seed)
        self.book = Book(path, credit="1000000")
        self.book.database._connection.execute("PRAGMA synchronous=OFF")  # nobody pulls the plug
        self.clock = WalkClock()
        self.gate = Gate(self, self.clock, 3600)
        self.principals: list[Principal] = []
        self.running: list[Running] = []
        self.tasks: set[asyncio.Task[None]] = set()
        self._jobs: list[
            tuple[Callable[..., Any], tuple[Any, ...], asyncio.Future[Any] | None]
        ] = []
        self._is_changed = True
        self._ids = RequestIds()

    # --- the writer ---

    def submit(self, function: Callable[..., T], *args: object) -> asyncio.Future[T]:
        future: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        self._jobs.append((function, args, future))
        return future

    def enqueue(self, function: Callable[..., object], *args: object) -> None:
        self._jobs.append((function, args, None))

    offer = enqueue

    def flush(self) -> None:
        """Run one transaction: what others have changed is seen first, then some jobs run."""
        with self.book.write() as tx:
            if self._is_changed:
                self._is_changed = False
                self._look(tx)
            count = len(self._jobs) if self.draw.random() < 0.7 else self.draw.randint(0, 9)
            batch, self._jobs = self._jobs[:count], self._jobs[count:]
            results = [(future, function(tx, *args)) for function, args, future in batch]
        for future, result in results:
            if future is not None:
                future.set_result(result)

    def _look(self, tx: Tx) -> None:
        found = accounts.load_principals(tx, now_ms=self.clock.at_ms, ended_for_ms=KEYS_KEPT_MS)
        self.principals = list(found.values())
        self.gate.publish(found)

    # --- requests ---

    def live(self) -> list[Principal]:
        return [each for each in self.principals if each.ends_at_ms > self.clock.at_ms]

    async def ask(self) -> None:
        """Do as the relay does with a request until it is sent."""
        if not self.live():
            return
        principal = self.draw.choice(self.live())
        amount = self.draw.choice((10, 100, 1000))
        hold = msgspec.structs.replace(
            self.book.hold(),
            id=self._ids.new(self.clock.at_ms),
            api_key_id=principal.api_key_id,
            created_at_ms=self.clock.at_ms,
            amount_nanousd=amount,
        )
        entry = None
        try:
            if principal.is_limited:
                entry = self.gate.enter(principal, "openai")
            if principal.limits is not None:
                await self.gate.reserve(principal, quote_of(amount), hold.id, may_fit=False)
        except ApiError:
            if entry is not None:
                entry.leave()
            return
        await self.submit(ledger.place_hold, hold)
        one = Running(principal, hold, entry)
        self.running.append(one)
        if principal not in self.live():  # the hold's transaction has seen a change
            self.end(one, 0)

    async def grow(self, one: Running) -> None:
        """Do as a stream does whose hold comes to its end."""
        if one.is_growing:
            return
        one.is_growing = True
        quote = msgspec.structs.replace(quote_of(5000), held_output_tokens=one.held)
        granted = self.gate.extend(one.principal, quote, one.hold.id, one.held, one.held + 500)
        by_nanousd = granted - one.held

        def extend(tx: Tx) -> None:
            if by_nanousd and not one.has_ended:
                ledger.extend_hold(tx, one.hold, by_nanousd)

        await self.submit(extend)
        one.held = granted
        self.gate.change(one.principal, one.hold.id, granted)
        one.is_growing = False

    def end(self, one: Running, cost: int) -> None:
        self.running.remove(one)
        one.has_ended = True
        now_ms = self.clock.at_ms
        end = ledger.released(self.book.outcome(), at_ms=now_ms)
        if cost:
            outcome = costing(self.book.outcome(), cost)
            end = ledger.End("settled", "usage", cost, outcome, now_ms)
        self.enqueue(ledger.end_hold, one.hold, end)
        self.gate.note_end(one.principal, one.hold.id, cost, 5)
        if one.entry is not None:
            one.entry.leave()

    # --- the operator ---

    def operate(self) -> None:
        """Set limits or lift them, replace the key, resume it, or end it and make another."""
        now_ms, draw = self.clock.at_ms, self.draw
        with self.book.write() as tx:
            ann = accounts.find_user(tx, "ann")
            live = accounts.list_api_keys(tx, ann, limit=-1, live_at_ms=now_ms)
            what = draw.random()
            if not live:
                accounts.create_api_key(tx, ann, "laptop", now_ms=now_ms)
            elif what < 0.6:
                amounts = (None, 5000, 50_000, 10**9)
                names = ("daily_budget", "monthly_budget", "spend_per_hour")
                drawn = [name for name in names if draw.random() < 0.4]
                changes = {f"{name}_nanousd": draw.choice(amounts) for name in drawn}
                changes["requests_per_minute"] = draw.choice((None, 10**6))
                limit_store.set_key_limits(tx, [key.id for key in live], dict(changes))
            elif what < 0.8:
                overlap_ms = draw.choice((0, 1000, 60_000))
                accounts.rotate_api_key(tx, ann, "laptop", now_ms=now_ms, overlap_ms=overlap_ms)
            elif what < 0.95:
                if live[-1].limits is not None:
                    limit_store.resume(tx, live[-1].limits.id, now_ms=now_ms)
            else:
                accounts.revoke_api_key(tx, ann, "laptop", now_ms=now_ms)
        self._is_changed = True

    # --- the walk ---

    def step(self) -> None:
        what = self.draw.random()
        if what < 0.4:
            self._begin(self.ask())
        elif what < 0.55 and self.running:
            one = self.draw.choice(self.running)
            self.end(one, self.draw.choice((0, one.hold.amount_nanousd, 7)))
        elif what < 0.65 and self.running:
            self._begin(self.grow(self.draw.choice(self.running)))
        elif what < 0.72:
            self.operate()
        elif what < 0.74 and not self.tasks:  # nobody waits from one day to the other
            self.clock.at_ms += self.draw.choice((60_000, 3_600_000, 40_000_000))
        else:
            self.flush()

    def _begin(self, doing: Any) -> None:  # noqa: ANN401
        task = asyncio.ensure_future(doing)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)

    async def run(self) -> int:
        """Walk, let everything end, and compare; return how many books there were."""
        for _ in range(STEPS):
            self.step()
            if self.draw.random() < 0.7:
                await turns()
        while self.tasks or self.running or self._jobs:
            for one in list(self.running):
                self.end(one, 7)
            self.flush()
            await turns()
        return sum(self.compare(*each) for each in self.gate._meters.items())

    def compare(self, limits_id: int, meter: Any) -> bool:  # noqa: ANN401
        assert meter.running == 0
        books = meter.books
        if books is None or not books.is_filled:
            return False
        books._turn(self.clock.at_ms)
        with self.book.read() as tx:
            spent = find_spent(tx, self.book.user_id, limits_id, now_ms=self.clock.at_ms)
        assert books._held == {}
        assert (books._daily.held, books._monthly.held) == (0, 0)
        assert (books._daily.spent, books._monthly.spent) == (spent.today, spent.month)
        return True


@pytest.mark.parametrize("first_seed", range(0, 20, 10))
def test_after_any_walk_nothing_is_held_and_what_is_spent_is_what_the_ledger_says(
    first_seed: int, tmp_path: Path
) -> None:
    compared = 0
    for seed in range(first_seed, first_seed + 10):
        walk = Walk(tmp_path / str(seed) / "llmproxy.db", seed)
        compared += asyncio.run(walk.run())
        walk.book.close()
    assert compared > 10
