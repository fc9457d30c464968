"""Command `usage prune`: deletes the details of old requests; the ledger and all sums stay."""

import time
from typing import TYPE_CHECKING, Annotated

import typer

from llmproxy.cli import opening, output
from llmproxy.cli.options import Json, Yes, examples
from llmproxy.cli.progress import progress
from llmproxy.cli.times import TIME_HELP, parse_time

if TYPE_CHECKING:
    from llmproxy.pruning import Prunable
    from llmproxy.storage.database import AdminDatabase

EXAMPLES = examples(
    "llmproxy usage prune --before 90d --dry-run",
    "llmproxy usage prune --before 2026-01-01",
    "llmproxy usage prune --before 400d --yes --json",
)
CHECKPOINT_ROWS = 5000
"""After so many rows the write-ahead log is about 10 MB long, and must be copied."""
SERVER_LOOKS_S = 0.25
"""A server looks at the log this often, and copies it while nobody else writes."""


def prune(
    before: Annotated[
        str,
        typer.Option(metavar="TIME", help=f"Those that came before this day (UTC): {TIME_HELP}"),
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Count them, and delete nothing.")
    ] = False,
    yes: Yes = False,
    as_json: Json = False,
) -> None:
    """Delete the details of old requests. What was held and charged, and all sums, stay.

    Details are the rows of `usage requests`: usage, receipt, reason, times. Balances, credits,
    charges and the sums of `usage summary` stay as they are, and `explain` still shows what a
    request cost. Whole days are pruned, never today. May run beside the server; cut short, it
    goes on when it is run again. The file does not get smaller: its room is used again.
    """
    before_day = _day(before)
    with opening.database(must_exist=True) as database:
        found = _count(database, before_day)
        deleted = 0
        if found.rows and not dry_run:
            output.confirm(_question(found, before_day), yes=yes)
            deleted = _delete(database, before_day, found.rows)
        free_bytes = _free_bytes(database)
    if as_json:
        output.print_json(_as_json(before_day, found, deleted, free_bytes))
        return
    what = f"{output.counted(found.rows, 'request')} of before {_date(before_day)} (UTC)"
    if not found.rows:
        output.say(f"No requests of before {_date(before_day)} (UTC): nothing to prune.")
    elif dry_run:
        output.print_line(f"{what} would be pruned, the oldest of {_oldest(found)}.")
    else:
        pruned = f"{output.counted(deleted, 'request')} of before {_date(before_day)} (UTC)"
        output.print_line(f"{pruned} pruned.")
        output.say(_about_room(free_bytes))


def _day(before: str) -> int:
    """Return the first day that stays.

    Raises:
        typer.BadParameter: no time, or after today.
    """
    from llmproxy.rollups import day_of

    now_ms = opening.now_ms()
    day = day_of(parse_time(before, now_ms))
    if day > day_of(now_ms):
        msg = f"{before!r:.40} is after today; the latest is {_date(day_of(now_ms))} (UTC)."
        raise typer.BadParameter(msg, param_hint="--before")
    return max(0, day)


def _date(day: int) -> str:
    from llmproxy.clock import rfc3339
    from llmproxy.rollups import DAY_MS

    return (rfc3339(day * DAY_MS) or "")[:10]


def _oldest(found: "Prunable") -> str:
    return output.short_time(found.oldest_ms)[:10]


def _count(database: "AdminDatabase", before_day: int) -> "Prunable":
    from llmproxy import pruning

    counted = 0
    with progress("Counting") as report:

        def advance(rows: int) -> None:
            nonlocal counted
            counted += rows
            report(counted, counted)

        return pruning.find_prunable(database.read, before_day, on_counted=advance)


def _question(found: "Prunable", before_day: int) -> str:
    return (
        f"Delete the details of {output.counted(found.rows, 'request')} from {_oldest(found)} to "
        f"before {_date(before_day)} (UTC)? There is no way back but a backup."
    )


def _delete(database: "AdminDatabase", before_day: int, rows: int) -> int:
    from llmproxy import pruning

    with database.write() as tx:
        pruning.note_prune(tx, before_day, actor=opening.actor(), now_ms=opening.now_ms())
    done = copied = 0
    with progress("Pruning") as report:

        def advance(deleted: int) -> None:
            nonlocal done, copied
            done += deleted
            report(done, rows)
            if done - copied >= CHECKPOINT_ROWS:
                copied = done
                if not database.checkpoint_unless_served():
                    time.sleep(SERVER_LOOKS_S)

        return pruning.prune(database.write, before_day, on_deleted=advance)


def _free_bytes(database: "AdminDatabase") -> int:
    """Return how much of the file holds nothing."""
    with database.read() as tx:
        pages = int(tx.execute("PRAGMA freelist_count").fetchone()[0])
        return pages * int(tx.execute("PRAGMA page_size").fetchone()[0])


def _about_room(free_bytes: int) -> str:
    return (
        f"{free_bytes / 1e6:,.1f} MB of the file are free and are used before it grows again. "
        "To make it smaller, stop the server and run: llmproxy db vacuum"
    )


def _as_json(
    before_day: int, found: "Prunable", deleted: int, free_bytes: int
) -> dict[str, object]:
    from llmproxy.clock import rfc3339
    from llmproxy.rollups import DAY_MS

    return {
        "before": rfc3339(before_day * DAY_MS),
        "requests": found.rows,
        "oldest_at": rfc3339(found.oldest_ms),
        "deleted": deleted,
        "free_bytes": free_bytes,
    }
