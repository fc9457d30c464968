"""Owns usage as Anthropic reports it (reference wire.md A.4).

Its input excludes cached tokens already. Must not know events or requests.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import msgspec

from llmproxy.dialects.answers import NO_COUNTS, UNREADABLE, is_given, make_reading
from llmproxy.dialects.base import Reading
from llmproxy.usage import Leg, Movers, Usage, UsageError, count, of_rounds

_WRITTEN = "cache_creation_input_tokens"
_FIVE, _HOUR = "ephemeral_5m_input_tokens", "ephemeral_1h_input_tokens"
_TEXT_CHARS_MAX = 256
"""Of the name of a model or tier; it is kept as often as it is told."""
_NO_TOKENS = {"input_tokens": 0, "output_tokens": 0}
"""What the top level counts where `iterations` alone tell tokens."""
_INPUT_CLASSES = ("input", "cache_read", "cache_write_5m", "cache_write_1h", "cache_write")
_BESIDE = ("compaction", "advisor_message")
"""Types of `iterations` that the counts of the top level, and so its split, leave out."""


def usage_in(raw: msgspec.Raw) -> object:
    """Return a usage record, whatever it is; None when there is none."""
    if not is_given(raw):
        return None
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE:
        return bytes(raw).decode(errors="replace")  # no object: not to be trusted


def merged(before: dict[str, Any], later: dict[str, Any]) -> dict[str, Any]:
    """Return a cumulative report on top of an earlier one, which holds where it tells nothing.

    The end of a stream never repeats the cache split, tier, speed or region of its beginning.
    """
    told = _told(later)
    for name, value in told.items():
        earlier = before.get(name)
        if isinstance(value, dict) and isinstance(earlier, dict):
            told[name] = {**earlier, **_told(value)}
    return {**before, **told}


def _told(record: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in record.items() if value is not None}


def read_reading(
    raw: object,
    model: str | None,
    seen_bytes: int,
    *,
    is_final: bool,
    has_error: bool,
) -> Reading:
    """Return what has been read of an answer, with its usage record in the normal form.

    Args:
        raw: the usage record, whatever it is; None when there is none.
        model: the model that answered.
        seen_bytes: how much generated text has passed.
        is_final: nothing more can come that changes the usage.
        has_error: the answer is, or ended in, an error.
    """
    movers = _movers(raw)
    return make_reading(
        None if raw is None else msgspec.json.encode(raw),
        lambda: read_usage(raw, model, movers),
        model=model,
        movers=movers,
        seen_bytes=seen_bytes,
        is_final=is_final,
        has_error=has_error,
    )


def read_usage(raw: object, model: str | None, movers: Movers) -> Usage:
    """Return a usage object in the normal form: one leg, or one for each of `iterations`.

    Args:
        raw: the object, whatever it is.
        model: the model that answered.
        movers: what the object says of its tier, speed and region.

    Raises:
        UsageError: not an object, or with counts that are missing or cannot be true.
    """
    if not isinstance(raw, dict):
        msg = "usage is not an object"
        raise UsageError(msg)
    iterations, server_tools = raw.get("iterations"), raw.get("server_tool_use")
    searches = 0
    if isinstance(server_tools, dict):
        searches = count(server_tools.get("web_search_requests"))
    if isinstance(iterations, list) and iterations:
        legs = _legs_of(iterations, raw, model, rounds_max=searches + 1)
        count(sum(leg.input_side + leg.output for leg in legs))  # all of them are bounded too
    else:
        legs = (of_rounds(_leg(raw, model), searches + 1),)
    if searches:
        legs = (msgspec.structs.replace(legs[0], web_searches=searches), *legs[1:])
    return Usage(legs, service_tier=movers.service_tier, speed=movers.speed, geo=movers.geo)


def _movers(raw: object) -> Movers:
    if not isinstance(raw, dict):
        return Movers()
    return Movers(
        service_tier=_text(raw.get("service_tier")),
        speed=_text(raw.get("speed")),
        geo=_text(raw.get("inference_geo")),
    )


class _Split(NamedTuple):
    """Tokens that were written to the cache, by how long they stay there."""

    five: int
    """For 5 minutes."""
    hour: int

    def within(self, written: int) -> "_Split":
        """Return what can be true of it where so many were written in all.

        What is too much is taken off the hour first, which costs more: that a provider contradicts
        itself is no reason for its user to pay the dearer of two prices.
        """
        if self.five + self.hour <= written:  # nearly always
            return self
        five = min(self.five, written)
        return _Split(five, min(self.hour, written - five))

    def without(self, other: "_Split") -> "_Split":
        """Return what is left of it."""
        return _Split(max(0, self.five - other.five), max(0, self.hour - other.hour))


def _legs_of(
    entries: list[object], raw: dict[str, Any], model: str | None, *, rounds_max: int
) -> tuple[Leg, ...]:
    """Return a leg for each entry of `iterations`, and one for what the top level has beyond them.

    The top level is the sum of its messages. Where it is more, some are missing, as where only the
    beginning of a stream told them. Where there are fewer than rounds, each may be several.

    Raises:
        UsageError: an entry is not an object, or has counts that are missing or cannot be true.
    """
    legs = [_leg(entry, model) for entry in entries]
    is_beside = [_is_beside(entry) for entry in entries]
    messages = [leg for leg, beside in zip(legs, is_beside, strict=True) if not beside]
    whole = _leg({**_NO_TOKENS, **_told(raw)}, model)
    messages = _sharing(messages, _told_of(whole))
    # Some who pass it on may count all entries there.
    missing = None if _sums(whole) == _sums(*legs) else _missing(whole, messages)
    if missing is not None:
        messages.append(missing)
    rounds = max(1, rounds_max - len(messages) + 1)
    told = iter([of_rounds(leg, rounds) for leg in messages])
    in_order = [leg if beside else next(told) for leg, beside in zip(legs, is_beside, strict=True)]
    return (*in_order, *told)


def _sharing(legs: list[Leg], split: _Split) -> list[Leg]:
    """Return messages that share the split of the whole, but for what they tell themselves."""
    for leg in legs:
        split = split.without(_told_of(leg))
    shared = []
    for leg in legs:
        more = split.within(leg.cache_write)
        split = split.without(more)
        shared.append(_with_more(leg, more))
    return shared


def _is_beside(entry: object) -> bool:
    """Say whether the top level leaves an entry out."""
    return isinstance(entry, dict) and entry.get("type") in _BESIDE


def _sums(*legs: Leg) -> tuple[int, int]:
    """Return all input and all output of legs."""
    return sum(leg.input_side for leg in legs), sum(leg.output for leg in legs)


def _missing(whole: Leg, legs: Sequence[Leg]) -> Leg | None:
    """Return what a leg has beyond others together; None where they are as much."""
    (all_input, all_output), (input_side, output) = _sums(whole), _sums(*legs)
    if all_input <= input_side and all_output <= output:
        return None
    classes = _INPUT_CLASSES if all_input > input_side else ()
    beyond = {
        name: max(0, getattr(whole, name) - sum(getattr(leg, name) for leg in legs))
        for name in (*classes, "output")
    }
    return Leg(**beyond, model=whole.model)


def _told_of(leg: Leg) -> _Split:
    return _Split(leg.cache_write_5m, leg.cache_write_1h)


def _with_more(leg: Leg, split: _Split) -> Leg:
    """Return a leg that tells of some of its writes how long they stay."""
    return msgspec.structs.replace(
        leg,
        cache_write_5m=leg.cache_write_5m + split.five,
        cache_write_1h=leg.cache_write_1h + split.hour,
        cache_write=leg.cache_write - split.five - split.hour,
    )


def _leg(raw: object, answer_model: str | None) -> Leg:
    """Return the leg of a usage object, or of an entry of its `iterations`.

    Raises:
        UsageError: not an object, or with counts that are missing or cannot be true.
    """
    if not isinstance(raw, dict):
        msg = "a usage entry is not an object"
        raise UsageError(msg)
    if raw.get("input_tokens") is None or raw.get("output_tokens") is None:
        raise UsageError(NO_COUNTS)
    split = _split_of(raw)
    details = raw.get("output_tokens_details")
    thinking = count(details.get("thinking_tokens")) if isinstance(details, dict) else 0
    output = count(raw.get("output_tokens"))
    model = _text(raw.get("model"))
    return Leg(
        input=count(raw.get("input_tokens")),
        cache_read=count(raw.get("cache_read_input_tokens")),
        cache_write_5m=split.five,
        cache_write_1h=split.hour,
        # The end of a stream may tell more than the split of its beginning.
        cache_write=max(0, count(raw.get(_WRITTEN)) - split.five - split.hour),
        output=output,
        reasoning=min(thinking, output),
        model=None if model == answer_model else model,
    )


def _split_of(raw: dict[str, Any]) -> _Split:
    """Return the split of what was written in all; without a total, all that it tells."""
    told = raw.get("cache_creation")
    if not isinstance(told, dict):
        return _Split(0, 0)
    split = _Split(count(told.get(_FIVE)), count(told.get(_HOUR)))
    return split if raw.get(_WRITTEN) is None else split.within(count(raw.get(_WRITTEN)))


def _text(value: object) -> str | None:
    return value[:_TEXT_CHARS_MAX] if isinstance(value, str) and value else None
