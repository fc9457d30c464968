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
    that was asked for, else the id of another model that did part of the work. `cache_write` is
    what was written for a time that the answer does not tell: the request does (`with_writes`).
    """

    input: int = 0
    cache_read: int = 0
    cache_write_5m: int = 0
    cache_write_1h: int = 0
    output: int = 0
    reasoning: int = 0
    web_searches: int = 0
    cache_write: int = 0
    model: str | None = None

    @property
    def input_side(self) -> int:
        """All input tokens, cached or not: what long-context tiers are chosen by."""
        written = self.cache_write_5m + self.cache_write_1h + self.cache_write
        return self.input + self.cache_read + written


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one answer used: one leg per billing model, and what moves the price."""

    legs: tuple[Leg, ...]
    service_tier: str | None = None
    speed: str | None = None
    geo: str | None = None


def with_writes(usage: Usage, *, may_be_1h: bool) -> Usage:
    """Return a usage whose cache writes all have their time: the dearer one that was asked for."""
    if not any(leg.cache_write for leg in usage.legs):
        return usage
    return msgspec.structs.replace(
        usage, legs=tuple(_leg_with_writes(leg, may_be_1h=may_be_1h) for leg in usage.legs)
    )


def _leg_with_writes(leg: Leg, *, may_be_1h: bool) -> Leg:
    name = "cache_write_1h" if may_be_1h else "cache_write_5m"
    written = getattr(leg, name) + leg.cache_write
    return msgspec.structs.replace(leg, **{name: written, "cache_write": 0})


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
