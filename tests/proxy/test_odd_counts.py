"""Counts of OpenAI's followers that do not agree with each other, through the running proxy."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import add_provider, running_site
from tests.proxy.helpers import Site, chat
from tests.support.answers import openai_chat, plain

CACHING = "anthropic/claude-caching"
READ, WRITE, OUTPUT = 300, 3750, 15_000
"""Nano-USD of a token of CACHING."""


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy at pinned prices, with a model of OpenRouter's that has prices of its cache."""
    home = tmp_path_factory.mktemp("priced")
    catalog = json.loads(CATALOG.read_bytes())
    catalog["models"][f"openrouter/{CACHING}"] = {
        "in_price": "3",
        "out_price": "15",
        "max_output_tokens": 8192,
        "prices": {"cache_read": "0.3", "cache_write": "3.75"},
    }
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        add_provider(site, "openrouter")
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
        (2170, 0, 2168 * READ + 30 * OUTPUT, 2),
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
