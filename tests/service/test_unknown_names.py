"""What else is asked for by a wrong name: three ids of the provider, and who else has the model."""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from tests.service.helpers import Books, ask, bearer
from tests.support.limits import limit_key
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

BODY: dict[str, dict[str, Any]] = {
    "chat/completions": {"messages": [{"role": "user", "content": "Hi"}]},
    "v1/messages": {"max_tokens": 5, "messages": [{"role": "user", "content": "Hi"}]},
}
PROVIDERS = ("openai", "anthropic", "gemini", "openrouter")


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[RunningProxy]:
    with RunningProxy(tmp_path_factory.mktemp("home")) as proxy:
        for provider in PROVIDERS:
            proxy.use_provider(provider, f"{stub.url}/v1")
        proxy.start()
        yield proxy
        proxy.verify_ledger()
        assert stub.requests == []


@pytest.fixture
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


def told(proxy: RunningProxy, key: str, provider: str, model: str) -> str:
    """What is said after the sentence that every unknown model gets."""
    endpoint = "v1/messages" if provider == "anthropic" else "chat/completions"
    body = {"model": model, **BODY[endpoint]}
    got = ask(proxy.port, "POST", f"/v1/{provider}/{endpoint}", body, bearer(key))
    error = json.loads(got.body)["error"]
    assert (got.status, error["code"]) == (400, "unknown_model_pricing")
    message: str = error["message"]
    start = f'Unknown model pricing: "{model}" is not in the model catalog. '
    assert message.startswith(start)
    return message.removeprefix(start)


@pytest.mark.parametrize(
    ("provider", "model", "has"),
    [
        ("openai", "GPT-4o", ""),
        ("openai", "sonar", ""),
        ("openai", "foo", ""),
        ("anthropic", "sonnet", "sonnet"),
        ("anthropic", "CLAUDE-SONNET", "sonnet"),
    ],
)
def test_three_different_ids_are_named(
    proxy: RunningProxy, books: Books, provider: str, model: str, has: str
) -> None:
    _, key = books.user()
    text = told(proxy, key, provider, model)
    ids = text.removeprefix("Nearest: ").removesuffix(".").split(", ")
    assert (len(ids), len(set(ids))) == (3, 3)
    assert all(has in each and "/" not in each for each in ids)
    assert model not in ids


def test_capitals_and_googles_prefix_lead_to_the_model(proxy: RunningProxy, books: Books) -> None:
    _, key = books.user()
    assert told(proxy, key, "openai", "GPT-4o").startswith("Nearest: gpt-4o, ")
    text = told(proxy, key, "gemini", "models/gemini-2.5-pro")
    assert text.startswith("Nearest: gemini-2.5-pro, ")
    assert text.count("gemini-") == told(proxy, key, "gemini", "gemini-9").count("gemini-") == 3


def test_a_model_of_another_provider_is_named_as_such(proxy: RunningProxy, books: Books) -> None:
    _, key = books.user()
    none = "Provider openrouter has no priced model for this API key."
    expected = f"{none} At provider openai: gpt-4o."
    assert told(proxy, key, "openrouter", "openai/gpt-4o") == expected
    assert told(proxy, key, "openrouter", "openai/gpt-4o:online") == none
    text = told(proxy, key, "anthropic", "gpt-4o-mini")
    assert text.endswith(". At provider openai: gpt-4o-mini.")
    assert len(set(text.partition(". At")[0].split(", "))) == 3


def test_a_provider_that_is_not_set_up_is_not_advised(proxy: RunningProxy, books: Books) -> None:
    _, key = books.user()
    assert "deepseek" not in PROVIDERS
    assert "At provider" not in told(proxy, key, "openai", "deepseek-chat")


def test_only_what_the_api_key_may_use_is_named(proxy: RunningProxy, books: Books) -> None:
    user, key = books.user()
    limit_key(books, user, models=("gpt-4o-mini", "claude-opus-*"), providers=("openai",))
    assert told(proxy, key, "openai", "GPT-4o") == "Nearest: gpt-4o-mini."
    other, key = books.user()
    limit_key(books, other, models=("claude-opus-*",))
    text = told(proxy, key, "openai", "claude-opus-4-6")
    none = "Provider openai has no priced model for this API key."
    assert text == f"{none} At provider anthropic: claude-opus-4-6."
    assert told(proxy, key, "openai", "claude-haiku-4-5") == none
