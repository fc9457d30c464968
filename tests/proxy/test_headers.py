"""Which headers pass, both ways (wire.md F.3, F.6, F.7)."""

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, message
from tests.support.answers import (
    anthropic_message,
    openai_chat,
    openai_chat_stream,
    plain,
    stream,
)
from tests.support.proxy import PROVIDER_KEY
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Handler, Out, SeenRequest

SECRET = PROVIDER_KEY.encode()
IDENTITIES = {
    "x-api-key": "k1",
    "api-key": "k2",
    "x-goog-api-key": "k3",
    "cookie": "session=1",
    "forwarded": "for=1.2.3.4",
    "x-forwarded-for": "1.2.3.4",
    "x-forwarded-host": "h",
    "x-real-ip": "1.2.3.4",
    "via": "1.1 x",
    "cf-connecting-ip": "1.2.3.4",
    "true-client-ip": "1.2.3.4",
    "openai-organization": "org-1",
    "openai-project": "proj-1",
    "anthropic-workspace-id": "w",
    "anthropic-user-profile-id": "u",
    "x-goog-user-project": "g",
    "referer": "http://x/",
    "origin": "http://x",
    "sec-fetch-mode": "cors",
    "x-llmproxy-anything": "1",
    "idempotency-key": "i",
    "proxy-authorization": "Basic eA==",
    "te": "trailers",
    "trailer": "x",
    "keep-alive": "timeout=5",
    "proxy-connection": "keep-alive",
}
PASSED = {
    "user-agent": "OpenAI/Python 3.54.0",
    "accept": "application/json",
    "anthropic-version": "2026-10-21",
    "anthropic-beta": "a-1,b-2",
    "openai-beta": "x=v1",
    "x-stainless-retry-count": "0",
    "x-client-request-id": "abc",
    "http-referer": "https://app",
    "x-title": "t",
    "session-id": "s",
    "traceparent": "00-1-2-00",
    "x-unknown-in-2026": " spaced  value",
}


def seen_headers(site: Site) -> list[tuple[bytes, bytes]]:
    return [(name.lower(), value) for name, value in site.last_request().headers]


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_a_request_reaches_the_provider_without_its_senders_identity(site: Site, path: str) -> None:
    is_chat = path == CHAT
    site.stub.handle = plain(openai_chat() if is_chat else anthropic_message())
    visitor, body = site.visitor(), chat() if is_chat else message()
    assert site.ask(visitor, path, body, IDENTITIES | PASSED).status == 200
    own = (b"authorization", b"Bearer " + SECRET) if is_chat else (b"x-api-key", SECRET)
    wanted = {name.encode(): value.strip().encode() for name, value in PASSED.items()} | {
        own[0]: own[1],
        b"host": f"127.0.0.1:{site.stub.port}".encode(),
        b"content-type": b"application/json",
        b"content-length": str(len(body)).encode(),
        b"accept-encoding": b"identity",
    }
    seen = seen_headers(site)
    assert dict(seen) == wanted
    assert len(seen) == len(wanted)
    assert visitor.key.encode() not in site.last_request().raw_head


def test_almost_nothing_is_added_for_a_client_that_sends_almost_no_headers(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    visitor, body = site.visitor(), chat()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nX-Api-Key: {visitor.key}\r\n"
    with RawClient(site.proxy.port) as client:
        client.send(f"{head}Content-Length: {len(body)}\r\n\r\n".encode() + body)
        assert client.recv_head().status == 200
    assert sorted(name for name, _ in seen_headers(site)) == [
        b"accept-encoding",
        b"authorization",
        b"content-length",
        b"content-type",
        b"host",
    ]


def test_headers_named_in_connection_stay_with_the_connection(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    headers = {"connection": "keep-alive, X-Hop", "x-hop": "1", "x-end": "2"}
    assert site.ask(site.visitor(), CHAT, chat(), headers).status == 200
    names = [name for name, _ in seen_headers(site)]
    assert b"x-end" in names
    assert b"x-hop" not in names
    assert b"connection" not in names


def test_repeated_headers_stay_repeated_and_in_order(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    visitor, body = site.visitor(), chat()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {visitor.key}\r\n"
    head += f"x-two: 1\r\ncontent-length: {len(body)}\r\nX-Two: 2\r\nx-empty:\r\n\r\n"
    with RawClient(site.proxy.port) as client:
        client.send(head.encode() + body)
        assert client.recv_head().status == 200
    seen = seen_headers(site)
    assert [value for name, value in seen if name == b"x-two"] == [b"1", b"2"]
    assert (b"x-empty", b"") in seen


@pytest.mark.parametrize("value", ["naïve 後".encode(), b"caf\xc3\xa9", b"tab\there"])
def test_a_header_value_beyond_ascii_reaches_the_provider_as_it_is(
    site: Site, value: bytes
) -> None:
    site.stub.handle = plain(openai_chat())
    visitor, body = site.visitor(), chat()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {visitor.key}\r\n".encode()
    head += b"x-title: " + value + f"\r\ncontent-length: {len(body)}\r\n\r\n".encode()
    with RawClient(site.proxy.port) as client:
        client.send(head + body)
        assert client.recv_head().status == 200
    assert site.last_request().header("x-title") == value


def test_a_key_in_any_of_its_places_lets_a_client_in(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    visitor, body = site.visitor(), chat()
    for name, value in {
        "authorization": f"bearer {visitor.key}",
        "x-api-key": visitor.key,
        "api-key": visitor.key,
        "x-goog-api-key": visitor.key,
    }.items():
        with RawClient(site.proxy.port) as client:
            client.post(CHAT, body, {name: value, "x-other-api-key": "x"})
            assert client.recv_head().status == 200, name


def test_a_key_in_the_query_counts_last_and_goes_no_further(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    visitor = site.visitor()
    with RawClient(site.proxy.port) as client:
        client.post(f"{CHAT}?alt=sse&key={visitor.key}", chat(), {"x-api-key": "sk-other"})
        assert client.recv_head().status == 200
    assert site.last_request().target == b"/v1/chat/completions"
    assert visitor.key not in site.proxy.log.read_text()


def test_the_second_of_two_credentials_counts_when_the_first_is_unknown(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    visitor = site.visitor()
    headers = {"authorization": "Bearer sk-other", "x-api-key": visitor.key}
    with RawClient(site.proxy.port) as client:
        client.post(CHAT, chat(), headers)
        assert client.recv_head().status == 200
    assert site.last_request().header("x-api-key") is None


def test_only_known_queries_reach_the_provider(site: Site) -> None:
    site.stub.handle = plain(openai_chat())
    passed_queries = {
        "beta=true": b"?beta=true",
        "x=1&beta=true&y": b"?beta=true",
        "key=x": b"",
        "beta=false": b"",
        "xbeta=true": b"",
    }
    for query, passed in passed_queries.items():
        assert site.ask(site.visitor(), f"{CHAT}?{query}", chat()).status == 200
        assert site.last_request().target == b"/v1/chat/completions" + passed


# --- answers ---

OPERATORS = [
    ("set-cookie", "__cf_bm=1"),
    ("Set-Cookie", "b=2"),
    ("openai-organization", "org-secret"),
    ("openai-project", "proj-secret"),
    ("Anthropic-Organization-Id", "secret"),
    ("anthropic-workspace-id", "secret"),
    ("access-control-allow-origin", "*"),
    ("access-control-expose-headers", "x"),
    ("strict-transport-security", "max-age=1"),
    ("content-security-policy", "x"),
    ("alt-svc", "h3"),
    ("report-to", "x"),
    ("nel", "x"),
    ("server", "cloudflare"),
    ("x-llmproxy-cost-usd", "0.00"),
    ("x-llmproxy-request-id", "forged"),
    ("x-echo", f"key {PROVIDER_KEY}"),
    ("keep-alive", "timeout=5"),
]
INFORMATION = [
    ("x-request-id", "req_upstream"),
    ("request-id", "req_upstream"),
    ("x-ratelimit-remaining-tokens", "5"),
    ("anthropic-ratelimit-tokens-remaining", "5"),
    ("openai-processing-ms", "12"),
    ("openai-version", "2020-10-01"),
    ("cf-ray", "abc"),
    ("retry-after", "9"),
    ("x-should-retry", "false"),
    ("X-Unknown", "café"),
    ("x-many", "1"),
    ("x-many", "2"),
]
FRAMING = {b"content-type", b"content-length", b"transfer-encoding", b"date"}


def error_handler(status: int) -> Handler:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(status, b'{"error":{"message":"no"}}', [*OPERATORS, *INFORMATION])

    return handle


async def streaming(request: SeenRequest, out: Out) -> None:
    headers = [*OPERATORS, *INFORMATION, ("cache-control", "max-age=9")]
    await out.sse(openai_chat_stream(), headers=headers)


@pytest.mark.parametrize(
    ("handle", "body", "status", "added"),
    [
        (
            plain(openai_chat(), 200, [*OPERATORS, *INFORMATION]),
            chat(),
            200,
            {b"x-llmproxy-request-id", b"x-llmproxy-cost-usd"},
        ),
        (
            streaming,
            chat(stream=True),
            200,
            {b"x-llmproxy-request-id", b"x-accel-buffering", b"cache-control"},
        ),
        (error_handler(400), chat(), 400, {b"x-llmproxy-request-id"}),
        (error_handler(500), chat(), 500, {b"x-llmproxy-request-id"}),
    ],
    ids=["plain", "stream", "400", "500"],
)
def test_an_answer_reaches_the_client_without_the_operators_identity(
    site: Site, handle: Handler, body: bytes, status: int, added: set[bytes]
) -> None:
    site.stub.handle = handle
    got = site.ask(site.visitor(), CHAT, body)
    assert got.status == status
    own = [(name, value) for name, value in got.headers if name not in FRAMING | added]
    assert own == [(name.lower().encode(), value.encode("latin-1")) for name, value in INFORMATION]
    for name in added:
        assert sum(key == name for key, _ in got.headers) == 1
    assert got.header("x-llmproxy-request-id") != b"forged"
    assert b"secret" not in b"".join(value for _, value in got.headers)


def test_a_stream_is_not_to_be_cached_or_buffered(site: Site) -> None:
    site.stub.handle = stream(openai_chat_stream())
    got = site.ask(site.visitor(), CHAT, chat(stream=True))
    assert got.header("cache-control") == b"no-cache"
    assert got.header("x-accel-buffering") == b"no"
    assert got.header("content-length") is None
