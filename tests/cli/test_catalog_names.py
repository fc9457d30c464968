"""Names of own entries that a newer catalog has for other models: who has them, and who is told."""

import json
from pathlib import Path

import pytest

from tests.cli.conftest import Quick
from tests.cli.test_catalog_update import SHIPPED, newer

NEW = {"in_price": "5", "out_price": "20"}
MINE = ("catalog", "set", "openai", "mine", "--in-price", "1", "--out-price", "2")
LOST = (
    "is a model of the catalog now, and no other name of your own entry openai/{} any more: it "
    "costs what the catalog says"
)
STAYS = (
    "openai/gpt-alias stays another name of your own entry openai/mine, though the catalog has it "
    "for openai/gpt-9"
)


def newest(path: Path) -> Path:
    """A catalog that prices one former alias itself, one new model, and gives away one alias."""
    aliases = [name for name in SHIPPED["models"]["openai/gpt-4o"]["aliases"] if name[-1:] != "6"]
    return newer(
        path,
        gpt_4o={"aliases": aliases},
        gpt_new2=NEW,
        gpt_9={**NEW, "aliases": ["gpt-alias"]},
        **{"gpt-4o-2024-08-06": {"in_price": "2.5", "out_price": "10"}},
    )


@pytest.fixture
def updated(quick: Quick, tmp_path: Path) -> Quick:
    """Own entries, one with copied aliases and one with its own, under a newer catalog."""
    quick.ok("catalog", "set", "openai", "gpt-4o", "--multiplier", "1.5")
    quick.ok(*MINE, "--alias", "gpt-new2", "--alias", "gpt-alias")
    ran = quick.run("catalog", "update", "--from", str(newest(tmp_path / "new.json")), "--yes")
    assert ran.code == 0, ran
    for name, own_id in (("gpt-4o-2024-08-06", "gpt-4o"), ("gpt-new2", "mine")):
        assert f"openai/{name} {LOST.format(own_id)}. For a price of your own: " in ran.err
    assert STAYS in ran.err
    return quick


def in_force(quick: Quick, name: str) -> tuple[str, str, str]:
    shown = quick.json("catalog", "show", f"openai/{name}")
    return shown["id"], shown["in_price"], shown["multiplier"]


def warnings(quick: Quick) -> list[str]:
    """What `catalog check` warns of; `doctor` must say the same."""
    found = quick.json("catalog", "check")
    assert found["ok"] is True
    checks = json.loads(quick.run("doctor", "--json").out)["checks"]
    told = [each for each in checks if each["name"] == "names"]
    assert {each["status"] for each in told} <= {"warn"}
    warned = [each for each in found["warnings"] if each["name"] == "names"]
    assert [{**each, "status": "warn"} for each in warned] == told
    said = quick.run("catalog", "check").err
    assert all(f"{each['message']}. {each['advice']}" in said for each in told)
    return [each["message"] for each in told]


def test_a_model_of_the_catalog_costs_what_the_catalog_says(updated: Quick) -> None:
    assert in_force(updated, "gpt-4o-2024-08-06") == ("gpt-4o-2024-08-06", "2.50", "1")
    assert in_force(updated, "gpt-new2") == ("gpt-new2", "5.00", "1")
    assert in_force(updated, "gpt-4o") == ("gpt-4o", "2.50", "1.5")
    assert in_force(updated, "gpt-4o-2024-11-20") == ("gpt-4o", "2.50", "1.5")
    assert in_force(updated, "gpt-alias") == ("mine", "1.00", "1")


def test_each_name_is_told_until_it_is_seen_to(updated: Quick) -> None:
    assert warnings(updated) == [
        f"openai/gpt-4o-2024-08-06 {LOST.format('gpt-4o')}",
        f"openai/gpt-new2 {LOST.format('mine')}",
        STAYS,
    ]
    # As the advice has it: the name is given up, is priced, is left to the catalog.
    updated.ok("catalog", "set", "openai", "gpt-4o", "--drop-alias", "gpt-4o-2024-08-06")
    updated.ok("catalog", "set", "openai", "gpt-new2", "--in-price", "7", "--out-price", "9")
    assert warnings(updated) == [STAYS]
    assert in_force(updated, "gpt-new2") == ("gpt-new2", "7.00", "1")
    assert in_force(updated, "mine") == ("mine", "1.00", "1")
    updated.ok("catalog", "set", "openai", "mine", "--drop-alias", "gpt-alias")
    assert warnings(updated) == []
    assert in_force(updated, "gpt-alias") == ("gpt-9", "5.00", "1")


def test_an_entry_that_has_lost_a_name_can_still_be_changed(updated: Quick) -> None:
    shown = updated.json("catalog", "set", "openai", "mine", "--in-price", "3")
    assert (shown["in_price"], shown["aliases"]) == ("3.00", ["gpt-alias"])
    assert warnings(updated) == [f"openai/gpt-4o-2024-08-06 {LOST.format('gpt-4o')}", STAYS]
    updated.fails(4, "catalog", "set", "openai", "mine", "--alias", "gpt-new2")


def test_an_own_id_stands_above_the_catalog(quick: Quick, tmp_path: Path) -> None:
    quick.ok(*MINE)
    file = newer(tmp_path / "new.json", gpt_9={**NEW, "aliases": ["mine"]})
    ran = quick.run("catalog", "update", "--from", str(file), "--yes")
    assert "Entries of your own stay in force: openai/mine." in ran.err
    assert in_force(quick, "mine") == ("mine", "1.00", "1")
    assert warnings(quick) == []


def test_only_a_name_that_it_has_can_be_dropped(quick: Quick) -> None:
    quick.ok(*MINE, "--alias", "ours", "--alias", "theirs")
    said = quick.fails(4, "catalog", "set", "openai", "mine", "--drop-alias", "nobodys")
    assert "'nobodys' is no other name of openai/mine." in said
    shown = quick.json("catalog", "set", "openai", "mine", "--drop-alias", "ours")
    assert shown["aliases"] == ["theirs"]
    quick.fails(3, "catalog", "show", "openai/ours")
