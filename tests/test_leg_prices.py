"""By which entry of the catalog, and by which length of input, a leg is priced."""

from typing import Any

import pytest

from llmproxy.catalog import Catalog, Model, Prices, Rates, Tier
from llmproxy.catalog_parser import parse_entry
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.pricing import LegModel, PricedModel, leg_model, price
from llmproxy.usage import Leg, Usage, of_rounds


def catalog(**models: dict[str, Any]) -> Catalog:
    """Return a catalog; `a_asked` stands for the provider `a`, and its model `asked`."""
    entries = []
    for name, entry in models.items():
        provider, model_id = name.split("_")
        entries.append(parse_entry(provider, model_id, entry))
    return Catalog("2027-01-01", entries)


MODELS = catalog(
    a_asked={"in_price": "3", "out_price": "15", "aliases": ["asked-latest"]},
    a_dear={"in_price": "9", "out_price": "25", "aliases": ["dear-latest"]},
    a_dearer={"in_price": "10", "out_price": "25"},
    a_reading={"in_price": "50", "out_price": "20"},
    b_dearest={"in_price": "99", "out_price": "99"},
)


def found(name: str) -> Model:
    model = MODELS.find("a", name)
    assert model is not None
    return model


ASKED = found("asked")


@pytest.mark.parametrize(
    ("name", "entry", "is_guess"),
    [
        ("asked", "asked", False),
        ("asked-latest", "asked", False),
        ("dear", "dear", False),
        ("dear-latest", "dear", False),
        # By the price of output, and then by that of input; of the same provider.
        ("unknown", "dearer", True),
        ("dearest", "dearer", True),
    ],
)
def test_a_leg_costs_what_its_model_does_or_else_the_provider_s_dearest(
    name: str, entry: str, is_guess: bool
) -> None:
    assert leg_model(name, ASKED, MODELS) == LegModel(found(entry), is_guess)


def test_the_asked_model_counts_as_it_was_also_where_it_has_lost_its_entry() -> None:
    others = catalog(a_cheap={"in_price": "1", "out_price": "1"})
    assert leg_model("asked-latest", ASKED, others) == LegModel(ASKED, is_guess=False)
    assert leg_model("unknown", ASKED, others) == LegModel(ASKED, is_guess=True)


LOW, HIGH = (Rates(rate, rate, rate, rate, 10 * rate) for rate in (1_000_000, 5_000_000))
CLIFF = PricedModel("m", Prices(LOW, tiers=(Tier(100, HIGH),)), 1)


def nanousd(leg: Leg) -> int:
    one = MULTIPLIER_ONE
    usage = Usage((leg,))
    return price(usage, CLIFF, user_multiplier_micro=one, model_multiplier_micro=one).nanousd


@pytest.mark.parametrize(
    ("leg", "rounds", "cost"),
    [
        (Leg(input=100), 1, 100),
        (Leg(input=101), 1, 505),
        (Leg(input=60, cache_read=40, cache_write_5m=1), 1, 505),
        (Leg(input=200), 2, 200),
        (Leg(input=201), 2, 1005),  # 101 in one of them at least
        (Leg(input=120, cache_read=80, cache_write=1), 2, 1000),
        (Leg(input=600), 6, 600),
        (Leg(), 6, 0),
    ],
)
def test_a_tier_goes_by_what_the_largest_round_has_read_at_least(
    leg: Leg, rounds: int, cost: int
) -> None:
    assert nanousd(of_rounds(leg, rounds)) == cost
    assert of_rounds(leg, 1).tier_input == leg.input_side
