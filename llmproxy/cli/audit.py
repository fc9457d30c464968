"""Commands `audit …`: who has changed what."""

from typing import Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import LIMIT_DEFAULT, Json, Limit, examples, noun, rows_to_fetch
from llmproxy.cli.output import Column

app = noun(
    "Look up who has changed what.",
    "llmproxy audit list",
    "llmproxy audit list --text 'credits add'",
)


@app.callback()
def group() -> None:
    """Look up who has changed what."""


@app.command(
    "list",
    epilog=examples(
        "llmproxy audit list --limit 10",
        "llmproxy audit list --actor dashboard:ann",
        "llmproxy audit list --text 'credits add' --json",
    ),
)
def list_acts(
    actor: Annotated[
        str | None, typer.Option(metavar="WHO", help="Only by them, such as cli:root.")
    ] = None,
    text: Annotated[
        str | None, typer.Option(metavar="TEXT", help="Only acts with this in them.")
    ] = None,
    limit: Limit = LIMIT_DEFAULT,
    as_json: Json = False,
) -> None:
    """List what was changed, by commands and on the dashboard. Newest first.

    An act is written together with what it changes, in the words of the command
    line. It holds no secrets, and is never changed nor deleted.
    """
    from llmproxy import audit

    with opening.reading() as tx:
        found = audit.list_acts(tx, limit=rows_to_fetch(limit), actor=actor, text=text)
    acts = output.only(found, limit)
    if as_json:
        output.print_json([act.as_json() for act in acts])
        return
    if not acts:
        output.say("Nothing was changed yet, or nothing by them or like that.")
        return
    output.print_table(
        (
            Column("TIME (UTC)", "dim"),
            Column("BY"),
            Column("ACT"),
            Column("DETAILS", may_wrap=True),
        ),
        ((output.short_time(act.created_at_ms), act.actor, act.act, act.details) for act in acts),
    )
