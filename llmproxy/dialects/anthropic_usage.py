"""Owns usage as Anthropic reports it (reference wire.md A.4).

Its input excludes cached tokens already. Must not know events or requests.
"""

import msgspec

from llmproxy.dialects.answers import NO_COUNTS, UNREADABLE, is_given, make_reading
from llmproxy.dialects.base import Reading
from llmproxy.usage import Leg, Movers, Usage, UsageError, count, of_rounds


def usage_in(raw: msgspec.Raw) -> object:
    """Return a usage record, whatever it is; None when there is none."""
    if not is_given(raw):
        return None
    try:
        return msgspec.json.decode(raw)
    except UNREADABLE:
        return bytes(raw).decode(errors="replace")  # no object: not to be trusted


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
        legs = tuple(_leg(entry, model) for entry in iterations)
        count(sum(leg.input_side + leg.output for leg in legs))  # all of them are bounded too
    else:  # one for all rounds of a search
        legs = (of_rounds(_leg(raw, model), searches + 1) if searches else _leg(raw, model),)
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
    split = raw.get("cache_creation")
    split = split if isinstance(split, dict) else {}
    five = count(split.get("ephemeral_5m_input_tokens"))
    hour = count(split.get("ephemeral_1h_input_tokens"))
    written = count(raw.get("cache_creation_input_tokens"))
    details = raw.get("output_tokens_details")
    thinking = count(details.get("thinking_tokens")) if isinstance(details, dict) else 0
    output = count(raw.get("output_tokens"))
    model = _text(raw.get("model"))
    return Leg(
        input=count(raw.get("input_tokens")),
        cache_read=count(raw.get("cache_read_input_tokens")),
        cache_write_5m=five,
        cache_write_1h=hour,
        # The end of a stream tells more than the split of its beginning.
        cache_write=max(0, written - five - hour),
        output=output,
        reasoning=min(thinking, output),
        model=None if model == answer_model else model,
    )


def _text(value: object) -> str | None:
    return value if isinstance(value, str) and value else None
