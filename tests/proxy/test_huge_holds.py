"""Requests that could cost more than anybody can have, or than the database can count."""

import json
from collections.abc import Iterator

import pytest

from llmproxy.money import parse_usd
from llmproxy.usage import TOKENS_MAX
from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.support.answers import openai_chat, openai_usage, plain

CHOICES = 128
INT64_MAX = 2**63 - 1
HUGE = {"model": "dearest", "max_tokens": TOKENS_MAX, "n": CHOICES}
"""At a dollar a token: 275 billion USD."""


@pytest.fixture(scope="module")
def dearest(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy with a model at the highest price, without a maximum of its own."""
    home = tmp_path_factory.mktemp("dearest")
    catalog = json.loads(CATALOG.read_bytes())
    entry = {**catalog["models"]["openai/gpt-4o"], "aliases": [], "variants": []}
    del entry["max_output_tokens"]
    catalog["models"]["openai/dearest"] = {**entry, "out_price": "1000000"}
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        yield site


def test_what_nobody_can_have_is_a_402_like_any_other(dearest: Site) -> None:
    before = len(dearest.stub.requests)
    ann = dearest.visitor()
    got = dearest.ask(ann, CHAT, chat(**HUGE))
    assert (got.status, got.error()["code"]) == (402, "insufficient_credit")
    needed_nanousd = TOKENS_MAX * CHOICES * 10**9
    assert needed_nanousd > INT64_MAX
    assert int(got.error()["needed_usd"].partition(".")[0]) == needed_nanousd // 10**9
    assert got.error()["available_usd"] == "5.00"
    assert len(dearest.stub.requests) == before
    row = dearest.ended(ann)
    assert (row["state"], row["status"], row["hold_nanousd"]) == ("refused", 402, 0)
    assert dearest.books.wallet(ann.name) == (parse_usd("5"), 0)


def test_what_nobody_can_have_may_be_lowered_to_what_there_is(dearest: Site) -> None:
    dearest.stub.handle = plain(openai_chat(usage=openai_usage(10, 3)))
    body = chat(**{**HUGE, "n": 1})
    ann = dearest.visitor()
    got = dearest.ask(ann, CHAT, body, {"x-llmproxy-clamp": "1"})
    assert (got.status, got.header("x-llmproxy-max-tokens")) == (200, b"4")
    assert dearest.last_request().json()["max_tokens"] == 4
    dearest.assert_row(ann, state="settled", basis="usage", cost=10 * 2_500 + 3 * 10**9)
