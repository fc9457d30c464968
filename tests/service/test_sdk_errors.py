"""Refusals as a person meets them: the exceptions of the openai and anthropic SDKs."""

# ruff: noqa: ANN401 - the SDKs' overloads are wider than what the tests need.

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import anthropic
import openai
import pytest

from tests.service.helpers import Books, closed_provider
from tests.support.answers import CannedError, failing, openai_error
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

Call = Callable[..., Any]


class Gpt(NamedTuple):
    """Makes calls with the openai SDK as it comes, and counts the requests that it sends."""

    port: int
    sent: list[str]

    def call(self, key: str, model: str = "gpt-4o", provider: str = "openai", **more: Any) -> Any:
        hooks = {"request": [lambda request: self.sent.append(str(request.url))]}
        with openai.OpenAI(
            base_url=f"http://127.0.0.1:{self.port}/v1/{provider}",
            api_key=key,
            http_client=openai.DefaultHttpxClient(event_hooks=hooks),
        ) as client:
            message: Any = {"role": "user", "content": "hi"}
            create: Call = client.chat.completions.create
            return create(model=model, messages=[message], **more)


class Claude(NamedTuple):
    """The same with the anthropic SDK."""

    port: int
    sent: list[str]

    def call(
        self,
        key: str,
        model: str = "claude-sonnet-5-5",
        provider: str = "anthropic",
        max_tokens: int = 100,
    ) -> Any:
        hooks = {"request": [lambda request: self.sent.append(str(request.url))]}
        with anthropic.Anthropic(
            base_url=f"http://127.0.0.1:{self.port}/v1/{provider}",
            api_key=key,
            http_client=anthropic.DefaultHttpxClient(event_hooks=hooks),
        ) as client:
            message: Any = {"role": "user", "content": "hi"}
            return client.messages.create(model=model, messages=[message], max_tokens=max_tokens)


@pytest.fixture
def gpt(proxy: RunningProxy) -> Gpt:
    return Gpt(proxy.port, [])


@pytest.fixture
def claude(proxy: RunningProxy) -> Claude:
    return Claude(proxy.port, [])


@pytest.fixture
def paused(books: Books) -> Iterator[None]:
    for name in ("openai", "anthropic"):
        books.pause(name, "invoice unpaid")
    yield
    for name in ("openai", "anthropic"):
        books.resume(name)


@pytest.fixture
def without_keys(books: Books) -> Iterator[None]:
    for name in ("openai", "anthropic"):
        books.set_key_states(name, "disabled")
    yield
    for name in ("openai", "anthropic"):
        books.set_key_states(name, "active")


def test_openai_shows_an_unknown_model(gpt: Gpt, books: Books) -> None:
    with pytest.raises(openai.BadRequestError, match='Unknown model pricing: "gpt-4-o"') as raised:
        gpt.call(books.user()[1], model="gpt-4-o")
    assert (raised.value.code, raised.value.param) == ("unknown_model_pricing", "model")
    assert raised.value.type == "invalid_request_error"


def test_anthropic_shows_an_unknown_model(claude: Claude, books: Books) -> None:
    pattern = 'Unknown model pricing: "claude-9"'
    with pytest.raises(anthropic.BadRequestError, match=pattern) as raised:
        claude.call(books.user()[1], model="claude-9")
    assert raised.value.type == "invalid_request_error"


def test_a_wrong_key_is_an_authentication_error_and_tried_once(gpt: Gpt, claude: Claude) -> None:
    with pytest.raises(openai.AuthenticationError, match=r"401.*Invalid API key") as raised:
        gpt.call("sk-somebodys")
    assert raised.value.code == "invalid_api_key"
    with pytest.raises(anthropic.AuthenticationError, match=r"401.*Invalid API key"):
        claude.call("sk-ant-somebodys")
    assert (len(gpt.sent), len(claude.sent)) == (1, 1)


def test_openai_shows_a_402_and_tries_once(gpt: Gpt, books: Books) -> None:
    with pytest.raises(openai.APIStatusError) as raised:
        gpt.call(books.user("0.001")[1])
    error = raised.value
    assert (error.status_code, error.code, error.type) == (
        402,
        "insufficient_credit",
        "billing_error",
    )
    assert "Insufficient credit balance — top up or lower max_tokens. Needed" in str(error)
    assert isinstance(error.body, dict)
    assert error.body["available_usd"] == "0.001"
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert len(gpt.sent) == 1


def test_anthropic_shows_a_402_and_tries_once(claude: Claude, books: Books) -> None:
    with pytest.raises(anthropic.APIStatusError) as raised:
        claude.call(books.user("0.001")[1])
    error = raised.value
    assert (error.status_code, error.type) == (402, "billing_error")
    assert "Insufficient credit balance — top up or lower max_tokens. Needed" in str(error)
    assert error.request_id is not None
    assert error.request_id.startswith("req_")
    assert len(claude.sent) == 1


@pytest.mark.usefixtures("paused")
def test_a_paused_provider_is_told_and_tried_once(gpt: Gpt, claude: Claude, books: Books) -> None:
    _, key = books.user()
    with pytest.raises(openai.RateLimitError) as of_openai:
        gpt.call(key)
    assert "Provider openai is paused: invoice unpaid. An administrator can" in str(of_openai.value)
    assert of_openai.value.code == "provider_paused"
    with pytest.raises(anthropic.RateLimitError, match="Provider anthropic is paused: invoice"):
        claude.call(key)
    assert (len(gpt.sent), len(claude.sent)) == (1, 1)


@pytest.mark.usefixtures("without_keys")
def test_a_provider_without_keys_is_told_and_tried_once(
    gpt: Gpt, claude: Claude, books: Books
) -> None:
    _, key = books.user()
    with pytest.raises(openai.InternalServerError) as of_openai:
        gpt.call(key)
    assert "No active API keys for provider openai. An administrator must" in str(of_openai.value)
    assert (of_openai.value.status_code, of_openai.value.code) == (503, "no_active_provider_keys")
    with pytest.raises(anthropic.InternalServerError, match="No active API keys for provider"):
        claude.call(key)
    assert (len(gpt.sent), len(claude.sent)) == (1, 1)


def test_an_unreachable_provider_is_tried_again_by_the_sdk(
    gpt: Gpt, proxy: RunningProxy, books: Books
) -> None:
    closed_provider(proxy, "mistral")
    name, key = books.user()
    with pytest.raises(openai.InternalServerError) as raised:
        gpt.call(key, model="mistral-tiny", provider="mistral")
    assert "Proxy error: mistral cannot be reached. Request id req_" in str(raised.value)
    assert len(gpt.sent) == 3
    assert books.settled_wallet(name) == 5_000_000_000


@pytest.mark.parametrize("is_stream", [False, True])
def test_the_providers_own_words_about_a_clients_mistake_reach_the_sdk(
    is_stream: bool, gpt: Gpt, books: Books, stub: StubProvider
) -> None:
    stub.handle = failing(openai_error("bad_request"))
    with pytest.raises(openai.BadRequestError, match="Invalid 'temperature'") as raised:
        gpt.call(books.user()[1], temperature=9, stream=is_stream)
    assert raised.value.code == "invalid_value"


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (403, "permission_error"),
        (404, "not_found_error"),
        (413, "request_too_large"),
        (529, "overloaded_error"),
    ],
)
def test_anthropics_own_errors_keep_their_status_and_type(
    status: int, kind: str, claude: Claude, books: Books, stub: StubProvider
) -> None:
    body = b'{"type":"error","error":{"type":"%b","message":"not so"}}' % kind.encode()
    stub.handle = failing(CannedError(status, [("x-should-retry", "false")], body))
    name, key = books.user()
    with pytest.raises(anthropic.APIStatusError, match="not so") as raised:
        claude.call(key)
    assert (raised.value.status_code, raised.value.type) == (status, kind)
    assert books.settled_wallet(name) == 5_000_000_000
