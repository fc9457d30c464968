"""Owns the one normal form of usage that every dialect is read into.

The classes of a leg are disjoint: `input` holds only fresh input tokens, cached ones stand in
their own classes (providers differ in this: reference wire.md A.0). What is audio or an image of
them is a part of `input` and `output`, as `reasoning` is. Must not know prices or wire formats.
"""

import math
from decimal import Decimal

import msgspec

TOKENS_MAX = 2**31
"""No honest answer reports more tokens than this in one class; more is absurd, not a bill."""
PROVIDER_COST_MAX = 10**18
"""A thousand dollars, in 10⁻¹⁵ USD."""


class Leg(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one model billed within an answer: tokens, and the units at the end.

    `reasoning` is information only: it is already inside `output`. So are the tokens of audio and
    images inside `input` and `output`, but they may have prices of their own. `model` is None for
    the model that was asked for, else the id of another model that did part of the work.
    `cache_read_audio` is inside `cache_read`.
    `cache_write` is what was written for a time that the answer does not tell: the request does
    (`with_writes`). A write for 30 minutes counts as one for 5, one for 12 hours as one for 1.
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
    input_audio: int = 0
    input_image: int = 0
    output_audio: int = 0
    output_image: int = 0
    images: int = 0
    """Made by a model that bills by the image: then its tokens are not billed."""
    audio_seconds: int = 0
    """Listened to by a model that bills by the time; begun ones count."""
    characters: int = 0
    """Spoken by a model that bills by them."""
    cache_read_audio: int = 0
    round_input: int = 0
    """What a round read at least, where the leg is the sum of several (`of_rounds`); else 0."""
    cache_surplus: int = 0
    """Information only: so many of the cache were reported above all input, and do not count."""

    @property
    def input_side(self) -> int:
        """All input tokens, cached or not."""
        written = self.cache_write_5m + self.cache_write_1h + self.cache_write
        return self.input + self.cache_read + written

    @property
    def tier_input(self) -> int:
        """What long-context tiers are chosen by: the input of one round, as far as is known."""
        return self.round_input or self.input_side


class Usage(msgspec.Struct, frozen=True, omit_defaults=True):
    """What one answer used: one leg per billing model, and what moves the price."""

    legs: tuple[Leg, ...]
    service_tier: str | None = None
    speed: str | None = None
    geo: str | None = None
    provider_cost: int | None = None
    """What the provider itself says that it bills, in 10⁻¹⁵ USD; most say nothing."""


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


def of_rounds(leg: Leg, rounds_max: int) -> Leg:
    """Return a leg that knows that it is the sum of at most so many rounds, if not of one.

    A tool that runs at the provider makes it read its input again after each use, and what it
    reports is the sum. The largest round has at least the mean of them.
    """
    if rounds_max == 1:
        return leg
    return msgspec.structs.replace(leg, round_input=-(-leg.input_side // rounds_max))


def with_media(leg: Leg, of_input: tuple[int, int], of_output: tuple[int, int]) -> Leg:
    """Return a leg that says how much of it is audio, and how much images.

    Args:
        leg: the counts of all tokens.
        of_input: tokens of audio and of images, cached ones among them or not.
        of_output: the same of the output.
    """
    input_audio = min(of_input[0], leg.input)
    output_audio = min(of_output[0], leg.output)
    return msgspec.structs.replace(
        leg,
        input_audio=input_audio,
        input_image=min(of_input[1], leg.input - input_audio),
        output_audio=output_audio,
        output_image=min(of_output[1], leg.output - output_audio),
    )


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


def provider_cost(reported: object, scale: int) -> int | None:
    """Return a cost that a provider reports, in 10⁻¹⁵ USD, rounded up.

    None for what is no number, below zero, or above what any answer can cost: then its tokens are
    what is billed.

    Args:
        reported: a JSON number; floats are taken as the decimal that they are written as.
        scale: how many 10⁻¹⁵ USD one of its unit is.
    """
    if type(reported) not in {int, float} or not 0 <= reported <= PROVIDER_COST_MAX:  # type: ignore[operator]
        return None
    cost = Decimal(str(reported)) * scale  # at most 19 digits: nothing is rounded here
    return math.ceil(cost) if cost <= PROVIDER_COST_MAX else None


def info_count(value: object) -> int:
    """Return a token count that only tells of what others are made of; an odd one is 0.

    The bill does not depend on it, or would be that of text without it: it must not be lost by it.
    """
    try:
        return count(value)
    except UsageError:
        return 0


class Movers(msgspec.Struct, frozen=True):
    """What moves the price besides token counts, as a request asks or an answer reports."""

    service_tier: str | None = None
    speed: str | None = None
    geo: str | None = None
