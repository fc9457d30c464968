"""Usage records that are missing, absurd or contradictory: never trusted, estimated, and told.

What providers really do (an unknown field, a count left out) must go on being read.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

from tests.faults.cell import Case, End, Row, View
from tests.faults.dialects import (
    CHAT,
    EMBEDDINGS,
    LEGACY,
    MESSAGES,
    RESPONSES,
    TEXT,
    Dialect,
    compact,
)
from tests.faults.expect import billed, estimated
from tests.faults.statuses import answered
from tests.faults.streams import NO_USAGE, sent, usage_event

JSON = dict[str, Any]
ABSURD: dict[str, object] = {
    "negative": -1,
    "very negative": -(2**63),
    "a fraction": 50.5,
    "a whole number written as a fraction": 50.0,
    "text": "50",
    "true": True,
    "2^31 + 1": 2**31 + 1,
    "2^63": 2**63,
    "10^400": 10**400,
    "an object": {"value": 50},
    "a list": [50],
}
NOT_A_RECORD: dict[str, object] = {"a list": [1], "text": "50", "a number": 50, "true": True}

_SURPLUS = " tokens of the cache, reported above all input, do not count"


class Lie(NamedTuple):
    """A usage record, and the reason that the row must give; None: it is to be believed."""

    usage: object
    reason: str | None
    cost_nanousd: int = 0
    """Where it is believed."""
    note: str | None = None
    """What the row says of it all the same."""


def cases(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """All faults of this page."""
    for fault, lie in lies(dialect).items():
        yield _case(f"usage: {fault}", dialect, lie, is_stream=is_stream)
    yield _not_a_number(dialect, is_stream=is_stream)
    yield from _named(dialect, is_stream=is_stream)


def lies(dialect: Dialect) -> dict[str, Lie]:
    """All records of this page."""
    usage, cost = dialect.usage, dialect.cost_nanousd
    found = {
        "null": Lie(None, NO_USAGE),
        "an empty object": Lie({}, "usage has no token counts$"),
        "other fields alone": Lie({"cost": 1}, "usage has no token counts$"),
        "unknown fields too": Lie({**usage, "future_tokens": 9, "x": {"y": [1]}}, None, cost),
    }
    for kind, value in NOT_A_RECORD.items():
        found[kind] = Lie(value, "usage is not an object$")
    for kind, value in ABSURD.items():
        found[f"input is {kind}"] = Lie({**usage, dialect.input_name: value}, "absurd token count ")
        if dialect.has_output:
            absurd = {**usage, dialect.output_name: value}
            found[f"output is {kind}"] = Lie(absurd, "absurd token count ")
    if dialect is MESSAGES:
        found |= _of_messages(dialect)
    else:
        found |= _of_openai(dialect)
    return found


def _of_openai(dialect: Dialect) -> dict[str, Lie]:
    usage, cost = dialect.usage, dialect.cost_nanousd
    below = Lie({**usage, "total_tokens": 900}, "usage contradicts itself: ")
    found = {"the total below its parts": below}
    for kind in ("negative", "a fraction", "2^63"):
        absurd = {**usage, "total_tokens": ABSURD[kind]}
        found[f"the total is {kind}"] = Lie(absurd, "absurd token count ")
    if dialect is EMBEDDINGS:
        found["the total alone"] = Lie({"total_tokens": 1000}, None, cost)
        found["no total"] = Lie({"prompt_tokens": 1000}, None, cost)
        found["all zero"] = Lie(
            {"prompt_tokens": 0, "total_tokens": 0},
            "usage reports no tokens for an answer with text$",
        )
        return found
    without_total = {key: value for key, value in usage.items() if key != "total_tokens"}
    found["no total"] = Lie(without_total, None, cost)
    without_output = {key: value for key, value in usage.items() if key != dialect.output_name}
    found["output only in the total"] = Lie(without_output, None, cost)
    neither = {key: value for key, value in without_total.items() if key != dialect.output_name}
    found["no output"] = Lie(neither, "usage has no token counts$")
    without_input = {key: value for key, value in usage.items() if key != dialect.input_name}
    found["no input"] = Lie(without_input, "usage has no token counts$")
    found["input null"] = Lie({**usage, dialect.input_name: None}, "usage has no token counts$")
    zero = {**usage, dialect.input_name: 0, dialect.output_name: 0, "total_tokens": 0}
    if dialect is not LEGACY:
        zero |= {_details(dialect): {"cached_tokens": 0}}
    found["all zero"] = Lie(zero, "usage reports no tokens for an answer with text$")
    hidden = {**usage, "total_tokens": 1080}  # 30 more, as xAI leaves its reasoning out
    found["reasoning only in the total"] = Lie(hidden, None, cost + 30 * dialect.rates.output)
    huge = {**without_total, dialect.input_name: 2**31, _details(dialect): {}}
    huge_cost = 2**31 * dialect.rates.input + 50 * dialect.rates.output
    if dialect is RESPONSES:  # 0.40 and 1.80 above 272,000 tokens of input
        huge_cost = 2**31 * 400 + 50 * 1_800
    found["2^31 input"] = Lie(huge, None, huge_cost)
    if dialect is not LEGACY:
        found |= _cached(dialect, usage)
    return found


def _details(dialect: Dialect) -> str:
    return "input_tokens_details" if dialect is RESPONSES else "prompt_tokens_details"


def _cached(dialect: Dialect, usage: JSON) -> dict[str, Lie]:
    rates = dialect.rates

    def told(**details: object) -> JSON:
        return {**usage, _details(dialect): details}

    output = 50 * rates.output
    return {
        "all cached": Lie(told(cached_tokens=1000), None, 1000 * rates.cache_read + output),
        "cached above the input": Lie(told(cached_tokens=1001), "usage contradicts itself: "),
        "written to the cache above the input": Lie(
            told(cache_write_tokens=1001),
            None,
            1000 * rates.dearest_input + output,
            "1" + _SURPLUS,
        ),
        "cached is negative": Lie(told(cached_tokens=-1), "absurd token count "),
        "cached is a fraction": Lie(told(cached_tokens=0.5), "absurd token count "),
        # OpenRouter has done so (reference wire.md A.1).
        "cached and written together above the input": Lie(
            told(cached_tokens=900, cache_write_tokens=900),
            None,
            900 * rates.cache_read + 100 * rates.dearest_input + output,
            "800" + _SURPLUS,
        ),
        "details are null": Lie(
            told() | {_details(dialect): None}, None, 1000 * rates.input + output
        ),
    }


def _of_messages(dialect: Dialect) -> dict[str, Lie]:
    usage, cost = dialect.usage, dialect.cost_nanousd
    zero = {
        **usage,
        "input_tokens": 0,
        "output_tokens": 0,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 0,
        "cache_creation": None,
    }
    found = {
        "all zero": Lie(zero, "usage reports no tokens for an answer with text$"),
        "no cache counts": Lie(
            {**zero, "input_tokens": 1000, "output_tokens": 50}, None, 1000 * 3_000 + 50 * 15_000
        ),
        "2^31 input": Lie({**usage, "input_tokens": 2**31}, None, cost + (2**31 - 12) * 3_000),
    }
    for name in ("cache_read_input_tokens", "cache_creation_input_tokens"):
        for kind in ("negative", "a fraction", "2^63"):
            found[f"{name} is {kind}"] = Lie({**usage, name: ABSURD[kind]}, "absurd token count ")
    searches = {"web_search_requests": -1}
    found["searches are negative"] = Lie(
        {**usage, "server_tool_use": searches}, "absurd token count "
    )
    return found


def _case(fault: str, dialect: Dialect, lie: Lie, *, is_stream: bool) -> Case:
    if is_stream:
        parts = [
            usage_event(dialect, lie.usage) if event.settles else event.raw
            for event in dialect.events
        ]
        is_withheld = dialect is CHAT and lie.usage is not None
        passed = [
            part
            for part, event in zip(parts, dialect.events, strict=True)
            if not (event.is_withheld and is_withheld)
        ]
        handle, body = sent(parts), b"".join(passed)
    else:
        body = dialect.plain(usage=lie.usage)
        handle = answered(200, body)
    row = _row(dialect, lie, is_stream=is_stream)
    return Case(fault, handle, View(200, End.CLEAN, body), row)


def _row(dialect: Dialect, lie: Lie, *, is_stream: bool) -> Row:
    is_kept = lie.usage is not None
    if lie.reason is None:
        return Row("settled", "usage", lie.cost_nanousd, 200, lie.note, is_kept)
    is_told = is_stream and dialect is MESSAGES
    seen = len(TEXT) if is_stream else dialect.plain_seen()
    return estimated(
        dialect,
        seen,
        lie.reason,
        is_stream=is_stream,
        is_input_told=is_told,
        raw_usage=is_kept or is_told,
    )


def _not_a_number(dialect: Dialect, *, is_stream: bool) -> Case:
    """NaN, which is no JSON: the answer is read all the same, but such a count is none."""
    usage = {**dialect.usage, dialect.input_name: float("nan")}
    lie = Lie(usage, "absurd token count 'NaN'$")
    return _case("usage: NaN", dialect, lie, is_stream=is_stream)


def _named(dialect: Dialect, *, is_stream: bool) -> Iterator[Case]:
    """Another model or another tier than was asked for."""
    row = billed(dialect)
    yield _with_fields("another model", dialect, row, is_stream=is_stream, model="gpt-4-secret")
    if dialect is CHAT:
        dear = 400 * 4_250 + 600 * 2_125 + 50 * 17_000
    elif dialect is RESPONSES:
        dear = 400 * 400 + 600 * 40 + 50 * 2_400
    else:
        return
    row = Row("settled", "usage", dear, 200, None, raw_usage=True)
    yield _with_fields("another tier", dialect, row, is_stream=is_stream, service_tier="priority")


def _with_fields(
    fault: str, dialect: Dialect, row: Row, *, is_stream: bool, **fields: object
) -> Case:
    if not is_stream:
        body = dialect.plain(**fields)
        return Case(fault, answered(200, body), View(200, End.CLEAN, body), row)
    changed = []
    for name, value in fields.items():
        old = compact({name: dialect.answer[name]})[1:-1]
        new = compact({name: value})[1:-1]
        changed.append((old, new))
    parts = []
    for event in dialect.events:
        raw = event.raw
        for old, new in changed:
            raw = raw.replace(old, new)
        parts.append(event._replace(raw=raw))
    view = View(200, End.CLEAN, dialect.passed(tuple(parts)))
    return Case(fault, sent([event.raw for event in parts]), view, row)
