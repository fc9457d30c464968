"""Prices of audio, images and units, and costs that the provider itself reports."""

from functools import partial

import msgspec
import pytest

from llmproxy.catalog import Prices
from llmproxy.money import MULTIPLIER_ONE, parse_rate
from llmproxy.pricing import Bound, Line, PricedModel, bound, price
from llmproxy.usage import Leg, Movers, Usage
from tests.test_pricing import PRICES, rates

# --- audio, images, and what is billed by the number ---

HEARING = Prices(
    msgspec.structs.replace(
        rates("2.5", "10", read="0.5"),
        input_audio=parse_rate("6"),
        output_image=parse_rate("40"),
        image=parse_rate("70"),
        audio_hour=parse_rate("0.111"),
        character=parse_rate("15"),
    )
)


def priced(leg: Leg, prices: Prices = HEARING) -> list[tuple[str, int, int]]:
    cost = price(
        Usage((leg,)),
        PricedModel("m", prices, None),
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
    )
    return [(line.usage_class, line.quantity, line.rate) for line in cost.lines]


def test_audio_and_images_have_their_own_price_and_text_is_the_rest() -> None:
    leg = Leg(input=100, cache_read=10, output=50, input_audio=60, output_image=45)
    assert priced(leg) == [
        ("input", 40, parse_rate("2.5")),
        ("cache_read", 10, parse_rate("0.5")),
        ("output", 5, parse_rate("10")),
        ("input_audio", 60, parse_rate("6")),
        ("output_image", 45, parse_rate("40")),
    ]


def test_audio_from_a_cache_has_its_own_price_or_that_of_all_that_is_cached() -> None:
    leg = Leg(input=100, cache_read=50, cache_read_audio=30)
    dear = msgspec.structs.replace(HEARING.rates, cache_read_audio=parse_rate("7"))
    assert priced(leg, Prices(dear)) == [
        ("input", 100, parse_rate("2.5")),
        ("cache_read", 20, parse_rate("0.5")),
        ("cache_read_audio", 30, parse_rate("7")),
    ]
    assert priced(leg)[1:] == [("cache_read", 50, parse_rate("0.5"))]
    most = partial(bound, Prices(dear), input_tokens=10, movers=Movers(), may_write_cache=False)
    assert most(media=("input_audio",)).input_rated == 10 * parse_rate("7")
    assert most().input_rated == 10 * parse_rate("2.5")


def test_audio_and_images_without_a_price_cost_what_text_does() -> None:
    leg = Leg(input=100, output=50, input_image=60, output_audio=45)
    assert priced(leg) == [("input", 100, parse_rate("2.5")), ("output", 50, parse_rate("10"))]


def test_units_cost_by_their_number() -> None:
    leg = Leg(images=2, audio_seconds=10, characters=1000)
    assert priced(leg) == [
        ("image", 2, parse_rate("70")),
        ("audio_second", 10, parse_rate("0.111")),
        ("character", 1000, parse_rate("15")),
    ]
    assert Line("m", "image", 2, parse_rate("70"), None).rated_tokens == 140 * 10**12
    # 10 s at 0.111 USD an hour, upwards to 10⁻¹⁵ USD
    second = Line("m", "audio_second", 10, parse_rate("0.111"), None)
    assert second.rated_tokens == 308_333_333_334
    assert Line("m", "character", 1000, parse_rate("15"), None).rated_tokens == 15 * 10**12


def test_units_without_a_price_cost_nothing() -> None:
    assert priced(Leg(images=2, audio_seconds=10, characters=1000), Prices(rates("1", "1"))) == []


@pytest.mark.parametrize(
    ("leg", "line"),
    [
        (Leg(input=9, output=5, audio_seconds=10), ("audio_second", 10, parse_rate("0.111"))),
        (Leg(input=9, output=5, characters=7), ("character", 7, parse_rate("15"))),
    ],
)
def test_so_do_seconds_and_characters(leg: Leg, line: tuple[str, int, int]) -> None:
    assert priced(leg) == [line]
    tokens = [("input", 9, parse_rate("1")), ("output", 5, parse_rate("1"))]
    assert priced(leg, Prices(rates("1", "1"))) == tokens


def test_searches_are_billed_beside_tokens() -> None:
    searched = msgspec.structs.replace(rates("1", "1"), web_search=parse_rate("10"))
    assert priced(Leg(input=100, web_searches=2), Prices(searched)) == [
        ("input", 100, parse_rate("1")),
        ("web_search", 2, parse_rate("10")),
    ]


def test_of_a_model_with_a_price_of_images_these_count_and_no_tokens_beside_them() -> None:
    made = Leg(input=100, cache_read=10, output=50, output_image=45, images=2)
    assert priced(made) == [("image", 2, parse_rate("70"))]
    tokens = [("input", 100, parse_rate("1")), ("output", 50, parse_rate("1"))]
    told = Leg(input=100, output=50, images=2)
    assert priced(told, Prices(rates("1", "1"))) == tokens
    free = Prices(msgspec.structs.replace(rates("1", "1"), image=0))  # which is no price either
    assert priced(told, free) == tokens


def test_a_bound_takes_audio_and_images_for_all_that_may_be_such() -> None:
    def most(*media: str) -> Bound:
        return bound(HEARING, input_tokens=10, movers=Movers(), may_write_cache=False, media=media)

    assert most().input_rated == 10 * parse_rate("2.5")
    assert most("input_audio").input_rated == 10 * parse_rate("6")
    assert most("output_image").output_rate == parse_rate("40")
    assert most("input_image", "output_audio") == most()


# --- what the provider says that it bills ---


@pytest.mark.parametrize(
    ("is_from_provider", "provider_cost", "expected"),
    [
        (True, 123_456_789_000_001, 123_456_790),  # rounded up once, to nano-USD
        (True, 0, 0),
        (True, None, 1000 * 3 * 1000),
        (False, 123_456_789_000_001, 1000 * 3 * 1000),
    ],
)
def test_what_the_provider_bills_is_the_cost_where_the_catalog_says_so(
    is_from_provider: bool, provider_cost: int | None, expected: int
) -> None:
    prices = msgspec.structs.replace(PRICES, is_cost_from_provider=is_from_provider)
    result = price(
        Usage((Leg(input=1000, web_searches=0),), provider_cost=provider_cost),
        PricedModel("m", prices, 3),
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
    )
    assert result.nanousd == expected
    assert all(line.price_version == 3 for line in result.lines)


def test_multipliers_count_for_what_the_provider_bills_too() -> None:
    prices = msgspec.structs.replace(PRICES, is_cost_from_provider=True)
    result = price(
        Usage((Leg(input=1),), provider_cost=10**15),
        PricedModel("m", prices, 3),
        user_multiplier_micro=1_200_000,
        model_multiplier_micro=500_000,
    )
    assert result.nanousd == 600_000_000
    assert result.has_units
