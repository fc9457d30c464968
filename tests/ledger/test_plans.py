"""What runs for each request, at a start or for a page finds its rows by index, however many.

Each function is really called; what it executes is put to the planner first, on the real schema.
"""

import ast
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from llmproxy import crediting, ledger, limit_store, pruning, recovery, reports
from llmproxy.clock import RequestIds
from llmproxy.rollups import DAY_MS
from tests.ledger.helpers import with_key
from tests.support.books import NOW_MS, PRICES, Book, costing
from tests.support.planned import STATEMENT, Planned

PACKAGE = Path(__file__).parents[2] / "llmproxy"
GROWING = ("holds", "requests", "transfers")
FEW = ("holds_open", "holds_shortfall", "transfers_wallet")
"""Partial indexes that hold few rows: all of one may be walked through."""
SORTED = ("INDEXED BY holds_open", "FROM requests_by_day", "ended > :since")
"""What marks a statement that sorts a few rows only: the open holds, the sums of groups, or what a
user's requests of ten minutes have cost."""


def slow_steps(plan: list[str], sql: str) -> list[str]:
    """The steps that go through a whole table that grows, or sort a part of it."""
    return [step for step in plan if is_whole_scan(step) or is_long_sort(step, sql)]


def is_whole_scan(step: str) -> bool:
    words = step.split()
    return words[0] == "SCAN" and words[1] in GROWING and words[-1] not in FEW


def is_long_sort(step: str, sql: str) -> bool:
    return step == "USE TEMP B-TREE FOR ORDER BY" and not any(mark in sql for mark in SORTED)


@pytest.fixture
def planned(book: Book) -> Iterator[Planned]:
    with book.write() as tx:
        planned = Planned(tx, book.path)
        yield planned
    planned.close()
    slow = {sql: slow_steps(plan, sql) for sql, plan in planned.plans.items()}
    assert len(slow) >= 3
    assert {sql: steps for sql, steps in slow.items() if steps} == {}


def statements(module: str) -> set[str]:
    """Every literal statement in a module, comparable."""
    tree = ast.parse((PACKAGE / module).read_text("utf-8"))
    texts = {
        node.value
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str)
    }
    return {" ".join(text.split()) for text in texts if STATEMENT.match(text)}


def not_planned(module: str, planned: Planned) -> set[str]:
    run = [" ".join(sql.split()) for sql in planned.plans]
    return {text for text in statements(module) if not any(text in sql for sql in run)}


def test_every_statement_of_the_ledger_goes_by_index(book: Book, planned: Planned) -> None:
    words: dict[str, Any] = {"actor": "test", "reason": "because", "now_ms": NOW_MS}
    tx: Any = planned
    ledger.start_boot(tx, pid=1, version="x", now_ms=NOW_MS)
    ledger.pin_prices(tx, "openai", "gpt-test", PRICES.canonical_json(), now_ms=NOW_MS)
    assert ledger.standing(tx, book.wallet_id).held_nanousd == 0
    hold = with_key(book)
    assert ledger.find_earlier_hold(tx, hold) is None
    assert ledger.place_hold(tx, hold) is None
    assert ledger.extend_hold(tx, hold, 5) is None
    ledger.note_seen(tx, hold, 5)
    end = ledger.End("settled", "usage", 5, costing(book.outcome(), 5), NOW_MS)
    assert ledger.end_if_open(tx, hold, end)
    ledger.record_unheld(
        tx, bytes(16), api_key_id=1, endpoint="x", outcome=book.outcome(), now_ms=NOW_MS
    )
    crediting.credit(tx, book.wallet_id, 5, idempotency_key="a", **words)
    crediting.adjust(tx, book.wallet_id, -5, **words)
    assert not_planned("ledger.py", planned) == set()
    assert not_planned("crediting.py", planned) == set()


def test_every_statement_of_a_start_goes_by_index(book: Book, planned: Planned) -> None:
    tx: Any = planned
    hold = book.hold()
    ledger.place_hold(tx, hold)
    unknown = ledger.End("settled", "usage", 5, costing(book.outcome(), 5), NOW_MS)
    kept = recovery.KeptEnd(book.hold(), unknown)
    assert recovery.write_kept(tx, kept) is recovery.Fate.UNKNOWN
    assert recovery.expire_open_holds(tx, now_ms=NOW_MS) == 1
    assert not_planned("recovery.py", planned) == set()


def the_same(tx: Any) -> Callable[[], Any]:  # noqa: ANN401
    @contextmanager
    def opened() -> Iterator[Any]:
        yield tx

    return opened


def test_what_pages_and_lists_ask_goes_by_index(book: Book, planned: Planned) -> None:
    tx: Any = planned
    wide = reports.RequestFilter()
    for wanted in (
        wide,
        reports.RequestFilter(user_id=book.user_id),
        reports.RequestFilter(state="open"),
        reports.RequestFilter(user_id=book.user_id, since_ms=5, until_ms=NOW_MS, key="laptop"),
    ):
        reports.list_requests(tx, wanted, limit=10)
        list(reports.request_pages(the_same(tx), wanted))
    for by in reports.GROUPINGS:
        for wanted in (wide, reports.RequestFilter(user_id=book.user_id)):
            reports.summarise(the_same(tx), wanted, by)
            part = reports.RequestFilter(
                user_id=wanted.user_id, since_ms=NOW_MS, until_ms=NOW_MS + 3 * DAY_MS
            )
            reports.summarise(the_same(tx), part, by)
    reports.find_own_key(tx, book.user_id, 1, now_ms=NOW_MS)
    for group in reports.OWN_GROUPS:
        reports.sum_own(tx, book.user_id, group, since_ms=1, until_ms=NOW_MS, limit=9, after="a")
    reports.find_request(tx, RequestIds().new(NOW_MS))
    reports.find_request_ids(tx, "0" * 8, limit=5)
    reports.list_credits(tx, book.wallet_id, limit=5)
    reports.standing(tx)
    reports.newest_request_ms(tx)
    reports.count_open_holds(tx, before_ms=NOW_MS)
    reports.pruned_before_ms(tx)


def test_what_one_user_asks_passes_over_the_requests_of_others(
    book: Book, planned: Planned
) -> None:
    tx: Any = planned
    own = reports.RequestFilter(user_id=book.user_id, since_ms=1, until_ms=NOW_MS)
    reports.list_requests(tx, own, limit=10)
    reports.summarise(the_same(tx), own, "day")
    reports.sum_own(tx, book.user_id, "day", since_ms=1, until_ms=NOW_MS, limit=9)
    steps = [step for plan in planned.plans.values() for step in plan]
    of_requests = [step for step in steps if step.startswith("SEARCH requests ")]
    assert len(of_requests) >= 4
    assert [step for step in of_requests if "USING INDEX requests_user" not in step] == []


def test_a_key_that_asks_about_itself_reads_one_minute_and_sums(
    book: Book, planned: Planned
) -> None:
    tx: Any = planned
    limit_store.set_key_limits(tx, [1], {"daily_budget_nanousd": 1})
    reports.find_own_key(tx, book.user_id, 1, now_ms=NOW_MS)
    assert [sql for sql in planned.plans if "duration_ms" in sql] == []
    # Only for the speed of spending is more to be read.
    limit_store.set_key_limits(tx, [1], {"spend_per_hour_nanousd": 1})
    reports.find_own_key(tx, book.user_id, 1, now_ms=NOW_MS)
    (recent,) = (sql for sql in planned.plans if "duration_ms" in sql)
    assert "USING INDEX requests_user (user_id=? AND id>?)" in planned.plans[recent][0]


def test_a_prune_goes_by_index(book: Book, planned: Planned) -> None:
    tx: Any = planned
    ledger.record_unheld(
        tx, RequestIds().new(5), api_key_id=1, endpoint="x", outcome=book.outcome(), now_ms=5
    )
    assert pruning.find_prunable(the_same(tx), 1).rows == 1
    pruning.note_prune(tx, 1, actor="x", now_ms=NOW_MS)
    assert pruning.prune(the_same(tx), 1) == 1
    assert not_planned("pruning.py", planned) == set()


@pytest.mark.parametrize(
    "sql",
    [
        "SELECT * FROM requests WHERE model = 'x'",
        "SELECT count(*) FROM holds WHERE created_at_ms < 5",
        "SELECT * FROM transfers WHERE kind = 'charge'",
        "SELECT * FROM requests WHERE user_id = 1 ORDER BY created_at_ms",
        "UPDATE wallets SET held_nanousd = (SELECT count(*) FROM holds WHERE endpoint = 'x')",
    ],
)
def test_what_would_go_through_all_rows_is_noticed(book: Book, sql: str) -> None:
    with book.read() as tx:
        planned = Planned(tx, book.path)
        planned.execute(sql)
        planned.close()
    assert slow_steps(planned.plans[sql], sql) != []
