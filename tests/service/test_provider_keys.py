"""Several keys of a provider: which failures take one out, and what operators do at once."""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.service.helpers import CHAT, MESSAGES, Books, ask, bearer, chat_body
from tests.support.answers import (
    CannedError,
    anthropic_error,
    anthropic_message,
    failing,
    openai_chat,
    openai_error,
    plain,
)
from tests.support.proxy import Answered, RunningProxy
from tests.support.stub_provider import Handler, Out, SeenRequest, StubProvider

SECRETS = ("sk-canary-provider-key-A", "sk-canary-provider-key-B", "sk-canary-provider-key-C")


class ByKey:
    """An upstream that answers each key in its own way, and notes which keys came."""

    def __init__(self, good: bytes, **answers: CannedError) -> None:
        self.tried: list[str] = []
        self._good = plain(good)
        self._answers = {letter: failing(answer) for letter, answer in answers.items()}

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        secret = request.header("x-api-key") or request.header("authorization") or b""
        letter = secret.decode()[-1]
        self.tried.append(letter)
        handler: Handler = self._answers.get(letter, self._good)
        await handler(request, out)


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[RunningProxy]:
    with RunningProxy(tmp_path_factory.mktemp("keys")) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1", SECRETS)
        proxy.use_provider("anthropic", stub.url, SECRETS)
        proxy.start()
        yield proxy
        proxy.verify_ledger()


@pytest.fixture(scope="module")
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


@pytest.fixture(scope="module")
def key(books: Books) -> str:
    return books.user("100")[1]


@pytest.fixture(autouse=True)
def _all_keys_active(books: Books) -> None:
    books.set_key_states("openai", "active")
    books.set_key_states("anthropic", "active")


_models = iter(["gpt-4o", "gpt-4.1", "gpt-4.1-mini", "gpt-4.1-nano", "gpt-5", "gpt-5-mini"])


def ask_openai(proxy: RunningProxy, key: str, model: str = "gpt-4o") -> Answered:
    return ask(proxy.port, "POST", CHAT, chat_body(model=model), bearer(key))


def ask_anthropic(proxy: RunningProxy, key: str) -> Answered:
    body = chat_body(model="claude-sonnet-5-5")
    return ask(proxy.port, "POST", MESSAGES, body, bearer(key))


def all_bad(error: CannedError) -> dict[str, CannedError]:
    return dict.fromkeys("ABC", error)


def first_tried(proxy: RunningProxy, key: str, stub: StubProvider) -> str:
    """Which of openai's keys this user meets first."""
    stub.handle = by_key = ByKey(openai_chat())
    assert ask_openai(proxy, key).status == 200
    return by_key.tried[0]


def listed(proxy: RunningProxy, provider: str) -> dict[str, Any]:
    """The keys of a provider in `providers list --json`, by the last letter of their secret."""
    (found,) = (one for one in proxy.json("providers", "list") if one["name"] == provider)
    return {key["masked"][-1]: key for key in found["keys"]}


@pytest.mark.parametrize(
    ("path", "error", "state", "reason"),
    [
        (CHAT, openai_error("bad_key"), "dead", "401: Incorrect API key provided"),
        (CHAT, openai_error("quota"), "out_of_quota", "429: You exceeded your current quota"),
        (MESSAGES, anthropic_error("bad_key"), "dead", "401: invalid x-api-key"),
        (MESSAGES, anthropic_error("quota"), "out_of_quota", "400: Your credit balance is too"),
    ],
    ids=["openai 401", "openai quota", "anthropic 401", "anthropic quota"],
)
def test_a_key_that_is_refused_is_taken_out_and_the_next_one_serves_the_same_request(
    path: str,
    error: CannedError,
    state: str,
    reason: str,
    proxy: RunningProxy,
    key: str,
    stub: StubProvider,
) -> None:
    provider, send = ("openai", ask_openai) if path == CHAT else ("anthropic", ask_anthropic)
    good = openai_chat() if path == CHAT else anthropic_message()
    stub.handle = by_key = ByKey(good)
    assert send(proxy, key).status == 200
    first = by_key.tried[0]

    stub.handle = by_key = ByKey(good, **{first: error})
    answered = send(proxy, key)
    assert (answered.status, answered.body) == (200, good)
    assert by_key.tried[0] == first
    assert len(by_key.tried) == 2
    assert send(proxy, key).status == 200
    assert by_key.tried.count(first) == 1

    keys = listed(proxy, provider)
    assert keys[first]["state"] == state
    assert keys[first]["reason"].startswith(reason)
    assert keys[first]["by"] == "proxy"
    assert (keys[first]["until"] is not None) == (state == "out_of_quota")
    assert [one["state"] for letter, one in keys.items() if letter != first] == ["active"] * 2


def test_when_every_key_is_refused_the_client_learns_503_and_not_the_providers_words(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    name, key = books.user()
    stub.handle = by_key = ByKey(openai_chat(), **all_bad(openai_error("bad_key")))
    for _ in range(2):
        answered = ask_openai(proxy, key)
        assert answered.status == 503
        assert answered.headers["x-should-retry"] == "false"
        message = "No active API keys for provider openai. An administrator must add one."
        assert answered.json()["message"] == message
    assert sorted(by_key.tried) == ["A", "B", "C"]
    assert {state for state, _ in books.key_states("openai").values()} == {"dead"}
    assert books.settled_wallet(name) == 5_000_000_000


def test_a_rate_limited_key_rests_and_the_next_one_serves(
    proxy: RunningProxy, key: str, books: Books, stub: StubProvider
) -> None:
    first = first_tried(proxy, key, stub)
    limited = openai_error("rate_limit")
    stub.handle = by_key = ByKey(openai_chat(), **{first: limited})
    assert ask_openai(proxy, key, "gpt-4.1").status == 200
    assert by_key.tried[0] == first
    assert ask_openai(proxy, key, "gpt-4.1").status == 200
    assert by_key.tried.count(first) == 1
    # The limit is the model's: other models still use the key.
    assert ask_openai(proxy, key, "gpt-4.1-mini").status == 200
    assert by_key.tried.count(first) == 2
    assert {state for state, _ in books.key_states("openai").values()} == {"active"}


@pytest.mark.parametrize(
    ("retry_after", "model", "lowest", "highest"),
    [("7", "gpt-5", 5, 7), ("3600", "gpt-5-mini", 55, 60), ("soon", "gpt-5-nano", 3, 5)],
)
def test_when_every_key_is_rate_limited_the_client_learns_how_long_to_wait(
    retry_after: str,
    model: str,
    lowest: int,
    highest: int,
    proxy: RunningProxy,
    key: str,
    stub: StubProvider,
) -> None:
    limited = openai_error("rate_limit", retry_after)
    stub.handle = by_key = ByKey(openai_chat(), **all_bad(limited))
    for _ in range(2):
        answered = ask_openai(proxy, key, model)
        assert (answered.status, answered.json()["error"]["code"]) == (429, "rate_limit_exceeded")
        assert lowest <= int(answered.headers["retry-after"]) <= highest
        assert "x-should-retry" not in answered.headers
    assert sorted(by_key.tried) == ["A", "B", "C"]


def test_a_resting_key_beside_dead_ones_is_waited_for(
    proxy: RunningProxy, key: str, stub: StubProvider
) -> None:
    first = first_tried(proxy, key, stub)
    answers = all_bad(openai_error("bad_key")) | {first: openai_error("rate_limit")}
    stub.handle = ByKey(openai_chat(), **answers)
    for _ in range(2):
        answered = ask_openai(proxy, key, "gpt-4.1-nano")
        assert answered.status == 429, answered.body
        assert 5 <= int(answered.headers["retry-after"]) <= 7


def test_after_three_refused_keys_the_client_may_try_again_with_the_rest(
    proxy: RunningProxy, key: str, books: Books, stub: StubProvider
) -> None:
    for letter in ("D", "E"):
        proxy.run("provider-keys", "add", "openai", stdin=f"sk-canary-provider-key-{letter}")
    try:
        time.sleep(0.3)
        stub.handle = by_key = ByKey(
            openai_chat(), **dict.fromkeys("ABCDE", openai_error("bad_key"))
        )
        answered = ask_openai(proxy, key)
        assert (answered.status, len(by_key.tried)) == (503, 3)
        assert answered.headers["x-should-retry"] == "true"
        answered = ask_openai(proxy, key)
        assert (answered.status, len(by_key.tried)) == (503, 5)
        assert answered.json()["error"]["code"] == "no_active_provider_keys"
    finally:
        for name in ("key-4", "key-5"):
            proxy.run("provider-keys", "remove", "openai", name, "--yes")


@pytest.mark.parametrize(
    "error",
    [
        openai_error("bad_request"),
        CannedError(
            403, [], b'{"error":{"message":"no access","type":"permission_error","code":null}}'
        ),
        CannedError(404, [], b'{"error":{"message":"no model","code":"model_not_found"}}'),
        CannedError(413, [], b'{"error":{"message":"too long"}}'),
        CannedError(422, [], b"not even JSON: credit, balance, billing, quota"),
        CannedError(400, [], b'{"error":{"message":"my balance, credit and quota"}}'),
        openai_error("overloaded"),
        openai_error("server_error"),
    ],
    ids=["400", "403", "404", "413", "422", "400 with words", "503", "500"],
)
def test_what_a_client_or_the_providers_servers_cause_never_changes_a_key(
    error: CannedError, proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    name, key = books.user()
    stub.handle = by_key = ByKey(openai_chat(), **all_bad(error))
    answered = ask_openai(proxy, key)
    assert (answered.status, answered.body) == (error.status, error.body)
    assert len(by_key.tried) == 1
    assert {state for state, _ in books.key_states("openai").values()} == {"active"}
    assert books.settled_wallet(name) == 5_000_000_000


def test_a_parked_key_is_tried_again_when_its_time_has_come_and_put_back_when_it_serves(
    proxy: RunningProxy, key: str, books: Books, stub: StubProvider
) -> None:
    books.set_key_states("openai", "out_of_quota", until_ms=1)
    time.sleep(0.3)  # a server that lacks nothing looks for news four times a second
    stub.handle = by_key = ByKey(openai_chat())
    assert ask_openai(proxy, key).status == 200
    time.sleep(0.1)  # nobody waits for the note to be written
    states = {name: state for name, (state, _) in books.key_states("openai").items()}
    served = f"key-{'ABC'.index(by_key.tried[0]) + 1}"
    assert states == {n: "active" if n == served else "out_of_quota" for n in states}


def test_what_an_operator_does_while_a_request_runs_is_not_undone_by_it(
    proxy: RunningProxy, key: str, books: Books, stub: StubProvider
) -> None:
    first = first_tried(proxy, key, stub)

    async def refuse(request: SeenRequest, out: Out) -> None:
        if (request.header("authorization") or b"").endswith(first.encode()):
            books.set_key_states("openai", "disabled")
            await failing(openai_error("quota"))(request, out)
        else:
            await plain(openai_chat())(request, out)

    stub.handle = refuse
    assert ask_openai(proxy, key).status == 200
    time.sleep(0.1)
    assert {state for state, _ in books.key_states("openai").values()} == {"disabled"}


def test_the_keys_secret_is_nowhere_but_in_the_request_to_the_provider(
    proxy: RunningProxy, key: str, stub: StubProvider
) -> None:
    first = first_tried(proxy, key, stub)
    secret = SECRETS["ABC".index(first)].encode()
    echo = b'{"error":{"message":"bad request with ' + secret + b'"}}'
    stub.handle = failing(CannedError(400, [("x-echo", secret.decode())], echo))
    answered = ask_openai(proxy, key)
    assert (answered.status, secret in answered.body) == (400, False)
    assert secret.decode() not in str(answered.headers)

    async def echo_refused_key(request: SeenRequest, out: Out) -> None:
        given = (request.header("authorization") or b"").decode()
        await out.json(401, {"error": {"message": f"Incorrect API key: {given}"}})

    stub.handle = echo_refused_key
    refused = ask_openai(proxy, key)
    shown = [
        proxy.run(*command.split(), "--json").encode()
        for command in (
            "providers list",
            "providers show openai",
            "provider-keys list",
            "usage requests",
            "config show",
            "doctor",
        )
    ]
    files = [path for path in proxy.home.rglob("*") if path.is_file()]
    assert Path(proxy.home / "data" / "llmproxy.db-wal") in files
    for text in [refused.body, *shown, *(path.read_bytes() for path in files)]:
        found = text.find(b"canary-provider")
        assert found < 0, text[found - 100 : found + 100]
