"""Owns how limits are written on the command line, and how they are shown."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any

import typer

from llmproxy.cli import output

if TYPE_CHECKING:
    from llmproxy.limits import Limits
    from llmproxy.reports import LimitsUse

NONE = "none"

Rpm = Annotated[
    str | None, typer.Option("--rpm", metavar="N", help="Requests per minute; none lifts it.")
]
Tpm = Annotated[
    str | None,
    typer.Option(
        "--tpm",
        metavar="N",
        help="Tokens per minute, in and out; none lifts it. They are counted when answers end: "
        "set --concurrent too.",
    ),
]
Concurrent = Annotated[
    str | None,
    typer.Option("--concurrent", metavar="N", help="Requests running at once; none lifts it."),
]
DailyBudget = Annotated[
    str | None,
    typer.Option("--daily-budget", metavar="USD", help="Most to spend on a day (UTC), or none."),
]
MonthlyBudget = Annotated[
    str | None,
    typer.Option("--monthly-budget", metavar="USD", help="Most to spend in a month, or none."),
]
SpendPerHour = Annotated[
    str | None,
    typer.Option(
        "--spend-per-hour",
        metavar="USD",
        help="Suspend the key when its last ten minutes were faster than this, or none.",
    ),
]
Models = Annotated[
    str | None,
    typer.Option("--models", metavar="IDS", help="Such as gpt-4o-mini,claude-*, or none."),
]
Providers = Annotated[
    str | None, typer.Option("--providers", metavar="NAMES", help="Such as openai,groq, or none.")
]
Networks = Annotated[
    str | None,
    typer.Option("--networks", metavar="CIDRS", help="Such as 10.0.0.0/8,::1, or none."),
]


def parse_limits(params: Mapping[str, Any]) -> dict[str, object]:
    """Return the changes that a command's options ask for, by the names of the fields of `Limits`.

    What is not given stays; `none` lifts a limit. See `limit_store.set_key_limits`.

    Args:
        params: all that the command was called with (its context's `params`).

    Raises:
        typer.BadParameter: one is not as it must be.
        MoneyError: an amount is none.
    """
    from llmproxy.limit_texts import OPTIONS, LimitTextError, parse_limit

    changes: dict[str, object] = {}
    for field, option in OPTIONS.items():
        text = params.get(option.removeprefix("--").replace("-", "_"))
        if text is None:
            continue
        try:
            changes[field] = None if text == NONE else parse_limit(field, text)
        except LimitTextError as error:
            msg = f"{option} {error} To lift the limit: none"
            raise typer.BadParameter(msg) from error
    models = changes.get("models")
    if isinstance(models, tuple):
        changes["models"] = _catalog_ids(models)
    return changes


def _catalog_ids(members: tuple[str, ...]) -> tuple[str, ...]:
    """Return models by their ids; what the catalog does not have yet is told, and taken."""
    from llmproxy.cli import opening
    from llmproxy.limit_texts import catalog_ids

    ids, unknown = catalog_ids(members, opening.catalog())
    for name in unknown:
        output.say(f"Note: {name!r:.80} is not in the model catalog.")
    return ids


def limit_fields(limits: "Limits | None", used: "LimitsUse | None") -> list[tuple[str, str]]:
    """Return labels and texts of the limits that are set, each with what is used of it."""
    from llmproxy.money import format_usd

    if limits is None:
        return [("limits", "none")]
    counts = (
        ("requests", limits.requests_per_minute, used and used.requests_last_minute, "per minute"),
        ("tokens", limits.tokens_per_minute, used and used.tokens_last_minute, "per minute"),
        ("at once", limits.concurrent_max, used and used.running, "requests"),
    )
    amounts = (
        ("daily budget", limits.daily_budget_nanousd, used and used.today, "today"),
        ("monthly budget", limits.monthly_budget_nanousd, used and used.month, "this month"),
        (
            "spend per hour",
            limits.spend_per_hour_nanousd,
            used and used.last_10_minutes,
            "in ten minutes",
        ),
    )
    fields = [
        (label, f"{most:,} {unit}" + ("" if now is None else f", {now:,} now"))
        for label, most, now, unit in counts
        if most is not None
    ]
    fields += [
        (
            label,
            f"{format_usd(most)} USD" + ("" if now is None else f", {format_usd(now)} {when}"),
        )
        for label, most, now, when in amounts
        if most is not None
    ]
    lists = (
        ("models", limits.models),
        ("providers", limits.providers),
        ("networks", limits.networks),
    )
    fields += [(label, ", ".join(map(str, each))) for label, each in lists if each is not None]
    return fields
