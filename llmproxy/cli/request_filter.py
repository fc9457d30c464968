"""Owns how the options that choose requests become a filter of the reports."""

from typing import TYPE_CHECKING

from llmproxy.cli import opening, output
from llmproxy.cli.times import parse_time

if TYPE_CHECKING:
    from llmproxy.reports import RequestFilter
    from llmproxy.storage.database import Tx


def request_filter(
    tx: "Tx",
    *,
    user: str | None,
    key: str | None,
    provider: str | None,
    model: str | None,
    since: str | None,
    until: str | None,
    state: str | None = None,
) -> "RequestFilter":
    """Return the filter that the options ask for.

    Raises:
        NotFoundError: there is no such user.
        typer.BadParameter: a time that is none.
    """
    from llmproxy import accounts, reports

    now_ms = opening.now_ms()
    return reports.RequestFilter(
        user_id=accounts.find_user(tx, user).id if user else None,
        key=key,
        provider=provider,
        model=model,
        state=state,
        since_ms=parse_time(since, now_ms) if since else None,
        until_ms=parse_time(until, now_ms) if until else None,
    )


def say_if_pruned(wanted: "RequestFilter", pruned_before_ms: int | None, *, is_full: bool) -> None:
    """Say that older requests than those shown have been pruned, unless more are there anyway."""
    if pruned_before_ms is None or is_full or (wanted.since_ms or 0) >= pruned_before_ms:
        return
    day = output.short_time(pruned_before_ms)[:10]
    output.say(
        f"Requests from before {day} (UTC) have been pruned. Their sums: llmproxy usage summary"
    )
