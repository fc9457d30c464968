"""The report of the script that makes the catalog: which prices of two sources differ.

Both sources are made up: a price is 0 or more USD per million tokens, `>200k` is above a threshold.
"""

from collections import Counter
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import pytest

from scripts.catalog_generator.report import Report

KEY = "acme/one"


def tiered(base: str, *tiers: tuple[int, str]) -> SimpleNamespace:
    """Return a price that changes with the input's size, as genai-prices has it."""
    return SimpleNamespace(
        base=Decimal(base),
        tiers=[SimpleNamespace(start=start, price=Decimal(price)) for start, price in tiers],
    )


def prices(**given: str | SimpleNamespace) -> SimpleNamespace:
    """Return a model's prices as genai-prices has them; what is not given is None."""
    names = (
        *("input_mtok", "output_mtok", "cache_read_mtok", "cache_write_mtok"),
        *("web_searches_kcount", "input_audio_mtok", "input_image_mtok", "input_video_mtok"),
        "output_image_mtok",
    )
    values: dict[str, Any] = dict.fromkeys(names)
    for name, value in given.items():
        values[name] = Decimal(value) if isinstance(value, str) else value
    return SimpleNamespace(**values)


def differing(ours: SimpleNamespace, theirs: dict[str, str]) -> list[str]:
    report = Report()
    report.cross_check(KEY, ours, theirs)
    return report.disagreements


def test_equal_prices_are_no_disagreement_however_they_are_written() -> None:
    ours = prices(input_mtok="2.50", output_mtok="10", cache_read_mtok="1.250")
    assert differing(ours, {"input": "2.5", "output": "10.0", "cache_read": "1.25"}) == []


def test_each_price_that_differs_is_a_line_and_the_lower_one_of_ours_is_marked() -> None:
    ours = prices(input_mtok="2", output_mtok="6", cache_write_mtok="3")
    theirs = {"input": "3", "output": "1.5", "cache_write": "3"}
    assert differing(ours, theirs) == [
        "acme/one input: 2, litellm 3 (ours is lower)",
        "acme/one output: 6, litellm 1.5",
    ]


def test_a_price_that_one_source_does_not_have_is_a_line() -> None:
    ours = prices(input_mtok="2", output_mtok="6", cache_write_mtok="4")
    assert differing(ours, {"input": "2", "output": "6", "cache_read": "0.2"}) == [
        "acme/one cache_read: none, litellm 0.2",
        "acme/one cache_write: 4, litellm none",
    ]


def test_nothing_and_zero_are_the_same() -> None:
    ours = prices(input_mtok="2", output_mtok="0")
    assert differing(ours, {"input": "2", "cache_read": "0"}) == []


def test_a_model_that_the_other_source_does_not_list_cannot_differ() -> None:
    assert differing(prices(input_mtok="2"), {}) == []


def test_prices_above_a_threshold_are_compared_at_that_threshold() -> None:
    ours = prices(input_mtok=tiered("1", (200_000, "2")), output_mtok=tiered("5", (200_000, "9")))
    theirs = {"input": "1", "output": "5", "input>200k": "2", "output>200k": "7.5"}
    assert differing(ours, theirs) == ["acme/one output>200k: 9, litellm 7.5"]


def test_a_threshold_that_one_source_does_not_have_is_told_for_each_of_its_prices() -> None:
    ours = prices(input_mtok=tiered("1", (200_000, "2")), output_mtok="5")
    theirs = {"input": "1", "output": "5", "input>128k": "3"}
    assert differing(ours, theirs) == [
        "acme/one input>128k: none, litellm 3",
        "acme/one input>200k: 2, litellm none",
        "acme/one output>200k: 5, litellm none",
    ]


def test_service_tiers_are_not_compared_for_they_supplement_each_other() -> None:
    ours = prices(input_mtok="1", output_mtok="2")
    assert differing(ours, {"input": "1", "output": "2", "input>200k@flex": "9"}) == []


@pytest.mark.parametrize(
    ("theirs", "lines"),
    [({}, []), ({"web_search_1k": "25"}, ["acme/one web_search_1k: 10, litellm 25"])],
)
def test_the_fee_of_a_search_differs_only_where_both_have_one(
    theirs: dict[str, str], lines: list[str]
) -> None:
    ours = prices(input_mtok="1", output_mtok="2", web_searches_kcount="10")
    assert differing(ours, {"input": "1", "output": "2"} | theirs) == lines


def test_media_that_cost_more_than_text_are_named() -> None:
    report = Report()
    ours = prices(input_mtok="1", output_mtok="2", input_audio_mtok="3", input_image_mtok="1")
    report.note_media(KEY, ours, "chat")
    report.note_media("acme/two", prices(input_mtok="1", output_image_mtok="40"), "image")
    report.note_media("acme/three", prices(input_mtok="1", input_image_mtok="0.5"), "chat")
    assert report.dearer_media == ["acme/one: input_audio 3"]
    assert report.dearest_of_media == ["acme/two: output_image 40"]


def test_everything_is_printed_with_its_count(capsys: pytest.CaptureFixture[str]) -> None:
    report = Report(disagreements=["b", "a"], only_litellm=["acme/old"])
    report.left_out["Left out, for it costs by the second"].append("acme/voice")
    report.show({"acme": Counter(chat=2, aliases=1)})
    printed = capsys.readouterr().out
    assert printed.startswith("acme: {'aliases': 1, 'chat': 2}\n")
    assert "\nThe sources disagree (genai-prices was kept): 2\n  a\n  b\n" in printed
    assert "\nListed by litellm only, left out: 1\n  acme/old\n" in printed
    assert "\nLeft out, for it costs by the second: 1\n  acme/voice\n" in printed
