"""S9: no line break of a client's or a provider's makes a header, a log line or an event."""

import json

import pytest

from llmproxy import accounts
from llmproxy.errors import RefusedError
from tests.proxy.helpers import CHAT, Site, chat
from tests.support.raw_client import RawClient

BREAKS = {"crlf": "\r\n", "lf": "\n", "cr": "\r", "nel": "\x85", "ls": "\u2028", "nul": "\0"}
INJECTED = "set-cookie: evil=1"


def got_of(site: Site, raw: bytes) -> tuple[int, list[bytes], bytes]:
    with RawClient(site.proxy.port) as client:
        client.send(raw)
        head = client.recv_head()
        return head.status, [name.lower() for name, _ in head.headers], client.body()


@pytest.mark.parametrize("path", ["/v1/openai/{}", "/v1/{}", "/{}", "/v1/openai/models/{}"])
@pytest.mark.parametrize("encoded", ["%0d%0a", "%0a", "%0d", "%E2%80%A8", "%00", "%250d%250a"])
def test_an_encoded_break_in_a_path_makes_no_header(site: Site, path: str, encoded: str) -> None:
    target = path.format(f"x{encoded}{INJECTED.replace(' ', '%20')}")
    head = f"GET {target} HTTP/1.1\r\nhost: x\r\nx-api-key: {site.visitor().key}\r\n\r\n"
    status, names, body = got_of(site, head.encode())
    assert status in {400, 404}
    assert b"set-cookie" not in names
    json.loads(body)


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_in_a_model_makes_no_header_and_no_line(site: Site, name: str) -> None:
    visitor = site.visitor()
    logged = site.proxy.log.stat().st_size
    got = site.ask(visitor, CHAT, chat(model=f"m{BREAKS[name]}{INJECTED}"))
    assert (got.status, got.header("set-cookie")) == (400, None)
    assert f"m{BREAKS[name]}" in got.error()["message"]
    rows = site.books.rows(visitor.name)
    assert all(row["model"].startswith("m") for row in rows)
    lines = site.proxy.log.read_bytes()[logged:].splitlines()
    assert not [line for line in lines if line.startswith(INJECTED.encode())]


@pytest.mark.parametrize("name", BREAKS)
def test_a_break_in_a_name_is_refused(site: Site, name: str) -> None:
    user, _ = site.books.user()
    with pytest.raises(RefusedError), site.books.write() as tx:
        accounts.create_user(tx, f"a{BREAKS[name]}b", now_ms=1)
    with pytest.raises(RefusedError), site.books.write() as tx:
        accounts.create_api_key(tx, accounts.find_user(tx, user), f"a{BREAKS[name]}b", now_ms=1)


@pytest.mark.parametrize("name", ["lf", "cr", "nel", "ls", "nul"])
def test_a_break_in_an_idempotency_key_goes_nowhere(site: Site, name: str) -> None:
    visitor, body, seen = site.visitor(), chat(), len(site.stub.requests)
    key = f"a{BREAKS[name]}{INJECTED}".encode()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: {visitor.key}\r\n".encode()
    head += b"idempotency-key: " + key + b"\r\ncontent-length: %d\r\n\r\n" % len(body)
    status, names, _ = got_of(site, head + body)
    assert b"set-cookie" not in names
    if status == 200:  # a character like any other: it is only hashed
        assert b"evil" not in site.last_request().raw_head
    else:
        assert (status, len(site.stub.requests)) == (400, seen)
