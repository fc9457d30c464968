"""Commands `ledger …`: the proof that the books are right."""

from typing import TYPE_CHECKING

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import Json, examples, noun
from llmproxy.cli.progress import progress

if TYPE_CHECKING:
    from llmproxy.ledger_check import Report
    from llmproxy.storage.database import Tx

app = noun(
    "Check the ledger.",
    "llmproxy ledger verify",
)


@app.callback()
def group() -> None:
    """Check the ledger."""


@app.command(epilog=examples("llmproxy ledger verify", "llmproxy ledger verify --json"))
def verify(as_json: Json = False) -> None:
    """Check all balances and all costs. Exits with 1 on any difference.

    Derives every balance again, and prices every stored usage again. It only reads, and may
    run beside the server: it sees one consistent moment.
    """
    with opening.database(must_exist=True) as database, database.read() as tx:
        report = verify_with_progress(tx)
    if as_json:
        output.print_json(report.as_json())
    else:
        print_report(report)
    if not report.is_ok:
        raise typer.Exit(1)


def verify_with_progress(tx: "Tx") -> "Report":
    """Check the whole ledger, with a bar on a terminal."""
    from llmproxy import ledger_check

    total = ledger_check.count_rows(tx)
    done = 0
    with progress("Checking") as report:

        def advance(rows: int) -> None:
            nonlocal done
            done += rows
            report(done, total)

        return ledger_check.verify(tx, on_progress=advance)


def print_report(report: "Report") -> None:
    """Print what was checked and what was found."""
    counts = (f"{what.replace('_', ' ')} {count:,}" for what, count in report.checked.items())
    output.say(f"Checked: {', '.join(counts)}.")
    for problem in report.problems:
        output.print_line(f"{problem.row}: {problem.message}")
    if report.is_ok:
        output.print_line("The ledger is right.")
        return
    hidden = report.found - len(report.problems)
    more = f" ({hidden:,} of them not shown)" if hidden else ""
    output.say(
        f"{report.found:,} problems found{more}. Keep a copy of the database and look at it."
    )
