"""Recorded shapes: whatever way a stream is cut, the usage, the price and the bytes are the same.

The arithmetic of each fixture was worked out by hand and is checked here on its own, without the
program's own pricing.
"""

import json
import random
import re
from collections.abc import Iterator
from decimal import ROUND_CEILING, Decimal
from importlib import import_module
from itertools import combinations, islice
from typing import Any

import msgspec
import pydantic
import pytest

from llmproxy.catalog import Model
from llmproxy.catalog_parser import load_catalog
from llmproxy.dialects.base import Reading
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.presets import PRESETS
from llmproxy.pricing import PricedModel, price
from llmproxy.usage import with_writes
from tests.every_cut import delicate, wrong_cuts
from tests.every_cut import endpoint_of as endpoint
from tests.fixtures import CATALOG, EVERY, STREAMS, Case

CUTS = 30
LONG_BYTES = 10_000
CUTS_OF_LONG = 5_000
FIXTURES = load_catalog(CATALOG)


def model(case: Case, name: str | None = None) -> Model:
    found = FIXTURES.find(case.provider, name or case.model)
    assert found is not None
    return found


def check(case: Case, reading: Reading) -> None:
    assert reading.is_final
    assert not reading.has_error
    assert reading.problem is None
    assert reading.usage is not None
    may_be_1h = endpoint(case).read_request(case.request).may_write_cache_1h
    usage = with_writes(reading.usage, may_be_1h=may_be_1h)
    assert json.loads(msgspec.json.encode(usage)) == case.usage
    cost = price(
        usage,
        PricedModel(case.model, model(case).prices, 1),
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
        other_model=lambda name: PricedModel(name, model(case, name).prices, 2),
    )
    assert cost.nanousd == case.nanousd


# --- the fixtures themselves ---

MEDIA = {
    "input_audio": "input",
    "input_image": "input",
    "output_audio": "output",
    "output_image": "output",
    "cache_read_audio": "cache_read",
}
_LINE = re.compile(r"(\d+) (\w+) × ([\d.]+) = ([\d.]+)")


@pytest.mark.parametrize("name", EVERY)
def test_the_arithmetic_of_a_fixture_is_right_and_is_that_of_its_usage(name: str) -> None:
    case = EVERY[name]
    total = Decimal(0)
    counted: list[tuple[str, int]] = []
    for line in case.arithmetic:
        match = _LINE.fullmatch(line)
        assert match is not None, line
        assert int(match[1]) * Decimal(match[3]) == Decimal(match[4]), line
        total += Decimal(match[4])
        counted.append((match[2], int(match[1])))
    assert total.to_integral_value(ROUND_CEILING) == case.nanousd
    if case.arithmetic[0].startswith("1 provider_cost"):
        assert case.usage["provider_cost"] == total * 10**6  # 10⁻¹⁵ USD
        assert counted == [("provider_cost", 1)]
        return
    names = {"web_searches": "web_search", "images": "image", "audio_seconds": "audio_second"}
    legs = [_apart(leg, counted).items() for leg in case.usage["legs"]]
    billed = [(names.get(key, key), count) for leg in legs for key, count in leg]
    said = {"reasoning", "model", "round_input"}
    assert counted == [one for one in billed if one[0] not in said and one[1]]


def _apart(leg: dict[str, Any], counted: list[tuple[str, int]]) -> dict[str, Any]:
    """The leg without, in its input and output, the sound and images that have lines of their own.

    Those that have none cost what text does.
    """
    priced = {name for name, _ in counted}
    kept = {key: count for key, count in leg.items() if key not in MEDIA or key in priced}
    for name, side in MEDIA.items():
        if name in kept:
            kept[side] -= kept[name]
    return kept


@pytest.mark.parametrize("name", EVERY)
def test_an_answer_is_of_the_shape_that_the_providers_sdk_knows(name: str) -> None:
    case = EVERY[name]
    module, _, attribute = case.sdk.partition(":")
    adapter: pydantic.TypeAdapter[Any] = pydantic.TypeAdapter(
        getattr(import_module(module), attribute)
    )
    for number, event in enumerate(case.events):
        for value in _json_values(event) if case.is_stream else [json.loads(event)]:
            if number not in case.sdk_skips:
                _check_shape(adapter, value, case.sdk_skips_field)


def _json_values(event: bytes) -> Iterator[Any]:
    if not event.startswith((b"data:", b"event:", b":")):
        if written := event.strip(b"[],\r\n"):
            yield json.loads(written)
        return
    for line in re.split(rb"\r?\n", event):
        if line.startswith(b"data: ") and line not in {b"data: [DONE]", b'data: {"type": "ping"}'}:
            yield json.loads(line.removeprefix(b"data: "))


def _check_shape(adapter: "pydantic.TypeAdapter[Any]", value: object, skipped: str | None) -> None:
    try:
        adapter.validate_python(value)
    except pydantic.ValidationError as error:
        wrong = [one for one in error.errors() if one["loc"][-1] != skipped]
        assert not wrong, wrong


# --- requests ---


@pytest.mark.parametrize("name", EVERY)
def test_a_request_is_taken_and_only_the_wish_for_usage_is_written_into_it(name: str) -> None:
    case = EVERY[name]
    facts = endpoint(case).read_request(case.request)
    assert (facts.model, facts.is_stream) == (case.model, case.is_stream)
    injects = PRESETS[case.provider].injects_usage if case.provider in PRESETS else True
    sent = endpoint(case).upstream_body(case.request, facts, injects_usage=injects)
    if not case.is_usage_withheld and not (case.is_stream and injects):
        assert sent == case.request
    if case.is_usage_withheld:
        asked, given = json.loads(sent), json.loads(case.request)
        kept = given.get("stream_options", {})
        assert asked == {**given, "stream_options": {**kept, "include_usage": True}}


# --- answers ---


@pytest.mark.parametrize("name", [name for name, case in EVERY.items() if not case.is_stream])
def test_a_plain_answer_is_priced_exactly(name: str) -> None:
    case = EVERY[name]
    check(case, endpoint(case).read_answer(case.answer))


def whole(stream: bytes) -> list[bytes]:
    return [stream]


def bytewise(stream: bytes) -> list[bytes]:
    return [stream[at : at + 1] for at in range(len(stream))]


def at_random(stream: bytes, rng: random.Random) -> list[bytes]:
    count = rng.choice([1, 2, 5, 20, 100])
    ends = sorted(rng.randrange(len(stream) + 1) for _ in range(count))
    return [stream[a:b] for a, b in zip([0, *ends], [*ends, len(stream)], strict=True)]


def read_in(case: Case, pieces: list[bytes]) -> None:
    withholds = case.is_usage_withheld
    reader = endpoint(case).stream_reader(withholds_usage=withholds)
    passed = b"".join([reader.events.feed(piece) for piece in pieces]) + reader.events.finish()
    assert passed == case.passed()
    assert reader.is_complete
    check(case, reader.reading())


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_priced_and_passed_exactly_whole_by_events_and_by_bytes(name: str) -> None:
    case = STREAMS[name]
    for pieces in (whole(case.answer), case.events, bytewise(case.answer)):
        read_in(case, pieces)


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_is_priced_and_passed_exactly_however_it_is_cut(name: str) -> None:
    case = STREAMS[name]
    for seed in range(CUTS):
        read_in(case, at_random(case.answer, random.Random(f"{name} {seed}")))


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_in_two_anywhere_is_the_same(name: str) -> None:
    case = STREAMS[name]
    # Of a line of 60 KB not every byte.
    step = 1 if len(case.answer) < LONG_BYTES else max(7, len(case.answer) // CUTS_OF_LONG)
    places = {*range(1, len(case.answer), step), *delicate(case.answer)}
    assert list(wrong_cuts(case, ((at,) for at in sorted(places)))) == []


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_in_three_at_ends_of_lines_and_within_characters_is_the_same(
    name: str,
) -> None:
    case = STREAMS[name]
    step = 1 if len(case.answer) < LONG_BYTES else 13
    pairs = islice(combinations(delicate(case.answer), 2), None, None, step)
    assert list(wrong_cuts(case, pairs)) == []


@pytest.mark.parametrize("name", STREAMS)
def test_a_stream_cut_short_is_no_bill_before_its_usage_has_come(name: str) -> None:
    """Of a prefix either the whole bill is known, or no usage is taken for final."""
    case = STREAMS[name]
    finals = []
    for count in range(len(case.events)):
        reader = endpoint(case).stream_reader(withholds_usage=case.is_usage_withheld)
        reader.events.feed(b"".join(case.events[:count]))
        reader.events.finish()
        reading = reader.reading()
        finals.append(reading.is_final)
        if reading.is_final:
            check(case, reading)
    assert finals == sorted(finals)  # once known, it stays known
    assert not finals[0]


def test_one_line_of_a_stream_is_as_long_as_the_longest_that_was_recorded() -> None:
    assert len(STREAMS["openai-responses-long"].events[-1]) > 100_873
