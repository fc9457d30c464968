"""Any models and any requests, for tests of what holds for all of them."""

from base64 import b64encode
from typing import Any

import msgspec
from hypothesis import strategies as st

from llmproxy.catalog import Model, Prices, Rates, Tier, Variant
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint
from llmproxy.dialects.gemini_contents import GENERATE, GeminiContents
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_completions import OpenAICompletions
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings
from llmproxy.dialects.openai_responses import OpenAIResponses
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.routes import endpoints_of

# --- models ---

RATE = st.integers(0, 10**11)
DEAREST = 10**12
CLASSES = ("input", "output", "cache_read", "cache_write_5m", "cache_write_1h")
RATES = st.builds(
    # Often one class is so dear that it alone decides.
    lambda rates, dear: msgspec.structs.replace(rates, **dict.fromkeys(dear, DEAREST)),
    st.builds(Rates, RATE, RATE, RATE, RATE, RATE, input_image=st.none() | RATE),
    st.just([]) | st.sampled_from(CLASSES).map(lambda name: [name]),
)
TIERS = st.just(()) | st.builds(
    lambda above, rates: (Tier(above, rates),), st.integers(0, 6000), RATES
)
VARIANTS = st.sampled_from(
    [
        Variant(("priority",), (), Rates(0, 0, 0, 0, 0)),
        Variant(("flex",), (), Rates(0, 0, 0, 0, 0)),
        Variant((), ("fast",), Rates(0, 0, 0, 0, 0)),
        Variant(("priority",), ("fast",), Rates(0, 0, 0, 0, 0)),
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
        max_size=2,
        unique_by=lambda variant: (variant.service_tiers, variant.speeds),
    ).map(tuple),
    geo_micro=st.dictionaries(st.just("us"), st.integers(0, 2_000_000)),
)
MULTIPLIER = st.just(MULTIPLIER_ONE) | st.integers(0, 3_000_000)
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

TEXT = st.text(max_size=80) | st.builds(
    lambda unit, times: unit * times, st.text(min_size=1, max_size=2), st.integers(0, 3000)
)
ROLE = st.sampled_from(["user", "assistant", "system"])
OPTIONAL_MAX = st.none() | st.just(0) | st.integers(1, 9000)
TIER = st.sampled_from([None, "auto", "default", "priority", "flex"])
MARK = st.sampled_from([{}, {"cache_control": {}}, {"cache_control": {"ttl": "1h"}}])
IDS = st.lists(st.integers(0, 200_000), max_size=60) | st.integers(0, 3000).map(lambda n: [1] * n)


def turns(parts: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    content = TEXT | st.lists(parts, max_size=4)
    return st.lists(st.fixed_dictionaries({"role": ROLE, "content": content}), max_size=4)


def part(kind: str) -> st.SearchStrategy[Any]:
    return st.fixed_dictionaries({"type": st.just(kind), "text": TEXT})


LONG_MARK = st.sampled_from([{}, {"cache_control": {"ttl": "1h"}}])
TOOLS = st.lists(
    st.builds(
        lambda mark: {"type": "function", "function": {"name": "f"}, **mark},
        LONG_MARK,
    ),
    max_size=2,
)
CACHE = st.sampled_from([{"ttl": "30m"}, {"ttl": "12h"}, None])
PDF = "data:application/pdf;base64," + b64encode(b"%PDF-1.4 /Type /Page ").decode()
URL = st.sampled_from([PDF, "https://example.com/a.png", "data:image/png;base64,iVBORw0KGgo="])
PICTURE = st.builds(lambda url: {"type": "image_url", "image_url": {"url": url}}, URL)
FILE = st.just({"type": "file", "file": {"file_data": PDF}})
INPUT_PICTURE = st.builds(lambda url: {"type": "input_image", "image_url": url}, URL)
INPUT_FILE = st.just({"type": "input_file", "file_data": PDF})
CHAT = st.fixed_dictionaries(
    {
        "messages": turns(part("text") | PICTURE | FILE),
        "max_completion_tokens": OPTIONAL_MAX,
        "tools": TOOLS,
    },
    optional={
        "n": st.integers(1, 4),
        "max_tokens": OPTIONAL_MAX,
        "prediction": st.fixed_dictionaries({"content": TEXT}),
        "service_tier": TIER,
        "prompt_cache_options": CACHE,
    },
)
RESPONSES = st.fixed_dictionaries(
    {
        "input": TEXT | turns(part("input_text") | INPUT_PICTURE | INPUT_FILE),
        "max_output_tokens": OPTIONAL_MAX,
    },
    optional={"cache_control": CACHE, "instructions": TEXT, "service_tier": TIER, "tools": TOOLS},
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


PARTS = st.lists(st.fixed_dictionaries({"text": TEXT}), max_size=3)
CONTENTS = st.lists(st.fixed_dictionaries({"role": ROLE, "parts": PARTS}), max_size=4)
CONFIG = st.fixed_dictionaries(
    {},
    optional={
        "maxOutputTokens": OPTIONAL_MAX,
        "candidateCount": st.integers(1, 4),
        "thinkingConfig": st.just({"thinkingBudget": 9}),
    },
)
GEMINI = st.fixed_dictionaries(
    {"contents": CONTENTS},
    optional={
        "generationConfig": st.none() | CONFIG,
        "systemInstruction": st.fixed_dictionaries({"parts": PARTS}),
        "tools": st.just([{"functionDeclarations": [{"name": "f"}]}]),
        "serviceTier": st.sampled_from(["standard", "flex", "PRIORITY"]),
    },
)
BOTH = ("max_completion_tokens", "max_tokens")
OWN_CHAT, *_ = endpoints_of("own", "openai")
DEEPSEEK_CHAT, *_ = endpoints_of("deepseek", "openai")
ANTHROPIC = AnthropicMessages()
OWN_MESSAGES, *_ = endpoints_of("own", "anthropic")
REQUESTS: list[tuple[Endpoint, st.SearchStrategy[dict[str, Any]], tuple[str, ...]]] = [
    (OpenAIChat(), CHAT, BOTH),
    (OWN_CHAT, CHAT, ("max_tokens",)),
    (OWN_CHAT, CHAT, BOTH),
    (DEEPSEEK_CHAT, CHAT, ("max_tokens",)),
    (OpenAIResponses(), RESPONSES, ("max_output_tokens",)),
    (OpenAICompletions(), COMPLETIONS, ("max_tokens",)),
    (OpenAIEmbeddings(), EMBEDDINGS, ()),
    (ANTHROPIC, MESSAGES, ("max_tokens",)),
    (OWN_MESSAGES, MESSAGES, ("max_tokens",)),
    (GeminiContents(GENERATE, "m"), GEMINI, ("maxOutputTokens",)),
]
"""Each with the maxima of output that the provider reads; it knows no others."""


def tokens_max(value: object) -> int:
    """The most tokens that names and values can be: a byte of text each, one for each number."""
    if isinstance(value, str):
        return len(value.encode(errors="replace"))
    if isinstance(value, dict):
        return sum(tokens_max(name) + tokens_max(inner) for name, inner in value.items())
    if isinstance(value, list):
        return sum(tokens_max(inner) for inner in value)
    return 1 if type(value) is int else 0
