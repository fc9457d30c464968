"""Commands `ledger …`: the proof that the books are right."""

import sys
from typing import TYPE_CHECKING

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import Json, examples, noun

if TYPE_CHECKING:
    from llmproxy.ledger_check import Report
    from llmproxy.storage.database import Tx

app = noun("Check the ledger.")


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
        report = _verify(tx)
    if as_json:
        output.print_json(report.as_json())
    else:
        _print_report(report)
    if not report.is_ok:
        raise typer.Exit(1)


def _verify(tx: "Tx") -> "Report":
    from llmproxy import ledger_check

    if not sys.stderr.isatty():
        return ledger_check.verify(tx)
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("Checking", total=ledger_check.count_rows(tx))
        return ledger_check.verify(tx, on_progress=lambda n: progress.advance(task, n))


def _print_report(report: "Report") -> None:
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
