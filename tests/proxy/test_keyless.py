"""A provider that needs no key gets none, and nothing of its answers is lost for want of one."""

import json
from collections.abc import Iterator

import pytest

from tests.proxy.helpers import Site, chat
from tests.service.helpers import Books
from tests.support.answers import CannedError, failing, openai_chat, plain
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

CHAT = "/v1/local/chat/completions"
MODELS = {"local/gpt-4o": {"in_price": "1", "out_price": "1"}}


@pytest.fixture(scope="module")
def local(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy whose only provider needs no key."""
    home = tmp_path_factory.mktemp("keyless")
    file = home / "prices.json"
    head = {"schema": 1, "currency": "USD", "unit": "per 1M tokens", "updated": "2026-11-23"}
    file.write_text(json.dumps({**head, "models": MODELS}))
    environ = {"LLMPROXY_CATALOG_FILE": str(file)}
    with StubProvider() as stub, RunningProxy(home, environ) as proxy:
        url = ("--base-url", f"{stub.url}/v1", "--dialect", "openai", "--no-key")
        proxy.run("providers", "add", "local", *url)
        proxy.start()
        books = Books(home)
        yield Site(proxy, stub, books)
        books.close()
        proxy.verify_ledger()
        assert "internal error" not in proxy.log.read_text()


def test_no_credential_is_sent_and_all_headers_come_back(local: Site) -> None:
    local.stub.handle = plain(openai_chat())
    visitor = local.visitor()
    got = local.ask(visitor, CHAT, chat(), {"x-api-key": visitor.key})
    assert got.status == 200
    assert got.header("content-type") == b"application/json"
    sent = local.last_request()
    assert visitor.key.encode() not in sent.raw_head
    assert [sent.header(name) for name in ("authorization", "x-api-key", "api-key")] == [None] * 3
    local.assert_paid(visitor, state="settled", basis="usage", nanousd=15_000)


@pytest.mark.parametrize("size", [0, 1, 1000, 64 * 1024, 64 * 1024 + 1, 2_000_000])
def test_errors_of_any_length_pass_byte_for_byte(local: Site, size: int) -> None:
    local.stub.handle = failing(CannedError(400, [("x-extra", "1")], b"x" * size))
    visitor = local.visitor()
    got = local.ask(visitor, CHAT, chat())
    assert (got.status, got.body, got.clean_end) == (400, b"x" * size, True)
    assert got.header("x-extra") == b"1"
    local.assert_released(visitor)


def test_a_refusal_for_want_of_a_key_is_the_operators_matter(local: Site) -> None:
    local.stub.handle = failing(CannedError(401, [], b'{"error":{"message":"who are you"}}'))
    got = local.ask(local.visitor(), CHAT, chat())
    assert (got.status, got.error()["code"]) == (503, "no_active_provider_keys")
    (key,) = local.proxy.json("provider-keys", "list", "local")
    assert (key["name"], key["state"]) == ("none", "dead")
    assert "who are you" in key["reason"]
    local.proxy.run("provider-keys", "enable", "local", "none")
    local.stub.handle = plain(openai_chat())
    assert local.ask(local.visitor(), CHAT, chat()).status == 200
