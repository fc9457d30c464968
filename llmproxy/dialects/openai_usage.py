"""Owns usage as OpenAI and its many followers report it (reference wire.md A.1, A.3, A.5, A.7).

`prompt_tokens` and `input_tokens` include cached tokens here; they are taken out of the fresh
input. Must not know events or requests.
"""

from typing import Any, NamedTuple

import msgspec

from llmproxy.dialects.answers import NO_COUNTS, UNREADABLE, is_given, make_reading, text_of
from llmproxy.dialects.base import Reading
from llmproxy.usage import (
    TOKENS_MAX,
    Leg,
    Movers,
    Usage,
    UsageError,
    count,
    info_count,
    of_rounds,
    provider_cost,
    with_media,
)


class Names(NamedTuple):
    """What an endpoint calls the counts."""

    input: str
    output: str
    input_details: str
    output_details: str


PROMPT = Names(
    "prompt_tokens", "completion_tokens", "prompt_tokens_details", "completion_tokens_details"
)
"""Chat and legacy completions."""
EMBEDDED = PROMPT._replace(output="", output_details="")
"""Embeddings, which have no output: all tokens are input, also where only the total is told."""
INPUT = Names("input_tokens", "output_tokens", "input_tokens_details", "output_tokens_details")
"""Responses."""
_INPUT_ALONE = INPUT._replace(output="", output_details="")


_COSTS = frozenset({"cost", "cost_in_usd_ticks"})
FEMTOUSD_PER_USD = 10**15
FEMTOUSD_PER_TICK = FEMTOUSD_PER_USD // 10**10
_CACHED_ELSEWHERE = ("prompt_cache_hit_tokens", "cached_tokens", "num_cached_tokens")
"""What some call their cached input, at the top of the usage object (wire.md A.7)."""


def read_reading(  # noqa: PLR0913 - what an answer says of itself
    raw: msgspec.Raw,
    names: Names = PROMPT,
    *,
    model: msgspec.Raw,
    service_tier: msgspec.Raw,
    seen_bytes: int,
    is_final: bool,
    has_error: bool,
    web_searches: int = 0,
    rounds_max: int = 1,
) -> Reading:
    """Return what has been read of an answer, with its usage object in the normal form.

    Args:
        raw: the usage object as it came; absent or null when there is none.
        names: what the counts are called.
        model: the model that answered.
        service_tier: the tier that was used.
        seen_bytes: how much generated text has passed.
        is_final: nothing more can come that changes the usage.
        has_error: the answer is, or ended in, an error.
        web_searches: billed searches, which stand beside the usage object.
        rounds_max: how many rounds of tools at the provider it is the sum of, at most.
    """
    tier = text_of(service_tier)

    def usage() -> Usage:
        fields = msgspec.json.decode(raw)
        leg = read_usage(fields, names)
        if web_searches:
            leg = msgspec.structs.replace(leg, web_searches=count(web_searches))
        leg = of_rounds(leg, rounds_max)
        return Usage((leg,), service_tier=tier, provider_cost=read_provider_cost(fields))

    reading = make_reading(
        bytes(raw) if is_given(raw) else None,
        usage,
        model=text_of(model),
        movers=Movers(service_tier=tier),
        seen_bytes=seen_bytes,
        is_final=is_final,
        has_error=has_error,
    )
    return reading if reading.problem is None else with_cost(reading, raw, is_final=is_final)


def with_cost(reading: Reading, raw: msgspec.Raw, *, is_final: bool) -> Reading:
    """Return the reading of a usage that was not trusted, with the cost that it tells, if any.

    That is the bill of some models, whatever stands beside it.

    Args:
        reading: the reading.
        raw: its usage object as it came; absent when there is none.
        is_final: nothing more can come that changes it; else it tells no bill yet.
    """
    if not is_final:
        return reading
    try:
        cost = read_provider_cost(msgspec.json.decode(raw))
    except UNREADABLE:
        return reading
    return msgspec.structs.replace(reading, provider_cost=cost)


def read_usage(usage: object, names: Names = PROMPT) -> Leg:
    """Return the disjoint classes of a usage object.

    Raises:
        UsageError: not an object, or with counts that are missing or cannot be true.
    """
    if not isinstance(usage, dict):
        msg = "usage is not an object"
        raise UsageError(msg)
    if "billed_units" in usage:
        usage, names = _billed(usage, names)
    prompt, output = _prompt_and_output(usage, names)
    input_details = _object(usage, names.input_details)
    output_details = _object(usage, names.output_details)
    cached = count(input_details.get("cached_tokens"))
    for name in _CACHED_ELSEWHERE:
        if name in usage:
            cached = max(cached, count(usage[name]))
    written = count(input_details.get("cache_write_tokens"))
    if cached > prompt:
        msg = f"usage contradicts itself: {cached} tokens of the cache in {prompt}"
        raise UsageError(msg)
    # Together they may be more: OpenRouter counts what it has just written twice (wire.md A.1).
    surplus = max(0, cached + written - prompt)
    written -= surplus
    fresh = prompt - cached - written
    reasoning = info_count(output_details.get("reasoning_tokens"))
    unsplit, short, long = _writes(input_details, written) if written else (0, 0, 0)
    leg = Leg(
        input=fresh,
        cache_read=cached,
        cache_write=unsplit,
        cache_write_5m=short,
        cache_write_1h=long,
        output=output,
        reasoning=min(reasoning, output),
        cache_surplus=surplus,
    )
    if (input_details and _has_media(input_details)) or (
        output_details and _has_media(output_details)
    ):
        return with_media(leg, _media(input_details), _media(output_details))
    return leg


def _billed(usage: dict[str, Any], names: Names) -> tuple[dict[str, Any], Names]:
    """Return what of a usage object is billed: Cohere bills less than it counts.

    That stands in an object of its own, as numbers of any kind (`5.0`). One that lacks a count that
    the endpoint has is not taken for the bill.
    """
    told = usage["billed_units"]
    if not isinstance(told, dict):
        return usage, names
    counts = (INPUT.input, INPUT.output) if names.output else (INPUT.input,)
    billed = {name: _whole(told.get(name)) for name in counts}
    if None in billed.values():
        return usage, names
    return billed, INPUT if names.output else _INPUT_ALONE


def _whole(value: object) -> object:
    """Return a number without its fraction, where that is 0; all else as it is."""
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _writes(details: dict[str, Any], written: int) -> tuple[int, int, int]:
    """Return what was written to the cache: for a time that is not told, for 30 min, for 12 h."""
    split = _object(details, "cache_write_tokens_details")
    if not split:
        return written, 0, 0
    long = min(count(split.get("ttl_12h_tokens")), written)
    return 0, written - long, long


def _has_media(details: dict[str, Any]) -> bool:
    """Say whether there may be any: most report none, or zeros."""
    return bool(details.get("audio_tokens") or details.get("image_tokens"))


def _media(details: dict[str, Any]) -> tuple[int, int]:
    return info_count(details.get("audio_tokens")), info_count(details.get("image_tokens"))


def read_provider_cost(usage: object) -> int | None:
    """Return what the provider says that it bills, in 10⁻¹⁵ USD; None where it does not.

    OpenRouter's `cost` is in USD, xAI's in 10⁻¹⁰ USD, and Perplexity has an object (wire.md A.7).
    What OpenRouter passes on to an account of the operator's own is none of its costs.
    """
    if not isinstance(usage, dict) or usage.keys().isdisjoint(_COSTS):
        return None
    if (ticks := usage.get("cost_in_usd_ticks")) is not None:
        return provider_cost(ticks, FEMTOUSD_PER_TICK)
    cost = usage.get("cost")
    if isinstance(cost, dict):
        cost = cost.get("total_cost")
    if cost is None or usage.get("is_byok") is True:
        return None
    return provider_cost(cost, FEMTOUSD_PER_USD)


def _prompt_and_output(usage: dict[str, Any], names: Names) -> tuple[int, int]:
    """Return all input, and all output.

    Raises:
        UsageError: one of them is not told, or the total is less than both.
    """
    told_input, told_output = usage.get(names.input), usage.get(names.output)
    told_total = usage.get("total_tokens")
    if (
        type(told_input) is type(told_output) is type(told_total) is int
        and told_input + told_output == told_total <= TOKENS_MAX
        and min(told_input, told_output) >= 0
    ):
        return told_input, told_output  # nearly always, and quickly
    prompt, completion, total = count(told_input), count(told_output), count(told_total)
    has_input, has_output = told_input is not None, told_output is not None
    has_total = told_total is not None
    if has_total and total < prompt + completion:
        msg = f"usage contradicts itself: {prompt} + {completion} tokens, and a total of {total}"
        raise UsageError(msg)
    if not names.output:
        if not (has_input or has_total):
            raise UsageError(NO_COUNTS)
        return max(prompt, total), 0
    if not (has_input and (has_output or has_total)):
        raise UsageError(NO_COUNTS)
    # Some providers leave reasoning out of the output, never out of the total (wire.md A.7).
    return prompt, max(completion, total - prompt)


def count_prompts(given: object) -> int:
    """Return how many inputs a request has: a text or token ids are one, a list of them several."""
    if isinstance(given, list) and given and not _are_token_ids(given):
        return len(given)
    return 1


def has_token_ids(given: object) -> bool:
    """Say whether inputs are given as token ids: `[1,2]`, or lists of such."""
    if not isinstance(given, list):
        return False
    return _are_token_ids(given) or any(
        isinstance(one, list) and _are_token_ids(one) for one in given
    )


def _are_token_ids(given: list[object]) -> bool:
    return bool(given) and type(given[0]) is int


def _object(fields: dict[str, Any], key: str) -> dict[str, Any]:
    value = fields.get(key)
    return value if isinstance(value, dict) else {}
