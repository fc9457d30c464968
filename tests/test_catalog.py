"""The model catalog: what it accepts, what it refuses, and the prices that are shipped."""

import json
from typing import Any

import pytest

from llmproxy.catalog import Catalog, Model, Prices, Rates, Tier
from llmproxy.catalog_parser import load_catalog, parse_entry
from llmproxy.errors import CatalogError
from tests.support.catalogs import USD, document, entry, one, parse, refusal, refusal_of


@pytest.fixture(scope="module")
def shipped() -> Catalog:
    return load_catalog(None)


def shipped_model(catalog: Catalog, provider: str, name: str) -> Model:
    model = catalog.find(provider, name)
    assert model is not None
    return model


# --- The shipped file -------------------------------------------------------------------------


def test_the_shipped_catalog_covers_the_promised_providers(shipped: Catalog) -> None:
    assert {model.provider for model in shipped.models()} == {
        "anthropic", "deepseek", "gemini", "groq", "mistral", "openai", "xai",
    }  # fmt: skip
    assert shipped.updated >= "2026-11-23"


@pytest.mark.parametrize(
    "name",
    [
        "openai/gpt-4o", "openai/gpt-4o-mini", "openai/gpt-4o-2024-08-06", "openai/gpt-4.1",
        "openai/gpt-5", "openai/gpt-5-mini", "openai/gpt-5-nano", "openai/gpt-5.6",
        "openai/gpt-5.6-sol", "openai/o1", "openai/o3", "openai/o3-mini", "openai/o4-mini",
        "openai/text-embedding-3-small", "openai/text-embedding-3-large",
        "openai/gpt-image-1", "anthropic/claude-opus-5-5", "anthropic/claude-haiku-5-5",
        "anthropic/claude-sonnet-4-20250514", "anthropic/claude-3-5-haiku-latest",
        "anthropic/claude-3-7-sonnet-latest", "anthropic/claude-haiku-4-5-20251001",
        "gemini/gemini-2.5-pro", "gemini/gemini-2.5-flash", "gemini/gemini-2.5-flash-lite",
        "xai/grok-3", "xai/grok-4", "mistral/mistral-large-latest",
        "mistral/mistral-small-latest", "deepseek/deepseek-chat", "deepseek/deepseek-reasoner",
        "groq/llama-3.1-8b-instant", "groq/llama-3.3-70b-versatile",
    ],
)  # fmt: skip
def test_the_shipped_catalog_knows_the_names_that_people_type(shipped: Catalog, name: str) -> None:
    provider, _, model = name.partition("/")
    assert shipped.find(provider, model) is not None


def test_every_shipped_model_has_a_price_and_a_plausible_order_of_prices(shipped: Catalog) -> None:
    for model in shipped.models():
        rates = model.prices.rates
        is_by_number = rates.audio_hour is not None or rates.character is not None
        assert is_by_number == (rates.input == 0), model.id
        assert rates.output > 0 or model.mode == "embedding" or is_by_number, model.id
        assert rates.cache_read <= rates.input, model.id
        assert model.multiplier_micro == 1_000_000, model.id


def test_gpt_4o_costs_what_openai_lists(shipped: Catalog) -> None:
    model = shipped_model(shipped, "openai", "gpt-4o")
    rates = model.prices.rates
    assert (rates.input, rates.output) == (2_500_000_000, 10 * USD)
    assert (rates.cache_read, rates.web_search) == (1_250_000_000, 10 * USD)
    assert (model.mode, model.max_output_tokens, model.reasoning) == ("chat", 16384, False)


def test_gpt_5_6_sol_has_a_cliff_above_272k_and_dearer_priority(shipped: Catalog) -> None:
    model = shipped_model(shipped, "openai", "gpt-5.6-sol")
    assert shipped.find("openai", "gpt-5.6") is model
    assert model.prices.rates == Rates(4 * USD, 20 * USD, USD * 2 // 5, 5 * USD, 10 * USD, 10 * USD)
    above = Rates(8 * USD, 30 * USD, USD * 4 // 5, 10 * USD, 20 * USD, 10 * USD)
    assert model.prices.tiers == (Tier(272_000, above),)
    priority = next(v for v in model.prices.variants if "priority" in v.service_tiers)
    assert priority.service_tiers == ("fast", "priority")
    assert (priority.rates.input, priority.rates.output) == (8 * USD, 40 * USD)
    assert priority.tiers[0].rates.input == 16 * USD
    assert model.reasoning


def test_claude_haiku_5_5_costs_five_times_as_much_above_100k(shipped: Catalog) -> None:
    prices = shipped_model(shipped, "anthropic", "claude-haiku-5-5").prices
    (tier,) = prices.tiers
    assert tier.above_input_tokens == 100_000
    assert (prices.rates.input, tier.rates.input) == (USD // 10, USD // 2)
    assert (prices.rates.output, tier.rates.output) == (USD // 2, USD * 5 // 2)
    assert tier.rates.web_search == prices.rates.web_search == 10 * USD


def test_claude_opus_costs_double_in_fast_mode_and_a_tenth_more_in_the_us(
    shipped: Catalog,
) -> None:
    prices = shipped_model(shipped, "anthropic", "claude-opus-5-5").prices
    (fast,) = prices.variants
    assert (fast.speeds, fast.service_tiers) == (("fast",), ())
    assert fast.rates.input == 2 * prices.rates.input
    assert fast.rates.output == 2 * prices.rates.output
    assert prices.rates.cache_read == USD // 5
    assert prices.geo_micro == {"us": 1_100_000}


# --- Finding ----------------------------------------------------------------------------------


def test_a_model_is_found_by_id_and_alias_and_by_nothing_else() -> None:
    catalog = parse({"openai/big": entry(aliases=["big-2026-01-01"]), "groq/a/b": entry()})
    model = catalog.find("openai", "big")
    assert model is not None
    assert catalog.find("openai", "big-2026-01-01") is model
    assert catalog.find("groq", "a/b") is not None
    for provider, name in (("openai", "BIG"), ("openai", "big-2026"), ("groq", "big"), ("", "")):
        assert catalog.find(provider, name) is None


def test_models_are_sorted_and_can_be_limited_to_a_provider() -> None:
    catalog = parse({"openai/b": entry(), "groq/z": entry(), "openai/a": entry()})
    assert [model.id for model in catalog.models()] == ["z", "a", "b"]
    assert [model.id for model in catalog.models("openai")] == ["a", "b"]
    assert catalog.models("nobody") == []


# --- Fall-backs -------------------------------------------------------------------------------


def test_without_cache_prices_all_input_costs_the_input_price() -> None:
    rates = one().prices.rates
    assert rates == Rates(
        2_500_000_000, 10 * USD, 2_500_000_000, 2_500_000_000, 2_500_000_000, None
    )


def test_a_long_cache_write_costs_the_short_one_when_not_listed() -> None:
    rates = one(prices={"cache_write": "3"}).prices.rates
    assert (rates.cache_write_5m, rates.cache_write_1h) == (3 * USD, 3 * USD)


def test_anthropic_cache_writes_cost_a_quarter_more_and_double() -> None:
    rates = one("anthropic").prices.rates
    assert (rates.cache_write_5m, rates.cache_write_1h) == (3_125_000_000, 5 * USD)


def test_a_price_that_is_stated_wins_over_its_fall_back_even_when_zero() -> None:
    prices = {"cache_read": "0", "cache_write": "1", "cache_write_1h": "0", "web_search_1k": "0"}
    assert one("anthropic", prices=prices).prices.rates == Rates(
        2_500_000_000, 10 * USD, 0, USD, 0, 0
    )


def test_tiers_and_variants_fall_back_on_their_own_input_price() -> None:
    tier = {"above_input_tokens": 1000, "in_price": "5", "out_price": "20"}
    variant = {
        "when": {"service_tier": ["flex"]}, "in_price": "1", "out_price": "2",
        "tiers": [{**tier, "in_price": "3"}],
    }  # fmt: skip
    prices = one(
        prices={"cache_read": "0.5", "web_search_1k": "10"}, tiers=[tier], variants=[variant]
    ).prices
    assert prices.tiers[0].rates == Rates(5 * USD, 20 * USD, 5 * USD, 5 * USD, 5 * USD, 10 * USD)
    flex = prices.variants[0]
    assert flex.rates == Rates(USD, 2 * USD, USD, USD, USD, 10 * USD)
    assert flex.tiers[0].rates.cache_read == 3 * USD


def test_everything_but_the_two_prices_may_be_left_out() -> None:
    model = one()
    assert (model.mode, model.aliases, model.reasoning) == ("chat", (), False)
    assert (model.max_input_tokens, model.max_output_tokens) == (None, None)
    assert model.multiplier_micro == 1_000_000
    assert (model.prices.tiers, model.prices.variants, model.prices.geo_micro) == ((), (), {})


# --- Exactness --------------------------------------------------------------------------------


def test_prices_are_exact_to_the_ninth_decimal() -> None:
    assert one(in_price="0.000000001").prices.rates.input == 1
    assert one(in_price="0.123456789").prices.rates.input == 123_456_789
    assert one(multiplier="1.000001").multiplier_micro == 1_000_001
    assert one(geo_multiplier={"us": "1.1"}).prices.geo_micro == {"us": 1_100_000}


@pytest.mark.parametrize("price", ["0.0000000001", "-1", "NaN", "Infinity", "", "1,5", "1e3", "$1"])
def test_a_price_that_cannot_be_taken_exactly_is_refused_by_name(price: str) -> None:
    message = refusal_of(prices={"cache_read": price})
    assert 'mine.json: model "openai/m", field "prices.cache_read":' in message


def test_a_quarter_more_that_is_not_exact_must_be_written_out() -> None:
    data = json.dumps(document({"anthropic/m": entry(in_price="0.000000001")})).encode()
    assert 'model "anthropic/m", field "prices.cache_write"' in refusal(data)


# --- The operator's own -----------------------------------------------------------------------


def test_an_own_entry_takes_the_place_of_the_files() -> None:
    file = parse({"openai/a": entry(), "openai/b": entry(), "groq/a": entry()})
    own = parse_entry("openai", "a", entry(in_price="9"))
    both = file.overridden([own], set())
    assert both.find("openai", "a") is own
    assert [both.is_own(model) for model in both.models()] == [False, True, False]
    assert both.find("openai", "b") is file.find("openai", "b")
    assert both.updated == file.updated


def test_an_own_entry_takes_aliases_but_no_ids() -> None:
    file = parse({"openai/a": entry(aliases=["x", "y"]), "openai/b": entry()})
    own = parse_entry("openai", "c", entry(aliases=["x", "b"]))
    both = file.overridden([own], set())
    mine = both.find("openai", "x")
    assert mine is not None
    assert (mine.id, mine.aliases) == ("c", ("x",))
    assert both.find("openai", "b") is file.find("openai", "b")
    assert both.contests == (("openai", "x", "c", "a"), ("openai", "b", "c", "b"))
    assert [contest.is_lost for contest in both.contests] == [False, True]
    left = both.find("openai", "y")
    assert left is not None
    assert (left.id, left.aliases) == ("a", ("y",))


def test_what_is_withheld_has_no_price() -> None:
    file = parse({"openai/a": entry(), "openai/b": entry()})
    assert [model.id for model in file.overridden([], {("openai", "a")}).models()] == ["b"]


# --- Pinned prices ----------------------------------------------------------------------------


def test_every_shipped_price_survives_its_canonical_json(shipped: Catalog) -> None:
    for model in shipped.models():
        text = model.prices.canonical_json()
        assert Prices.from_json(text) == model.prices
        assert Prices.from_json(text).canonical_json() == text


def test_canonical_json_is_stable_and_ignores_the_order_of_the_file() -> None:
    geo = one(geo_multiplier={"us": "1.1", "eu": "1.2"}).prices
    assert (
        geo.canonical_json()
        == one(geo_multiplier={"eu": "1.2", "us": "1.1"}).prices.canonical_json()
    )
    assert geo.canonical_json() == (
        b'{"geo_micro":{"eu":1200000,"us":1100000},"rates":{"cache_read":2500000000,'
        b'"cache_write_1h":2500000000,"cache_write_5m":2500000000,"input":2500000000,'
        b'"output":10000000000}}'
    )


def test_what_names_a_tier_and_a_speed_goes_before_what_names_one() -> None:
    def variant(price: str, **when: list[str]) -> dict[str, Any]:
        return {"when": when, "in_price": price, "out_price": "1"}

    prices = one(
        variants=[
            variant("5", service_tier=["priority"]),
            variant("6", speed=["fast"]),
            variant("9", service_tier=["priority"], speed=["fast"]),
        ]
    ).prices
    rates = [variant.rates.input // 10**9 for variant in prices.variants]
    assert rates == [9, 5, 6]


def test_prices_that_an_older_version_has_pinned_can_be_read() -> None:
    geo = one(geo_multiplier={"us": "1.1"}).prices
    assert geo == Prices.from_json(
        b'{"geo_micro":{"us":1100000},"rates":{"cache_read":2500000000,'
        b'"cache_write_1h":2500000000,"cache_write_5m":2500000000,"input":2500000000,'
        b'"output":10000000000,"web_search":null},"tiers":[],"variants":[]}'
    )


@pytest.mark.parametrize("data", [b"", b"{}", b"\xff", b'{"rates":{"input":1.5}}'])
def test_stored_prices_that_cannot_be_read_are_refused(data: bytes) -> None:
    with pytest.raises(CatalogError, match="Stored prices cannot be read"):
        Prices.from_json(data)


def test_stored_prices_with_unknown_fields_are_refused() -> None:
    text = one().prices.canonical_json().replace(b'"input"', b'"input_smell":1,"input"')
    with pytest.raises(CatalogError, match="input_smell"):
        Prices.from_json(text)
