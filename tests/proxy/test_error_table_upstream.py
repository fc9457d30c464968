"""The table of errors that no client is to blame for (reference wire.md D.2).

They are the provider's, its keys', its operator's or the ledger's; row by row, on every family of
endpoints. Finer cases stand in test_upstream_*.py.
"""

import json
import sqlite3
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager

import pytest

from llmproxy import key_pool
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from tests.proxy.families import FAMILIES, PAID, check, check_free, check_no_rest, check_rest
from tests.proxy.helpers import Site
from tests.support.answers import CannedError, failing, silent
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Out, SeenRequest, closed_port

PROVIDERS = ("openai", "anthropic")


@pytest.fixture
def site(error_site: Site) -> Site:
    return error_site


@contextmanager
def paused(site: Site) -> Iterator[None]:
    for provider in PROVIDERS:
        site.books.pause(provider, "invoice unpaid")
    try:
        time.sleep(0.5)  # the server looks for changes four times a second
        yield
    finally:
        for provider in PROVIDERS:
            site.books.resume(provider)


def test_a_paused_provider_is_a_429_that_no_retry_helps(site: Site) -> None:
    with paused(site):
        for name, family in FAMILIES.items():
            visitor = site.visitor()
            got = site.ask(visitor, family.path, family.request())
            message = check(got, 429, "rate_limit_error", "provider_paused", should_retry=False)
            assert message == (
                f"Provider {family.provider} is paused: invoice unpaid. "
                "An administrator can resume it."
            ), name
            check_no_rest(got)
            check_free(site, visitor)


@pytest.mark.parametrize(("told", "longest"), [("7", 7), ("86400", 60)])
@pytest.mark.parametrize("family", PAID)
def test_keys_that_all_rest_are_a_429_with_the_time_to_wait(
    site: Site, family: str, told: str, longest: int
) -> None:
    body = PAID[family].request(model=f"resting-{family}")
    limit = b'{"type":"error","error":{"type":"rate_limit_error","message":"org-secret: slow"}}'
    site.stub.handle = failing(CannedError(429, [("retry-after", told)], limit))
    for _ in range(2):  # the second one is not sent any more
        visitor = site.visitor()
        got = site.ask(visitor, PAID[family].path, body)
        check(got, 429, "rate_limit_error", "rate_limit_exceeded", should_retry=None)
        assert check_rest(got) <= longest
        assert b"org-secret" not in got.body
        check_free(site, visitor)
    new_keys(site, PAID[family].provider)


def new_keys(site: Site, provider: str) -> None:
    """Add a provider's key anew: it does not rest."""
    vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)
    assert vault is not None
    with site.books.write() as tx:
        for key in key_pool.list_provider_keys(tx, provider):
            key_pool.remove_provider_key(
                tx, provider, key.name, actor="test", now_ms=Clock().now_ms()
            )
        key_pool.add_provider_key(
            tx,
            provider,
            PROVIDER_KEY,
            name=None,
            vault=vault,
            actor="test",
            now_ms=Clock().now_ms(),
        )


@pytest.mark.parametrize("state", ["dead", "out_of_quota"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_provider_without_a_good_key_is_a_503_that_no_retry_helps(
    site: Site, family: str, state: str
) -> None:
    refusals = {
        "dead": (401, b'{"error":{"message":"Incorrect API key provided: sk-...0001"}}'),
        "out_of_quota": (429, b'{"error":{"type":"insufficient_quota","message":"your plan"}}'),
    }
    status, words = refusals[state]
    site.stub.handle = failing(CannedError(status, [("x-should-retry", "true")], words))
    provider = FAMILIES[family].provider
    try:
        for _ in range(2):  # refused by the provider, then known
            visitor = site.visitor()
            got = site.ask(visitor, FAMILIES[family].path, FAMILIES[family].request())
            message = check(got, 503, "api_error", "no_active_provider_keys", should_retry=False)
            assert message == (
                f"No active API keys for provider {provider}. An administrator must add one."
            )
            check_no_rest(got)
            check_free(site, visitor)
    finally:
        site.books.set_key_states(provider, "active")


def test_a_provider_that_cannot_be_reached_is_a_502_that_may_be_tried_again(
    site: Site,
) -> None:
    with moved(site, f"http://127.0.0.1:{closed_port()}"):
        for family in FAMILIES.values():
            visitor = site.visitor()
            got = site.ask(visitor, family.path, family.request())
            message = check(got, 502, "api_error", "upstream_unreachable", should_retry=True)
            assert message.startswith(f"Proxy error: {family.provider} cannot be reached. ")
            assert message.endswith(f"Request id {json.loads(got.body)['request_id']}.")
            check_free(site, visitor)


@contextmanager
def moved(site: Site, url: str) -> Iterator[None]:
    """Point both providers somewhere else for a while."""
    vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)

    def move(url: str) -> None:
        for provider, path in zip(PROVIDERS, ("/v1", ""), strict=True):
            with site.books.write() as tx:
                now_ms = Clock().now_ms()
                key_pool.set_base_url(tx, provider, url + path, vault=vault, now_ms=now_ms)
        time.sleep(0.5)  # the server looks for changes four times a second

    move(url)
    try:
        yield
    finally:
        move(site.stub.url)


async def close_at_once(request: SeenRequest, out: Out) -> None:
    out.close()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_provider_that_breaks_off_before_answering_is_a_502_not_to_be_tried_again(
    site: Site, family: str
) -> None:
    site.stub.handle = close_at_once
    visitor = site.visitor()
    got = site.ask(visitor, FAMILIES[family].path, FAMILIES[family].request())
    check(got, 502, "api_error", "upstream_unreachable", should_retry=False)
    check_no_rest(got)
    row = site.ended(visitor)
    assert (row["state"], row["status"], row["upstream_status"]) == ("released", 502, None)
    check_free(site, visitor)


def test_a_provider_that_is_silent_is_a_504_not_to_be_tried_again(site: Site) -> None:
    site.stub.handle = silent
    waiting = []
    for family in FAMILIES.values():
        visitor = site.visitor()
        waiting.append((visitor, site.send(visitor, family.path, family.request())))
    for visitor, client in waiting:
        with client:
            got = site.take(client)
        check(got, 504, "api_error", "upstream_timeout", should_retry=False)
        check_no_rest(got)
        row = site.ended(visitor)
        assert (row["state"], row["status"], row["upstream_status"]) == ("released", 504, None)
        assert row["reason"] == "the provider was silent for 1 s"
        check_free(site, visitor)


@pytest.mark.parametrize("status", [400, 404, 422, 500, 503, 529])
def test_a_providers_own_error_passes_as_it_is_on_every_endpoint(site: Site, status: int) -> None:
    words = b'{"error": {"message": "its own \xe2\x80\xa8 words", "type": "x"}}'
    headers = [("x-should-retry", "false"), ("x-request-id", "req_theirs")]
    site.stub.handle = failing(CannedError(status, headers, words))
    for family in FAMILIES.values():
        visitor = site.visitor()
        got = site.ask(visitor, family.path, family.request())
        assert (got.status, got.body) == (status, words)
        for name, value in headers:
            assert got.header(name) == value.encode()
        row = site.ended(visitor)
        assert (row["status"], row["upstream_status"]) == (status, status)
        assert row["reason"] == f"the provider answered {status}"
        check_free(site, visitor)


def test_a_ledger_that_stays_busy_is_a_503_with_the_time_to_wait(site: Site) -> None:
    """A foreign writer holds the file for longer than a hold waits for it."""
    before = len(site.stub.requests)
    visitors = {name: site.visitor() for name in PAID}
    for name, visitor in visitors.items():
        site.stub.handle = failing(CannedError(400, [], b"{}"))
        site.ask(visitor, PAID[name].path, PAID[name].request())  # the proxy knows them now
    sent = len(site.stub.requests)
    assert sent == before + len(PAID)
    path = site.proxy.home / "data" / "llmproxy.db"
    with closing(sqlite3.connect(path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        waiting = [
            site.send(visitors[name], family.path, family.request())
            for name, family in PAID.items()
        ]
        for client in waiting:
            with client:
                got = site.take(client)
            check(got, 503, "api_error", "ledger_busy", should_retry=None)
            check_rest(got)
        foreign.execute("ROLLBACK")
    assert len(site.stub.requests) == sent
    for visitor in visitors.values():
        check_free(site, visitor)
