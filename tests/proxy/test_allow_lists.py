"""Which models, providers and networks an API key may use."""

import json
from collections.abc import Iterator
from ipaddress import ip_network
from pathlib import Path

import pytest

from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, Visitor, chat, message
from tests.service.helpers import ask, bearer, either
from tests.support.limits import limit_key, make_seen, refused_row
from tests.support.waiting import wait_until

FREE = "/v1/anthropic/messages/count_tokens"


@pytest.fixture(autouse=True)
def _answer(site: Site) -> None:
    site.stub.handle = either


def assert_forbidden(got: Got, code: str, what: str) -> None:
    error = got.error()
    assert (got.status, error["type"], error["code"]) == (403, "permission_error", code)
    assert error["message"].startswith(f"This API key {what}. ")
    assert got.header("x-should-retry") == b"false"


def models(site: Site, visitor: Visitor, path: str) -> list[str]:
    listed = ask(site.proxy.port, "GET", path, headers=bearer(visitor.key))
    return [model["id"] for model in listed.json()["data"]]


def test_only_models_of_the_list_are_served(site: Site) -> None:
    ann = site.visitor()
    limit_key(site.books, ann.name, models=("gpt-4o", "claude-haiku-*"))
    assert site.ask(ann, CHAT, chat()).status == 200
    for path, body, model in (
        (CHAT, chat(model="gpt-4o-mini"), "gpt-4o-mini"),
        (MESSAGES, message(), "claude-sonnet-4-6"),
    ):
        before = len(site.stub.requests)
        assert_forbidden(
            site.ask(ann, path, body), "model_not_allowed", f'may not use model "{model}"'
        )
        assert len(site.stub.requests) == before
    row = refused_row(site, ann, MESSAGES, message())
    assert (row["status"], row["model"]) in {
        (403, "gpt-4o-mini"),
        (403, "claude-sonnet-4-6"),
    }


def test_an_alias_is_what_it_stands_for(site: Site) -> None:
    catalog = json.loads((Path(__file__).parents[2] / "model_catalog.json").read_bytes())["models"]
    name, entry = next(
        (name, entry)
        for name, entry in catalog.items()
        if name.startswith("openai/gpt-4o-mini") and entry.get("aliases")
    )
    model_id, alias = name.removeprefix("openai/"), entry["aliases"][0]
    ann, bob = site.visitor(), site.visitor()
    limit_key(site.books, ann.name, models=(model_id,))
    assert site.ask(ann, CHAT, chat(model=alias)).status == 200
    # The list has ids: an alias in it is nobody's.
    limit_key(site.books, bob.name, models=(alias,))
    assert site.ask(bob, CHAT, chat(model=model_id)).status == 403


def test_free_requests_name_a_model_that_is_allowed(site: Site) -> None:
    ann = site.visitor()
    limit_key(site.books, ann.name, models=("claude-sonnet-4-6",))
    make_seen(site)
    assert site.ask(ann, FREE, message()).status == 200
    refused = site.ask(ann, FREE, message(model="claude-opus-4-6"))
    assert refused.error()["code"] == "model_not_allowed"
    unnamed = site.ask(ann, "/v1/openai/moderations", b'{"input": "hi"}')
    assert_forbidden(unnamed, "model_not_allowed", "must name a model")


def test_the_list_of_models_shows_what_the_key_may_use(site: Site) -> None:
    ann, bob = site.visitor(), site.visitor()
    everything = models(site, ann, "/v1/openai/models")
    limit_key(site.books, bob.name, models=("gpt-4o-*",), providers=("openai",))
    wait_until(lambda: models(site, bob, "/v1/openai/models") != everything)
    shown = models(site, bob, "/v1/openai/models")
    assert shown == [each for each in everything if each.startswith("gpt-4o-")]
    assert shown != []
    assert models(site, bob, "/v1/anthropic/models") == []
    one = ask(site.proxy.port, "GET", "/v1/openai/models/gpt-4o", headers=bearer(bob.key))
    assert (one.status, one.json()["error"]["code"]) == (404, "model_not_found")


def test_only_providers_of_the_list_are_served(site: Site) -> None:
    ann = site.visitor()
    limit_key(site.books, ann.name, providers=("openai",))
    assert site.ask(ann, CHAT, chat()).status == 200
    for path in (MESSAGES, FREE):
        refused = site.ask(ann, path, message())
        assert_forbidden(refused, "provider_not_allowed", "may not use provider anthropic")
    limit_key(site.books, ann.name, providers=("openai", "anthropic"))
    assert site.ask(ann, MESSAGES, message()).status == 200
    limit_key(site.books, ann.name, providers=("anthropic",))
    assert site.ask(ann, CHAT, chat()).status == 403


# --- networks ---


def networks(*texts: str) -> tuple[object, ...]:
    return tuple(map(ip_network, texts))


def test_only_addresses_of_the_networks_are_let_in(site: Site) -> None:
    ann = site.visitor()
    limit_key(site.books, ann.name, networks=networks("10.0.0.0/8", "127.0.0.1/32"))
    assert site.ask(ann, CHAT, chat()).status == 200
    limit_key(site.books, ann.name, networks=networks("10.0.0.0/8", "::1/128"))
    refused = site.ask(ann, CHAT, chat())
    assert_forbidden(refused, "network_not_allowed", "may not be used from this address")
    row = refused_row(site, ann, CHAT, chat())
    assert (row["status"], row["reason"]) == (403, refused.error()["message"])
    own = ask(site.proxy.port, "GET", "/v1/key", headers=bearer(ann.key))
    assert (own.status, own.json()["error"]["code"]) == (403, "network_not_allowed")
    # Nobody is trusted here: what a header says counts for nothing.
    forwarded = {"x-forwarded-for": "10.1.2.3"}
    assert site.ask(ann, CHAT, chat(), forwarded).status == 403


@pytest.fixture(scope="module")
def behind_proxy(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    environ = {"LLMPROXY_TRUSTED_PROXIES": "127.0.0.1, 192.168.0.0/16"}
    with running_site(tmp_path_factory.mktemp("behind"), environ) as site:
        site.stub.handle = either
        yield site


@pytest.mark.parametrize(
    ("forwarded", "status"),
    [
        (None, 403),  # the proxy itself
        ("10.1.2.3", 200),
        ("10.1.2.3:5678", 200),
        ("::ffff:10.1.2.3", 200),
        ("11.1.2.3", 403),
        ("10.1.2.3, 11.1.2.3", 403),  # the first was written by the client
        ("11.1.2.3, 10.1.2.3", 200),
        ("11.1.2.3, 10.1.2.3, 192.168.7.7", 200),  # two proxies in a row
        ("10.1.2.3, unknown", 403),
        ("10.1.2.3, ", 403),
        ("", 403),
        ("192.168.1.1", 403),
    ],
)
def test_a_trusted_proxy_says_where_a_request_comes_from(
    behind_proxy: Site, forwarded: str | None, status: int
) -> None:
    ann = behind_proxy.visitor()
    limit_key(behind_proxy.books, ann.name, networks=networks("10.0.0.0/8"))
    headers = {} if forwarded is None else {"x-forwarded-for": forwarded}
    assert behind_proxy.ask(ann, CHAT, chat(), headers).status == status


def test_the_header_may_be_there_more_than_once(behind_proxy: Site) -> None:
    ann = behind_proxy.visitor()
    limit_key(behind_proxy.books, ann.name, networks=networks("10.0.0.0/8"))
    for first, last, status in (("10.1.2.3", "11.1.2.3", 403), ("11.1.2.3", "10.1.2.3", 200)):
        headers = {"x-forwarded-for": first, "X-Forwarded-For": last}
        assert behind_proxy.ask(ann, CHAT, chat(), headers).status == status
