"""What another model than the asked one did of an answer: its price, and what the row says."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import MESSAGES, Site, Visitor, message
from tests.support.answers import anthropic_message, anthropic_stream, anthropic_usage, plain
from tests.support.stub_provider import Out, SeenRequest

SONNET_ALIAS = "claude-sonnet-latest"
OPUS = "claude-opus-4-8"
"""5 and 25 USD per million tokens: the dearest output of the provider. The asked one: 3 and 15."""
COST = 10 * 3000 + 20 * 15_000 + 100 * 5000 + 7 * 25_000


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy at pinned prices, where the asked model has another name."""
    home = tmp_path_factory.mktemp("priced")
    catalog = json.loads(CATALOG.read_bytes())
    catalog["models"]["anthropic/claude-sonnet-4-6"]["aliases"] = [SONNET_ALIAS]
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        yield site


def advised_by(model: str) -> dict[str, Any]:
    iterations = [
        {"type": "message", "input_tokens": 10, "output_tokens": 20},
        {"type": "advisor_message", "model": model, "input_tokens": 100, "output_tokens": 7},
    ]
    return anthropic_usage(10, 20, iterations=iterations)


def charged(site: Site, ann: Visitor, model: str, entry: str = OPUS) -> dict[str, Any]:
    """The row of what was advised by a model, each line of which names a version of its price."""
    row = site.assert_paid(ann, state="settled", basis="usage", nanousd=COST)
    lines = [
        (line["model"], line["usage_class"], line["quantity"], line["rate"])
        for line in json.loads(row["receipt"])
    ]
    assert lines[2:] == [
        (model, "input", 100, 5_000_000_000),
        (model, "output", 7, 25_000_000_000),
    ]
    (version,) = {line["price_version"] for line in json.loads(row["receipt"])[2:]}
    sql = f"SELECT count(*) FROM price_versions WHERE model = '{entry}'"
    assert site.books.count(sql) == site.books.count(f"{sql} AND id = {version}") == 1
    return row


def test_another_model_s_price_is_pinned_with_the_charge(priced: Site) -> None:
    priced.stub.handle = plain(anthropic_message(usage=advised_by(OPUS)))
    for _ in range(2):
        ann = priced.visitor()
        priced.ask(ann, MESSAGES, message())
        assert charged(priced, ann, OPUS)["reason"] is None


def test_a_model_without_a_price_keeps_its_name_and_the_row_says_whose_price_counts(
    priced: Site,
) -> None:
    name = "claude-unknown-9"
    priced.stub.handle = plain(anthropic_message(usage=advised_by(name)))
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message())
    guess = f"{name} has no price: that of {OPUS}, the provider's dearest, counts"
    row = charged(priced, ann, name)
    assert row["reason"] == guess
    receipt = priced.proxy.run("explain", f"req_{row['id'].hex()}")
    assert guess in " ".join(receipt.split())
    assert f"input ({name})" in receipt
    assert priced.proxy.verify_ledger()["checked"]["usages_repriced"] >= 1
    assert guess in priced.proxy.log.read_text()


def test_what_costs_nothing_needs_no_price_and_is_not_told_of(priced: Site) -> None:
    entry = {"type": "advisor_message", "input_tokens": 0, "output_tokens": 0}
    iterations = [
        {"type": "message", "input_tokens": 10, "output_tokens": 20},
        *({**entry, "model": name} for name in ("claude-unknown-9", SONNET_ALIAS)),
    ]
    usage = anthropic_usage(10, 20, iterations=iterations)
    priced.stub.handle = plain(anthropic_message(usage=usage))
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message())
    nanousd = 10 * 3000 + 20 * 15_000
    row = priced.assert_paid(ann, state="settled", basis="usage", nanousd=nanousd)
    assert (row["reason"], len(json.loads(row["receipt"]))) == (None, 2)


def test_another_name_of_the_asked_model_has_the_prices_of_the_hold(priced: Site) -> None:
    priced.stub.handle = plain(anthropic_message(usage=advised_by(SONNET_ALIAS)))
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message())
    nanousd = 110 * 3000 + 27 * 15_000
    row = priced.assert_paid(ann, state="settled", basis="usage", nanousd=nanousd)
    assert len({line["price_version"] for line in json.loads(row["receipt"])}) == 1


def test_of_many_names_without_a_price_some_are_told(priced: Site) -> None:
    names = [f"claude-unknown-{number}" for number in range(9)]
    entries = [{"type": "advisor_message", "input_tokens": 1, "output_tokens": 0}] * len(names)
    iterations = [{**entry, "model": name} for entry, name in zip(entries, names, strict=True)]
    priced.stub.handle = plain(
        anthropic_message(usage=anthropic_usage(1, 0, iterations=iterations))
    )
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message())
    row = priced.assert_paid(ann, state="settled", basis="usage", nanousd=3000 + 9 * 5000)
    assert row["reason"].count("has no price") == 3
    assert row["reason"].endswith("; and 6 more")


def test_that_is_said_beside_how_the_answer_ended(priced: Site) -> None:
    async def breaks_off(_request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        for event in anthropic_stream(usage=advised_by("claude-unknown-8"))[:-1]:
            await out.chunk(event)
        out.abort()

    priced.stub.handle = breaks_off
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message(stream=True))
    reason = charged(priced, ann, "claude-unknown-8")["reason"]
    how, _, guess = reason.partition("; ")
    assert how == "anthropic broke off: its connection ended in the middle"
    assert guess.startswith("claude-unknown-8 has no price")
