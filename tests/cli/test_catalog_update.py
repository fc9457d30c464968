"""A newer catalog file: checked, compared, put in force."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.cli.conftest import Program, Quick
from tests.support.stub_provider import Out, SeenRequest, StubProvider, closed_port

SHIPPED = json.loads((Path(__file__).parents[2] / "model_catalog.json").read_bytes())


def newer(path: Path, **models: dict[str, Any] | None) -> Path:
    """Write the shipped catalog with a later date and some OpenAI models changed or left out."""
    entries = {**SHIPPED["models"]}
    for name, fields in models.items():
        key = f"openai/{name.replace('_', '-')}"
        if fields is None:
            del entries[key]
        else:
            entries[key] = {**entries.get(key, {}), **fields}
    path.write_text(json.dumps({**SHIPPED, "updated": "2027-01-02", "models": entries}))
    return path


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """A newer catalog: one price raised, one model gone, one new."""
    new = {"in_price": "1", "out_price": "2"}
    return newer(tmp_path / "newer.json", o1={"in_price": "16"}, o3_mini=None, gpt_9=new)


def in_price(quick: Quick, model: str) -> str:
    price: str = quick.json("catalog", "show", f"openai/{model}")["in_price"]
    return price


# --- check ------------------------------------------------------------------------------------


def test_the_catalog_in_force_is_right(quick: Quick) -> None:
    out = quick.ok("catalog", "check")
    assert "model_catalog.json is right: " in out
    assert f"models, of {SHIPPED['updated']}." in out


def test_every_mistake_of_a_file_is_named(quick: Quick, tmp_path: Path) -> None:
    bad = newer(tmp_path / "bad.json", o1={"in_price": 16}, o3={"x": 1}, o9={"in_price": "1"})
    ran = quick.run("catalog", "check", str(bad))
    assert ran.code == 1
    lines = ran.out.splitlines()
    assert len(lines) == 3
    assert lines[0].startswith('model "openai/o1", field "in_price": prices are decimal strings')
    assert lines[1].startswith('model "openai/o3": unknown field "x"')
    assert lines[2] == 'model "openai/o9", field "out_price": is missing.'
    assert ran.err == f"{bad}: 3 problems.\n"
    report = json.loads(quick.run("catalog", "check", str(bad), "--json").out)
    assert (report["ok"], report["problems"]) == (False, lines)
    assert "cannot be read" in quick.fails(1, "catalog", "check", str(tmp_path / "missing"))


# --- update -----------------------------------------------------------------------------------


def test_the_difference_is_shown_and_nothing_changed_by_a_dry_run(quick: Quick, file: Path) -> None:
    ran = quick.run("catalog", "update", "--from", str(file), "--dry-run")
    assert [line.split() for line in ran.out.splitlines()] == [
        ["MODEL", "WHAT", "OLD", "NEW", "CHANGE"],
        ["openai/gpt-9", "new:", "in_price", "–", "1.00"],
        ["new:", "out_price", "–", "2.00"],
        ["openai/o1", "in_price", "15.00", "16.00", "+6.7", "%"],
        ["openai/o3-mini", "gone:", "in_price", "1.10", "–"],
        ["gone:", "out_price", "4.40", "–"],
    ]
    assert "Models: 1 new, 1 gone, 1 changed." in ran.err
    assert "Nothing was changed." in ran.err
    shown = quick.json("catalog", "update", "--from", str(file), "--dry-run")
    assert shown["applied"] is False
    assert [change["change"] for change in shown["changes"]] == ["new", "changed", "gone"]
    assert not (quick.home / "config").exists()


def test_a_newer_catalog_is_in_force_from_then_on(quick: Quick, file: Path) -> None:
    update = ("catalog", "update", "--from", str(file))
    assert "add --yes" in quick.run(*update).err
    assert quick.run(*update).code == 2
    assert in_price(quick, "o1") == "15.00"
    assert "is in force now." in quick.ok(*update, "--yes")
    path = quick.home / "config" / "model_catalog.json"
    assert path.read_bytes() == file.read_bytes()
    assert [each.name for each in path.parent.iterdir()] == [path.name]
    assert in_price(quick, "o1") == "16.00"
    quick.fails(3, "catalog", "show", "openai/o3-mini")
    assert quick.json("config", "show")["paths"]["catalog"] == str(path)
    assert f"{path} of 2027-01-02" in quick.run("doctor").out
    assert "It is in force already." in quick.run(*update).err
    # Back to the packaged one.
    path.unlink()
    assert in_price(quick, "o1") == "15.00"


def test_it_asks_on_a_terminal(program: Program, file: Path) -> None:
    update = ("catalog", "update", "--from", str(file))
    ran = program.run_in_terminal(*update, typed="n")
    assert ran.code == 1
    assert "Change prices or limits of 3 models?" in ran.out
    assert not (program.home / "config" / "model_catalog.json").exists()
    ran = program.run_in_terminal(*update, typed="y")
    assert ran.code == 0
    assert "is in force now" in ran.out


def test_a_jump_is_refused_without_a_yes(quick: Quick, tmp_path: Path) -> None:
    jump = newer(tmp_path / "jump.json", o1={"in_price": "1500"})
    err = quick.fails(4, "catalog", "update", "--from", str(jump), "--json")
    assert "in_price of openai/o1 from 15.00 to 1500.00. If that is meant, add --yes." in err
    quick.ok("catalog", "update", "--from", str(jump), "--yes")
    assert in_price(quick, "o1") == "1500.00"


def test_entries_of_the_operators_own_stay(quick: Quick, file: Path) -> None:
    quick.ok("catalog", "set", "openai", "o1", "--in-price", "17")
    quick.ok("catalog", "set", "openai", "o3-mini", "--in-price", "3")
    ran = quick.run("catalog", "update", "--from", str(file), "--yes")
    assert "Entries of your own stay in force: openai/o1, openai/o3-mini." in ran.err
    assert (in_price(quick, "o1"), in_price(quick, "o3-mini")) == ("17.00", "3.00")


def test_an_older_catalog_is_called_so(quick: Quick, file: Path, tmp_path: Path) -> None:
    quick.ok("catalog", "update", "--from", str(file), "--yes")
    old = tmp_path / "old.json"
    old.write_text(json.dumps(SHIPPED))
    ran = quick.run("catalog", "update", "--from", str(old), "--dry-run")
    assert "which is OLDER" in ran.err


def test_a_file_that_is_wrong_changes_nothing(quick: Quick, tmp_path: Path) -> None:
    bad = newer(tmp_path / "bad.json", o1={"in_price": 16}, o3={"x": 1})
    err = quick.fails(1, "catalog", "update", "--from", str(bad), "--yes")
    assert "And 1 more" in err
    assert "cannot be read" in quick.fails(1, "catalog", "update", "--from", "missing", "--yes")
    assert not (quick.home / "config").exists()


def test_a_catalog_that_a_setting_names_is_not_updated_in_vain(
    quick: Quick, file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    named = tmp_path / "named.json"
    named.write_text(json.dumps(SHIPPED))
    monkeypatch.setenv("LLMPROXY_CATALOG_FILE", str(named))
    err = quick.fails(4, "catalog", "update", "--from", str(file), "--yes")
    assert f"catalog_file (from LLMPROXY_CATALOG_FILE) puts {named} in force" in err
    quick.ok("catalog", "update", "--from", str(file), "--dry-run")


def test_what_cannot_be_written_is_said(quick: Quick, file: Path) -> None:
    quick.home.mkdir()
    (quick.home / "config").symlink_to("nowhere")
    err = quick.fails(1, "catalog", "update", "--from", str(file), "--yes", "--json")
    assert "Nothing was changed." in err


# --- from a URL -------------------------------------------------------------------------------


@pytest.fixture
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


def test_a_catalog_is_taken_from_a_url(quick: Quick, file: Path, stub: StubProvider) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        assert request.method == "GET"
        await out.json(200, file.read_bytes())

    stub.handle = handle
    quick.ok("catalog", "update", "--from", f"{stub.url}/prices.json", "--yes")
    assert in_price(quick, "o1") == "16.00"
    assert stub.requests[0].target == b"/prices.json"


def test_what_a_url_may_answer_otherwise(quick: Quick, stub: StubProvider) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        if request.target == b"/moved":
            await out.head(302, [("location", "https://example.com/x")], length=0)
        elif request.target == b"/long":
            await out.head(200)
            while not out.closed:
                await out.chunk(b" " * 1_000_000)
        elif request.target == b"/cut":
            await out.head(200, length=100)
            await out.send(b"{")
            out.close()
        else:
            await out.json(404, {"error": "no"})

    stub.handle = handle
    for path, what in (
        ("/moved", "is at https://example.com/x now"),
        ("/long", "longer than 16,777,216 bytes"),
        ("/cut", "it broke off"),
        ("/none", "status 404"),
    ):
        err = quick.fails(1, "catalog", "update", "--from", f"{stub.url}{path}", "--yes")
        assert what in err
    nowhere = f"http://127.0.0.1:{closed_port()}/"
    err = quick.fails(1, "catalog", "update", "--from", nowhere, "--yes")
    assert "could not be read" in err
    assert not (quick.home / "config").exists()


@pytest.mark.parametrize(
    "url",
    [
        "http://example.com/c.json",
        "ftp://127.0.0.1/c",
        "file:///etc/passwd",
        "https://",
        "http://[",
    ],
)
def test_prices_come_over_https_or_from_this_machine(quick: Quick, url: str) -> None:
    assert "come over https" in quick.fails(2, "catalog", "update", "--from", url, "--yes")
