"""Command `usage summary`: requests, tokens and money, summed up."""

from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import (
    LIMIT_DEFAULT,
    Json,
    Limit,
    OfKey,
    OfModel,
    OfProvider,
    OfUser,
    Since,
    Until,
    examples,
)
from llmproxy.cli.output import Column
from llmproxy.cli.progress import progress
from llmproxy.cli.request_filter import request_filter

if TYPE_CHECKING:
    from llmproxy.reports import RequestFilter, Summary, Sums
    from llmproxy.storage.database import AdminDatabase

EXAMPLES = examples(
    "llmproxy usage summary",
    "llmproxy usage summary --by model --since 30d",
    "llmproxy usage summary --by key --user ann --json",
)
GROUPINGS = ("day", "user", "model", "provider", "key")


def summary(
    by: Annotated[
        str,
        typer.Option(
            metavar="WHAT",
            help=f"Sum up by {', '.join(GROUPINGS[:-1])} or {GROUPINGS[-1]}.",
            autocompletion=lambda incomplete: [
                name for name in GROUPINGS if name.startswith(incomplete)
            ],
        ),
    ] = "day",
    user: OfUser = None,
    key: OfKey = None,
    provider: OfProvider = None,
    model: OfModel = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """Sum up requests, tokens and money. By day (UTC) unless --by says otherwise.

    Running requests count when they have ended. INPUT includes CACHED. A shortfall is what
    answers cost above what their user had: the operator's. Requests that held nothing (refused
    or free ones) count under no model.
    """
    if by not in GROUPINGS:
        msg = f"{by!r:.40} is nothing to sum up by; choose one of {', '.join(GROUPINGS)}."
        raise typer.BadParameter(msg, param_hint="--by")
    with opening.database() as database:
        with database.read() as tx:
            wanted = request_filter(
                tx, user=user, key=key, provider=provider, model=model, since=since, until=until
            )
        sums = _sum_up(database, wanted, by)
    # The last days are the interesting ones; of anything else those that cost the most.
    names = list(reversed(sums.groups)) if by == "day" else list(sums.groups)
    names = list(output.only(names, limit))
    if by == "day":
        names.reverse()
    if sums.pruned_before_ms is not None:
        day = output.short_time(sums.pruned_before_ms)[:10]
        output.say(
            f"Requests from before {day} (UTC) have been pruned: only whole days of then are "
            "summed, not the part of a day that was asked for."
        )
    if as_json:
        output.print_json(_as_json(sums, names, wanted))
    elif not names:
        output.say("No requests that have ended.")
    else:
        _print(sums, names)


def _sum_up(database: "AdminDatabase", wanted: "RequestFilter", by: str) -> "Summary":
    from llmproxy import reports

    with progress("Summing up") as report:
        return reports.summarise(database.read, wanted, by, on_progress=report)


def _as_json(sums: "Summary", names: list[str], wanted: "RequestFilter") -> dict[str, object]:
    from llmproxy.clock import rfc3339

    return {
        "by": sums.by,
        "since": rfc3339(wanted.since_ms),
        "until": rfc3339(wanted.until_ms),
        "pruned_before": rfc3339(sums.pruned_before_ms),
        "rows": [{sums.by: name, **sums.groups[name].as_json()} for name in names],
        "total": sums.total.as_json(),
    }


def _print(sums: "Summary", names: list[str]) -> None:
    groups = [sums.groups[name] for name in names]
    shares = [group.charged_nanousd for group in groups]
    output.print_table(
        (
            Column(f"{sums.by.upper()}{' (UTC)' if sums.by == 'day' else ''}", may_wrap=True),
            Column("REQUESTS", "number"),
            Column("INPUT", "number"),
            Column("CACHED", "number", is_optional=True),
            Column("OUTPUT", "number"),
            Column("CHARGED USD", "money"),
            Column("SHORTFALL USD", "money", is_optional=not sums.total.shortfall_nanousd),
            Column("REFUSED", "number", is_optional=True),
        ),
        [_cells(name, group) for name, group in zip(names, groups, strict=True)],
        total=_cells("total", sums.total),
        # Where nothing costs anything, the number of requests tells as much.
        shares=shares if any(shares) else [group.requests for group in groups],
    )


def _cells(name: str, sums: "Sums") -> tuple[str, ...]:
    from llmproxy.money import format_usd

    numbers = (sums.requests, sums.input, sums.cached, sums.output)
    return (
        name,
        *(f"{number:,}" for number in numbers),
        format_usd(sums.charged_nanousd),
        format_usd(sums.shortfall_nanousd),
        f"{sums.refused:,}",
    )
