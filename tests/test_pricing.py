"""What an answer costs, and that a bound is never below it."""

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.catalog import Prices, Rates, Tier, Variant
from llmproxy.money import MULTIPLIER_ONE, cost_nanousd, parse_rate
from llmproxy.pricing import Line, PricedModel, bound, price, unpriced_mover
from llmproxy.usage import Leg, Movers, Usage, with_media


def rates(
    input_: str, output: str, *, read: str = "1", write: str = "1", search: str | None = None
) -> Rates:
    return Rates(
        input=parse_rate(input_),
        output=parse_rate(output),
        cache_read=parse_rate(read),
        cache_write_5m=parse_rate(write),
        cache_write_1h=2 * parse_rate(write),
        web_search=None if search is None else parse_rate(search),
    )


PRICES = Prices(
    rates=rates("3", "15", read="0.3", write="3.75", search="10"),
    tiers=(Tier(200_000, rates("6", "22.50", read="0.6", write="7.5", search="10")),),
    variants=(
        Variant(("priority",), (), rates("5", "25")),
        Variant((), ("fast",), rates("30", "150")),
    ),
    geo_micro={"us": 1_100_000},
)
MODEL = PricedModel("claude-test", PRICES, 7)


def cost(*legs: Leg, user: int = MULTIPLIER_ONE, model: int = MULTIPLIER_ONE, **movers: str) -> int:
    usage = msgspec.structs.replace(Usage(legs), **movers)
    return price(usage, MODEL, user_multiplier_micro=user, model_multiplier_micro=model).nanousd


def test_each_class_is_charged_at_its_own_rate() -> None:
    leg = Leg(
        input=1000, cache_read=100, cache_write_5m=10, cache_write_1h=1, output=500, reasoning=400
    )
    result = price(
        Usage((leg,)),
        MODEL,
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
    )
    assert [(line.usage_class, line.quantity, line.rate) for line in result.lines] == [
        ("input", 1000, parse_rate("3")),
        ("cache_read", 100, parse_rate("0.3")),
        ("cache_write_5m", 10, parse_rate("3.75")),
        ("cache_write_1h", 1, parse_rate("7.5")),
        ("output", 500, parse_rate("15")),
    ]
    assert {line.price_version for line in result.lines} == {7}
    assert result.nanousd == 3_000_000 + 30_000 + 37_500 + 7_500 + 7_500_000


def test_both_multipliers_count_and_the_whole_is_rounded_up_once() -> None:
    assert cost(Leg(input=1), Leg(input=1), user=1_000_001) == 6001
    assert cost(Leg(input=1), user=1_200_000, model=1_500_000) == 5400


def test_above_the_threshold_all_tokens_cost_the_higher_rate() -> None:
    assert cost(Leg(input=200_000)) == 200_000 * 3000
    assert cost(Leg(input=200_001)) == 200_001 * 6000
    assert cost(Leg(input=1, cache_read=200_000, output=1)) == 6000 + 200_000 * 600 + 22_500


def test_tiers_speeds_and_regions_move_the_price() -> None:
    leg = Leg(input=10)
    assert cost(leg, service_tier="priority") == 50_000
    assert cost(leg, service_tier="default") == 30_000
    assert cost(leg, service_tier="default", speed="standard") == 30_000
    assert cost(leg, speed="fast") == 300_000
    assert cost(leg, geo="us") == 33_000


def test_an_answer_at_an_unpriced_tier_or_speed_is_taken_at_the_dearest_there_is() -> None:
    leg = Leg(input=200_001)
    # Of the tiers for a tier, of the speeds for a speed.
    assert cost(leg, service_tier="flex") == 200_001 * 5000
    assert cost(leg, speed="ludicrous") == 200_001 * 30_000
    assert cost(leg, service_tier="flex", speed="standard") == 200_001 * 5000
    assert cost(leg, service_tier="default", speed="ludicrous") == 200_001 * 30_000
    assert cost(leg, service_tier="flex", speed="ludicrous") == 200_001 * 30_000
    # The ordinary price may be the dearest itself; what is dear is the output.
    flex = Prices(PRICES.rates, PRICES.tiers, (Variant(("flex",), (), rates("9", "14")),))
    result = price(
        Usage((leg,), service_tier="priority"),
        PricedModel("m", flex, None),
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
    )
    assert result.nanousd == 200_001 * 6000


def test_of_tiers_whose_output_costs_the_same_the_dearer_input_counts() -> None:
    embedding = Prices(rates("1", "0"), variants=(Variant(("priority",), (), rates("2", "0")),))
    assert price(
        Usage((Leg(input=1000),), service_tier="turbo"),
        PricedModel("m", embedding, None),
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
    ).lines[0].rate == parse_rate("2")


def test_where_only_speeds_have_prices_a_tier_costs_the_ordinary_one() -> None:
    fast = Variant((), ("fast",), rates("8", "40"))
    both = Variant(("priority",), ("fast",), rates("9", "41"))
    model = PricedModel("m", Prices(rates("4", "20"), variants=(both, fast)), None)

    def output_rate(tier: str | None, speed: str | None = None) -> int:
        usage = Usage((Leg(output=1),), tier, speed)
        one = MULTIPLIER_ONE
        return price(usage, model, user_multiplier_micro=one, model_multiplier_micro=one).nanousd

    assert output_rate("priority") == 20_000
    assert output_rate("priority", "standard") == 20_000
    assert output_rate("priority", "fast") == 41_000
    assert output_rate("unheard-of", "fast") == 40_000
    assert output_rate("standard", "unheard-of") == 40_000
    assert output_rate("unheard-of", "unheard-of") == 41_000


def test_searches_are_charged_at_the_asked_models_rate_whichever_model_ran_them() -> None:
    other = PricedModel("small", Prices(rates("1", "2")), 8)
    result = price(
        Usage((Leg(input=1, web_searches=3, model="small"), Leg(input=1))),
        MODEL,
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
        other_model={"small": other}.__getitem__,
    )
    assert Line("claude-test", "web_search", 3, parse_rate("10"), 7) in result.lines
    assert result.nanousd == 1000 + 3000 + 3 * 10_000_000


def test_web_searches_cost_per_thousand() -> None:
    result = price(
        Usage((Leg(web_searches=3),)),
        MODEL,
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
    )
    assert result.lines == (Line("claude-test", "web_search", 3, parse_rate("10"), 7),)
    assert result.nanousd == 3 * 10_000_000
    assert Line("m", "web_search", 1000, parse_rate("10"), None).rated_tokens == 10 * 10**15


def test_another_models_leg_is_charged_at_its_own_prices() -> None:
    other = PricedModel("small", Prices(rates("1", "2")), 8)
    result = price(
        Usage((Leg(input=10), Leg(output=10, model="small"))),
        MODEL,
        user_multiplier_micro=MULTIPLIER_ONE,
        model_multiplier_micro=MULTIPLIER_ONE,
        other_model={"small": other}.__getitem__,
    )
    assert [(line.model, line.price_version) for line in result.lines] == [
        ("claude-test", 7),
        ("small", 8),
    ]
    assert result.nanousd == 30_000 + 20_000


@pytest.mark.parametrize(
    ("movers", "unpriced"),
    [
        (Movers(), None),
        (Movers("auto", "standard", "global"), None),
        (Movers("priority", "fast", "us"), None),
        (Movers(service_tier="flex"), 'service_tier "flex"'),
        (Movers(speed="ludicrous"), 'speed "ludicrous"'),
        (Movers(geo="eu"), 'inference_geo "eu"'),
    ],
)
def test_an_option_without_a_price_is_named(movers: Movers, unpriced: str | None) -> None:
    assert unpriced_mover(PRICES, movers) == unpriced


# --- bounds ---

NO_WISHES = Movers()


def bound_rates(
    wishes: Movers = NO_WISHES, *, tokens: int = 1000, any_default: bool = False
) -> tuple[int, int]:
    """The input and output rates of a bound without cache writes, in USD per million."""
    most = bound(
        PRICES,
        input_tokens=tokens,
        movers=wishes,
        may_write_cache=False,
        any_default=any_default,
    )
    assert most.input_rated % tokens == 0
    return most.input_rated // tokens, most.output_rate


def test_a_bound_has_the_rates_of_long_contexts_only_where_the_input_may_reach_them() -> None:
    assert bound_rates(tokens=200_000) == (parse_rate("3"), parse_rate("15"))
    assert bound_rates(tokens=200_001) == (parse_rate("6"), parse_rate("22.50"))


@pytest.mark.parametrize(
    ("writes", "hours", "rate"),
    [(False, False, "3"), (True, False, "3.75"), (True, True, "7.5"), (False, True, "7.5")],
)
def test_a_bound_has_the_rates_of_the_cache_writes_that_the_request_allows(
    writes: bool, hours: bool, rate: str
) -> None:
    most = bound(
        PRICES,
        input_tokens=100,
        movers=Movers(),
        may_write_cache=writes,
        may_write_cache_1h=hours,
    )
    assert most.input_rated == 100 * parse_rate(rate)


def test_a_bound_above_the_threshold_has_the_cache_writes_of_long_contexts() -> None:
    most = bound(PRICES, input_tokens=300_000, movers=Movers(), may_write_cache=True)
    assert most.input_rated == 300_000 * parse_rate("7.5")


def test_a_bound_counts_searches_beside_tokens() -> None:
    most = bound(
        PRICES, input_tokens=0, movers=Movers(), may_write_cache=False, units=[("web_search", 3)]
    )
    assert cost_nanousd(most.rated(0), MULTIPLIER_ONE, MULTIPLIER_ONE) == 3 * 10_000_000


def test_a_search_without_a_price_adds_nothing_to_a_bound() -> None:
    free = Prices(rates("3", "15"))
    most = bound(
        free, input_tokens=0, movers=Movers(), may_write_cache=False, units=[("web_search", 3)]
    )
    assert most.input_rated == 0


def test_a_bound_has_the_rate_of_cached_tokens_where_that_is_the_dearer_one() -> None:
    odd = Prices(rates("3", "15", read="4"))
    most = bound(odd, input_tokens=10, movers=Movers(), may_write_cache=False)
    assert most.input_rated == 10 * parse_rate("4")


def test_what_asks_for_a_cheaper_tier_is_bounded_by_the_ordinary_one() -> None:
    flex = Prices(PRICES.rates, variants=(Variant(("flex",), (), rates("1", "5")),))
    for asked, expected in (("flex", "15"), ("default", "15")):
        most = bound(flex, input_tokens=1, movers=Movers(asked), may_write_cache=False)
        assert most.output_rate == parse_rate(expected)


def test_a_bound_takes_the_asked_tier_speed_and_region() -> None:
    assert bound_rates(Movers("priority")) == (parse_rate("5"), parse_rate("25"))
    assert bound_rates(Movers(speed="fast")) == (parse_rate("30"), parse_rate("150"))
    assert bound_rates(Movers(geo="us")) == (parse_rate("3.3"), parse_rate("16.5"))


def test_a_bound_may_take_whatever_the_accounts_settings_can_choose() -> None:
    for wishes in (Movers(), Movers("auto")):
        # priority, in the dear region; nobody is sped up without asking for it
        assert bound_rates(wishes, any_default=True) == (parse_rate("5.5"), parse_rate("27.5"))
    settled = Movers("default", geo="global")
    assert bound_rates(settled, any_default=True) == (parse_rate("3"), parse_rate("15"))
    fast = Movers(speed="fast", geo="global")
    assert bound_rates(fast, any_default=True)[1] == parse_rate("150")


RATE = st.integers(0, 10**12)
FURTHER = (
    *("web_search", "input_audio", "input_image", "output_audio", "output_image"),
    *("image", "audio_hour", "character", "cache_read_audio"),
)
ANY_RATES = st.builds(
    Rates, RATE, RATE, RATE, RATE, RATE, **dict.fromkeys(FURTHER, st.none() | RATE)
)
ANY_TIERS = st.lists(ANY_RATES, max_size=2).map(
    lambda found: tuple(Tier(1000 * (n + 1), each) for n, each in enumerate(found))
)
ANY_PRICES = st.builds(
    Prices,
    rates=ANY_RATES,
    tiers=ANY_TIERS,
    variants=st.lists(
        st.builds(Variant, st.just(("priority",)), st.just(()), ANY_RATES, ANY_TIERS), max_size=1
    ).map(tuple),
    geo_micro=st.dictionaries(st.just("us"), st.integers(0, 3_000_000)),
)
COUNT = st.integers(0, 3000)
LEGS = st.lists(
    st.builds(
        Leg,
        input=COUNT,
        cache_read=COUNT,
        cache_write_5m=COUNT,
        cache_write_1h=COUNT,
        output=COUNT,
        web_searches=st.integers(0, 3),
    ),
    min_size=1,
    max_size=3,
)
MEDIA = ("input_audio", "input_image", "output_audio", "output_image")
UNITS_OF_A_LEG = {"images": "image", "audio_seconds": "audio_second", "characters": "character"}
ANY_MEDIA = st.fixed_dictionaries({}, optional=dict.fromkeys(MEDIA, COUNT))
ANY_UNITS = st.fixed_dictionaries({}, optional=dict.fromkeys(UNITS_OF_A_LEG, COUNT))
SPARE = st.integers(0, 500)


@settings(max_examples=200)
@given(
    prices=ANY_PRICES,
    legs=LEGS,
    movers=st.sampled_from([Movers(), Movers("priority"), Movers(geo="us")]),
    spare_input=SPARE,
    spare_output=SPARE,
    multipliers=st.tuples(st.integers(0, 3_000_000), st.integers(0, 3_000_000)),
    media=ANY_MEDIA,
    units=ANY_UNITS,
)
def test_a_bound_is_never_below_the_price_of_what_is_within_it(
    prices: Prices,
    legs: list[Leg],
    movers: Movers,
    spare_input: int,
    spare_output: int,
    multipliers: tuple[int, int],
    media: dict[str, int],
    units: dict[str, int],
) -> None:
    first = with_media(
        legs[0],
        (media.get("input_audio", 0), media.get("input_image", 0)),
        (media.get("output_audio", 0), media.get("output_image", 0)),
    )
    cached = first.cache_read if "input_audio" in media else 0
    legs = [msgspec.structs.replace(first, cache_read_audio=cached, **units), *legs[1:]]
    most = bound(
        prices,
        input_tokens=sum(leg.input_side for leg in legs) + spare_input,
        movers=movers,
        may_write_cache=any(leg.cache_write_5m for leg in legs),
        may_write_cache_1h=any(leg.cache_write_1h for leg in legs),
        media=tuple(media),
        units=[
            ("web_search", sum(leg.web_searches for leg in legs)),
            *((UNITS_OF_A_LEG[name], number) for name, number in units.items()),
        ],
    )
    rated = most.rated(sum(leg.output for leg in legs) + spare_output)
    paid = price(
        Usage(tuple(legs), movers.service_tier, movers.speed, movers.geo),
        PricedModel("m", prices, None),
        user_multiplier_micro=multipliers[0],
        model_multiplier_micro=multipliers[1],
    )
    assert cost_nanousd(rated, *multipliers) >= paid.nanousd


def test_prices_survive_being_pinned() -> None:
    assert Prices.from_json(PRICES.canonical_json()) == PRICES
