"""Owns the counters behind limits: sums over the last minutes, and budgets of days and months.

Pure but for the times that come in: monotonic seconds for spans, milliseconds since 1970 for the
calendar (UTC). Money is nano-USD. Must not refuse anything.
"""

from collections import deque
from datetime import date
from typing import TYPE_CHECKING, NamedTuple

from llmproxy.limits import VELOCITY_SPAN_S, Limits

if TYPE_CHECKING:
    from asyncio import Future
    from collections.abc import Iterable

STEPS = 60
MINUTE_S = 60
DAY_MS = 86_400_000
_DAY_0 = date(1970, 1, 1).toordinal()


class Window:
    """How much was counted in the last seconds, kept by sixtieths of the span.

    What was counted leaves one span to one step more later, never earlier: whoever keeps the total
    to a limit lets no more than that through in any span.
    """

    __slots__ = ("_parts", "_span_s", "_step_s", "_total")

    def __init__(self, span_s: int) -> None:
        """Begin with nothing counted; `span_s` is how long it looks back."""
        self._span_s = span_s
        self._step_s = span_s / STEPS
        self._parts: deque[list[int]] = deque()
        """Pairs of a step and what was counted in it, oldest first."""
        self._total = 0

    def add(self, amount: int, now_s: float) -> None:
        """Count something."""
        step = self._step(now_s)
        if self._parts and self._parts[-1][0] >= step:
            self._parts[-1][1] += amount
        else:
            self._parts.append([step, amount])
            self._drop_before(step - STEPS)  # here too: where nothing is limited nobody asks
        self._total += amount

    def take_back(self, amount: int, at_s: float) -> None:
        """Uncount what was counted at a time, unless it has left."""
        step = self._step(at_s)
        for part in reversed(self._parts):
            if part[0] == step:
                part[1] -= amount
                self._total -= amount
                return

    def total(self, now_s: float) -> int:
        """Return how much counts now."""
        self._drop_before(self._step(now_s) - STEPS)
        return self._total

    def wait_s(self, at_most: int, now_s: float) -> float:
        """Return in how many seconds the total will be at most so much, if nothing is added."""
        excess = self.total(now_s) - at_most
        wait_s = 0.0
        for step, amount in self._parts:
            if excess <= 0:
                break
            excess -= amount
            wait_s = self._leaves_at_s(step) - now_s
        return wait_s

    def next_s(self, now_s: float) -> float:
        """Return in how many seconds something leaves; the span when nothing counts."""
        if not self.total(now_s):
            return self._span_s
        return self._leaves_at_s(self._parts[0][0]) - now_s

    def _drop_before(self, oldest: int) -> None:
        while self._parts and self._parts[0][0] < oldest:
            self._total -= self._parts.popleft()[1]

    def _step(self, at_s: float) -> int:
        return int(at_s // self._step_s)

    def _leaves_at_s(self, step: int) -> float:
        return (step + STEPS + 1) * self._step_s


class Spent(NamedTuple):
    """What the database knows of the spending of the API keys that share limits."""

    today: int
    month: int
    """The cost of ended requests that came on this day, and in this month (UTC)."""
    open_holds: list[tuple[bytes, int, int]]
    """Id, amount and arrival (milliseconds since 1970) of each running request."""
    recent: list[tuple[int, int]]
    """When each request of the last ten minutes ended, and its cost; oldest first."""


class Room(NamedTuple):
    """What a budget has left."""

    name: str
    """`daily` or `monthly`."""
    budget: int
    spent: int
    held: int
    resets_at_ms: int

    @property
    def left(self) -> int:
        """What may be held now; below zero when more has been spent."""
        return self.budget - self.spent - self.held


class Period:
    """A day or a month: what the requests that came in it have cost, and what they hold."""

    __slots__ = ("held", "spent")

    def __init__(self) -> None:
        """Begin with nothing spent."""
        self.spent = 0
        self.held = 0


class _Held:
    """What one running request holds, and of which periods."""

    __slots__ = ("amount", "periods")

    def __init__(self, amount: int, periods: tuple[Period, Period]) -> None:
        self.amount = amount
        self.periods = periods
        for period in periods:
            period.held += amount

    def change(self, amount: int) -> None:
        """Hold another amount."""
        for period in self.periods:
            period.held += amount - self.amount
        self.amount = amount


class Books:
    """What the API keys that share limits have spent and hold, from the database on.

    The database is read while requests run: those that end after the question was put, and before
    its answer came, are noted and booked when it has.
    """

    def __init__(self) -> None:
        """Begin without knowing anything; `fill` must come before any question."""
        self._day = -1
        self._resets_at_ms = (0, 0)
        self._month = (0, 0)
        self._daily = Period()
        self._monthly = Period()
        self._held: dict[bytes, _Held] = {}
        self._early: list[tuple[bytes, int, int, float]] = []
        self.is_filled = False
        self.velocity = Window(VELOCITY_SPAN_S)

    def fill(self, spent: Spent, asked_ms: int, asked_s: float, resumed_at_ms: int = 0) -> None:
        """Take what the database knows, and book what has ended since it was asked.

        The times are those of the question: the answer tells of that day, be it over by now. What
        ended before a resumption does not count for the speed, be it later than the question.
        """
        self._turn(asked_ms)
        self._daily.spent, self._monthly.spent = spent.today, spent.month
        for hold_id, amount, came_ms in spent.open_holds:
            self._held[hold_id] = _Held(amount, self._periods_of(came_ms))
        for ended_ms, cost in spent.recent:
            if ended_ms > resumed_at_ms:
                self.velocity.add(cost, asked_s - max(0, asked_ms - ended_ms) / 1000)
        self.is_filled = True
        for hold_id, cost, came_ms, at_s in self._early:
            self._book(hold_id, cost, came_ms)
            if asked_ms + (at_s - asked_s) * 1000 > resumed_at_ms:
                self.velocity.add(cost, at_s)
        self._early.clear()

    def rooms(self, limits: Limits, now_ms: int) -> list[Room]:
        """Return what each budget has left for a request that comes now."""
        self._turn(now_ms)
        return self._rooms(limits, (self._daily, self._monthly))

    def rooms_of(self, limits: Limits, hold_id: bytes) -> list[Room]:
        """Return what each budget has left for a running request; nothing for one that is unknown.

        Until the books are filled no request is known, and none is kept to any budget.
        """
        held = self._held.get(hold_id)
        if held is not None:
            return self._rooms(limits, held.periods)
        if not self.is_filled:
            return []
        rooms = self._rooms(limits, (self._daily, self._monthly))
        return [room._replace(held=room.budget - room.spent) for room in rooms]

    def hold(self, hold_id: bytes, amount: int, now_ms: int) -> None:
        """Hold an amount for a request that comes now."""
        self._turn(now_ms)
        self._held[hold_id] = _Held(amount, (self._daily, self._monthly))

    def change(self, hold_id: bytes, amount: int) -> None:
        """Hold another amount for a running request; nothing happens if it is not known."""
        held = self._held.get(hold_id)
        if held is not None:
            held.change(amount)

    def end(self, hold_id: bytes, cost: int, came_ms: int, now_s: float) -> None:
        """Book what a request has cost; it holds nothing any more."""
        if not self.is_filled:
            self._early.append((hold_id, cost, came_ms, now_s))
            return
        self._book(hold_id, cost, came_ms)
        if cost:
            self.velocity.add(cost, now_s)

    def _book(self, hold_id: bytes, cost: int, came_ms: int) -> None:
        held = self._held.pop(hold_id, None)
        if held is not None:
            held.change(0)
        for period in held.periods if held else self._periods_of(came_ms):
            period.spent += cost

    def _rooms(self, limits: Limits, periods: tuple[Period, Period]) -> list[Room]:
        named: Iterable[tuple[str, int | None, Period, int]] = (
            ("daily", limits.daily_budget_nanousd, periods[0], self._resets_at_ms[0]),
            ("monthly", limits.monthly_budget_nanousd, periods[1], self._resets_at_ms[1]),
        )
        return [
            Room(name, budget, period.spent, period.held, resets_at_ms)
            for name, budget, period, resets_at_ms in named
            if budget is not None
        ]

    def _turn(self, now_ms: int) -> None:
        """Begin a new day, and month, when their time has come; a clock set back begins none."""
        day = now_ms // DAY_MS
        if day <= self._day:
            return
        self._day = day
        self._daily = Period()
        today = date.fromordinal(_DAY_0 + day)
        month = (today.year, today.month)
        if month != self._month:
            self._month = month
            self._monthly = Period()
        self._resets_at_ms = ((day + 1) * DAY_MS, month_end_ms(now_ms))

    def _periods_of(self, came_ms: int) -> tuple[Period, Period]:
        """Return the periods that a request belongs to; of past ones nobody asks any more."""
        self._turn(came_ms)
        day = came_ms // DAY_MS
        came = date.fromordinal(_DAY_0 + day)
        is_this_month = (came.year, came.month) == self._month
        return (
            self._daily if day == self._day else Period(),
            self._monthly if is_this_month else Period(),
        )


def month_start_ms(now_ms: int) -> int:
    """Return the beginning of the month of a moment (UTC)."""
    today = date.fromordinal(_DAY_0 + now_ms // DAY_MS)
    return (today.replace(day=1).toordinal() - _DAY_0) * DAY_MS


def month_end_ms(now_ms: int) -> int:
    """Return the end of the month of a moment (UTC)."""
    return month_start_ms(month_start_ms(now_ms) + 31 * DAY_MS)


class Meter:
    """All that is counted for one set of limits."""

    __slots__ = (
        *("books", "filled", "requests", "resumed_at_ms", "running", "tokens"),
        "tripped_at_ms",
    )

    def __init__(self) -> None:
        """Begin with nothing counted."""
        self.requests = Window(MINUTE_S)
        self.tokens = Window(MINUTE_S)
        self.running = 0
        self.books: Books | None = None
        """None until somebody asks for what is spent."""
        self.filled: Future[None] | None = None
        """Resolves when the books are filled from the database."""
        self.tripped_at_ms = 0
        """When the speed of spending was last too high."""
        self.resumed_at_ms = 0
        """When a suspension was last lifted, as far as is known here."""

    def is_tripped(self, limits: Limits) -> bool:
        """Say whether the keys are suspended, by what is known here before the database says it."""
        return self.tripped_at_ms > limits.resumed_at_ms

    def note_resumed(self, limits: Limits) -> None:
        """Let what was spent before a resumption count no more for the speed of spending."""
        if limits.resumed_at_ms > self.resumed_at_ms:
            self.resumed_at_ms = limits.resumed_at_ms
            if self.books is not None:
                self.books.velocity = Window(VELOCITY_SPAN_S)
