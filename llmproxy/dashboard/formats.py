"""Owns how amounts and times are shown on pages. Nothing shown here is read back."""

from datetime import UTC, datetime
from decimal import Decimal

from llmproxy.money import NANOUSD_PER_USD, display_usd, format_multiplier, format_usd

CENT = NANOUSD_PER_USD // 100
DAY_MS = 86_400_000


def dollars(amount_nanousd: int) -> str:
    """Return an amount to be read at a glance, rounded down: `4.98`; small ones finer."""
    if amount_nanousd == 0:
        return "0.00"
    if amount_nanousd >= 10 * CENT:
        return f"{amount_nanousd // NANOUSD_PER_USD:,}.{amount_nanousd // CENT % 100:02d}"
    return format_usd(amount_nanousd // 1000 * 1000)


def cost(amount_nanousd: int) -> str:
    """Return what something cost: `13.25`, below a dollar to the millionth: `0.000060`."""
    if amount_nanousd == 0:
        return "0.00"
    if amount_nanousd < 1000:
        return "<0.000001"
    if amount_nanousd >= NANOUSD_PER_USD:
        return f"{Decimal(display_usd(amount_nanousd, 2)):,}"
    return display_usd(amount_nanousd)


def number(value: int) -> str:
    """Return a whole number with commas."""
    return f"{value:,}"


def day(at_ms: int) -> str:
    """Return a date: `26 Nov 2026`."""
    return f"{_moment(at_ms):%-d %b %Y}"


def iso_day(at_ms: int) -> str:
    """Return a date (UTC) as sums name it: `2026-11-26`."""
    return f"{_moment(at_ms):%Y-%m-%d}"


def moment(at_ms: int) -> str:
    """Return a time (UTC) to the second: `26 Nov 20:04:11`."""
    return f"{_moment(at_ms):%-d %b %H:%M:%S}"


def full_moment(at_ms: int) -> str:
    """Return a time (UTC) to the second, with its year: `26 Nov 2026 20:04:11`."""
    return f"{_moment(at_ms):%-d %b %Y %H:%M:%S}"


def machine_time(at_ms: int) -> str:
    """Return a time as the attribute `datetime` has it."""
    return f"{_moment(at_ms):%Y-%m-%dT%H:%M:%SZ}"


def used_on(day_ms: int | None, now_ms: int) -> str:
    """Return when a key was last used, by the day (UTC)."""
    if day_ms is None:
        return "never"
    days = now_ms // DAY_MS - day_ms // DAY_MS
    if days < 2:
        return "yesterday" if days == 1 else "today"
    return f"{days} days ago" if days < 31 else day(day_ms)


def _moment(at_ms: int) -> datetime:
    return datetime.fromtimestamp(at_ms // 1000, tz=UTC)


FILTERS = {
    "dollars": dollars,
    "exact": format_usd,
    "cost": cost,
    "number": number,
    "factor": format_multiplier,
    "day": day,
    "moment": moment,
    "full_moment": full_moment,
    "machine_time": machine_time,
}
