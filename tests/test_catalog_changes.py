"""The difference between two catalogs, as it is shown before an update."""

from typing import Any

import pytest

from llmproxy.catalog import Catalog
from llmproxy.catalog_changes import FieldChange, compare
from llmproxy.catalog_parser import parse_entry


def catalog(**models: dict[str, Any]) -> Catalog:
    return Catalog(
        "2026-11-23", [parse_entry("openai", name, each) for name, each in models.items()]
    )


def entry(in_price: str = "2", out_price: str = "8", **fields: object) -> dict[str, Any]:
    return {"in_price": in_price, "out_price": out_price, **fields}


def changed(old: dict[str, Any], new: dict[str, Any]) -> list[FieldChange]:
    changes = compare(catalog(m=old), catalog(m=new))
    return [field for change in changes for field in change.fields]


def test_new_and_gone_models_are_told_with_their_prices() -> None:
    changes = compare(catalog(a=entry(), b=entry()), catalog(b=entry(), c=entry("0", "1")))
    assert [(change.model, change.kind) for change in changes] == [("a", "gone"), ("c", "new")]
    assert changes[0].fields[0] == FieldChange("in_price", "2.00", None)
    assert changes[1].fields == [
        FieldChange("in_price", None, "0.00"),
        FieldChange("out_price", None, "1.00"),
    ]
    assert [change.jumps for change in changes] == [[], []]


def test_equal_catalogs_have_no_difference() -> None:
    assert compare(catalog(a=entry()), catalog(a=entry(prices={"cache_read": "2"}))) == []


def test_a_price_is_told_with_its_percentage() -> None:
    assert changed(entry(), entry("2.5", "7")) == [
        FieldChange("in_price", "2.00", "2.50", "+25 %"),
        FieldChange("out_price", "8.00", "7.00", "-12.5 %"),
    ]


@pytest.mark.parametrize(
    ("old", "new", "is_jump"),
    [
        ("1", "20", False),
        ("1", "20.000000001", True),
        ("20", "1", False),
        ("20.000000001", "1", True),
        ("0", "0.000000001", True),
        ("0.000000001", "0", True),
    ],
)
def test_more_than_twenty_times_is_a_jump_up_or_down(old: str, new: str, is_jump: bool) -> None:
    (field,) = changed(entry(old), entry(new))
    assert field.is_jump is is_jump


def test_a_multiplier_counts_with_the_price() -> None:
    jump = FieldChange("multiplier", "1", "21", "+2,000 %", is_jump=True)
    assert changed(entry(), entry(multiplier="21")) == [jump]
    both = changed(entry("1"), entry("10", multiplier="3"))
    assert [(field.name, field.is_jump) for field in both] == [
        ("in_price", True),
        ("multiplier", False),
    ]


def test_tiers_variants_and_regions_are_compared_too() -> None:
    tier = {"above_input_tokens": 1000, **entry("3", "9")}
    old = entry(tiers=[tier], geo_multiplier={"us": "1.1"})
    new = entry(
        tiers=[{**tier, "in_price": "4"}],
        variants=[{"when": {"service_tier": ["priority"]}, **entry("50", "16")}],
        geo_multiplier={"us": "1.2", "eu": "30"},
    )
    assert [(field.name, field.old, field.new, field.is_jump) for field in changed(old, new)] == [
        ("above 1,000: in_price", "3.00", "4.00", False),
        # Nothing to compare with but the model's own price.
        ("priority: in_price", None, "50.00", True),
        ("priority: out_price", None, "16.00", False),
        ("region eu", "1", "30", True),
        ("region us", "1.1", "1.2", False),
    ]


def test_what_is_no_price_is_told_too() -> None:
    old = entry(max_output_tokens=4096)
    new = entry(max_output_tokens=8192, aliases=["x", "y"], reasoning=True, mode="image")
    assert changed(old, new) == [
        FieldChange("mode", "chat", "image"),
        FieldChange("aliases", None, "x, y"),
        FieldChange("max_output_tokens", "4096", "8192"),
        FieldChange("reasoning", "no", "yes"),
    ]


def test_audio_and_images_jump_from_what_text_costs() -> None:
    plain, dear = entry("1", "8"), entry("1", "8", prices={"input_image": "1000"})
    assert [field.is_jump for field in changed(plain, dear)] == [True]
    assert [field.is_jump for field in changed(dear, plain)] == [True]
    free = entry("1", "8", prices={"output_audio": "0"})
    assert [field.is_jump for field in changed(plain, free)] == [True]
    near = entry("1", "8", prices={"input_audio": "3"})
    assert [field.is_jump for field in changed(plain, near)] == [False]


def test_audio_from_the_cache_jumps_from_what_text_costs_there() -> None:
    plain = entry(prices={"cache_read": "0.1"})
    dear = entry(prices={"cache_read": "0.1", "cache_read_audio": "2.1"})
    near = entry(prices={"cache_read": "0.1", "cache_read_audio": "2"})
    assert [field.is_jump for field in changed(plain, dear)] == [True]
    assert [field.is_jump for field in changed(plain, near)] == [False]


def test_audio_from_the_cache_that_costs_what_input_does_is_told_all_the_same() -> None:
    """Its price falls back to that of text from the cache."""
    old, new = (entry(each, prices={"cache_read_audio": each}) for each in ("1", "3"))
    assert [field.name for field in changed(old, new)] == ["in_price", "cache_read_audio"]


def test_a_tier_and_a_speed_of_one_name_are_told_apart() -> None:
    def both(tier_price: str) -> dict[str, Any]:
        tier = {"when": {"service_tier": ["fast"]}, "in_price": tier_price, "out_price": "9"}
        speed = {"when": {"speed": ["fast"]}, "in_price": "2", "out_price": "9"}
        return entry(variants=[tier, speed])

    (change,) = changed(both("2"), both("200"))
    assert (change.name, change.old, change.new) == ("fast: in_price", "2.00", "200.00")


def test_where_the_cost_comes_from_is_a_difference() -> None:
    (change,) = changed(entry(), entry(cost_from="provider"))
    assert (change.name, change.old, change.new) == ("cost_from", "tokens", "provider")
