"""Mistakes in a catalog file: each is refused by name."""

import json
from pathlib import Path
from typing import Any

import pytest

from llmproxy.catalog_parser import load_catalog, parse_document
from llmproxy.errors import CatalogError
from tests.support.catalogs import document, entry, parse, refusal, refusal_of


@pytest.mark.parametrize("price", [2, 2.5, True, None, [], {}])
def test_prices_that_are_not_strings_are_refused(price: object) -> None:
    message = refusal_of(in_price=price)
    assert 'model "openai/m", field "in_price": prices are decimal strings' in message


def test_a_number_that_is_not_a_number_is_refused_too() -> None:
    data = json.dumps(document({"openai/m": entry(out_price=float("nan"))})).encode()
    assert 'field "out_price": prices are decimal strings' in refusal(data)


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"inprice": "1"}, 'model "openai/m": unknown field "inprice"'),
        ({"prices": {"cache_raed": "1"}}, 'field "prices": unknown field "cache_raed"'),
        ({"cost_from": "us"}, 'field "cost_from": must be "tokens" or "provider"'),
        (
            {"cost_from": "provider", "in_price": "0", "out_price": "0"},
            'field "cost_from": needs a price above zero',
        ),
        ({"geo_multiplier": {"": "5"}}, "field \"geo_multiplier\": '' is no plain word"),
        ({"geo_multiplier": {"\ud800": "1"}}, 'field "geo_multiplier"'),
        ({"prices": []}, 'field "prices": must be a JSON object'),
        ({"tiers": {}}, 'field "tiers": must be a list of JSON objects'),
        ({"tiers": ["x"]}, 'field "tiers": must be a list of JSON objects'),
        ({"tiers": [entry(above_input_tokens=1, x=1)]}, 'tier 1: unknown field "x"'),
        ({"tiers": [entry()]}, 'tier 1, field "above_input_tokens": is missing'),
        ({"tiers": [{"above_input_tokens": 1}]}, 'tier 1, field "in_price": is missing'),
        ({"tiers": [entry(above_input_tokens=2)] * 2}, 'tier 2, field "above_input_tokens"'),
        ({"variants": [entry()]}, 'variant 1, field "when": must name'),
        ({"variants": [entry(when={"tier": ["x"]})]}, 'field "when": unknown field "tier"'),
        ({"variants": [entry(when={"speed": "fast"})]}, 'field "speed": must be a list'),
        ({"variants": [{"when": {"speed": ["fast"]}}]}, 'variant 1, field "in_price": is missing'),
        ({"variants": [entry(when={"speed": ["fast"]})] * 2}, '"fast" has a variant already'),
        ({"variants": [entry(when={"speed": ["f"]}, aliases=[])]}, 'unknown field "aliases"'),
        ({"geo_multiplier": {"us": 1.1}}, 'field "geo_multiplier.us": multipliers are decimal'),
        ({"geo_multiplier": {"us": "-1"}}, 'field "geo_multiplier.us"'),
        ({"multiplier": 1}, 'field "multiplier": multipliers are decimal strings'),
        ({"multiplier": "1.0000001"}, 'field "multiplier"'),
        ({"max_input_tokens": 0}, 'field "max_input_tokens": must be a whole number'),
        ({"max_output_tokens": "5"}, 'field "max_output_tokens": must be a whole number'),
        ({"max_output_tokens": 5.5}, 'field "max_output_tokens": must be a whole number'),
        ({"max_output_tokens": True}, 'field "max_output_tokens": must be a whole number'),
        ({"reasoning": "yes"}, 'field "reasoning": must be true or false'),
        ({"deprecated": True}, 'field "deprecated": must be a date'),
        ({"mode": 1}, 'field "mode": must be a word'),
        ({"aliases": "m2"}, 'field "aliases": must be a list of strings'),
        ({"aliases": ["a b"]}, 'field "aliases": must be a list of strings'),
    ],
)
def test_a_mistake_in_a_model_is_refused_by_name(fields: dict[str, Any], where: str) -> None:
    message = refusal_of(**fields)
    assert message.startswith('mine.json: model "openai/m"')
    assert where in message


@pytest.mark.parametrize("field", ["in_price", "out_price"])
def test_both_prices_are_required(field: str) -> None:
    model = {name: price for name, price in entry().items() if name != field}
    data = json.dumps(document({"openai/m": model})).encode()
    assert f'mine.json: model "openai/m", field "{field}": is missing' in refusal(data)


@pytest.mark.parametrize("key", ["m", "openai/", "/m", "Open AI/m", "openai/a b", "openai/é"])
def test_a_key_that_is_not_provider_and_model_is_refused(key: str) -> None:
    assert "provider/model-id" in refusal(json.dumps(document({key: entry()})).encode())


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"schema": 2}, 'field "schema": must be 1'),
        ({"schema": True}, 'field "schema": must be 1'),
        ({"currency": "EUR"}, 'field "currency": must be "USD"'),
        ({"unit": "per token"}, 'field "unit": must be "per 1M tokens"'),
        ({"updated": "today"}, 'field "updated": must be a date'),
        ({"sources": {"a": 1}}, 'field "sources": must hold strings'),
        ({"models": []}, 'field "models": must be a JSON object'),
        ({"models": {"openai/m": "free"}}, 'model "openai/m": must be a JSON object'),
        ({"model": {}}, 'the file: unknown field "model"'),
        ({"updated": "2026-02-30"}, 'field "updated": must be a date such as'),
        ({"updated": "20261123"}, 'field "updated": must be a date such as'),
    ],
)
def test_a_mistake_in_the_head_of_the_file_is_refused(fields: dict[str, Any], where: str) -> None:
    assert where in refusal(json.dumps({**document({}), **fields}).encode())


def test_names_that_clash_within_a_provider_are_refused() -> None:
    clash = {"openai/a": entry(aliases=["b"]), "openai/b": entry()}
    assert 'the name "b" is taken' in refusal(json.dumps(document(clash)).encode())
    assert 'the name "x" is taken' in refusal_of(aliases=["x", "x"])
    assert 'the name "m" is taken' in refusal_of(aliases=["m"])
    both = parse({"openai/a": entry(aliases=["x"]), "groq/b": entry(aliases=["x"])})
    assert both.find("openai", "x") is not both.find("groq", "x")


@pytest.mark.parametrize(
    "data",
    [b"", b"{", b"[]", b'"x"', b"\xff", b"[" * 200_000, b'{"schema":' + b"9" * 5000 + b"}", b"{}"],
)
def test_what_is_not_a_catalog_at_all_is_refused(data: bytes) -> None:
    assert refusal(data).startswith("mine.json: ")


def test_a_key_that_stands_twice_is_refused_at_every_depth() -> None:
    text = json.dumps(document({"openai/m": entry()}))
    twice = text.replace('"in_price": "2.5"', '"in_price": "2.5", "in_price": "0"')
    assert '"in_price": appears twice' in refusal(twice.encode())
    twice = text.replace('"models"', '"models": {}, "models"')
    assert '"models": appears twice' in refusal(twice.encode())


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(CatalogError, match=r"missing\.json cannot be read"):
        load_catalog(tmp_path / "missing.json")


def test_an_operators_own_file_is_loaded(tmp_path: Path) -> None:
    file = tmp_path / "own.json"
    file.write_text(json.dumps(document({"ollama/llama3": entry(in_price="0", out_price="0")})))
    model = load_catalog(file).find("ollama", "llama3")
    assert model is not None
    assert model.prices.rates.output == 0


def test_every_mistake_is_named_and_the_first_one_in_the_error() -> None:
    models = {
        "openai/a": entry(in_price=1, out_price="x", mode=3, aliases="b"),
        "openai/b": {"tiers": [entry(above_input_tokens=None)]},
        "openai/c": entry(),
        "openai/d": entry(aliases=["c", "e", "e"]),
        "": [],
    }
    data = json.dumps(document(models, currency="EUR", sources=[])).encode()
    found = parse_document(data)
    assert [problem.partition(":")[0] for problem in found.problems] == [
        'the file, field "currency"',
        'the file, field "sources"',
        'model "openai/a", field "aliases"',
        'model "openai/a", field "mode"',
        'model "openai/a", field "in_price"',
        'model "openai/a", field "out_price"',
        'model "openai/b", field "in_price"',
        'model "openai/b", field "out_price"',
        'model "openai/b", tier 1, field "above_input_tokens"',
        'model ""',
        'model ""',
        'model "openai/d"',
        'model "openai/d"',
    ]
    assert [model.id for model in found.models] == ["c", "d"]
    assert "And 12 more: llmproxy catalog check FILE" in refusal(data)
