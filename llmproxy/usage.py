"""Owns the one normal form of usage that every dialect is read into.

The classes of a leg are disjoint: `input` holds only fresh input tokens, cached ones stand in
their own classes (providers differ in this: reference wire.md A.0). Must not know prices or
wire formats.
"""

import msgspec

TOKENS_MAX = 2**31
"""No honest answer reports more tokens than this in one class; more is absurd, not a bill."""


class Leg(msgspec.Struct, frozen=True, omit_defaults=True):
    """Tokens that one model billed within an answer. All counts are tokens but `web_searches`.

    `reasoning` is information only: it is already inside `output`. `model` is None for the model
    that was asked for, else the id of another model that did part of the work.
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    web_searches: int = 0
    model: str | None = None

    @property
    def input_side(self) -> int:
        """All input tokens, cached or not: what long-context tiers are chosen by."""
        return self.input + self.cache_read + self.cache_write_5m + self.cache_write_1h


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one answer used: one leg per billing model, and what moves the price."""

    legs: tuple[Leg, ...]
    service_tier: str | None = None
    speed: str | None = None
    geo: str | None = None


class UsageError(ValueError):
    """The provider's usage record is absurd (negative, fractional, huge): never to be trusted."""


def count(value: object) -> int:
    """Return a token count as reported, None counting as 0.

    Raises:
        UsageError: not a whole number from 0 to TOKENS_MAX (`true` and `3.0` are refused too).
    """
    if value is None:
        return 0
    if type(value) is not int or not 0 <= value <= TOKENS_MAX:
        msg = f"absurd token count {value!r:.40}"
        raise UsageError(msg)
    return value


class Movers(msgspec.Struct, frozen=True):
    """What moves the price besides token counts, as a request asks or an answer reports."""

    service_tier: str | None = None
    speed: str | None = None
    geo: str | None = None
