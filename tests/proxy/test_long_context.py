"""Prices above a length of input, where tools at the provider made it read several times.

What it reports is then the sum over all rounds, and the price of long input is one of a round's.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import add_provider, running_site
from tests.proxy.gemini import chunk
from tests.proxy.helpers import MESSAGES, Site, message
from tests.proxy.test_endpoints import response
from tests.support.answers import anthropic_message, anthropic_stream, anthropic_usage, plain
from tests.support.answers import stream as stream_of

HAIKU, SOL, PRO = "claude-haiku-5-5", "gpt-5.6-sol", "gemini-2.5-pro"
SEARCH = 10_000_000
"""Nano-USD of a search by HAIKU or SOL; a token's are in each case."""
GOOGLE_SEARCH = 35_000_000


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy at pinned prices: HAIKU's rise above 100,000, SOL's above 272,000, PRO's 200,000."""
    home = tmp_path_factory.mktemp("priced")
    catalog = json.loads(CATALOG.read_bytes())
    catalog["models"][f"gemini/{PRO}"] = {
        "in_price": "1.25",
        "out_price": "10",
        "max_input_tokens": 1_000_000,
        "prices": {"cache_read": "0.125", "web_search_1k": "35"},
        "tiers": [{"above_input_tokens": 200_000, "in_price": "2.5", "out_price": "15"}],
    }
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        add_provider(site, "gemini")
        yield site


def searched(searches: int) -> dict[str, Any]:
    return {"server_tool_use": {"web_search_requests": searches}}


def ask_haiku(site: Site, usage: dict[str, Any], cost: int, *, is_stream: bool = False) -> None:
    if is_stream:
        start = {**usage, "input_tokens": 5, "output_tokens": 1, "server_tool_use": None}
        site.stub.handle = stream_of(anthropic_stream(usage=start, final=usage, model=HAIKU))
    else:
        site.stub.handle = plain(anthropic_message(usage=usage, model=HAIKU))
    ann = site.visitor()
    tools = [{"type": "web_search_20250305", "name": "web_search"}]
    body = message(model=HAIKU, max_tokens=1000, tools=tools, stream=is_stream)
    assert site.ask(ann, MESSAGES, body).status == 200
    row = site.assert_paid(ann, state="settled", basis="usage", nanousd=cost)
    assert row["charged_nanousd"] == cost


@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize(
    ("tokens", "searches", "cost"),
    [
        # Without a tool it is one round: 0.50 and 2.50 USD per million.
        (150_000, 0, 150_000 * 500 + 900 * 2500),
        # Six rounds: 25,000 each is what they read at least.
        (150_000, 5, 150_000 * 100 + 900 * 500 + 5 * SEARCH),  # 0.06545 USD
        # Two rounds, of which the larger has read more than 100,000 whatever the other did ...
        (200_001, 1, 200_001 * 500 + 900 * 2500 + SEARCH),
        (500_000, 1, 500_000 * 500 + 900 * 2500 + SEARCH),
        # ... and here it may not have.
        (200_000, 1, 200_000 * 100 + 900 * 500 + SEARCH),
    ],
)
def test_anthropic_s_tiers_go_by_what_a_round_has_read(
    priced: Site, tokens: int, searches: int, cost: int, is_stream: bool
) -> None:
    usage = anthropic_usage(tokens, 900, **searched(searches))
    ask_haiku(priced, usage, cost, is_stream=is_stream)


def test_cached_input_is_input_of_a_round_as_well(priced: Site) -> None:
    usage = anthropic_usage(50_000, 900, cache_read=150_000, cache_write_5m=1, **searched(1))
    # 200,001 in two rounds: 0.50 fresh, 0.05 cached, 0.625 written.
    cost = 50_000 * 500 + 150_000 * 50 + 625 + 900 * 2500 + SEARCH
    ask_haiku(priced, usage, cost)


@pytest.mark.parametrize("searches", [0, 1, 2])
def test_each_of_anthropic_s_iterations_is_a_round_by_itself(priced: Site, searches: int) -> None:
    iterations = [
        {"type": "message", "input_tokens": 100_000, "output_tokens": 10},
        {"type": "message", "input_tokens": 100_001, "output_tokens": 20},
        {"type": "message", "input_tokens": 100_001, "output_tokens": 30},
    ]
    usage = anthropic_usage(300_002, 60, iterations=iterations, **searched(searches))
    cost = 100_000 * 100 + 10 * 500 + 200_002 * 500 + 50 * 2500 + searches * SEARCH
    ask_haiku(priced, usage, cost)


def test_one_of_them_may_be_several_rounds(priced: Site) -> None:
    entry = {"type": "message", "input_tokens": 150_000, "output_tokens": 900}
    usage = anthropic_usage(150_000, 900, iterations=[entry], **searched(5))
    ask_haiku(priced, usage, 150_000 * 100 + 900 * 500 + 5 * SEARCH)


def search_calls(*actions: str) -> list[dict[str, Any]]:
    return [{"type": "web_search_call", "action": {"type": action}} for action in actions]


@pytest.mark.parametrize(
    ("tokens", "calls", "told", "cost"),
    [
        (404_500, ["search"] * 6, 6, 404_500 * 4000 + 100 * 20_000 + 6 * SEARCH),  # 1.68 USD
        (404_500, ["search"] * 6, None, 404_500 * 4000 + 100 * 20_000 + 6 * SEARCH),
        (404_500, [], None, 404_500 * 8000 + 100 * 30_000),
        (404_500, [], 0, 404_500 * 8000 + 100 * 30_000),
        # Opening a page is not billed, but makes a round: here four, and two.
        (404_500, ["search", "open_page", "find_in_page"], 1, 404_500 * 4000 + 2_000_000 + SEARCH),
        (404_500, ["open_page"], 0, 404_500 * 4000 + 100 * 20_000),
        (544_000, ["search"], 1, 544_000 * 4000 + 100 * 20_000 + SEARCH),
        (544_001, ["search"], 1, 544_001 * 8000 + 100 * 30_000 + SEARCH),
    ],
)
def test_openai_s_tiers_do_too(
    priced: Site, tokens: int, calls: list[str], told: int | None, cost: int
) -> None:
    answer = response(
        model=SOL,
        output=search_calls(*calls),
        usage={"input_tokens": tokens, "output_tokens": 100, "total_tokens": tokens + 100},
        tool_usage=None if told is None else {"web_search": {"num_requests": told}},
    )
    priced.stub.handle = plain(json.dumps(answer).encode())
    ann = priced.visitor()
    tools = [{"type": "web_search"}]
    body = {"model": SOL, "input": "hi", "max_output_tokens": 1000, "tools": tools}
    assert priced.ask(ann, "/v1/openai/responses", json.dumps(body).encode()).status == 200
    priced.assert_paid(ann, state="settled", basis="usage", nanousd=cost)


@pytest.mark.parametrize(
    ("counts", "cost"),
    [
        # What its tools read is a sum; the prompt is not.
        ({"promptTokenCount": 150_000, "toolUsePromptTokenCount": 90_000}, 240_000 * 1250),
        ({"promptTokenCount": 200_001, "toolUsePromptTokenCount": 10}, 200_011 * 2500),
        # A search whose results are no tokens of the prompt makes no sum of it.
        ({"promptTokenCount": 200_000}, 200_000 * 1250),
        ({"promptTokenCount": 200_001}, 200_001 * 2500),
    ],
)
def test_gemini_s_go_by_the_prompt(priced: Site, counts: dict[str, int], cost: int) -> None:
    answer = chunk("hello", "STOP")
    answer["candidates"][0]["groundingMetadata"] = {"webSearchQueries": ["a"]}
    answer["usageMetadata"] = {**counts, "totalTokenCount": sum(counts.values())}
    priced.stub.handle = plain(json.dumps(answer).encode())
    ann = priced.visitor()
    body = {
        "contents": [{"parts": [{"text": "hi"}]}],
        "generationConfig": {"maxOutputTokens": 1000},
        "tools": [{"googleSearch": {}}],
    }
    path = f"/v1/gemini/v1beta/models/{PRO}:generateContent"
    assert priced.ask(ann, path, json.dumps(body).encode()).status == 200
    nanousd = cost + GOOGLE_SEARCH
    priced.assert_paid(ann, state="settled", basis="usage", nanousd=nanousd)
