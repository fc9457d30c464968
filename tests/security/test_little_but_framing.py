"""S11: what stands around a chunked body counts too: it must not fill the memory either."""

from contextlib import suppress
from pathlib import Path

import pytest

from tests.proxy.helpers import CHAT, Site, chat
from tests.support.raw_client import RawClient

MIB = 1024 * 1024
FLOODS = {
    "an extension without end": (b"1;", b"x" * 4096),
    "extensions of chunks of one byte": (b"", b"1;" + b"x" * 200 + b"\r\n \r\n"),
    "a field behind the body without end": (b"1\r\n{\r\n0\r\nX: ", b"x" * 4096),
    "fields behind the body without end": (b"1\r\n{\r\n0\r\n", b"X: y\r\n" * 600),
    "a name behind the body without end": (b"1\r\n{\r\n0\r\n", b"x" * 4096),
    "zeros before a size": (b"", b"0" * 4096),
}


def begin(site: Site) -> bytes:
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nx-api-key: {site.visitor().key}\r\n"
    return f"{head}transfer-encoding: chunked\r\n\r\n".encode()


def resident_bytes(site: Site) -> int:
    return int(Path(f"/proc/{site.proxy.pid}/statm").read_text().split()[1]) * 4096


@pytest.mark.parametrize("name", FLOODS)
def test_a_body_of_little_but_framing_is_refused_and_takes_no_memory(site: Site, name: str) -> None:
    first, again = FLOODS[name]
    before, sent = resident_bytes(site), 0
    with RawClient(site.proxy.port) as client:
        client.send(begin(site) + first)
        with suppress(ConnectionError):
            while sent < 30 * MIB:
                client.send(again)
                sent += len(again)
            pytest.fail("all of it was taken")
    assert resident_bytes(site) - before < 10 * MIB


def test_small_chunks_with_extensions_and_a_few_fields_are_served(site: Site) -> None:
    body = chat(user="x" * 3000)
    chunks = b"".join(b"1;ext=1\r\n%b\r\n" % body[at : at + 1] for at in range(len(body)))
    raw = begin(site) + chunks + b"0\r\nx-checksum: 1\r\nx-more: 2\r\n\r\n"
    for size in (len(raw), 100):
        with RawClient(site.proxy.port) as client:
            for at in range(0, len(raw), size):
                client.send(raw[at : at + size])
            assert client.recv_head().status == 200
        assert site.last_request().body == body


def test_the_refusal_says_why(site: Site) -> None:
    with RawClient(site.proxy.port) as client:
        client.send(begin(site))
        with suppress(ConnectionError):
            for _ in range(400):  # what one read brings along with the head is not counted
                client.send(b"0" * 2048)
        refused = client.recv_head()
        assert refused.status == 400
        assert b"more framing than body" in client.body()
