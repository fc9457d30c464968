"""Show a report to people: tables of few columns, each with a heading that says the unit."""

from typing import Any

from rich.box import SIMPLE
from rich.console import Console, RenderableType
from rich.table import Table

from benchmarks.figures import SHARES
from benchmarks.measure import Row

WIDTH_MIN = 126
BUSY_MAX = 0.9


def show(report: Row) -> None:
    """Print all of it."""
    console = Console(width=max(Console().width, WIDTH_MIN))
    console.print("  ".join(f"{name} {value}" for name, value in report["machine"].items()))
    for table in _tables(report):
        console.print(table)
    for line in _lines(report):
        console.print(line, highlight=False, markup=False)


def _tables(report: Row) -> list[RenderableType]:
    tables: list[RenderableType] = []
    if report["rows"]:
        tables += [_costs(report["rows"]), _times("latency", report["rows"], "latency_us")]
        tables += [_times("first byte", report["rows"], "first_us")]
        delayed = [row for row in report["rows"] if row["delay_us"]["p50"] is not None]
        tables += [_times("delay of each event", delayed, "delay_us")] if delayed else []
        tables += [_added(report["added"])] if report["added"] else []
    if "by_ledger_rows" in report:
        tables.append(_ledgers(report["by_ledger_rows"]))
    if "memory" in report:
        tables.append(_memory(report["memory"]))
    return tables


def _table(title: str, words: list[str], figures: list[str]) -> Table:
    table = Table(title=title, title_justify="left", box=SIMPLE)
    for heading in words:
        table.add_column(heading, no_wrap=True)
    for heading in figures:
        table.add_column(heading, justify="right", no_wrap=True)
    return table


def _figure(value: Any) -> str:  # noqa: ANN401 - a figure of any kind, or none
    return "–" if value is None else f"{value:,}"


def _costs(rows: list[Row]) -> Table:
    columns = {
        "requests/s": "requests_per_s",
        "CPU µs": "cpu_us",
        "calm": "cpu_us_calm",
        "µs a chunk": "cpu_us_per_chunk",
        "RSS MB": "rss_mb",
        "provider busy": "provider_busy",
        "load busy": "load_busy",
        "failed": "failed",
    }
    table = _table("What a request costs", ["scenario", "server"], list(columns))
    for row in rows:
        figures = [_figure(row[name]) for name in columns.values()]
        table.add_row(row["scenario"], row["target"], *figures)
    return table


def _times(title: str, rows: list[Row], key: str) -> Table:
    table = _table(f"{title}, µs".capitalize(), ["scenario", "server"], list(SHARES))
    for row in rows:
        figures = [_figure(row[key][name]) for name in SHARES]
        table.add_row(row["scenario"], row["target"], *figures)
    return table


def _added(rows: list[Row]) -> Table:
    columns = [*SHARES, "first p50", "first p99", "event p50", "event p99"]
    table = _table("What llmproxy adds to the direct call, µs", ["scenario"], columns)
    for row in rows:
        figures = [row["latency_us"][name] for name in SHARES]
        figures += [row[key][name] for key in ("first_us", "delay_us") for name in ("p50", "p99")]
        table.add_row(row["scenario"], *map(_figure, figures))
    return table


def _ledgers(rows: list[Row]) -> Table:
    columns = {
        "rows before": "rows",
        "requests/s": "requests_per_s",
        "CPU µs": "cpu_us",
        "start s": "start_s",
        "RSS MB": "rss_mb",
        "database MB": "database_mb",
        "filled in s": "filled_s",
    }
    table = _table("32 connections, by the size of the ledger", [], list(columns))
    for row in rows:
        table.add_row(*(_figure(row[name]) for name in columns.values()))
    return table


def _memory(curve: list[tuple[int, float]]) -> Table:
    table = _table("Resident memory over requests", [], ["requests", "MB"])
    highest = max(mb for _, mb in curve)
    table.add_column("")
    for requests, mb in curve:
        table.add_row(f"{requests:,}", f"{mb:,}", "█" * round(40 * mb / highest))
    return table


def _lines(report: Row) -> list[str]:
    """Return what fits a line each."""
    lines = []
    if "server" in report:
        server = report["server"]
        lines.append(
            f"llmproxy: started in {server['start_s']} s; memory {server['rss_start_mb']} MB at "
            f"the start, {server['rss_peak_mb']} MB at most, {server['rss_after_mb']} MB after"
        )
    for name in ("start", "help"):
        if name in report:
            moment = report[name]
            lines.append(
                f"{name}: {moment['clock_ms']} ms, {moment['cpu_ms']} ms of it CPU "
                f"(median of {moment['runs']})"
            )
    for name, why in report.get("peers_skipped", {}).items():
        lines.append(f"{name}: skipped, {why.splitlines()[0]}")
    lines += [
        f"{row['target']}: {row['failed']} failed in {row['scenario']}: {row['example'][:100]}"
        for row in report["rows"]
        if row["failed"]
    ]
    answers = sum(ledger["answers"] for ledger in report["ledgers"])
    charged = sum(ledger["charged_nanousd"] for ledger in report["ledgers"])
    if report["ledgers"] and not report["problems"]:
        lines.append(
            f"ledger: {answers:,} answers, {charged:,} nano-USD, equal to the provider's own count"
        )
    return lines + busy_notes(report["rows"])


def busy_notes(rows: list[Row]) -> list[str]:
    """Return where the provider or the load generator was the bottleneck, not the server."""
    return [
        f"note: {row['scenario']} on {row['target']}: the {name} was busy {row[key]:.0%} of a core"
        for row in rows
        for name, key in (("provider", "provider_busy"), ("load generator", "load_busy"))
        if row["target"] != "direct" and row[key] > BUSY_MAX
    ]
