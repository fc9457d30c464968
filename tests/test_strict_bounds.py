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

from llmproxy.catalog import Model, Prices, Rates
from llmproxy.dialects.base import Endpoint, RequestFacts
from llmproxy.dialects.gemini_contents import GENERATE, GeminiContents
from llmproxy.dialects.openai_audio import TRANSCRIPTION_FORMATS, OpenAIAudio
from llmproxy.dialects.openai_images import OpenAIImages
from llmproxy.dialects.openai_speech import OpenAISpeech
from llmproxy.pricing import PricedModel, price, unpriced_mover
from llmproxy.quote import HoldPolicy, Quote, fit, make_quote, with_counted_max
from llmproxy.usage import Leg, Movers, Usage
from tests.support.any_requests import (
    ANTHROPIC,
    DEAREST,
    MODELS,
    MULTIPLIER,
    RATE,
    REQUESTS,
    TEXT,
    tokens_max,
)
from tests.support.forms import form, wav

PREAMBLE_TOKENS_MAX = 1600
TOOLS_PREAMBLE_TOKENS_MAX = 1000

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


@given(
    model=MEDIA_MODELS,
    multiplier=MULTIPLIER,
    prompt=TEXT,
    clips=st.lists(
        st.tuples(
            st.sampled_from(["audio/wav", "audio/mp3", "video/mp4"]),
            st.integers(0, 40_000),
            st.integers(1, 48_000),
        ),
        min_size=1,
        max_size=3,
    ),
    kinds=st.none() | st.lists(st.sampled_from(["TEXT", "IMAGE", "AUDIO"]), max_size=3),
    heard=SOME | st.just(DEAREST),
    spoken=SOME | st.just(DEAREST),
    window=st.none() | st.integers(1, 10_000),
)
@settings(max_examples=300, deadline=None)
def test_no_honest_answer_of_gemini_with_clips_costs_more_than_a_strict_server_held(
    model: Model,
    multiplier: int,
    prompt: str,
    clips: list[tuple[str, int, int]],
    kinds: list[str] | None,
    heard: int | None,
    spoken: int | None,
    window: int | None,
) -> None:
    """A second of audio is 32 tokens; with what has no known length, all that the model takes."""
    is_bounded = all(kind == "audio/wav" for kind, *_ in clips)
    assume(is_bounded or window is not None)
    parts = [
        {"inlineData": {"mimeType": kind, "data": b64encode(wav(samples, rate)).decode()}}
        for kind, samples, rate in clips
    ]
    contents = [{"parts": [{"text": prompt}, *parts]}]
    config = {} if kinds is None else {"responseModalities": kinds}
    body = json.dumps({"contents": contents, "generationConfig": config})
    facts = GeminiContents(GENERATE, "m").read_request(body.encode())
    for unit in ("image", "audio_hour", "character"):
        model = without(model, unit)
    # Audio has rates of its own here, often so dear that they alone decide.
    rates = model.prices.rates
    rates = msgspec.structs.replace(rates, input_audio=heard, output_audio=spoken)
    model = msgspec.structs.replace(model, prices=Prices(rates), max_input_tokens=window)
    quote = make_quote(facts, model, multiplier, HoldPolicy(is_strict=True))
    seconds = sum(ceil(Fraction(samples, rate)) for _, samples, rate in clips)
    texts = {"contents": [{"parts": [{"text": prompt}]}], "generationConfig": config}
    texts |= {"kinds": [{"mimeType": kind} for kind, *_ in clips]}
    read = tokens_max(texts) + PREAMBLE_TOKENS_MAX + 32 * seconds
    if not is_bounded:
        assert window is not None
        read = max(tokens_max(texts) + PREAMBLE_TOKENS_MAX, window)
    made = model.max_output_tokens
    assert made is not None
    legs = [Leg(input=read, output=made), Leg(input=read, output=made, input_audio=read)]
    legs.append(Leg(cache_read=read, output=made))
    if not is_bounded:
        legs.append(Leg(input=read, output=made, input_image=read // 2, input_audio=read // 2))
    if not kinds or "IMAGE" in kinds:
        legs.append(Leg(input=read, output=made, output_image=made))
    if kinds and "AUDIO" in kinds:
        legs.append(Leg(input=read, output=made, input_audio=read, output_audio=made))
    assert_covered(quote, *legs)


def without(model: Model, unit: str) -> Model:
    """The model without a price that its endpoint does not count."""
    rates = msgspec.structs.replace(model.prices.rates, **{unit: None})
    return msgspec.structs.replace(model, prices=msgspec.structs.replace(model.prices, rates=rates))
