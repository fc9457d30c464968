"""S8: what passes of sixty headers, both ways; S10: what is compressed does not."""

import pytest

from tests.proxy.helpers import CHAT, Site, chat
from tests.support.answers import openai_chat
from tests.support.proxy import PROVIDER_KEY
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest

IDENTITIES = (
    *("x-forwarded-for", "x-forwarded-host", "x-real-ip", "true-client-ip", "cf-connecting-ip"),
    *("sec-fetch-site", "openai-organization", "openai-project", "anthropic-workspace-id"),
    *("anthropic-user-profile-id", "x-goog-user-project", "x-goog-api-key", "proxy-authorization"),
    *("idempotency-key", "x-llmproxy-clamp", "x-http-method-override", "x-method-override"),
    *("x-http-method", "x-original-url", "x-rewrite-url"),
)


@pytest.mark.parametrize("name", IDENTITIES)
def test_no_spelling_of_an_identity_passes(site: Site, name: str) -> None:
    """Servers that make variables of headers read `x_real_ip` as `x-real-ip`."""
    spellings = {name, name.replace("-", "_"), name.replace("-", "_", 1), name.title()}
    spellings.add("_".join(name.rsplit("-", 1)))
    headers = dict.fromkeys(spellings, "evil")
    assert site.ask(site.visitor(), CHAT, chat(), headers).status == 200
    assert b"evil" not in site.last_request().raw_head


def test_of_sixty_headers_exactly_the_unknown_pass(site: Site) -> None:
    unknown = {f"x-new-{number}": str(number) for number in range(60)}
    identities = dict.fromkeys(IDENTITIES, "evil")
    assert site.ask(site.visitor(), CHAT, chat(), unknown | identities).status == 200
    seen = {name.decode(): value.decode() for name, value in site.last_request().headers}
    framing = {"host", "content-length"}
    own = {
        "content-type": "application/json",
        "accept-encoding": "identity",
        "authorization": f"Bearer {PROVIDER_KEY}",
    }
    assert {name: value for name, value in seen.items() if name not in framing} == unknown | own


@pytest.mark.parametrize(
    "kind",
    [
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/json; charset=utf-7",
        "application/json;charset=UTF-16",
        "text/plain",
    ],
)
def test_a_body_is_called_what_it_was_read_as(site: Site, kind: str) -> None:
    """Read as a form, or in another charset, the same bytes could name another model."""
    visitor, body = site.visitor(), chat(user="&model=gpt-4o-2024-05-13&")
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {visitor.key}\r\n"
    head += f"content-type: {kind}\r\nContent-Type: x/y\r\ncontent-length: {len(body)}\r\n\r\n"
    with RawClient(site.proxy.port) as client:
        client.send(head.encode() + body)
        assert client.recv_head().status == 200
    kinds = [v for n, v in site.last_request().headers if n.lower() == b"content-type"]
    assert kinds == [b"application/json"]


def test_fields_behind_a_chunked_body_are_no_headers(site: Site) -> None:
    """They come after the headers were judged: nothing would hold them back."""
    visitor, body = site.visitor(), chat()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: {visitor.key}\r\n"
    head += "transfer-encoding: chunked\r\ntrailer: x-late\r\n\r\n"
    chunks = b"%x\r\n%b\r\n0\r\n" % (len(body), body)
    trailers = b"X-Late: 1\r\nHost: evil\r\nContent-Encoding: gzip\r\nCookie: a=b\r\n\r\n"
    with RawClient(site.proxy.port) as client:
        for parts in ([head.encode() + chunks + trailers], [head.encode(), chunks, trailers]):
            for part in parts:
                client.send(part)
            assert client.recv_head().status == 200
            client.body()
            seen = site.last_request()
            assert seen.body == body
            assert [
                n for n in (b"x-late", b"cookie", b"content-encoding") if n in seen.raw_head
            ] == []


def test_fields_behind_a_chunked_body_let_nobody_in(site: Site) -> None:
    visitor, body, seen = site.visitor(), chat(), len(site.stub.requests)
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n".encode()
    chunks = b"%x\r\n%b\r\n0\r\nx-api-key: %b\r\n\r\n" % (len(body), body, visitor.key.encode())
    with RawClient(site.proxy.port) as client:
        client.send(head + chunks)
        assert client.recv_head().status == 401
    assert len(site.stub.requests) == seen


# --- answers ---


@pytest.mark.parametrize("value", ["x-hop", "close, X-Hop", "keep-alive,x-hop , x-other"])
def test_what_the_provider_names_in_connection_stays_with_the_connection(
    site: Site, value: str
) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(200, openai_chat(), [("connection", value), ("X-Hop", "1"), ("x-end", "2")])

    site.stub.handle = handle
    got = site.ask(site.visitor(), CHAT, chat())
    assert (got.status, got.header("x-hop"), got.header("x-end")) == (200, None, b"2")
    assert got.header("connection") is None


def test_of_an_answers_sixty_headers_exactly_the_unknown_pass(site: Site) -> None:
    unknown = [(f"x-new-{number}", str(number)) for number in range(60)]
    operators = (
        *("set-cookie", "set-cookie2", "openai-organization", "openai-project", "location"),
        *("anthropic-organization-id", "www-authenticate", "authentication-info", "refresh"),
        *("clear-site-data", "content-security-policy-report-only", "reporting-endpoints"),
        *("access-control-allow-origin", "x-llmproxy-cost-usd", "x-accel-redirect", "x-sendfile"),
        *("x-accel-limit-rate", "x-accel-buffering", "x-lighttpd-send-file", "x-reproxy-url"),
    )

    async def handle(request: SeenRequest, out: Out) -> None:
        headers = [*unknown, *((name, "evil") for name in operators)]
        await out.json(200, openai_chat(), headers)

    site.stub.handle = handle
    got = site.ask(site.visitor(), CHAT, chat())
    own = {b"content-type", b"content-length", b"date"}
    own |= {b"x-llmproxy-request-id", b"x-llmproxy-cost-usd"}
    passed = [(name.decode(), value.decode()) for name, value in got.headers if name not in own]
    assert passed == unknown
    assert b"evil" not in b"".join(value for _, value in got.headers)


@pytest.mark.parametrize(
    "framing",
    [
        b"content-length: 2\r\ncontent-length: 3\r\n",
        b"content-length: 2\r\ncontent-length: 2\r\n",
        b"content-length: 2\r\ntransfer-encoding: chunked\r\n",
        b"content-length: -1\r\n",
        b"content-length: 2\r\nx: y\r\n z\r\n",
        b"content-length: 2\r\nx: y\nz: w\r\n",
        b"content-length: 2\r\nx: \x00\r\n",
    ],
)
def test_an_answer_that_could_be_read_in_two_ways_is_not_passed_on(
    site: Site, framing: bytes
) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.send(b"HTTP/1.1 200 OK\r\n" + framing + b"\r\n{}")
        out.close()

    site.stub.handle = handle
    got = site.ask(site.visitor(), CHAT, chat())
    assert (got.status, got.error()["code"]) == (502, "upstream_unreachable")


@pytest.mark.parametrize(
    "codings", [["gzip"], ["br"], ["gzip, gzip"], ["identity", "gzip"], ["", "zstd"], ["GZIP"]]
)
def test_an_answer_that_was_packed_is_not_unpacked(site: Site, codings: list[str]) -> None:
    """S10: 590 bytes of gzip in gzip can be 256 MiB."""

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(200, b"\x1f\x8b", [("content-encoding", coding) for coding in codings])

    site.stub.handle = handle
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert (got.status, got.error()["code"]) == (502, "upstream_unreachable")
    assert site.last_request().header("accept-encoding") == b"identity"
    site.assert_released(visitor)
