"""The paths and headers that clients use (wire.md F.2, F.6, F.7), each over a real socket."""

import json
from collections.abc import Iterator

import pytest

from llmproxy.catalog_parser import load_catalog
from llmproxy.presets import PRESETS
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat, message
from tests.support.answers import anthropic_message, openai_chat, plain
from tests.support.raw_client import RawClient

OPENAI_FAMILY = [
    name for name, each in PRESETS.items() if each.dialect == "openai" and name != "openai"
]
CATALOG = load_catalog(None)
MODELS = {
    name: next((each.id for each in CATALOG.models(name) if each.mode == "chat"), "")
    for name in OPENAI_FAMILY
}
OWN_MODEL = "own-model"
"""Of providers of which the catalog has none."""
RESPONSES = {"model": "gpt-4o", "input": "hi", "max_output_tokens": 9}
POSTED = {
    "chat/completions": json.loads(chat()),
    "responses": RESPONSES,
    "responses/compact": RESPONSES,
    "responses/input_tokens": RESPONSES,
    "completions": {"model": "gpt-3.5-turbo-instruct", "prompt": "hi", "max_tokens": 9},
    "embeddings": {"model": "text-embedding-3-small", "input": "hi"},
    "moderations": {"input": "hi"},
}


@pytest.fixture(scope="module")
def all_providers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("all"), {}) as site:
        for name in OPENAI_FAMILY:
            site.proxy.use_provider(name, f"{site.stub.url}/v1")
            if not MODELS[name]:
                prices = ("--in-price", "1", "--out-price", "1")
                site.proxy.run("catalog", "set", name, OWN_MODEL, *prices)
        site.stub.handle = plain(openai_chat())
        yield site


@pytest.mark.parametrize("inner", ["", "v1/"])
@pytest.mark.parametrize("endpoint", POSTED)
def test_openais_endpoints_are_there_with_and_without_a_v1_of_the_clients(
    all_providers: Site, endpoint: str, inner: str
) -> None:
    site = all_providers
    body = json.dumps(POSTED[endpoint]).encode()
    for query in ("", "?api-version=2026-01-01&key=x"):
        path = f"/v1/openai/{inner}{endpoint}{query}"
        assert site.ask(site.visitor(), path, body).status == 200, path
        assert site.last_request().target == f"/v1/{endpoint}".encode()


@pytest.mark.parametrize("inner", ["", "v1/"])
@pytest.mark.parametrize("endpoint", ["messages", "messages/count_tokens"])
def test_anthropics_endpoints_are_there_with_and_without_the_v1_of_its_sdks(
    site: Site, endpoint: str, inner: str
) -> None:
    site.stub.handle = plain(anthropic_message())
    for query, passed in (
        ("", ""),
        ("?beta=true", "?beta=true"),
        ("?beta=true&key=x", "?beta=true"),
    ):
        path = f"/v1/anthropic/{inner}{endpoint}{query}"
        assert site.ask(site.visitor(), path, message()).status == 200, path
        assert site.last_request().target == f"/v1/{endpoint}{passed}".encode()


@pytest.mark.parametrize("provider", OPENAI_FAMILY)
def test_every_compatible_provider_has_chat_and_models_with_and_without_v1(
    all_providers: Site, provider: str
) -> None:
    site = all_providers
    model = MODELS[provider] or OWN_MODEL
    inners = ["", "v1/", *(["openai/v1/"] if provider == "groq" else [])]
    for inner in inners:
        path = f"/v1/{provider}/{inner}chat/completions"
        assert site.ask(site.visitor(), path, chat(model=model)).status == 200, path
        assert site.last_request().target == b"/v1/chat/completions"
        with RawClient(site.proxy.port) as client:
            head = f"GET /v1/{provider}/{inner}models HTTP/1.1\r\nhost: x\r\n"
            client.send(f"{head}authorization: Bearer {site.visitor().key}\r\n\r\n".encode())
            assert client.recv_head().status == 200
            assert model in [each["id"] for each in json.loads(client.body())["data"]]


@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_the_root_is_there_for_whoever_looks(site: Site, method: str) -> None:
    with RawClient(site.proxy.port) as client:
        client.send(f"{method} / HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert client.recv_head().status == 200


@pytest.mark.parametrize(
    "path",
    [
        "/v1/openai//chat/completions",
        "//v1/openai/chat/completions",
        "/v1//openai/chat/completions",
        "/v1/openai/v1/v1/chat/completions",
        "/v1/openai/openai/v1/chat/completions",
        "/v1/openai/v1beta/chat/completions",
        "/v1/openai/chat/completions/",
        "/v1/openai/chat%2Fcompletions",
        "/V1/openai/chat/completions",
        "/v1/OpenAI/chat/completions",
        "/v1/chat/completions",
        "/openai/v1/chat/completions",
        "/v1/azure/openai/deployments/gpt-4o/chat/completions",  # there is no such provider
    ],
)
def test_what_is_no_alias_goes_nowhere(site: Site, path: str) -> None:
    seen = len(site.stub.requests)
    got = site.ask(site.visitor(), path, chat())
    assert got.status in {400, 404}
    assert got.error()["code"] in {"unknown_path", "endpoint_not_metered"}
    assert len(site.stub.requests) == seen


# --- headers ---

OF_PROGRAMS = {
    "anthropic-beta": "claude-code-20250219,interleaved-thinking-2025-05-14",
    "anthropic-dangerous-direct-browser-access": "true",
    "x-app": "cli",
    "x-claude-code-session-id": "5443adba",
    "session-id": "01a2",
    "thread-id": "01a2",
    "x-codex-turn-metadata": "{}",
    "originator": "codex_exec",
    "openai-beta": "responses=experimental",
    "x-stainless-raw-response": "true",
    "x-client-request-id": "c1",
    "http-referer": "https://openwebui.com/",
    "x-openwebui-user-id": "9e2f",
}
OF_PROVIDERS = {
    "retry-after-ms": "10",
    "x-should-retry": "true",
    "anthropic-fast-input-tokens-remaining": "1",
    "anthropic-priority-input-tokens-remaining": "1",
    "openai-model": "gpt-4o-2024-08-06",
    "server-timing": "x;dur=1",
    "x-groq-region": "us",
    "mistral-correlation-id": "m",
    "apim-request-id": "a",
    "x-ratelimit-reset-tokens": "6ms",
}


def test_what_programs_and_providers_tell_each_other_passes(site: Site) -> None:
    site.stub.handle = plain(openai_chat(), 200, list(OF_PROVIDERS.items()))
    got = site.ask(site.visitor(), CHAT, chat(), OF_PROGRAMS)
    assert got.status == 200
    sent = {name.decode(): value.decode() for name, value in site.last_request().headers}
    assert {name: sent.get(name) for name in OF_PROGRAMS} == OF_PROGRAMS
    told = {name.decode(): value.decode() for name, value in got.headers}
    assert {name: told.get(name) for name in OF_PROVIDERS} == OF_PROVIDERS
