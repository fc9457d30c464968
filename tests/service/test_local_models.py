"""A model of one's own, free or priced, in two commands while the server runs."""

import json
import shlex
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.helpers import Books, ask, bearer
from tests.support.answers import openai_chat, openai_chat_stream
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest, StubProvider

CHAT = "/v1/ollama/chat/completions"
OLLAMA = "http://127.0.0.1:11434"
PAGE = Path(__file__).parents[2] / "docs" / "adding-a-provider.md"
SEEN_WITHIN_S = 5.0


async def local_model(request: SeenRequest, out: Out) -> None:
    """Answer as Ollama does: no key asked, usage in a stream only when it is asked for."""
    assert request.target == b"/v1/chat/completions"
    body = request.json()
    if not body.get("stream"):
        await out.json(200, openai_chat(prompt_tokens=26, completion_tokens=298))
        return
    asked = body.get("stream_options", {}).get("include_usage", False)
    usage = {"prompt_tokens": 26, "completion_tokens": 298, "total_tokens": 324}
    await out.sse(openai_chat_stream(include_usage=asked, usage=usage))


def two_commands() -> list[str]:
    """The commands that the page promises, as it prints them."""
    section = PAGE.read_text().partition("## A local model in two commands")[2]
    block = section.partition("```console\n")[2].partition("```")[0]
    commands = [line.removeprefix("llmproxy ") for line in block.splitlines()]
    assert len(commands) == 2
    return commands


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        stub.handle = local_model
        yield stub


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[RunningProxy]:
    """A server on an empty home, and the two commands given while it runs."""
    with RunningProxy(tmp_path_factory.mktemp("local")) as proxy:
        proxy.run("users", "create", "first")
        proxy.start()
        for command in two_commands():
            proxy.run(*(word.replace(OLLAMA, stub.url) for word in shlex.split(command)))
        yield proxy
        proxy.verify_ledger()
        assert "internal error" not in proxy.log.read_text()


@pytest.fixture(scope="module")
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


def chat(**fields: object) -> dict[str, object]:
    return {"model": "llama3.2", "messages": [{"role": "user", "content": "hi"}], **fields}


def seen(proxy: RunningProxy, key: str) -> None:
    """Wait for the server to know the new provider: it looks a few times a second."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while ask(proxy.port, "GET", "/v1/ollama/models", b"", bearer(key)).status != 200:
        assert time.monotonic() < deadline
        time.sleep(0.02)


def only_chat(books: Books, name: str) -> dict[str, Any]:
    """The row of a user's only chat request, once it has ended."""
    deadline = time.monotonic() + SEEN_WITHIN_S
    while True:
        rows = [row for row in books.rows(name) if row["endpoint"] == "chat/completions"]
        if rows:
            (row,) = rows
            return row
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_a_free_model_is_used_without_credit(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    name, key = books.user(credit="0")
    seen(proxy, key)
    listed = ask(proxy.port, "GET", "/v1/ollama/models", b"", bearer(key)).json()
    assert [model["id"] for model in listed["data"]] == ["llama3.2"]
    got = ask(proxy.port, "POST", CHAT, chat(), bearer(key))
    assert (got.status, got.headers["x-llmproxy-cost-usd"]) == (200, "0.00")
    sent = stub.requests[-1]
    assert sent.header("authorization") is None
    assert json.loads(sent.body)["model"] == "llama3.2"
    row = only_chat(books, name)
    assert (row["state"], row["basis"], row["cost_nanousd"]) == ("settled", "usage", 0)
    assert json.loads(row["usage"])["legs"][0]["output"] == 298


def test_a_free_model_streams_and_its_usage_is_kept(proxy: RunningProxy, books: Books) -> None:
    name, key = books.user(credit="0")
    seen(proxy, key)
    with RawClient(proxy.port, timeout_s=20) as client:
        client.post(CHAT, json.dumps(chat(stream=True)).encode(), bearer(key))
        head = client.recv_head()
        body = client.body()
    assert head.status == 200
    assert body == b"".join(openai_chat_stream(include_usage=True)[:-2]) + b"data: [DONE]\n\n"
    row = only_chat(books, name)
    assert (row["basis"], row["cost_nanousd"], row["is_stream"]) == ("usage", 0, 1)
    assert json.loads(row["usage"])["legs"][0]["output"] == 298


def test_the_same_model_with_a_price_from_the_next_request_on(
    proxy: RunningProxy, books: Books
) -> None:
    name, key = books.user(credit="1")
    seen(proxy, key)
    assert ask(proxy.port, "POST", CHAT, chat(), bearer(key)).status == 200
    assert books.settled_wallet(name) == 10**9
    price = ("--in-price", "1", "--out-price", "2", "--multiplier", "1.5", "--yes")
    proxy.run("catalog", "set", "ollama", "llama3.2", *price)
    got = ask(proxy.port, "POST", CHAT, chat(max_tokens=1000), bearer(key))
    assert got.headers["x-llmproxy-cost-usd"] == "0.000933"  # (26 × 1 + 298 × 2) × 1.5 / 10**6
    assert books.settled_wallet(name) == 10**9 - 933_000
    poor = books.user(credit="0")[1]
    assert ask(proxy.port, "POST", CHAT, chat(), bearer(poor)).status == 402
    # Without a price of one's own there is none at all.
    proxy.run("catalog", "set", "ollama", "llama3.2", "--remove")
    got = ask(proxy.port, "POST", CHAT, chat(), bearer(key))
    assert (got.status, got.json()["error"]["code"]) == (400, "unknown_model_pricing")
    proxy.run("catalog", "set", "ollama", "llama3.2", "--in-price", "0", "--out-price", "0")
