"""Under a strict policy no honest answer costs more than was held: every dialect, any usage.

An honest provider makes no more tokens of a text than it has bytes, adds no more than it needs for
its own preamble, generates no more than was allowed, and writes to its cache only where it may.
"""

import json
from typing import Any, NamedTuple

import msgspec
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.catalog import Model, Prices, Rates, Tier, Variant
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_completions import OpenAICompletions
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings
from llmproxy.dialects.openai_responses import OpenAIResponses
from llmproxy.pricing import PricedModel, price, unpriced_mover
from llmproxy.quote import HoldPolicy, make_quote
from llmproxy.usage import Leg, Movers, Usage

PREAMBLE_TOKENS_MAX = 1600
TOOLS_PREAMBLE_TOKENS_MAX = 1000

# --- models ---

RATE = st.integers(0, 10**11)
RATES = st.builds(Rates, RATE, RATE, RATE, RATE, RATE, st.none() | RATE)
TIERS = st.lists(st.tuples(st.integers(0, 6000), RATES), max_size=2, unique_by=lambda t: t[0]).map(
    lambda found: tuple(Tier(above, rates) for above, rates in sorted(found, key=lambda t: t[0]))
)
VARIANTS = st.sampled_from(
    [
        Variant(("priority",), (), Rates(0, 0, 0, 0, 0)),
        Variant(("flex",), (), Rates(0, 0, 0, 0, 0)),
        Variant((), ("fast",), Rates(0, 0, 0, 0, 0)),
    ]
)
PRICES = st.builds(
    Prices,
    rates=RATES,
    tiers=TIERS,
    variants=st.lists(
        st.builds(
            lambda when, rates, tiers: msgspec.structs.replace(when, rates=rates, tiers=tiers),
            VARIANTS,
            RATES,
            TIERS,
        ),
        max_size=3,
        unique_by=lambda variant: (variant.service_tiers, variant.speeds),
    ).map(tuple),
    geo_micro=st.dictionaries(st.just("us"), st.integers(0, 2_000_000)),
)
MULTIPLIER = st.integers(0, 3_000_000)
MODELS = st.builds(
    Model,
    provider=st.just("p"),
    id=st.just("m"),
    aliases=st.just(()),
    mode=st.just("chat"),
    prices=PRICES,
    multiplier_micro=MULTIPLIER,
    max_input_tokens=st.none() | st.integers(1, 10_000),
    max_output_tokens=st.integers(1, 5000),
    reasoning=st.booleans(),
)

# --- requests ---

TEXT = st.text(max_size=80)
ROLE = st.sampled_from(["user", "assistant", "system"])
OPTIONAL_MAX = st.none() | st.integers(0, 9000)
TIER = st.sampled_from([None, "auto", "default", "priority", "flex"])
MARK = st.sampled_from([{}, {"cache_control": {}}, {"cache_control": {"ttl": "1h"}}])
IDS = st.lists(st.integers(0, 200_000), max_size=60)


def turns(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    content = TEXT | st.lists(parts, max_size=4)
    return st.lists(st.fixed_dictionaries({"role": ROLE, "content": content}), max_size=4)


def part(kind: str) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), "text": TEXT})


TOOLS = st.lists(
    st.fixed_dictionaries({"type": st.just("function"), "function": st.just({"name": "f"})}),
    max_size=2,
)
CHAT = st.fixed_dictionaries(
    {"messages": turns(part("text")), "max_completion_tokens": OPTIONAL_MAX, "tools": TOOLS},
    optional={
        "n": st.integers(1, 4),
        "max_tokens": OPTIONAL_MAX,
        "prediction": st.fixed_dictionaries({"content": TEXT}),
        "service_tier": TIER,
    },
)
RESPONSES = st.fixed_dictionaries(
    {"input": TEXT | turns(part("input_text")), "max_output_tokens": OPTIONAL_MAX},
    optional={"instructions": TEXT, "service_tier": TIER, "tools": TOOLS},
)
COMPLETIONS = st.fixed_dictionaries(
    {"prompt": TEXT | st.lists(TEXT, max_size=4) | IDS | st.lists(IDS, max_size=3)},
    optional={"max_tokens": OPTIONAL_MAX, "n": st.integers(1, 3), "best_of": st.integers(1, 3)},
)
EMBEDDINGS = st.fixed_dictionaries(
    {"input": TEXT | st.lists(TEXT, max_size=4) | IDS | st.lists(IDS, max_size=3)}
)
BLOCK = st.builds(lambda text, mark: {**text, **mark}, part("text"), MARK)
MESSAGES = st.fixed_dictionaries(
    {"messages": turns(BLOCK), "max_tokens": OPTIONAL_MAX},
    optional={
        "system": TEXT | st.lists(BLOCK, max_size=2),
        "tools": st.lists(st.builds(lambda mark: {"name": "t", **mark}, MARK), max_size=2),
        "service_tier": st.sampled_from(["auto", "standard_only"]),
        "speed": st.sampled_from(["fast", "standard"]),
        "inference_geo": st.sampled_from(["us", "global"]),
    },
)


class Asked(NamedTuple):
    """A request body and what reads it."""

    endpoint: Endpoint
    body: bytes
    input_tokens_max: int


def asked(endpoint: Endpoint, fields: dict[str, Any], is_ascii: bool, indent: int | None) -> Asked:
    whole = {"model": "m", **fields}
    body = json.dumps(whole, ensure_ascii=is_ascii, indent=indent).encode(errors="replace")
    preamble = PREAMBLE_TOKENS_MAX + (TOOLS_PREAMBLE_TOKENS_MAX if fields.get("tools") else 0)
    return Asked(endpoint, body, tokens_max(fields) + preamble)


def tokens_max(value: object) -> int:
    """The most tokens that names and values can be: a byte of text each, one for each number."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if isinstance(value, dict):
        return sum(tokens_max(name) + tokens_max(inner) for name, inner in value.items())
    if isinstance(value, list):
        return sum(tokens_max(inner) for inner in value)
    return 1 if type(value) is int else 0


REQUESTS = st.one_of(
    [
        st.builds(asked, st.just(endpoint), fields, st.booleans(), st.sampled_from([None, 1]))
        for endpoint, fields in (
            (OpenAIChat(), CHAT),
            (OpenAIResponses(), RESPONSES),
            (OpenAICompletions(), COMPLETIONS),
            (OpenAIEmbeddings(), EMBEDDINGS),
            (AnthropicMessages(), MESSAGES),
        )
    ]
)


# --- answers ---


def share(data: st.DataObject, whole: int, parts: int) -> list[int]:
    """Divide up to `whole` tokens among classes; often all of them, often among few."""
    left = data.draw(st.just(whole) | st.integers(0, whole))
    shares = []
    for _ in range(parts - 1):
        shares.append(data.draw(st.sampled_from([0, left]) | st.integers(0, left)))
        left -= shares[-1]
    return [*shares, left]


def served_as(data: st.DataObject, model: Model, wishes: Movers) -> Movers:
    """What the answer may say of its tier, speed and region."""
    tiers = [wishes.service_tier, "default"]
    if wishes.service_tier in {None, "auto"}:
        tiers += [name for variant in model.prices.variants for name in variant.service_tiers]
    geos = [wishes.geo] if wishes.geo else [None, *model.prices.geo_micro]
    speeds = [wishes.speed, "standard"]
    return Movers(*(data.draw(st.sampled_from(each)) for each in (tiers, speeds, geos)))


def honest_usage(data: st.DataObject, model: Model, facts: RequestFacts, input_max: int) -> Usage:
    own = facts.output_max
    maximum = model.max_output_tokens if own is None else own
    assert model.max_output_tokens is not None
    assert maximum is not None
    allowed = min(maximum, model.max_output_tokens) * facts.choices + facts.output_tokens_extra
    classes = ["input", "cache_read"]
    classes += ["cache_write_5m"] if facts.may_write_cache else []
    classes += ["cache_write_1h"] if facts.may_write_cache_1h else []
    split = dict(zip(classes, share(data, input_max, len(classes)), strict=True))
    output = data.draw(st.just(allowed) | st.integers(0, allowed))
    served = served_as(data, model, facts.movers)
    return Usage(
        (msgspec.structs.replace(Leg(output=output), **split),),
        served.service_tier,
        served.speed,
        served.geo,
    )


@settings(max_examples=400, deadline=None)
@given(request=REQUESTS, model=MODELS, user_multiplier=MULTIPLIER, data=st.data())
def test_no_honest_answer_costs_more_than_a_strict_server_held(
    request: Asked, model: Model, user_multiplier: int, data: st.DataObject
) -> None:
    facts = request.endpoint.read_request(request.body)
    if unpriced_mover(model.prices, facts.movers) is not None:
        return
    quote = make_quote(facts, model, user_multiplier, HoldPolicy(is_strict=True))
    usage = honest_usage(data, model, facts, request.input_tokens_max)
    cost = price(
        usage,
        PricedModel(model.id, model.prices, None),
        user_multiplier_micro=user_multiplier,
        model_multiplier_micro=model.multiplier_micro,
    )
    assert cost.nanousd <= quote.amount_nanousd
