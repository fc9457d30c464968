"""How long Anthropic's cache keeps what was written: told apart from how much, and what it costs.

A stream tells the times at its beginning alone, and how much in all at its end (wire.md A.4).
"""

from typing import Any

import pytest

from tests.proxy.helpers import MESSAGES, Site, message
from tests.support.answers import (
    anthropic_message,
    anthropic_stream,
    anthropic_usage,
    plain,
    stream,
)

INPUT, WRITE_5M, WRITE_1H, OUTPUT = 3000, 3750, 6000, 15_000
"""Nano-USD per token of claude-sonnet-4-6."""
MARKS = [
    {"type": "text", "text": "x", "cache_control": {"type": "ephemeral", "ttl": ttl}}
    for ttl in ("1h", "5m")
]
COUNTS = {"input_tokens": 10, "output_tokens": 100}


def entry(written: int, kind: str = "message", **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    """One of `iterations`, which tells no times."""
    return {"type": kind, **COUNTS, "cache_creation_input_tokens": written, **fields}


CASES: dict[str, tuple[tuple[int, int], dict[str, Any], int]] = {
    "the total is the split's": ((9000, 1000), {}, 9000 * WRITE_5M + 1000 * WRITE_1H),
    "it is less than the split": (
        (10_000, 0),
        {"cache_creation_input_tokens": 400},
        400 * WRITE_5M,
    ),
    "… which has both times": (
        (9000, 1000),
        {"cache_creation_input_tokens": 9400},
        9000 * WRITE_5M + 400 * WRITE_1H,
    ),
    "… and is all of the hour": (
        (0, 1000),
        {"cache_creation_input_tokens": 400},
        400 * WRITE_1H,
    ),
    "it is none": ((9000, 1000), {"cache_creation_input_tokens": 0}, 0),
    "an iteration without times": (
        (9000, 1000),
        {"iterations": [entry(10_000)]},
        9000 * WRITE_5M + 1000 * WRITE_1H,
    ),
    "an iteration whose times are told as none": (
        (9000, 1000),
        {"iterations": [entry(10_000, cache_creation={"ephemeral_5m_input_tokens": 0})]},
        9000 * WRITE_5M + 1000 * WRITE_1H,
    ),
}


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("case", CASES)
def test_each_time_costs_its_own_price_as_far_as_it_is_told(
    recorded_site: Site, case: str, is_stream: bool
) -> None:
    (five, hour), end, written_nanousd = CASES[case]
    start = anthropic_usage(10, 1, cache_write_5m=five, cache_write_1h=hour)
    if is_stream:
        answer = stream(anthropic_stream(usage=start, final={"output_tokens": 100, **end}))
    else:
        answer = plain(anthropic_message(usage={**start, "output_tokens": 100, **end}))
    recorded_site.stub.handle = answer
    ann = recorded_site.visitor()
    recorded_site.ask(ann, MESSAGES, message(stream=is_stream, system=MARKS))
    cost = 10 * INPUT + 100 * OUTPUT + written_nanousd
    recorded_site.assert_paid(ann, state="settled", basis="usage", nanousd=cost)


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_split_of_the_whole_is_that_of_its_messages_alone_as_far_as_it_goes(
    recorded_site: Site, is_stream: bool
) -> None:
    start = anthropic_usage(30, 1, cache_write_5m=700, cache_write_1h=100)
    own = {"ephemeral_5m_input_tokens": 300, "ephemeral_1h_input_tokens": 100}
    end = {
        "cache_creation_input_tokens": 1000,
        "output_tokens": 300,
        "iterations": [
            entry(50, "compaction"),  # beside the whole, and of a time that nobody tells
            entry(250),
            entry(350),
            entry(400, cache_creation=own),
        ],
    }
    if is_stream:
        answer = stream(anthropic_stream(usage=start, final=end))
    else:
        answer = plain(anthropic_message(usage={**start, **end}))
    recorded_site.stub.handle = answer
    ann = recorded_site.visitor()
    recorded_site.ask(ann, MESSAGES, message(stream=is_stream, system=MARKS))
    # 300 and 100 are told by the last, so 400 are left for the two before it, and 200 are untold.
    written = (300 + 400) * WRITE_5M + (100 + 200 + 50) * WRITE_1H
    cost = 40 * INPUT + 400 * OUTPUT + written
    recorded_site.assert_paid(ann, state="settled", basis="usage", nanousd=cost)
