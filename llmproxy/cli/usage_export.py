"""Command `usage export`: requests as CSV or JSON Lines, however many there are."""

import contextlib
import csv
import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TextIO

import typer

from llmproxy.cells import safe_cell
from llmproxy.cli import opening, output
from llmproxy.cli.options import (
    OfKey,
    OfModel,
    OfProvider,
    OfUser,
    Since,
    Until,
    Yes,
    examples,
)
from llmproxy.cli.progress import progress, watched
from llmproxy.cli.request_filter import request_filter, say_if_pruned

if TYPE_CHECKING:
    from llmproxy.reports import Request

EXAMPLES = examples(
    "llmproxy usage export -o usage.csv",
    "llmproxy usage export --since 2026-11-01 --until 2026-12-01 --user ann > november.csv",
    "llmproxy usage export --format jsonl --since 24h",
)
FORMATS = ("csv", "jsonl")


def export(
    file_format: Annotated[
        str,
        typer.Option(
            "--format",
            metavar="FORMAT",
            help="csv, or jsonl: one JSON object per line.",
            autocompletion=lambda incomplete: [f for f in FORMATS if f.startswith(incomplete)],
        ),
    ] = "csv",
    file: Annotated[
        Path | None,
        typer.Option("--output", "-o", metavar="FILE", help="Write to a file, not to stdout."),
    ] = None,
    user: OfUser = None,
    key: OfKey = None,
    provider: OfProvider = None,
    model: OfModel = None,
    since: Since = None,
    until: Until = None,
    yes: Yes = False,
) -> None:
    """Write requests as CSV or JSON Lines. Oldest first.

    The fields are those of `usage requests --json`. Running requests are there too, their state
    is open. Any number of rows is written in constant
    memory. In CSV, what a spreadsheet would take for a formula gets a ' before it, and control
    characters are left out.
    """
    if file_format not in FORMATS:
        msg = f"{file_format!r:.40} is no format; choose csv or jsonl."
        raise typer.BadParameter(msg, param_hint="--format")
    if file is not None and file.exists():
        output.confirm(f"{file} exists. Replace it?", yes=yes)
    from llmproxy import reports

    with opening.database() as database:
        with database.read() as tx:
            wanted = request_filter(
                tx, user=user, key=key, provider=provider, model=model, since=since, until=until
            )
            pruned_ms = reports.pruned_before_ms(tx)
        until_ms = min(wanted.until_ms or opening.now_ms(), opening.now_ms())
        with _destination(file) as stream, progress("Exporting") as report:
            pages = watched(reports.request_pages(database.read, wanted), until_ms, report)
            rows = (row for page in pages for row in page)
            written = _WRITERS[file_format](stream, rows)
    say_if_pruned(wanted, pruned_ms, is_full=False)
    where = f" to {file}" if file else ""
    output.say(f"{output.counted(written, 'request')} written{where}.")


@contextlib.contextmanager
def _destination(file: Path | None) -> Iterator[TextIO]:
    """Open what to write to; a file appears under its name only when it is complete (mode 0600)."""
    if file is None:
        yield sys.stdout
        return
    partial = file.with_name(file.name + ".partial")
    try:
        descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8", newline="") as stream:  # noqa: PTH123
            yield stream
        partial.replace(file)
    except OSError as error:
        partial.unlink(missing_ok=True)
        msg = f"{file} cannot be written: {error.strerror}."
        raise typer.BadParameter(msg, param_hint="--output") from error
    except BaseException:
        partial.unlink(missing_ok=True)
        raise


def _write_jsonl(stream: TextIO, rows: "Iterable[Request]") -> int:
    written = 0
    for row in rows:
        # Only ASCII, so that no name can steer a terminal.
        stream.write(json.dumps(row.as_json(), separators=(",", ":")) + "\n")
        written += 1
    return written


def _write_csv(stream: TextIO, rows: "Iterable[Request]") -> int:
    from llmproxy.reports import USAGE_CLASSES

    writer = csv.DictWriter(stream, _columns(USAGE_CLASSES), lineterminator="\n")
    writer.writeheader()
    written = 0
    for row in rows:
        fields = row.as_json()
        usage = fields.pop("usage") or {}
        assert isinstance(usage, dict)
        fields |= {f"usage_{name}": tokens for name, tokens in usage.items()}
        writer.writerow({name: _cell(value) for name, value in fields.items()})
        written += 1
    return written


def _columns(usage_classes: Iterable[str]) -> list[str]:
    """Return the fields of a request in JSON, with a column for each class of usage."""
    return [
        *("id", "created_at", "user", "key", "provider", "endpoint", "model", "stream"),
        *("status", "state", "basis", "reason", *(f"usage_{name}" for name in usage_classes)),
        *("hold_usd", "cost_usd", "charged_usd", "shortfall_usd"),
        *("upstream_status", "ttfb_ms", "duration_ms"),
    ]


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "true" if value else "false"
    return safe_cell(value) if isinstance(value, str) else value


_WRITERS: dict[str, Callable[[TextIO, "Iterable[Request]"], int]] = {
    "csv": _write_csv,
    "jsonl": _write_jsonl,
}
