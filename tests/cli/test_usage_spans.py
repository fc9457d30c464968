"""Sums over any span of time are those of the requests in it, wherever it begins and ends."""

import itertools

import pytest

from llmproxy import reports
from llmproxy.clock import RequestIds, arrival_ms
from llmproxy.reports.days import Part, Span, split_span
from llmproxy.rollups import DAY_MS
from llmproxy.usage import Leg
from tests.cli.conftest import Quick
from tests.cli.test_usage_sums import record_free, refuse
from tests.support.books import NOW_MS, Book

MIDNIGHT_MS = NOW_MS - NOW_MS % DAY_MS + DAY_MS
HOUR_MS = 3_600_000


@pytest.mark.parametrize(
    ("since_ms", "until_ms", "span"),
    [
        (None, None, Span(0, 2**48 // DAY_MS + 1, ())),
        (0, DAY_MS, Span(0, 1, ())),
        (5 * DAY_MS, 5 * DAY_MS, Span(5, 5, ())),
        (1, DAY_MS, Span(1, 1, (Part(1, DAY_MS),))),
        (DAY_MS, 2 * DAY_MS + 1, Span(1, 2, (Part(2 * DAY_MS, 2 * DAY_MS + 1),))),
        (
            DAY_MS - 1,
            3 * DAY_MS + 1,
            Span(1, 3, (Part(DAY_MS - 1, DAY_MS), Part(3 * DAY_MS, 3 * DAY_MS + 1))),
        ),
        (DAY_MS + 5, DAY_MS + 9, Span(2, 2, (Part(DAY_MS + 5, DAY_MS + 9),))),
        (9, 5, Span(1, 1, ())),
        (-5, 2**60, Span(0, 2**48 // DAY_MS + 1, ())),
    ],
)
def test_a_span_is_whole_days_and_the_parts_around_them(
    since_ms: int | None, until_ms: int | None, span: Span
) -> None:
    assert split_span(since_ms, until_ms) == span


@pytest.fixture
def busy(book: Book) -> Book:
    """Requests around three midnights, one of them at each to the millisecond."""
    for number, at_ms in enumerate(
        MIDNIGHT_MS + days * DAY_MS + beside
        for days in range(3)
        for beside in (-HOUR_MS, -1, 0, 1, 2 * HOUR_MS)
    ):
        book.now_ms = at_ms - 1
        book.settled(Leg(input=number * 1000, cache_read=1, output=number), Leg(reasoning=2))
        refuse(book, "x")
        with book.write() as tx:
            record_free(tx, book)
    return book


EDGES_MS = [
    MIDNIGHT_MS + days * DAY_MS + beside
    for days in range(3)
    for beside in (-HOUR_MS, -1, 0, 1, HOUR_MS + 7)
]


def test_sums_of_any_span_are_those_of_its_requests(busy: Book) -> None:
    for since_ms, until_ms in itertools.combinations(EDGES_MS, 2):
        for user_id in (None, busy.user_id):
            wanted = reports.RequestFilter(user_id=user_id, since_ms=since_ms, until_ms=until_ms)
            with busy.read() as tx:
                rows = reports.list_requests(tx, wanted, limit=-1)
            total = reports.summarise(busy.read, wanted, "key").total
            ended = [row for row in rows if row.state != "refused"]
            assert (total.requests, total.refused) == (len(ended), len(rows) - len(ended))
            assert total.cost_nanousd == sum(row.cost_nanousd for row in ended)
            usages = [row.usage_totals() or {} for row in ended]
            for name in reports.USAGE_CLASSES:
                assert total.usage[name] == sum(usage.get(name, 0) for usage in usages)


def test_users_own_sums_of_any_span_are_those_of_their_requests(busy: Book) -> None:
    for since_ms, until_ms in itertools.combinations(EDGES_MS, 2):
        with busy.read() as tx:
            groups = reports.sum_own(
                tx, busy.user_id, "day", since_ms=since_ms, until_ms=until_ms, limit=99
            )
            wanted = reports.RequestFilter(since_ms=since_ms, until_ms=until_ms)
            rows = reports.list_requests(tx, wanted, limit=-1)
        ended = [row for row in rows if row.state != "refused"]
        assert sum(group.requests for group in groups) == len(ended)
        assert sum(group.cost_nanousd for group in groups) == sum(row.cost_nanousd for row in ended)
        usages = [row.usage_totals() or {} for row in ended]
        tokens_in = sum(usage.get("input", 0) + usage.get("cache_read", 0) for usage in usages)
        assert sum(group.tokens_in for group in groups) == tokens_in


def test_whole_days_are_not_read_from_requests(quick: Quick, busy: Book) -> None:
    """Or they would not be there after a prune, nor quick among millions."""
    before = quick.json("usage", "summary", "--since", "2026-11-19", "--until", "2026-11-21")
    with busy.write() as tx:
        tx.execute("DELETE FROM requests")
    after = quick.json("usage", "summary", "--since", "2026-11-19", "--until", "2026-11-21")
    assert after == before
    assert after["total"]["requests"] > 0


def test_steps_are_told_while_parts_of_days_are_read(busy: Book) -> None:
    told: list[tuple[int, int]] = []
    wanted = reports.RequestFilter(since_ms=MIDNIGHT_MS + 1, until_ms=MIDNIGHT_MS + 3 * HOUR_MS)
    reports.summarise(
        busy.read, wanted, "day", on_progress=lambda done, total: told.append((done, total))
    )
    assert told == [(0, 3), (1, 3), (2, 3)]


def test_an_id_says_when_its_request_came() -> None:
    assert arrival_ms(RequestIds().new(NOW_MS)) == NOW_MS
