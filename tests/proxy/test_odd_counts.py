"""Counts of OpenAI's followers that do not agree with each other, through the running proxy."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import add_provider, running_site
from tests.proxy.helpers import Site, chat
from tests.support.answers import openai_chat, plain

COMMAND, EMBED = "command-a-03-2025", "embed-v4.0"
CACHING = "anthropic/claude-caching"
READ, WRITE, OUTPUT = 300, 3750, 15_000
"""Nano-USD of a token of CACHING."""


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy at pinned prices, with more models of OpenRouter's and Cohere's."""
    home = tmp_path_factory.mktemp("priced")
    catalog = json.loads(CATALOG.read_bytes())
    catalog["models"][f"openrouter/{CACHING}"] = {
        "in_price": "3",
        "out_price": "15",
        "max_output_tokens": 8192,
        "prices": {"cache_read": "0.3", "cache_write": "3.75"},
    }
    catalog["models"][f"cohere/{EMBED}"] = {
        "mode": "embedding",
        "in_price": "0.12",
        "out_price": "0",
        "max_input_tokens": 128_000,
    }
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        add_provider(site, "openrouter")
        add_provider(site, "cohere")
        yield site


def ask(
    site: Site, path: str, body: bytes, answer: bytes, nanousd: int, basis: str = "usage"
) -> dict[str, Any]:
    """The row of a request that cost so much."""
    site.stub.handle = plain(answer)
    ann = site.visitor()
    assert site.ask(ann, path, body).status == 200
    return site.assert_paid(ann, state="settled", basis=basis, nanousd=nanousd)


@pytest.mark.parametrize(
    ("cached", "written", "nanousd", "surplus"),
    [
        (0, 2172, 2168 * WRITE + 30 * OUTPUT, 4),
        (2168, 2, 2168 * READ + 30 * OUTPUT, 2),
        (2150, 2172, 2150 * READ + 18 * WRITE + 30 * OUTPUT, 2154),
        (2100, 68, 2100 * READ + 68 * WRITE + 30 * OUTPUT, 0),
    ],
)
def test_of_the_cache_not_more_counts_than_there_is_input_and_the_row_says_so(
    priced: Site, cached: int, written: int, nanousd: int, surplus: int
) -> None:
    usage = {
        "prompt_tokens": 2168,
        "completion_tokens": 30,
        "total_tokens": 2198,
        "cost": 0,
        "is_byok": True,
        "prompt_tokens_details": {"cached_tokens": cached, "cache_write_tokens": written},
    }
    path = "/v1/openrouter/chat/completions"
    row = ask(priced, path, chat(model=CACHING), openai_chat(usage=usage), nanousd)
    said = f"{surplus:,} tokens of the cache, reported above all input, do not count"
    assert row["reason"] == (said if surplus else None)
    assert json.loads(row["raw_usage"]) == usage


@pytest.mark.parametrize(
    ("billed", "tokens"),
    [({"input_tokens": 5}, 5), ({"input_tokens": 5.0}, 5), ({"images": 1}, 7), ({}, 7)],
)
def test_embeddings_cost_what_cohere_bills_which_has_no_output(
    priced: Site, billed: dict[str, Any], tokens: int
) -> None:
    usage = {"billed_units": billed, "prompt_tokens": 7, "total_tokens": 7}
    answer = {"object": "list", "model": EMBED, "data": [{"embedding": [0.5]}], "usage": usage}
    body = json.dumps({"model": EMBED, "input": "hello"}).encode()
    path = "/v1/cohere/embeddings"
    row = ask(priced, path, body, json.dumps(answer).encode(), tokens * 120)
    assert row["reason"] is None


@pytest.mark.parametrize(
    ("billed", "nanousd"),
    [
        ({"input_tokens": 5.0, "output_tokens": 20.0}, 5 * 2500 + 20 * 10_000),
        ({"input_tokens": 5}, 71 * 2500 + 24 * 10_000),
    ],
)
def test_a_chat_costs_what_cohere_bills_or_else_what_it_counts(
    priced: Site, billed: dict[str, Any], nanousd: int
) -> None:
    usage = {"prompt_tokens": 71, "completion_tokens": 24, "total_tokens": 95}
    answer = openai_chat(usage={**usage, "billed_units": billed})
    row = ask(priced, "/v1/cohere/chat/completions", chat(model=COMMAND), answer, nanousd)
    assert row["reason"] is None
