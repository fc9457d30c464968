"""Owns money as numbers: integer nano-dollars, exact rates, and the one rounding.

No float ever enters: text is read as a fraction, and what is not exact is refused. Must not do
I/O or know what is being paid for.

Units: balances and costs are nano-USD (1 USD = 10**9). A rate is nano-USD per million tokens.
A multiplier is in millionths (1_000_000 = times one).
"""

from decimal import ROUND_HALF_EVEN, Decimal
from fractions import Fraction
from math import prod

from llmproxy.errors import MoneyError

NANOUSD_PER_USD = 10**9
MULTIPLIER_ONE = 10**6
TOKENS_PER_RATE = 10**6

AMOUNT_NANOUSD_MAX = 10**9 * NANOUSD_PER_USD
"""A billion dollars: the largest amount accepted anywhere; int64 holds nine times as much."""
RATE_MAX = 10**6 * NANOUSD_PER_USD
MULTIPLIER_MAX = 1000 * MULTIPLIER_ONE

_COST_DIVISOR = TOKENS_PER_RATE * MULTIPLIER_ONE * MULTIPLIER_ONE


def parse_usd(text: str) -> int:
    """Return an amount of dollars such as `5.00` or `-0.25` as nano-USD, exactly.

    Raises:
        MoneyError: not a plain decimal, finer than a nano-dollar, or beyond a billion dollars.
    """
    return _parse(text, NANOUSD_PER_USD, "amount", "5.00", limit=AMOUNT_NANOUSD_MAX, signed=True)


def parse_rate(text: str) -> int:
    """Return a price in USD per million tokens as nano-USD per million tokens, exactly.

    Raises:
        MoneyError: not a plain decimal, negative, finer than 9 decimals, or absurdly large.
    """
    return _parse(text, NANOUSD_PER_USD, "price", "2.50", limit=RATE_MAX)


def parse_multiplier(text: str) -> int:
    """Return a multiplier such as `1.2` in millionths, exactly.

    Raises:
        MoneyError: not a plain decimal, negative, finer than 6 decimals, or above 1000.
    """
    return _parse(text, MULTIPLIER_ONE, "multiplier", "1.2", limit=MULTIPLIER_MAX)


def _parse(
    text: str, scale: int, what: str, example: str, *, limit: int, signed: bool = False
) -> int:
    plain = text.strip()
    digits = plain.removeprefix("-").replace(".", "", 1)
    if not (digits.isascii() and digits.isdecimal()) or len(plain) > 40:
        msg = f"{text!r:.60} is no {what}; write a plain decimal such as {example}."
        raise MoneyError(msg)
    # Not Decimal: it would round what has more than 28 digits.
    scaled = Fraction(plain) * scale
    value = scaled.numerator
    if scaled.denominator != 1:
        msg = f"{plain} is finer than 1/{scale}, the smallest {what} that can be kept exactly."
        raise MoneyError(msg)
    if value < 0 and not signed:
        msg = f"{plain} is below zero, which no {what} can be."
        raise MoneyError(msg)
    if abs(value) > limit:
        msg = f"{plain} is larger than any {what} can be."
        raise MoneyError(msg)
    return value


def format_usd(amount_nanousd: int) -> str:
    """Return nano-USD as an exact decimal string of dollars: `5.00`, `0.00012375`, `-1.50`."""
    sign = "-" if amount_nanousd < 0 else ""
    whole, rest = divmod(abs(amount_nanousd), NANOUSD_PER_USD)
    decimals = f"{rest:09d}".rstrip("0").ljust(2, "0")
    return f"{sign}{whole}.{decimals}"


def display_usd(amount_nanousd: int, digits: int = 6) -> str:
    """Return nano-USD rounded half-even for people's eyes, never for storing: `0.000124`."""
    value = Decimal(amount_nanousd) / NANOUSD_PER_USD
    return str(value.quantize(Decimal(1).scaleb(-digits), rounding=ROUND_HALF_EVEN))


def format_rate(rate: int) -> str:
    """Return a rate as dollars per million tokens: `2.50`, `0.075`."""
    return format_usd(rate)


def exact_decimal(value: int, decimals: int) -> str:
    """Return a value from 0 with its point moved to the left, exactly: `0.00012`, `2.50`."""
    whole, rest = divmod(value, 10**decimals)
    return f"{whole}.{f'{rest:0{decimals}d}'.rstrip('0').ljust(2, '0')}"


def format_rate_times(rate: int, *multipliers_micro: int) -> str:
    """Return a rate times multipliers in millionths as dollars per million tokens, exactly."""
    return exact_decimal(rate * prod(multipliers_micro), 9 + 6 * len(multipliers_micro))


def format_multiplier(multiplier_micro: int) -> str:
    """Return a multiplier in millionths as the shortest exact decimal: `1`, `1.2`."""
    whole, rest = divmod(multiplier_micro, MULTIPLIER_ONE)
    return f"{whole}.{rest:06d}".rstrip("0").rstrip(".")


def cost_nanousd(rated_tokens: int, user_multiplier_micro: int, model_multiplier_micro: int) -> int:
    """Return what an answer costs in nano-USD: the one place where money is rounded, upwards.

    Args:
        rated_tokens: sum of tokens × rate over all classes (nano-USD per million × tokens).
        user_multiplier_micro: the user's rate multiplier in millionths.
        model_multiplier_micro: the model's multiplier in millionths.
    """
    exact = rated_tokens * user_multiplier_micro * model_multiplier_micro
    return -(-exact // _COST_DIVISOR)


def affordable_tokens(
    available_nanousd: int,
    rate: int,
    user_multiplier_micro: int,
    model_multiplier_micro: int,
    *,
    besides: int = 0,
) -> int | None:
    """Return how many tokens at `rate` an amount pays for in full, or None when they are free.

    `besides` are rated tokens that must be paid too. The inverse of `cost_nanousd`: the cost of
    the returned number is never above the amount, unless that is 0 because nothing fits.
    """
    multipliers = user_multiplier_micro * model_multiplier_micro
    if rate * multipliers == 0:
        return None
    left = available_nanousd * _COST_DIVISOR - besides * multipliers
    return max(0, left) // (rate * multipliers)
