"""Prices of the operator's own, on the command line."""

import json

import pytest

from tests.cli.conftest import Program, Quick
from tests.support.books import Book

FREE = ("--in-price", "0", "--out-price", "0")


def test_a_new_model_needs_both_prices_and_may_be_free(quick: Quick) -> None:
    for part in (FREE[:2], FREE[2:], ("--reasoning",)):
        err = quick.fails(2, "catalog", "set", "ollama", "llama3.2", *part)
        assert "give --in-price and --out-price" in err
    ran = quick.run("catalog", "set", "ollama", "llama3.2", *FREE)
    assert ran.out == "ollama/llama3.2, per million tokens: 0.00 in, 0.00 out.\n"
    assert "There is no provider ollama yet" in ran.err
    (shown,) = quick.json("catalog", "list", "--provider", "ollama")
    assert (shown["id"], shown["in_price"], shown["own"]) == ("llama3.2", "0.00", True)
    assert "ollama/llama3.2 *" in quick.ok("catalog", "list", "--provider", "ollama")
    assert "yourself" in quick.ok("catalog", "show", "ollama/llama3.2")


def test_what_is_not_named_stays_as_the_catalog_has_it(quick: Quick) -> None:
    before = quick.json("catalog", "show", "openai/gpt-4o")
    quick.ok("catalog", "set", "openai", "gpt-4o", "--in-price", "3", "--multiplier", "1.5")
    quick.ok("catalog", "set", "openai", "gpt-4o", "--cache-read", "1", "--alias", "ours")
    after = quick.json("catalog", "show", "openai/ours")
    assert after["aliases"] == [*before["aliases"], "ours"]
    # Without a price of its own, a cache write costs what input costs.
    prices = {
        **before["prices"],
        "cache_read": "1.00",
        "cache_write": "3.00",
        "cache_write_1h": "3.00",
    }
    own = {"in_price": "3.00", "multiplier": "1.5", "prices": prices, "own": True}
    assert after == {**before, **own, "aliases": after["aliases"]}


def test_every_field_can_be_set(quick: Quick) -> None:
    shown = quick.json(
        *("catalog", "set", "vllm", "org/model:7b", "--in-price", "1", "--out-price", "2"),
        *("--cache-read", "0.1", "--cache-write", "1.1", "--cache-write-1h", "1.2"),
        *("--web-search-1k", "10", "--multiplier", "2", "--max-input-tokens", "1000"),
        *("--max-output-tokens", "500", "--reasoning", "--mode", "completion"),
        *("--alias", "a", "--alias", "b", "--input-audio", "3", "--input-image", "4"),
        *("--output-audio", "5", "--output-image", "6", "--image-1k", "70"),
        *("--audio-hour", "0.36", "--characters", "15", "--cost-from", "provider"),
    )
    assert shown == {
        "provider": "vllm",
        "id": "org/model:7b",
        "aliases": ["a", "b"],
        "mode": "completion",
        "in_price": "1.00",
        "out_price": "2.00",
        "multiplier": "2",
        "own": True,
        "prices": {
            "cache_read": "0.10",
            "cache_write": "1.10",
            "cache_write_1h": "1.20",
            "web_search_1k": "10.00",
            "input_audio": "3.00",
            "input_image": "4.00",
            "output_audio": "5.00",
            "output_image": "6.00",
            "image_1k": "70.00",
            "audio_hour": "0.36",
            "characters": "15.00",
        },
        "cost_from": "provider",
        "max_input_tokens": 1000,
        "max_output_tokens": 500,
        "reasoning": True,
        "prices_until": None,
        "tiers": [],
        "variants": [],
        "geo_multiplier": {},
    }
    shown = quick.json("catalog", "set", "vllm", "org/model:7b", "--no-reasoning")
    assert (shown["reasoning"], shown["max_output_tokens"]) == (False, 500)


def test_tiers_stay_unless_all_is_to_cost_the_same(quick: Quick) -> None:
    ran = quick.run("catalog", "set", "openai", "gpt-5.6-sol", "--in-price", "3")
    assert "--flat would drop them" in ran.err
    assert quick.json("catalog", "show", "openai/gpt-5.6-sol")["tiers"] != []
    flat = quick.json("catalog", "set", "openai", "gpt-5.6-sol", "--flat")
    assert (flat["tiers"], flat["variants"], flat["in_price"]) == ([], [], "3.00")


def test_a_jump_of_more_than_twenty_times_needs_a_yes(quick: Quick) -> None:
    set_price = ("catalog", "set", "openai", "gpt-4o", "--in-price")
    quick.ok(*set_price, "50")
    err = quick.fails(4, *set_price, "1001")
    assert "from 50.00 to 1001.00, more than 20 times. If that is meant, add --yes." in err
    quick.fails(4, *set_price, "0")
    assert quick.json("catalog", "show", "openai/gpt-4o")["in_price"] == "50.00"
    quick.ok(*set_price, "0", "--yes")
    assert quick.json("catalog", "show", "openai/gpt-4o")["in_price"] == "0.00"


def test_removing_returns_to_the_catalogs_entry(quick: Quick) -> None:
    before = quick.json("catalog", "show", "openai/gpt-4o")
    quick.ok("catalog", "set", "openai", "gpt-4o", "--in-price", "3")
    out = quick.ok("catalog", "set", "openai", "gpt-4o", "--remove")
    assert out == "openai/gpt-4o, per million tokens: 2.50 in, 10.00 out again.\n"
    assert quick.json("catalog", "show", "openai/gpt-4o") == before
    assert "no entry of your own" in quick.fails(
        3, "catalog", "set", "openai", "gpt-4o", "--remove"
    )
    quick.ok("catalog", "set", "ollama", "llama3.2", *FREE)
    removed = quick.json("catalog", "set", "ollama", "llama3.2", "--remove")
    assert (removed["state"], removed["now"]) == ("removed", None)
    quick.fails(3, "catalog", "show", "ollama/llama3.2")


@pytest.mark.parametrize(
    ("options", "what"),
    [
        ((), "Give what to set"),
        (("--remove", "--flat"), "Give what to set"),
        (("--in-price", "1e3"), "field \"in_price\": '1e3' is no price"),
        (("--in-price", "-1"), "-1 is below zero, which no price can be"),
        (("--cache-read", "0.0000000001"), 'field "prices.cache_read"'),
        (("--multiplier", "x"), 'field "multiplier"'),
        (("--max-output-tokens", "0"), "above 0"),
        (("--mode", "a b"), "must be a word"),
        (("--prices-until", "31.12.2026"), 'must be a date such as "2026-11-23"'),
        (("--alias", "a b"), "strings without spaces"),
    ],
)
def test_a_mistake_is_named_and_changes_nothing(
    quick: Quick, options: tuple[str, ...], what: str
) -> None:
    assert what in quick.fails(2, "catalog", "set", "openai", "gpt-4o", *options)
    assert quick.json("catalog", "show", "openai/gpt-4o")["own"] is False


def test_names_of_other_models_are_not_taken_over(quick: Quick) -> None:
    err = quick.fails(4, "catalog", "set", "openai", "gpt-4o-2024-08-06", "--in-price", "3")
    assert "another name of openai/gpt-4o" in err
    err = quick.fails(4, "catalog", "set", "openai", "gpt-4o", "--alias", "gpt-5")
    assert "belongs to openai/gpt-5 already" in err


def test_looking_up_prices_makes_no_database(quick: Quick) -> None:
    quick.ok("catalog", "list")
    quick.ok("catalog", "show", "openai/gpt-4o")
    quick.ok("catalog", "check")
    assert not quick.database.exists()


def test_an_entry_that_cannot_be_read_has_no_price_and_is_told(quick: Quick, book: Book) -> None:
    quick.ok("catalog", "set", "openai", "gpt-4o", "--in-price", "3")
    with book.write() as tx:
        tx.execute("UPDATE catalog_overrides SET entry = ?", (json.dumps({"in_price": "3"}),))
    quick.fails(3, "catalog", "show", "openai/gpt-4o")
    ran = quick.run("catalog", "check")
    assert ran.code == 1
    assert 'openai/gpt-4o: model "openai/gpt-4o", field "out_price": is missing.' in ran.out
    checks = {
        check["name"]: check for check in json.loads(quick.run("doctor", "--json").out)["checks"]
    }
    assert checks["catalog"]["status"] == "fail"
    quick.ok("catalog", "set", "openai", "gpt-4o", "--remove")
    assert quick.run("catalog", "check").code == 0


@pytest.mark.parametrize(
    ("entry", "why"),
    [
        ("{", "truncated"),
        ('{"a":' * 100_000, "recursion"),
        ("[]", "Expected `object`, got `array`"),
        ("5", "Expected `object`, got `int`"),
        ('{"in_price": "3", "prices": 5}', "Expected `object`, got `int` - at `$.prices`"),
        ('{"in_price": "3", "aliases": 5}', "Expected `array`, got `int` - at `$.aliases`"),
        ('{"in_price": "3", "aliases": [[]]}', "at `$.aliases[0]`"),
    ],
)
def test_on_a_damaged_entry_nothing_is_built(
    quick: Quick, book: Book, entry: str, why: str
) -> None:
    both = ("--in-price", "3", "--out-price", "4", "--cache-read", "1", "--alias", "four-o")
    quick.ok("catalog", "set", "openai", "gpt-4o", *both)
    with book.write() as tx:
        tx.execute("UPDATE catalog_overrides SET entry = ?", (entry,))
    err = quick.fails(4, "catalog", "set", "openai", "gpt-4o", *both)
    assert "Your own entry for openai/gpt-4o is damaged (" in err
    assert why in err
    advice = "Remove it first: llmproxy catalog set openai gpt-4o --remove\n"
    assert err.endswith(advice)
    quick.ok("catalog", "set", "openai", "gpt-4o", "--remove")
    quick.ok("catalog", "set", "openai", "gpt-4o", *both)


def test_an_entry_that_is_only_not_right_is_mended_by_what_is_set(quick: Quick, book: Book) -> None:
    quick.ok("catalog", "set", "openai", "gpt-4o", "--in-price", "3")
    with book.write() as tx:
        tx.execute("UPDATE catalog_overrides SET entry = ?", (json.dumps({"in_price": "3"}),))
    quick.fails(3, "catalog", "show", "openai/gpt-4o")
    quick.ok("catalog", "set", "openai", "gpt-4o", "--out-price", "8")
    shown = quick.json("catalog", "show", "openai/gpt-4o")
    assert (shown["in_price"], shown["out_price"]) == ("3.00", "8.00")


def test_who_set_a_price_is_kept(program: Program) -> None:
    program.run("catalog", "set", "ollama", "llama3.2", *FREE)
    book = Book(program.database)
    with book.read() as tx:
        rows = tx.execute("SELECT provider, model, entry, actor FROM catalog_overrides").fetchall()
    book.close()
    (row,) = rows
    assert tuple(row)[:2] == ("ollama", "llama3.2")
    assert json.loads(row["entry"]) == {"in_price": "0", "out_price": "0"}
    assert row["actor"] == "cli:olga"
