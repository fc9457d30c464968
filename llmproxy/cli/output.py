"""Owns how commands speak: data on stdout, messages on stderr, tables, JSON, questions.

Tables use rich on a terminal only; in a pipe they are plain aligned text. Text from outside is
printed without control characters, so that no name or provider's answer can steer the terminal.
"""

import json
import re
import shutil
import sys
import textwrap
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, NamedTuple, TypeVar

import typer

from llmproxy.cells import CONTROL

if TYPE_CHECKING:
    from rich.console import RenderableType

T = TypeVar("T")
WRAPPED_CHARS_MIN = 12
"""No column that wraps gets narrower than this, if it holds anything longer."""
WRAPPED_CHARS_WANTED = 32
"""Optional columns give way until one that wraps has this much: room for most models' ids."""
BAR_CHARS_MIN = 8
BAR_CHARS_MAX = 40

_STYLES = {
    "active": "green",
    "ok": "green",
    "settled": "green",
    "open": "cyan",
    "live": "green",
    "warn": "yellow",
    "paused": "yellow",
    "suspended": "red",
    "out_of_quota": "yellow",
    "expired": "yellow",
    "replaced": "yellow",
    "fail": "red",
    "dead": "red",
    "refused": "red",
    "disabled": "dim",
    "revoked": "dim",
    "released": "dim",
    "not set up": "dim",
    "no active keys": "yellow",
    "unreachable": "red",
    "sealed": "red",
}


class Column(NamedTuple):
    """A column of a table.

    `kind` is `text`, `number` (right-aligned), `money` (aligned at the decimal point), `state`
    (coloured by its word) or `dim`. On a narrow terminal optional columns are left out, the
    rightmost first, until the others are readable; then those that may wrap give way.
    """

    title: str
    kind: str = "text"
    may_wrap: bool = False
    is_optional: bool = False


def clean(text: str) -> str:
    """Return text without characters that steer a terminal or reorder its letters."""
    return CONTROL.sub("", text)


def counted(number: int, noun: str) -> str:
    """Return a number with its noun: `1 user`, `2 users`."""
    return f"{number:,} {noun}" if number == 1 else f"{number:,} {noun}s"


def say(text: str) -> None:
    """Print a message for people, on stderr."""
    print(clean(text), file=sys.stderr)


def print_line(text: str) -> None:
    """Print a line of data, on stdout."""
    print(clean(text))


def print_json(value: object) -> None:
    """Print one JSON document; characters that steer terminals are escaped, nothing is lost."""
    text = json.dumps(value, ensure_ascii=False, indent=2)
    print(re.sub(r"[^\S\n ]|" + CONTROL.pattern.replace("\x00-\x1f", ""), _escaped, text))


def _escaped(match: re.Match[str]) -> str:
    return f"\\u{ord(match.group()):04x}"


def only(rows: Sequence[T], limit: int) -> Sequence[T]:
    """Return the first `limit` rows (0: all); say on stderr when there are more."""
    if not limit or len(rows) <= limit:
        return rows
    say(f"… more. Show them with --limit {limit * 10}, or all with --limit 0.")
    return rows[:limit]


def print_table(
    columns: Sequence[Column],
    rows: Iterable[Sequence[str]],
    *,
    total: Sequence[str] | None = None,
    shares: Sequence[int] | None = None,
) -> None:
    """Print rows under their column titles.

    Args:
        columns: what the columns are.
        rows: the cells, row by row.
        total: cells of a last row that sums the others up.
        shares: a number for each row, drawn as a bar on a terminal with room for bars.
    """
    cleaned = [[clean(cell) for cell in row] for row in (*rows, *([total] if total else []))]
    for index, column in enumerate(columns):
        if column.kind == "money":
            _align_points(cleaned, index)
    if not sys.stdout.isatty():
        _print_plain_table(columns, cleaned)
        return
    width = shutil.get_terminal_size().columns
    room = width - BAR_CHARS_MIN - 2 if shares else width
    _print_rich_table(*_fitting(columns, cleaned, room), width, shares, has_total=bool(total))


def _align_points(rows: list[list[str]], index: int) -> None:
    decimals = [len(row[index].partition(".")[2]) for row in rows]
    widest = max(decimals, default=0)
    for row, count in zip(rows, decimals, strict=True):
        row[index] += " " * (widest - count)


def _widths(columns: Sequence[Column], rows: list[list[str]]) -> list[int]:
    return [
        max(len(text) for text in (column.title, *(row[index] for row in rows)))
        for index, column in enumerate(columns)
    ]


def _fitting(
    columns: Sequence[Column], rows: list[list[str]], width: int
) -> tuple[list[Column], list[list[str]]]:
    """Return the table without as many optional columns as do not fit into the width."""
    widths = [
        min(each, WRAPPED_CHARS_WANTED) if column.may_wrap else each
        for each, column in zip(_widths(columns, rows), columns, strict=True)
    ]
    kept = list(range(len(columns)))
    for index in reversed(range(len(columns))):
        if sum(widths[each] + 2 for each in kept) - 2 <= width:
            break
        if columns[index].is_optional:
            kept.remove(index)
    return [columns[each] for each in kept], [[row[each] for each in kept] for row in rows]


def _print_plain_table(columns: Sequence[Column], rows: list[list[str]]) -> None:
    table = [[column.title for column in columns], *rows]
    widths = [max(len(row[index]) for row in table) for index in range(len(columns))]
    for row in table:
        cells = [
            cell.rjust(width) if column.kind in {"number", "money"} else cell.ljust(width)
            for cell, width, column in zip(row, widths, columns, strict=True)
        ]
        print("  ".join(cells).rstrip())


def _print_rich_table(
    columns: Sequence[Column],
    rows: list[list[str]],
    width: int,
    shares: Sequence[int] | None,
    *,
    has_total: bool,
) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    widths = _widths(columns, rows)
    for column, natural in zip(columns, widths, strict=True):
        table.add_column(
            column.title,
            justify="right" if column.kind in {"number", "money"} else "left",
            style="dim" if column.kind == "dim" else "",
            no_wrap=not column.may_wrap,
            min_width=min(natural, WRAPPED_CHARS_MIN) if column.may_wrap else None,
            overflow="fold" if column.may_wrap else "ellipsis",
        )
    console = Console(highlight=False)
    room = width - sum(each + 2 for each in widths)
    bars = _bars(shares or (), min(room, BAR_CHARS_MAX), console.encoding)
    if bars:
        table.add_column("")
    for index, row in enumerate(rows):
        cells: list[RenderableType] = [
            Text(cell, style=_STYLES.get(cell, "") if column.kind == "state" else "")
            for cell, column in zip(row, columns, strict=True)
        ]
        is_total = has_total and index == len(rows) - 1
        table.add_row(*cells, *bars[index : index + 1], style="bold" if is_total else "")
    console.print(table)


def _bars(shares: Sequence[int], chars: int, encoding: str) -> "list[RenderableType]":
    """Return a bar for each share, the largest filling `chars`; none where they cannot be shown."""
    from rich.bar import Bar

    if chars < BAR_CHARS_MIN or not any(shares) or not encoding.lower().startswith("utf"):
        return []
    largest = max(shares)
    return [Bar(largest, 0, share, width=chars, color="cyan") for share in shares]


def print_fields(fields: Iterable[tuple[str, str]]) -> None:
    """Print labelled values, one per line; labels are dim on a terminal."""
    pairs = [(label, clean(value)) for label, value in fields]
    width = max((len(label) for label, _ in pairs), default=0)
    for label, value in pairs:
        padded = label.ljust(width)
        print(f"{dim(padded)}  {value}".rstrip())


def print_hanging(head: str, text: str, indent: int) -> None:
    """Print text behind a head; on a terminal it is wrapped and goes on below its beginning."""
    cleaned = clean(text)
    if sys.stdout.isatty():
        width = max(20, shutil.get_terminal_size().columns - indent)
        lines = textwrap.wrap(cleaned, width, break_on_hyphens=False, break_long_words=False)
        cleaned = ("\n" + " " * indent).join(lines)
    print(head + cleaned)


def dim(text: str) -> str:
    """Return text as secondary on a terminal that shows styles, else as it is."""
    return typer.style(text, dim=True) if _shows_styles() else text


def coloured(word: str, width: int = 0) -> str:
    """Return a state's word, padded to `width`, in its colour where colours are shown."""
    style = _STYLES.get(word)
    padded = word.ljust(width)
    if style is None or not _shows_styles():
        return padded
    return dim(padded) if style == "dim" else typer.style(padded, fg=style)


def _shows_styles() -> bool:
    if not sys.stdout.isatty():
        return False
    from rich.console import Console

    console = Console()
    return console.color_system is not None and not console.no_color


def confirm(question: str, *, yes: bool) -> None:
    """Ask before something that is hard to undo; return only when it is wanted.

    Raises:
        typer.BadParameter: there is nobody to ask and `--yes` was not given.
        typer.Exit: the answer was no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        msg = f"{clean(question)} There is nobody to ask here: add --yes."
        raise typer.BadParameter(msg)
    if not typer.confirm(clean(question), err=True):
        say("Nothing was changed.")
        raise typer.Exit(1)


def short_time(at_ms: int | None) -> str:
    """Return a time for a table: `2026-11-23 15:47:02`, in UTC."""
    from llmproxy.clock import rfc3339

    text = rfc3339(at_ms)
    return text[:19].replace("T", " ") if text else ""
