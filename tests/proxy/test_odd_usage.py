"""Usage that is odd, or stands beside what is, through the running proxy: what it costs."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, message
from tests.support.answers import (
    anthropic_message,
    anthropic_stream,
    anthropic_usage,
    openai_chat,
    openai_chat_stream,
    openai_usage,
    plain,
)
from tests.support.stub_provider import Out, SeenRequest

SONNET = "claude-sonnet-4-6"
INPUT, WRITE_5M, WRITE_1H, OUTPUT, SEARCH = 3000, 3750, 6000, 15_000, 10_000_000
"""Nano-USD of claude-sonnet-4-6: for each token, and for each search."""


@pytest.fixture(scope="module")
def priced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy at pinned prices, with a model `unsearching` that has no price for searches."""
    home = tmp_path_factory.mktemp("priced")
    catalog = json.loads(CATALOG.read_bytes())
    entry = catalog["models"][f"anthropic/{SONNET}"]
    prices = {name: rate for name, rate in entry["prices"].items() if name != "web_search_1k"}
    catalog["models"]["anthropic/unsearching"] = {**entry, "aliases": [], "prices": prices}
    (home / "catalog.json").write_text(json.dumps(catalog))
    with running_site(home, {"LLMPROXY_CATALOG_FILE": str(home / "catalog.json")}) as site:
        yield site


def stream(events: list[bytes]) -> Any:  # noqa: ANN401 - a handler
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        for event in events:
            await out.chunk(event)
        await out.end()

    return handle


# --- Anthropic's tiers ---


@pytest.mark.parametrize("tier", [None, "auto"])
@pytest.mark.parametrize("name", ["site", "strict_site"])
def test_priority_tier_of_anthropic_costs_the_ordinary_price(
    request: pytest.FixtureRequest, name: str, tier: str | None
) -> None:
    site: Site = request.getfixturevalue(name)
    usage = anthropic_usage(10, 4000, service_tier="priority")
    model = "claude-opus-5-5"  # which has a dearer price for `speed: fast`
    site.stub.handle = plain(anthropic_message(usage=usage, model=model))
    ann = site.visitor()
    asked = {} if tier is None else {"service_tier": tier}
    assert site.ask(ann, MESSAGES, message(model=model, max_tokens=4000, **asked)).status == 200
    row = site.assert_paid(ann, state="settled", basis="usage", nanousd=10 * 4000 + 4000 * 20_000)
    assert row["cost_nanousd"] <= row["hold_nanousd"]


# --- searches ---

SEARCHED = {"web_search_requests": 2}
TOOLS = [{"type": "web_search_20250305", "name": "web_search"}]


def test_searches_cost_what_they_do_for_the_asked_model_whichever_leg_comes_first(
    priced: Site,
) -> None:
    iterations = [
        {
            "type": "advisor_message",
            "model": "unsearching",
            "input_tokens": 5,
            "output_tokens": 6,
        },
        {"type": "message", "input_tokens": 10, "output_tokens": 20},
    ]
    usage = anthropic_usage(10, 20, iterations=iterations, server_tool_use=SEARCHED)
    priced.stub.handle = plain(anthropic_message(usage=usage))
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message(tools=TOOLS))
    cost = 15 * INPUT + 26 * OUTPUT + 2 * SEARCH
    row = priced.assert_paid(ann, state="settled", basis="usage", nanousd=cost)
    (line,) = [x for x in json.loads(row["receipt"]) if x["usage_class"] == "web_search"]
    assert (line["model"], line["quantity"]) == (SONNET, 2)


def test_searches_without_any_price_are_told_in_the_log(priced: Site) -> None:
    usage = anthropic_usage(10, 20, server_tool_use=SEARCHED)
    priced.stub.handle = plain(anthropic_message(usage=usage))
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message(model="unsearching"))
    priced.assert_paid(ann, state="settled", basis="usage", nanousd=10 * INPUT + 20 * OUTPUT)
    assert "2 web searches cost nothing: unsearching has no price" in priced.proxy.log.read_text()


# --- cache writes ---


@pytest.mark.parametrize(
    ("ttl", "cost"),
    [
        (None, 25 * WRITE_5M),
        ("5m", 25 * WRITE_5M),
        # What the end reports beyond the beginning's split may be for an hour as well.
        ("1h", 6 * WRITE_5M + 19 * WRITE_1H),
    ],
)
def test_what_is_written_to_the_cache_on_the_way_costs_what_was_asked_for(
    priced: Site, ttl: str | None, cost: int
) -> None:
    start = anthropic_usage(10, 1, cache_write_5m=6, cache_write_1h=4 if ttl == "1h" else 0)
    last = {"cache_creation_input_tokens": 25, "output_tokens": 20}
    priced.stub.handle = stream(anthropic_stream(usage=start, final=last))
    control = {"type": "ephemeral"} | ({"ttl": ttl} if ttl else {})
    ann = priced.visitor()
    system = [{"type": "text", "text": "x", "cache_control": control}]
    priced.ask(ann, MESSAGES, message(stream=True, system=system))
    nanousd = 10 * INPUT + 20 * OUTPUT + cost
    priced.assert_paid(ann, state="settled", basis="usage", nanousd=nanousd)


def test_a_record_with_only_the_split_of_cache_writes_is_no_record_of_none(priced: Site) -> None:
    usage = anthropic_usage(10, 20, cache_write_5m=100, cache_write_1h=1000)
    del usage["cache_creation_input_tokens"]
    priced.stub.handle = plain(anthropic_message(usage=usage))
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message())
    nanousd = 10 * INPUT + 20 * OUTPUT + 100 * WRITE_5M + 1000 * WRITE_1H
    priced.assert_paid(ann, state="settled", basis="usage", nanousd=nanousd)


# --- records that say nothing ---


def test_iterations_that_say_nothing_are_estimated_not_free(priced: Site) -> None:
    usage = anthropic_usage(1000, 500, iterations=[{}])
    priced.stub.handle = plain(anthropic_message(usage=usage))
    ann = priced.visitor()
    priced.ask(ann, MESSAGES, message())
    row = priced.ended(ann)
    assert (row["basis"], row["reason"]) == ("estimate", "usage has no token counts")
    assert row["cost_nanousd"] > 0


# --- oddities beside a good record ---


def cost_of_chat(prompt: int, completion: int) -> int:
    return prompt * 2500 + completion * 10_000


@pytest.mark.parametrize(
    "odd",
    [
        b'"finish_reason":1',
        b'"finish_reason":"stop","logprobs":NaN',
        b'"finish_reason":"stop","delta":{"tool_calls":[null]}',
        b'"finish_reason":"stop","delta":{"content":"\\ud83d"}',
        b'"finish_reason":"stop","delta":5',
    ],
)
def test_a_usage_beside_an_odd_choice_is_the_bill(priced: Site, odd: bytes) -> None:
    usage = json.dumps(openai_usage(10, 300)).encode()
    last = b'data: {"model":5,"choices":[{"index":0,%b}],"usage":%b}\n\n' % (odd, usage)
    events = [*openai_chat_stream()[:3], last, b"data: [DONE]\n\n"]
    priced.stub.handle = stream(events)
    ann = priced.visitor()
    got = priced.ask(ann, CHAT, chat(stream=True, max_tokens=1000))
    assert got.body == b"".join(events)
    priced.assert_paid(ann, state="settled", basis="usage", nanousd=cost_of_chat(10, 300))


def test_a_usage_beside_a_nan_is_the_bill_of_a_plain_answer(priced: Site) -> None:
    choices = [{"index": 0, "message": {"content": "x"}, "logprobs": float("nan")}]
    odd: dict[str, Any] = {"choices": choices, "model": 5}
    answer = openai_chat(usage=openai_usage(10, 300), **odd)
    priced.stub.handle = plain(answer)
    ann = priced.visitor()
    assert priced.ask(ann, CHAT, chat(max_tokens=1000)).body == answer
    priced.assert_paid(ann, state="settled", basis="usage", nanousd=cost_of_chat(10, 300))
