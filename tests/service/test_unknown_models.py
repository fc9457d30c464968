"""A model without a price: 400 with the three nearest ids, in each dialect, and nothing is sent."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.helpers import Books, ask, bearer
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

SHIPPED = json.loads((Path(__file__).parents[2] / "model_catalog.json").read_bytes())["models"]
MESSAGES = [{"role": "user", "content": "Hi"}]
ENDPOINTS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "chat": ("openai/chat/completions", "gpt-4-o", "gpt-4o", {"messages": MESSAGES}),
    "a stream": (
        "openai/chat/completions",
        "gpt-4o-mni",
        "gpt-4o-mini",
        {"messages": MESSAGES, "stream": True},
    ),
    "responses": ("openai/responses", "gpt5", "gpt-5", {"input": "Hi"}),
    "completions": (
        "openai/completions",
        "gpt-3.5-turbo-instruct-0",
        "gpt-3.5-turbo-instruct",
        {"prompt": "Hi"},
    ),
    "embeddings": (
        "openai/embeddings",
        "text-embedding-3-smal",
        "text-embedding-3-small",
        {"input": "Hi"},
    ),
    "messages": (
        "anthropic/v1/messages",
        "claude-sonnet-5.5",
        "claude-sonnet-5-5",
        {"max_tokens": 5, "messages": MESSAGES},
    ),
    "gemini by OpenAI's dialect": (
        "gemini/chat/completions",
        "gemini-2.5-flsh",
        "gemini-2.5-flash",
        {"messages": MESSAGES},
    ),
}
NATIVE: dict[str, tuple[str, str, dict[str, Any]]] = {
    "generateContent": (
        "gemini-2.5-flsh",
        "gemini-2.5-flash",
        {"contents": [{"parts": [{"text": "Hi"}]}]},
    ),
    "streamGenerateContent": (
        "gemini-3.8-flsh",
        "gemini-3.8-flash",
        {"contents": [{"parts": [{"text": "Hi"}]}]},
    ),
    "embedContent": (
        "gemini-embedding-0001",
        "gemini-embedding-001",
        {"content": {"parts": [{"text": "Hi"}]}},
    ),
    "batchEmbedContents": (
        "gemini-embedding-0001",
        "gemini-embedding-001",
        {"requests": [{"content": {"parts": [{"text": "Hi"}]}}]},
    ),
}
"""Of Gemini's own API: the model stands in the path."""


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[RunningProxy]:
    with RunningProxy(tmp_path_factory.mktemp("home")) as proxy:
        for provider in ("openai", "anthropic", "gemini"):
            proxy.use_provider(provider, f"{stub.url}/v1")
        proxy.start()
        yield proxy
        proxy.verify_ledger()


@pytest.mark.parametrize("name", ENDPOINTS)
def test_the_three_nearest_ids_are_named(
    proxy: RunningProxy, stub: StubProvider, name: str
) -> None:
    path, asked, nearest, body = ENDPOINTS[name]
    books = Books(proxy.home)
    user, key = books.user()
    got = ask(proxy.port, "POST", f"/v1/{path}", {"model": asked, **body}, bearer(key))
    assert got.status == 400
    error = json.loads(got.body)["error"]
    assert (error["code"], error["param"]) == ("unknown_model_pricing", "model")
    told, _, ids = error["message"].partition(" Nearest: ")
    assert told == f'Unknown model pricing: "{asked}" is not in the model catalog.'
    named = ids.removesuffix(".").split(", ")
    assert (len(named), len(set(named)), named[0]) == (3, 3, nearest)
    provider = path.partition("/")[0]
    assert all(one in SHIPPED or f"{provider}/{one}" in SHIPPED for one in named)
    assert stub.requests == []
    assert books.settled_wallet(user) == 5_000_000_000
    books.close()


@pytest.mark.parametrize("version", ["v1beta/", "v1/", ""])
@pytest.mark.parametrize("method", NATIVE)
def test_geminis_own_api_names_them_in_googles_shape(
    proxy: RunningProxy, stub: StubProvider, method: str, version: str
) -> None:
    asked, nearest, body = NATIVE[method]
    books = Books(proxy.home)
    user, key = books.user()
    path = f"/v1/gemini/{version}models/{asked}:{method}"
    got = ask(proxy.port, "POST", path, body, bearer(key))
    error = json.loads(got.body)["error"]
    assert (got.status, error["code"], error["status"]) == (400, 400, "INVALID_ARGUMENT")
    assert error["reason"] == "unknown_model_pricing"
    told, _, ids = error["message"].partition(" Nearest: ")
    assert told == f'Unknown model pricing: "{asked}" is not in the model catalog.'
    named = ids.removesuffix(".").split(", ")
    assert (len(named), len(set(named)), named[0]) == (3, 3, nearest)
    assert all(one in SHIPPED or f"gemini/{one}" in SHIPPED for one in named)
    assert stub.requests == []
    assert books.settled_wallet(user) == 5_000_000_000
    books.close()
