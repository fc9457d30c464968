"""The counters behind limits, each against a model that is too simple to be wrong."""

from datetime import UTC, datetime
from itertools import accumulate

from hypothesis import given
from hypothesis import strategies as st

from llmproxy.limits import Limits
from llmproxy.meters import (
    DAY_MS,
    Books,
    Meter,
    Spent,
    Window,
    month_end_ms,
    month_start_ms,
)

NOTHING = Spent(0, 0, [], [])
STEPS = st.lists(st.tuples(st.floats(0, 45), st.integers(0, 9)), max_size=60)


@given(STEPS)
def test_a_window_never_forgets_too_early_and_not_much_too_late(
    steps: list[tuple[float, int]],
) -> None:
    window = Window(60)
    times = list(accumulate(wait for wait, _ in steps))
    for index, (now, (_, amount)) in enumerate(zip(times, steps, strict=True)):
        window.add(amount, now)
        past = list(zip(times[: index + 1], (each for _, each in steps), strict=False))
        least = sum(each for at, each in past if at > now - 60)
        most = sum(each for at, each in past if at > now - 61.001)
        assert least <= window.total(now) <= most


def test_a_window_that_nobody_asks_takes_no_more_memory_with_the_days() -> None:
    window = Window(60)
    for second in range(86_400):
        window.add(1, second)
    assert len(window._parts) <= 61
    assert window.total(86_400) == 60


@given(STEPS, st.integers(0, 50), st.floats(0, 200))
def test_after_the_told_wait_and_not_before_the_total_fits(
    steps: list[tuple[float, int]], at_most: int, later: float
) -> None:
    window = Window(60)
    now = 0.0
    for wait, amount in steps:
        now += wait
        window.add(amount, now)
    now += later
    wait_s = window.wait_s(at_most, now)
    assert 0 <= wait_s <= 61
    assert window.next_s(now) <= 61
    if wait_s > 0.01:
        assert window.total(now + wait_s - 0.005) > at_most
    assert window.total(now + wait_s + 0.005) <= at_most


@given(STEPS, st.integers(1, 20))
def test_requests_kept_to_a_limit_are_never_more_in_any_minute(
    steps: list[tuple[float, int]], limit: int
) -> None:
    window = Window(60)
    now, let_in = 0.0, []
    for wait, amount in steps:
        now += wait / 10
        for _ in range(amount):
            if window.total(now) < limit:
                window.add(1, now)
                let_in.append(now)
    for start in let_in:
        assert sum(start <= at < start + 60 for at in let_in) <= limit


def test_what_is_taken_back_leaves_no_trace() -> None:
    window = Window(60)
    window.add(1, 0.5)
    window.add(1, 10.5)
    window.take_back(1, 0.5)
    assert window.total(11) == 1
    assert window.total(70.9) == 1
    assert window.total(72) == 0
    window.take_back(1, 10.5)
    assert window.total(72) == 0


DAYS = st.integers(0, 400 * DAY_MS)


@given(DAYS)
def test_months_are_those_of_the_calendar(at_ms: int) -> None:
    at = datetime.fromtimestamp(at_ms / 1000, tz=UTC)
    start = datetime(at.year, at.month, 1, tzinfo=UTC)
    year, month = divmod(at.year * 12 + at.month, 12)
    end = datetime(year, month + 1, 1, tzinfo=UTC)
    assert month_start_ms(at_ms) == int(start.timestamp() * 1000)
    assert month_end_ms(at_ms) == int(end.timestamp() * 1000)


class Model:
    """The books again, by looking at all requests each time."""

    def __init__(self) -> None:
        self.requests: dict[bytes, list[int]] = {}
        """Arrival, what is held, what it has cost."""

    def spent_and_held(self, now_ms: int) -> tuple[int, int, int, int]:
        day = [each for each in self.requests.values() if each[0] // DAY_MS == now_ms // DAY_MS]
        start = month_start_ms(now_ms)
        month = [each for each in self.requests.values() if each[0] >= start]
        return (
            *(sum(each[2] for each in day), sum(each[1] for each in day)),
            *(sum(each[2] for each in month), sum(each[1] for each in month)),
        )


ACTS = st.lists(
    st.tuples(
        st.sampled_from(["hold", "hold", "change", "end", "end"]),
        st.integers(0, 20 * 3_600_000),
        st.integers(0, 1000),
        st.integers(0, 1000),
    ),
    max_size=80,
)


@given(ACTS, DAYS)
def test_books_are_right_over_days_and_months(
    acts: list[tuple[str, int, int, int]], start_ms: int
) -> None:
    books, model = Books(), Model()
    limits = Limits(1, daily_budget_nanousd=10**6, monthly_budget_nanousd=10**6)
    now_ms = start_ms
    books.fill(NOTHING, now_ms, now_ms / 1000)
    running: list[bytes] = []
    for number, (act, wait_ms, amount, pick) in enumerate(acts):
        now_ms += wait_ms
        if act == "hold":
            hold_id = number.to_bytes(16, "big")
            books.hold(hold_id, amount, now_ms)
            model.requests[hold_id] = [now_ms, amount, 0]
            running.append(hold_id)
        elif running:
            hold_id = running[pick % len(running)]
            if act == "change":
                books.change(hold_id, amount)
                model.requests[hold_id][1] = amount
            else:
                books.end(hold_id, amount, model.requests[hold_id][0], now_ms / 1000)
                model.requests[hold_id][1:] = [0, amount]
                running.remove(hold_id)
        daily, monthly = books.rooms(limits, now_ms)
        assert (daily.spent, daily.held, monthly.spent, monthly.held) == model.spent_and_held(
            now_ms
        )
        assert daily.left == 10**6 - daily.spent - daily.held
        assert daily.resets_at_ms == (now_ms // DAY_MS + 1) * DAY_MS
        assert monthly.resets_at_ms == month_end_ms(now_ms)


def rooms(books: Books, now_ms: int) -> list[tuple[int, int]]:
    limits = Limits(1, daily_budget_nanousd=1000, monthly_budget_nanousd=1000)
    return [(room.spent, room.held) for room in books.rooms(limits, now_ms)]


def test_what_ends_while_the_database_is_read_counts_once() -> None:
    now_ms = 20_000 * DAY_MS + 5
    yesterday_ms = now_ms - DAY_MS
    books = Books()
    books.end(b"ended meanwhile", 30, now_ms, 100.0)
    books.end(b"begun before the limits", 4, now_ms, 100.0)
    open_holds = [(b"ended meanwhile", 50, now_ms), (b"runs", 7, yesterday_ms)]
    books.fill(Spent(100, 200, open_holds, [(now_ms - 400_000, 11)]), now_ms, 100.0)
    assert rooms(books, now_ms) == [(134, 0), (234, 7)]
    books.end(b"runs", 5, yesterday_ms, 100.0)
    assert rooms(books, now_ms) == [(134, 0), (239, 0)]
    assert books.velocity.total(100.0) == 11 + 30 + 4 + 5
    assert books.velocity.total(320.0) == 30 + 4 + 5


def test_only_budgets_that_are_set_have_room_and_strangers_change_nothing() -> None:
    books = Books()
    books.fill(NOTHING, 0, 0.0)
    books.hold(b"one", 10, 0)
    books.change(b"another", 99)
    assert books.rooms(Limits(1), 0) == []
    (room,) = books.rooms_of(Limits(1, monthly_budget_nanousd=15), b"one")
    assert (room.name, room.held, room.left) == ("monthly", 10, 5)
    (room,) = books.rooms_of(Limits(1, monthly_budget_nanousd=15), b"another")
    assert (room.name, room.left) == ("monthly", 0)
    assert Books().rooms_of(Limits(1, monthly_budget_nanousd=15), b"one") == []
    books.end(b"another", 0, 0, 0.0)
    assert books.velocity.total(0.0) == 0


def test_a_suspension_ends_with_a_later_resumption() -> None:
    meter = Meter()
    assert not meter.is_tripped(Limits(1))
    meter.tripped_at_ms = 5
    assert meter.is_tripped(Limits(1, resumed_at_ms=4))
    assert not meter.is_tripped(Limits(1, resumed_at_ms=5))
    meter.note_resumed(Limits(1, resumed_at_ms=5))  # without any books
    meter.books = Books()
    meter.books.velocity.add(7, 0.0)
    meter.note_resumed(Limits(1, resumed_at_ms=5))
    assert meter.books.velocity.total(0.0) == 7
    meter.note_resumed(Limits(1, resumed_at_ms=6))
    assert meter.books.velocity.total(0.0) == 0
    assert Window(60).next_s(0.0) == 60


def test_what_has_left_cannot_be_taken_back() -> None:
    window = Window(60)
    window.take_back(1, 0.5)
    assert window.total(1) == 0
    window.add(1, 10.5)
    window.take_back(1, 9.5)
    assert window.total(11) == 1


def test_a_clock_that_is_set_back_gives_no_budget_twice() -> None:
    now_ms = 20_000 * DAY_MS
    books = Books()
    books.fill(NOTHING, now_ms, 0.0)
    books.hold(b"one", 10, now_ms)
    books.end(b"one", 10, now_ms, 0.0)
    assert rooms(books, now_ms - 5) == [(10, 0), (10, 0)]
    assert rooms(books, now_ms + DAY_MS) == [(0, 0), (10, 0)]


def test_what_was_asked_before_midnight_is_of_the_day_that_is_over() -> None:
    midnight_ms = month_end_ms(20_000 * DAY_MS)
    books = Books()
    books.end(b"came before", 3, midnight_ms - 40, 100.0)
    books.end(b"came after", 4, midnight_ms + 1, 100.05)
    asked = Spent(100, 200, [(b"runs", 7, midnight_ms - 45)], [])
    books.fill(asked, midnight_ms - 50, 100.0)
    # The answer comes in a new day, of a new month.
    assert rooms(books, midnight_ms + 30) == [(4, 0), (4, 0)]
    books.end(b"runs", 5, midnight_ms - 45, 100.1)
    assert rooms(books, midnight_ms + 30) == [(4, 0), (4, 0)]
    assert books.velocity.total(100.1) == 3 + 4 + 5


def test_what_ends_on_a_new_day_before_anybody_asks_is_of_that_day() -> None:
    midnight_ms = 20_000 * DAY_MS
    books = Books()
    books.fill(Spent(100, 200, [], []), midnight_ms - 50, 100.0)
    books.end(b"one", 3, midnight_ms + 5, 100.0)
    assert rooms(books, midnight_ms + 30) == [(3, 0), (203, 0)]


def test_what_ended_before_a_resumption_does_not_count_for_the_speed() -> None:
    books = Books()
    now_ms = 90 * DAY_MS
    recent = [(now_ms - 3000, 1), (now_ms - 2000, 20), (now_ms - 1000, 300)]
    books.fill(Spent(321, 321, [], recent), now_ms, 1000.0, now_ms - 2000)
    assert books.velocity.total(1000.0) == 300


def test_what_ended_before_a_resumption_while_it_was_asked_is_of_the_budget_alone() -> None:
    books = Books()
    asked_ms = 90 * DAY_MS + DAY_MS // 2
    books.end(b"before", 20, asked_ms - 40, 1000.4)
    books.end(b"after", 300, asked_ms - 30, 1000.6)
    books.fill(Spent(0, 0, [], []), asked_ms, 1000.0, resumed_at_ms=asked_ms + 500)
    assert books.velocity.total(1000.6) == 300
    assert rooms(books, asked_ms + 700) == [(320, 0), (320, 0)]
