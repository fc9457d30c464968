"""Owns how times and spans of time are written on the command line."""

import re
from datetime import UTC, datetime

import typer

_SPAN = re.compile(r"(\d{1,6})([smhd])")
_UNITS_MS = {"s": 1000, "m": 60_000, "h": 3_600_000, "d": 86_400_000}
TIME_HELP = "2026-11-23, 2026-11-23T09:30:00Z (UTC unless it says otherwise), or 90m, 24h, 7d ago."
END_HELP = "In 90m, 24h or 30d, or at a time such as 2026-12-31 (UTC)."


def parse_time(text: str, now_ms: int) -> int:
    """Return a moment in milliseconds from a date, a time or a span that ends now.

    Raises:
        typer.BadParameter: it is none of these.
    """
    span_ms = _span_ms(text)
    return _moment_ms(text, TIME_HELP) if span_ms is None else now_ms - span_ms


def parse_end(text: str, now_ms: int) -> int:
    """Return a moment in milliseconds from a date, a time or a span that begins now.

    Raises:
        typer.BadParameter: it is none of these.
    """
    span_ms = _span_ms(text)
    return _moment_ms(text, END_HELP) if span_ms is None else now_ms + span_ms


def parse_span(text: str) -> int:
    """Return a span of time such as `24h` in milliseconds.

    Raises:
        typer.BadParameter: it is none.
    """
    span_ms = _span_ms(text)
    if span_ms is None:
        msg = f"{text!r:.60} is no span of time. Write one such as 90m, 24h or 7d."
        raise typer.BadParameter(msg)
    return span_ms


def _span_ms(text: str) -> int | None:
    found = _SPAN.fullmatch(text)
    return int(found[1]) * _UNITS_MS[found[2]] if found else None


def _moment_ms(text: str, how: str) -> int:
    try:
        moment = datetime.fromisoformat(text)
    except ValueError as error:
        msg = f"{text!r:.60} is no time. Write one such as: {how}"
        raise typer.BadParameter(msg) from error
    if moment.tzinfo is None:
        moment = moment.replace(tzinfo=UTC)
    return int(moment.timestamp() * 1000)
