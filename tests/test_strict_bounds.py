"""Under a strict policy no honest answer costs more than was held: every dialect, any usage.

An honest provider makes no more tokens of a text than it has bytes, adds no more than it needs for
its own preamble, generates no more than was allowed, and writes to its cache only where it may.
"""

import json
from base64 import b64encode
from collections.abc import Iterator
from fractions import Fraction
from itertools import product
from math import ceil
from typing import Any

import msgspec
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from llmproxy.catalog import Model, Prices, Rates, Tier, Variant
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.dialects.gemini_contents import GENERATE, GeminiContents
from llmproxy.dialects.openai_audio import TRANSCRIPTION_FORMATS, OpenAIAudio
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_completions import OpenAICompletions
from llmproxy.dialects.openai_embeddings import OpenAIEmbeddings
from llmproxy.dialects.openai_images import OpenAIImages
from llmproxy.dialects.openai_responses import OpenAIResponses
from llmproxy.dialects.openai_speech import OpenAISpeech
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.pricing import PricedModel, price, unpriced_mover
from llmproxy.quote import HoldPolicy, Quote, fit, make_quote, with_counted_max
from llmproxy.routes import endpoints_of
from llmproxy.usage import Leg, Movers, Usage
from tests.support.forms import form, wav

PREAMBLE_TOKENS_MAX = 1600
TOOLS_PREAMBLE_TOKENS_MAX = 1000

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


# --- the dearest honest answers ---


def output_max(
    endpoint: Endpoint, sent: dict[str, Any], read: tuple[str, ...], quote: Quote
) -> int:
    """The most that a provider generates which reads these maxima of what it was sent.

    Only Anthropic answers nothing for 0: everybody else may take it for "not set".
    """
    facts, models = quote.facts, quote.model.max_output_tokens
    assert models is not None
    if endpoint.name == "embeddings" or (endpoint is ANTHROPIC and sent["max_tokens"] == 0):
        return 0
    if facts.output_within is not None:
        sent = sent.get(facts.output_within) or {}
    own = max((sent[member] for member in read if sent.get(member)), default=models)
    return min(own, models) * facts.choices + facts.output_tokens_extra


def objects(value: object) -> Iterator[dict[str, Any]]:
    """Every object within a request, at whatever depth."""
    if isinstance(value, dict):
        yield value
        yield from objects(list(value.values()))
    elif isinstance(value, list):
        for inner in value:
            yield from objects(inner)


def caches_long(fields: dict[str, Any]) -> bool:
    """Whether a provider may write something to its cache for long."""
    return any(each.get("ttl") in {"1h", "12h"} for each in objects(fields))


def has_media(fields: dict[str, Any]) -> bool:
    """Whether there are images or documents, which may be any number of tokens of images."""
    kinds = {"image_url", "file", "input_image", "input_file"}
    return any(each.get("type") in kinds for each in objects(fields))


def splits(
    facts: RequestFacts, model: Model, output: int, input_max: int, fields: dict[str, Any]
) -> Iterator[Leg]:
    """All of the input in one class, as much as there may be or just up to a step of the price.

    A price is linear in each class between two steps: nothing in between costs more than these.
    """
    steps = {tier.above_input_tokens for tier in model.prices.tiers}
    steps |= {tier.above_input_tokens for each in model.prices.variants for tier in each.tiers}
    for tokens in {input_max, *(min(step, input_max) for step in steps)}:
        yield Leg(output=output, input=tokens)
        yield Leg(output=output, cache_read=tokens)
        if facts.may_write_cache:
            yield Leg(output=output, cache_write_5m=tokens)
        if caches_long(fields):
            yield Leg(output=output, cache_write_1h=tokens)
        if has_media(fields):
            yield Leg(output=output, input=tokens, input_image=tokens)


def served_as(wishes: Movers, model: Model) -> Iterator[Movers]:
    """What an answer may say of its tier, speed and region."""
    tiers = [wishes.service_tier, "default"]
    if wishes.service_tier in {None, "auto"}:
        tiers += [
            "unheard-of",
            *(name for variant in model.prices.variants for name in variant.service_tiers),
        ]
    geos = [wishes.geo] if wishes.geo else [None, *model.prices.geo_micro]
    for tier, speed, geo in product(tiers, (wishes.speed, "standard"), geos):
        yield Movers(tier, speed, geo)


@pytest.mark.parametrize(("endpoint", "requests", "read"), REQUESTS)
@given(data=st.data(), model=MODELS, user_multiplier=MULTIPLIER)
@settings(max_examples=150, deadline=None)
def test_no_honest_answer_costs_more_than_a_strict_server_held(
    endpoint: Endpoint,
    requests: st.SearchStrategy[dict[str, Any]],
    read: tuple[str, ...],
    data: st.DataObject,
    model: Model,
    user_multiplier: int,
) -> None:
    fields = data.draw(requests)
    is_ascii, indent = data.draw(st.booleans()), data.draw(st.sampled_from([None, 1]))
    body = json.dumps({"model": "m", **fields}, ensure_ascii=is_ascii, indent=indent)
    written = body.encode(errors="replace")
    facts = endpoint.read_request(written)
    assume(unpriced_mover(model.prices, facts.movers) is None)
    assume(model.max_input_tokens is not None or not has_media(fields))
    quote = make_quote(facts, model, user_multiplier, HoldPolicy(is_strict=True))
    if endpoint.output_members and facts.output_max != 0 and data.draw(st.booleans()):
        # As where the credit covers only some of it.
        quote = fit(quote, data.draw(st.integers(0, quote.amount_nanousd))) or quote
    sent = json.loads(with_counted_max(written, endpoint, quote))
    preamble = PREAMBLE_TOKENS_MAX + (TOOLS_PREAMBLE_TOKENS_MAX if fields.get("tools") else 0)
    output = output_max(endpoint, sent, read, quote)
    input_max = tokens_max(fields) + preamble
    if has_media(fields):
        assert model.max_input_tokens is not None
        input_max = max(input_max, model.max_input_tokens)
    legs = list(splits(facts, model, output, input_max, fields))
    for leg, served in product(legs, served_as(facts.movers, model)):
        cost = price(
            Usage((leg,), served.service_tier, served.speed, served.geo),
            PricedModel(model.id, model.prices, None),
            user_multiplier_micro=user_multiplier,
            model_multiplier_micro=model.multiplier_micro,
        )
        assert cost.nanousd <= quote.amount_nanousd, (leg, served)


# --- images and sound ---

SOME = st.none() | RATE
MEDIA_MODELS = st.builds(
    lambda model, text, media, limit: msgspec.structs.replace(
        model,
        prices=Prices(
            Rates(
                text[0], text[1], 0, 0, 0, input_image=media[0], output_image=media[1],
                input_audio=media[0], image=media[2], audio_hour=media[2], character=media[2],
            )
        ),
        max_output_tokens=limit,
    ),
    MODELS,
    st.tuples(RATE, RATE),
    st.tuples(SOME, SOME, SOME),
    st.integers(1, 5000),
)  # fmt: skip
STEPS = {"low": 16, "medium": 48, "high": 96}
OLDER = {
    ("low", "1024x1024"): 272, ("low", "1024x1536"): 408, ("low", "1536x1024"): 400,
    ("medium", "1024x1024"): 1056, ("medium", "1024x1536"): 1584, ("medium", "1536x1024"): 1568,
    ("high", "1024x1024"): 4160, ("high", "1024x1536"): 6240, ("high", "1536x1024"): 6208,
}  # fmt: skip
"""Tokens of GPT Image 1 by OpenAI's guide."""


def made_tokens(quality: str, width: int, height: int) -> int:
    """The tokens of an image as OpenAI's calculator has them for GPT Image 2."""
    squares = STEPS[quality] * round(STEPS[quality] * min(width, height) / max(width, height))
    return ceil(squares * (2_000_000 + width * height) / 4_000_000)


EDGE = st.integers(1, 240).map(lambda n: 16 * n)
SIZES = st.tuples(EDGE, EDGE).filter(
    lambda size: size[0] * size[1] <= 3840 * 2160 and max(size) <= 3 * min(size)
)


def assert_covered(quote: Quote, *legs: Leg) -> None:
    for leg in legs:
        cost = price(
            Usage((leg,)),
            PricedModel(quote.model.id, quote.model.prices, None),
            user_multiplier_micro=quote.user_multiplier_micro,
            model_multiplier_micro=quote.model.multiplier_micro,
        )
        assert cost.nanousd <= quote.amount_nanousd, leg


@given(
    model=MEDIA_MODELS,
    multiplier=MULTIPLIER,
    prompt=TEXT,
    size=SIZES,
    names_size=st.booleans(),
    quality=st.sampled_from(sorted(STEPS)),
    images=st.integers(1, 10),
    partial=st.integers(0, 3),
)
@settings(max_examples=300, deadline=None)
def test_no_honest_image_costs_more_than_a_strict_server_held(
    model: Model,
    multiplier: int,
    prompt: str,
    size: tuple[int, int],
    names_size: bool,
    quality: str,
    images: int,
    partial: int,
) -> None:
    fields = {"model": "gpt-image-2", "prompt": prompt, "quality": quality, "n": images}
    fields |= {"size": f"{size[0]}x{size[1]}"} if names_size else {}
    fields |= {"partial_images": partial}
    written = json.dumps(fields, ensure_ascii=False).encode(errors="replace")
    facts = OpenAIImages("images/generations").read_request(written)
    model = msgspec.structs.replace(model, max_output_tokens=None)
    model = without(without(model, "character"), "audio_hour")
    quote = make_quote(facts, model, multiplier, HoldPolicy(is_strict=True))
    tokens = made_tokens(quality, *size)
    if not names_size:
        tokens = max(tokens, *(count for (name, _), count in OLDER.items() if name == quality))
    made = images * (tokens + 100 * partial)
    read = tokens_max(fields) + PREAMBLE_TOKENS_MAX
    assert_covered(
        quote,
        Leg(input=read, output=made),
        Leg(input=read, output=made, input_image=read, output_image=made),
        Leg(input=read, output=made, output_image=made // 2),
        Leg(images=images),
    )


@pytest.mark.parametrize(("named", "tokens"), OLDER.items())
def test_a_strict_server_holds_for_images_of_an_older_model_too(
    named: tuple[str, str], tokens: int
) -> None:
    body = json.dumps({"model": "gpt-image-1", "quality": named[0], "size": named[1]}).encode()
    facts = OpenAIImages("images/generations").read_request(body)
    assert facts.output_max is not None
    assert facts.output_max >= tokens


@given(
    model=MEDIA_MODELS,
    multiplier=MULTIPLIER,
    prompt=TEXT,
    samples=st.integers(0, 40_000),
    rate=st.integers(1, 48_000),
    channels=st.integers(1, 8),
    width=st.sampled_from([1, 3, 4]),
)
@settings(max_examples=200, deadline=None)
def test_no_honest_transcript_costs_more_than_a_strict_server_held(
    model: Model,
    multiplier: int,
    prompt: str,
    samples: int,
    rate: int,
    channels: int,
    width: int,
) -> None:
    texts = {"model": "m", "prompt": prompt.encode(errors="replace").decode()}
    written = form(texts, {"file": wav(samples, rate, channels, width)})
    facts = OpenAIAudio("audio/transcriptions", TRANSCRIPTION_FORMATS).read_request(written)
    model = without(model, "character")
    quote = make_quote(facts, without(model, "image"), multiplier, HoldPolicy(is_strict=True))
    assert model.max_output_tokens is not None
    seconds = max(1, ceil(Fraction(samples, rate)))
    read = tokens_max(texts) + PREAMBLE_TOKENS_MAX + 32 * ceil(Fraction(samples, rate))
    assert_covered(
        quote,
        Leg(audio_seconds=seconds),
        Leg(input=read, output=model.max_output_tokens),
        Leg(input=read, output=model.max_output_tokens, input_audio=read),
    )


@given(model=MEDIA_MODELS, multiplier=MULTIPLIER, said=TEXT)
@settings(max_examples=100, deadline=None)
def test_no_honest_speech_costs_more_than_a_strict_server_held(
    model: Model, multiplier: int, said: str
) -> None:
    model = msgspec.structs.replace(
        model, prices=Prices(Rates(0, 0, 0, 0, 0, character=model.prices.rates.character))
    )
    body = json.dumps({"model": "m", "input": said}).encode()
    quote = make_quote(
        OpenAISpeech().read_request(body), model, multiplier, HoldPolicy(is_strict=True)
    )
    assert_covered(quote, Leg(characters=len(json.loads(body)["input"])))


def without(model: Model, unit: str) -> Model:
    """The model without a price that its endpoint does not count."""
    rates = msgspec.structs.replace(model.prices.rates, **{unit: None})
    return msgspec.structs.replace(model, prices=msgspec.structs.replace(model.prices, rates=rates))
