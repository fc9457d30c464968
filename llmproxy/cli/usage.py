"""Commands `usage …`: what was asked, and what it cost."""

import sys
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output, usage_export, usage_prune, usage_summary
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
    noun,
    rows_to_fetch,
)
from llmproxy.cli.output import Column
from llmproxy.cli.request_filter import request_filter, say_if_pruned

if TYPE_CHECKING:
    from llmproxy.reports import Request

app = noun(
    "Look at requests and their costs.",
    "llmproxy usage summary --by model --since 30d",
    "llmproxy usage requests --user ann",
)
app.command("summary", epilog=usage_summary.EXAMPLES)(usage_summary.summary)

SHORT_ID_CHARS = 20
STATES = ("open", "settled", "released", "expired", "refused")


@app.command(
    epilog=examples(
        "llmproxy usage requests --user ann --since 7d",
        "llmproxy usage requests --state open",
        "llmproxy usage requests --since 2026-11-01 --limit 0 --json",
    )
)
def requests(
    user: OfUser = None,
    key: OfKey = None,
    provider: OfProvider = None,
    model: OfModel = None,
    state: Annotated[
        str | None,
        typer.Option(
            metavar="STATE",
            help=f"Only {', '.join(STATES)}.",
            autocompletion=lambda incomplete: [s for s in STATES if s.startswith(incomplete)],
        ),
    ] = None,
    since: Since = None,
    until: Until = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """List requests, newest first. Running ones too: their state is open."""
    from llmproxy import reports

    if state is not None and state not in STATES:
        msg = f"{state!r:.40} is no state; choose one of {', '.join(STATES)}."
        raise typer.BadParameter(msg, param_hint="--state")
    with opening.reading() as tx:
        wanted = request_filter(
            tx,
            user=user,
            key=key,
            provider=provider,
            model=model,
            state=state,
            since=since,
            until=until,
        )
        rows = reports.list_requests(tx, wanted, limit=rows_to_fetch(limit))
        pruned_ms = reports.pruned_before_ms(tx)
    say_if_pruned(wanted, pruned_ms, is_full=len(rows) > limit > 0)
    rows = list(output.only(rows, limit))
    if as_json:
        output.print_json([row.as_json() for row in rows])
        return
    if not rows:
        output.say("No such requests." if wanted != reports.RequestFilter() else _NONE_YET)
        return
    _print_requests(rows)


app.command("export", epilog=usage_export.EXAMPLES)(usage_export.export)
app.command("prune", epilog=usage_prune.EXAMPLES)(usage_prune.prune)

_NONE_YET = "No requests yet. They come in while this runs: llmproxy serve"


def _print_requests(rows: "list[Request]") -> None:
    from llmproxy.clock import request_id_text
    from llmproxy.money import format_usd

    # On a terminal the beginning of an id does (`explain` takes it), a pipe gets all of it.
    id_chars = SHORT_ID_CHARS if sys.stdout.isatty() else None
    output.print_table(
        (
            Column("REQUEST"),
            Column("TIME (UTC)", "dim", is_optional=True),
            Column("USER", may_wrap=True),
            Column("MODEL", may_wrap=True),
            Column("STATE", "state"),
            Column("INPUT", "number", is_optional=True),
            Column("OUTPUT", "number", is_optional=True),
            Column("COST USD", "money"),
        ),
        [
            (
                request_id_text(row.id)[:id_chars],
                output.short_time(row.created_at_ms),
                row.user,
                row.full_model,
                row.state,
                *_tokens(row.usage_totals()),
                format_usd(row.cost_nanousd) if row.state not in {"open", "refused"} else "–",
            )
            for row in rows
        ],
    )


def _tokens(totals: dict[str, int] | None) -> tuple[str, str]:
    if totals is None:
        return "–", "–"
    names = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
    return f"{sum(totals[name] for name in names):,}", f"{totals['output']:,}"
