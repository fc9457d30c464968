"""docs/what-gets-charged.md: each example is worked out by the program and happens as it says.

The prices are those of the page, in a catalog of the test's, so that no new price makes it wrong.
"""

import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import pytest

from llmproxy.catalog import Model
from llmproxy.catalog_parser import parse_catalog
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.ledger import Standing
from llmproxy.money import format_usd, parse_multiplier, parse_usd
from llmproxy.pricing import PricedModel, price
from llmproxy.quote import HoldPolicy, Quote, insufficient_credit, make_quote
from llmproxy.usage import Leg, Usage
from tests.service.helpers import CHAT, MESSAGES, Books, ask, bearer
from tests.support.answers import (
    anthropic_message,
    anthropic_stream,
    anthropic_usage,
    broken_stream,
    data_event,
    failing,
    openai_chat,
    openai_chat_stream,
    openai_error,
    openai_usage,
    plain,
    stream,
)
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest, StubProvider

if TYPE_CHECKING:
    from tests.support.answers import Handler

PAGE = (Path(__file__).parents[1] / "docs" / "what-gets-charged.md").read_text()
EXAMPLES = PAGE.partition("## Examples in numbers")[2]
LEG_FIELDS = {
    "input": "input",
    "cache read": "cache_read",
    "cache write": "cache_write_5m",
    "output": "output",
}
MICRO = 1_000_000


@dataclass
class Sum:
    """A calculation of the page: its lines as (tokens, class, rate, amount), and its result."""

    lines: list[tuple[int, str, str, str]]
    multiplier: str
    usd: str

    def tokens(self) -> dict[str, int]:
        return {LEG_FIELDS[name]: tokens for tokens, name, _, _ in self.lines}


def read_sums(text: str) -> dict[str, Sum]:
    """The calculations of one example, by what they are: `held`, `charged`."""
    sums: dict[str, Sum] = {}
    kind, lines = "", []
    for line in text.splitlines():
        if found := re.match(
            r"(held|charged|) +([\d,]+) ([a-z ]+?) +× ([\d.]+) / 1M +=  *([\d.]+)$", line
        ):
            kind = found[1] or kind
            lines.append((int(found[2].replace(",", "")), found[3], found[4], found[5]))
        elif found := re.match(r" +sum × ([\d.]+) += ([\d.]+) USD$", line):
            sums[kind] = Sum(lines, found[1], found[2])
            lines = []
    return sums


PARTS = re.split(r"^### (.*)$", EXAMPLES, flags=re.MULTILINE)
TEXTS = dict(zip(PARTS[1::2], PARTS[2::2], strict=True))
SUMS = {title: read_sums(text) for title, text in TEXTS.items()}
BODY: dict[str, Any] = json.loads(TEXTS["A plain answer"].split("```json\n")[1].split("```")[0])


def catalog_text() -> str:
    """A catalog with the models and prices of the page's table."""
    models: dict[str, Any] = {}
    rows = re.findall(r"^\| `([^`]+)` \| (\S+) \| (\S+) \| (\S+) \| (\S+) \|$", PARTS[0], re.M)
    for name, into, read, write, out in rows:
        provider = "anthropic" if name.startswith("claude") else "openai"
        prices = {key: p for key, p in (("cache_read", read), ("cache_write", write)) if p != "–"}
        models[f"{provider}/{name}"] = {
            "mode": "embedding" if "embedding" in name else "chat",
            "max_input_tokens": 100_000,
            "max_output_tokens": 16_384,
            "reasoning": name == "gpt-5-mini",
            "in_price": into,
            "out_price": out,
            "prices": prices,
        }
    header = {"schema": 1, "currency": "USD", "unit": "per 1M tokens", "updated": "2026-11-23"}
    return json.dumps({**header, "models": models})


CATALOG = parse_catalog(catalog_text().encode(), "the page")


def listed(provider: str, name: str) -> Model:
    model = CATALOG.find(provider, name)
    assert model is not None
    return model


def example_model(title: str) -> Model:
    """The model whose prices an example has."""
    if "Anthropic" in title or "same prompt" in title:
        return listed("anthropic", "claude-sonnet-5-5")
    if "Embeddings" in title:
        return listed("openai", "text-embedding-3-small")
    return listed("openai", "gpt-5-mini" if "reasoning" in title else "gpt-4o")


@pytest.mark.parametrize("title", SUMS)
def test_the_program_comes_to_the_same_sum(title: str) -> None:
    model = example_model(title)
    assert SUMS[title], "an example without a calculation"
    for each in SUMS[title].values():
        leg = msgspec.structs.replace(Leg(), **each.tokens())
        cost = price(
            Usage((leg,)),
            PricedModel(model.id, model.prices, None),
            user_multiplier_micro=parse_multiplier(each.multiplier),
            model_multiplier_micro=MICRO,
        )
        assert format_usd(cost.nanousd) == format_usd(parse_usd(each.usd)), each
        rates = {
            "input": model.prices.rates.input,
            "cache read": model.prices.rates.cache_read,
            "cache write": model.prices.rates.cache_write_5m,
            "output": model.prices.rates.output,
        }
        for tokens, name, rate, amount in each.lines:
            assert Decimal(rate) * 10**9 == rates[name]
            assert Decimal(tokens) * Decimal(rate) / MICRO == Decimal(amount)


def chat_quote(body: bytes) -> Quote:
    facts = OpenAIChat().read_request(body)
    return make_quote(facts, listed("openai", "gpt-4o"), 1_200_000, HoldPolicy())


def body_of(**fields: Any) -> bytes:  # noqa: ANN401 - any JSON value
    return json.dumps({**BODY, **fields}, separators=(",", ":")).encode()


@pytest.mark.parametrize(
    ("title", "body"),
    [("A plain answer", body_of()), ("Too little credit", body_of(max_tokens=16_000))],
)
def test_the_program_holds_as_much(title: str, body: bytes) -> None:
    held = SUMS[title]["held"]
    quote = make_quote(
        OpenAIChat().read_request(body), listed("openai", "gpt-4o"), 1_200_000, HoldPolicy()
    )
    assert f"{len(body)} bytes" in TEXTS[title]
    assert quote.input_tokens == held.tokens()["input"]
    assert quote.output_tokens == held.tokens()["output"]
    assert quote.amount_nanousd == parse_usd(held.usd)


def test_the_402_says_what_the_page_says() -> None:
    body = body_of(max_tokens=16_000)
    quote = make_quote(
        OpenAIChat().read_request(body), listed("openai", "gpt-4o"), 1_200_000, HoldPolicy()
    )
    shortage = Standing(parse_usd("0.05"), held_nanousd=0)
    told = TEXTS["Too little credit"].split("```\n")[-2].strip()
    assert insufficient_credit(quote, shortage).message.endswith(told)


# --- and so it happens ---

TEXT = "a" * 150
OPENAI_BROKEN = openai_chat_stream([TEXT], include_usage=False, done=False)[:2]


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[RunningProxy]:
    home = tmp_path_factory.mktemp("charged")
    catalog = home / "catalog.json"
    catalog.write_text(catalog_text())
    environ = {"LLMPROXY_CATALOG_FILE": str(catalog), "LLMPROXY_DRAIN_TIMEOUT_S": "1"}
    with RunningProxy(home, environ) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.use_provider("anthropic", stub.url)
        proxy.start()
        yield proxy
        proxy.verify_ledger()


@pytest.fixture(scope="module")
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


@dataclass
class Example:
    """How an example is set off: what the provider does, and what the client asks."""

    handle: "Handler"
    basis: str = "usage"
    path: str = CHAT
    body: bytes = body_of()
    leaves: bool = False


async def never_ending(request: SeenRequest, out: Out) -> None:
    await out.head(200, [("content-type", "text/event-stream")])
    for part in OPENAI_BROKEN:
        await out.chunk(part)
    await out.client_gone.wait()


def _claude(**usage: Any) -> Example:  # noqa: ANN401 - any JSON value
    body = body_of(model="claude-sonnet-5-5")
    return Example(
        plain(anthropic_message(usage=anthropic_usage(**usage))), path=MESSAGES, body=body
    )


STREAMED = body_of(stream=True)
ERROR_EVENT = data_event({"error": {"message": "no", "type": "server_error", "code": None}})
EMBEDDED = {
    "object": "list",
    "data": [{"object": "embedding", "index": 0, "embedding": [0.5]}],
    "model": "text-embedding-3-small",
    "usage": {"prompt_tokens": 1, "total_tokens": 1},
}
RUNS: dict[str, Example] = {
    "A plain answer": Example(plain(openai_chat(usage=openai_usage(12, 18)))),
    "A prompt that OpenAI had cached": Example(
        plain(openai_chat(usage=openai_usage(2000, 200, cached=1024)))
    ),
    "A prompt that Anthropic writes to its cache": _claude(
        input_tokens=20, output_tokens=150, cache_write_5m=2000
    ),
    "The same prompt again, from the cache": _claude(
        input_tokens=25, output_tokens=150, cache_read=2000
    ),
    "A reasoning model": Example(
        plain(openai_chat(usage=openai_usage(12, 600, reasoning=512))),
        body=body_of(model="gpt-5-mini"),
    ),
    "The client leaves a stream": Example(
        stream(openai_chat_stream([TEXT] * 20, openai_usage(12, 90)), gap_s=0.01),
        body=STREAMED,
        leaves=True,
    ),
    "The client leaves, and the answer does not end": Example(
        never_ending, "estimate", body=STREAMED, leaves=True
    ),
    "The provider breaks off a stream": Example(
        broken_stream(OPENAI_BROKEN), "estimate", body=STREAMED
    ),
    "Anthropic breaks off a stream": Example(
        broken_stream(anthropic_stream([TEXT], anthropic_usage(14, 99))[:4]),
        "estimate",
        path=MESSAGES,
        body=body_of(model="claude-sonnet-5-5", stream=True),
    ),
    "An error event in a stream": Example(
        stream([*OPENAI_BROKEN, ERROR_EVENT]), "estimate", body=STREAMED
    ),
    "Errors, and plain answers that break off": Example(
        failing(openai_error("server_error")), "none"
    ),
    "Embeddings, rounded up": Example(
        plain(json.dumps(EMBEDDED).encode()),
        path="/v1/openai/embeddings",
        body=b'{"model":"text-embedding-3-small","input":"a"}',
    ),
}


@pytest.mark.parametrize("title", RUNS)
def test_it_is_charged_as_the_example_says(
    title: str, proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    example = RUNS[title]
    charged = SUMS[title]["charged"]
    stub.handle = example.handle
    user, key = books.user("5", parse_multiplier(charged.multiplier))
    if example.leaves:
        with RawClient(proxy.port, timeout_s=20) as client:
            client.post(example.path, example.body, bearer(key))
            client.recv_head()
    else:
        ask(proxy.port, "POST", example.path, example.body, bearer(key))
    assert books.settled_wallet(user) == parse_usd("5") - parse_usd(charged.usd)
    (row,) = books.rows(user)
    assert (row["basis"], row["cost_nanousd"]) == (example.basis, parse_usd(charged.usd))
    if example.basis == "estimate" and "openai" in row["provider"]:
        assert (
            f"{len(example.body)} bytes" in TEXTS["The client leaves, and the answer does not end"]
        )
    if "held" in SUMS[title]:
        assert row["hold_nanousd"] == parse_usd(SUMS[title]["held"].usd)


def test_the_402_costs_nothing_and_what_it_says_fits(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    stub.handle = plain(openai_chat(usage=openai_usage(12, 18)))
    user, key = books.user("0.05", 1_200_000)
    refused = ask(proxy.port, "POST", CHAT, body_of(max_tokens=16_000), bearer(key))
    assert refused.status == 402
    assert refused.json()["message"].endswith(TEXTS["Too little credit"].split("```\n")[-2].strip())
    assert books.settled_wallet(user) == parse_usd("0.05")
    fitting = refused.json()["error"]["max_tokens_affordable"]
    assert ask(proxy.port, "POST", CHAT, body_of(max_tokens=fitting), bearer(key)).status == 200


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/v1/openai/moderations", {"input": "a"}),
        ("/v1/openai/responses/input_tokens", {"model": "gpt-4o", "input": "a"}),
        ("/v1/anthropic/messages/count_tokens", {**BODY, "model": "claude-sonnet-5-5"}),
    ],
)
def test_free_endpoints_need_no_credit(
    path: str, body: dict[str, Any], proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    stub.handle = plain(b'{"input_tokens": 1, "results": []}')
    user, key = books.user("0")
    assert ask(proxy.port, "POST", path, body, bearer(key)).status == 200
    assert books.wallet(user) == (0, 0)
    assert path.partition("/v1/")[2].split("/", 1)[1] in PAGE


def test_every_example_of_the_page_is_run() -> None:
    assert set(TEXTS) == {*RUNS, "Too little credit"}
