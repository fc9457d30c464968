"""The checks of `doctor` that ask the ledger."""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from llmproxy.cli import output
from llmproxy.cli.checks import Check

if TYPE_CHECKING:
    from llmproxy.reports import Standing
    from llmproxy.storage.database import Tx

CLOCK_SLACK_MS = 60_000


def check_ledger(
    tx: "Tx", *, now_ms: int, is_served: bool, total_timeout_s: int
) -> Iterator[Check]:
    """Look at open holds, shortfalls, credit and the clock."""
    from llmproxy import reports
    from llmproxy.money import format_usd

    now = reports.standing(tx)
    overdue = reports.count_open_holds(tx, before_ms=now_ms - total_timeout_s * 1000)
    yield _check_holds(now, overdue, is_served=is_served, total_timeout_s=total_timeout_s)
    yield _check_shortfalls(now)
    balance = f"{output.counted(now.users, 'user')} with {format_usd(now.balance_nanousd)} USD"
    yield Check("credit", "ok", f"{balance}; prove it with: llmproxy ledger verify")
    yield from _check_pool(tx)
    yield _check_clock(reports.newest_request_ms(tx), now_ms)


def _check_holds(now: "Standing", overdue: int, *, is_served: bool, total_timeout_s: int) -> Check:
    from llmproxy.money import format_usd

    held = f"{now.open_holds} open, {format_usd(now.held_nanousd)} USD held"
    if now.open_holds and not is_served:
        advice = "The next start of the server ends them."
        return Check("holds", "warn", f"{held}, but no server runs", advice)
    if overdue:
        message = f"{held}; {overdue} of them longer than total_timeout_s ({total_timeout_s} s)"
        advice = (
            "No answer takes so long: look at llmproxy usage requests --state open. "
            "A restart of the server ends them."
        )
        return Check("holds", "warn", message, advice)
    return Check("holds", "ok", held)


def _check_shortfalls(now: "Standing") -> Check:
    from llmproxy.money import format_usd

    if not now.shortfalls:
        return Check("shortfalls", "ok", "none: every answer was paid in full")
    requests = output.counted(now.shortfalls, "request")
    message = f"{format_usd(now.shortfall_nanousd)} USD in {requests} were not paid"
    advice = "Answers cost more than was held and available: llmproxy usage summary --by user"
    return Check("shortfalls", "warn", message, advice)


def _check_pool(tx: "Tx") -> Iterator[Check]:
    """Say whether more was sold than is held at providers, where it was said what is."""
    from llmproxy.money import format_usd
    from llmproxy.pool import find_pool, warning

    pool = find_pool(tx)
    if said := warning(pool):
        advice = "Pay in there, then: llmproxy pool set PROVIDER USD; see: llmproxy pool show"
        yield Check("pool", "warn", said, advice)
    elif pool.funds:
        held = f"an estimated {format_usd(pool.left_nanousd)} USD at providers"
        yield Check("pool", "ok", f"{held}, users hold {format_usd(pool.sold_nanousd)} USD")


def _check_clock(newest_ms: int | None, now_ms: int) -> Check:
    if newest_ms is not None and newest_ms > now_ms + CLOCK_SLACK_MS:
        message = (
            f"it is {output.short_time(now_ms)} UTC here, but the newest request is of "
            f"{output.short_time(newest_ms)} UTC"
        )
        advice = "Set the machine's clock. Charges are right all the same; days in reports are not."
        return Check("clock", "warn", message, advice)
    return Check("clock", "ok", f"{output.short_time(now_ms)} UTC, no request is of the future")
