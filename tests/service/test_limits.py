"""What one client may take of the server: bytes of a head, time, memory; and HTTP/1.0."""

import asyncio
import json
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, suppress
from pathlib import Path

import pytest

from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.support.answers import openai_chat, openai_chat_stream, plain, stream
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest, StubProvider
from tests.support.waiting import wait_until

BODY_MAX = 2_500_000
IN_FLIGHT_MAX = 3_000_000
LATEST_S = 4.0
"""A deadline of one second, seen by a sweep once a second, on a busy machine."""


@pytest.fixture(scope="module")
def upstream() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture(scope="module")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, upstream: StubProvider
) -> Iterator[RunningProxy]:
    """A server with deadlines of one second and room for one large body at a time."""
    environ = {
        "LLMPROXY_HEADER_TIMEOUT_S": "1",
        "LLMPROXY_BODY_TIMEOUT_S": "1",
        "LLMPROXY_BODY_BYTES_MAX": str(BODY_MAX),
        "LLMPROXY_BODY_BYTES_IN_FLIGHT_MAX": str(IN_FLIGHT_MAX),
    }
    with RunningProxy(tmp_path_factory.mktemp("limits"), environ) as proxy:
        proxy.use_provider("openai", f"{upstream.url}/v1")
        proxy.start()
        yield proxy
        proxy.verify_ledger()
        assert "Traceback" not in proxy.log.read_text()


@pytest.fixture(scope="module")
def key(proxy: RunningProxy) -> Iterator[str]:
    with closing(Books(proxy.home)) as books:
        yield books.user("50")[1]


@pytest.fixture(autouse=True)
def _answer(upstream: StubProvider) -> None:
    upstream.handle = plain(openai_chat())


def head(key: str, length: int, version: str = "1.1", more: str = "") -> bytes:
    return (
        f"POST {CHAT} HTTP/{version}\r\nhost: x\r\nauthorization: Bearer {key}\r\n"
        f"content-type: application/json\r\ncontent-length: {length}\r\n{more}\r\n"
    ).encode()


def large_body(size: int) -> bytes:
    body = json.dumps(chat_body()).encode()
    return body + b" " * (size - len(body))


def after(seconds: float) -> object:
    """An upstream that takes a while."""

    async def handle(request: SeenRequest, out: Out) -> None:
        await asyncio.sleep(seconds)
        await out.json(200, openai_chat())

    return handle


def resident_bytes(pid: int) -> int:
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * 4096


def assert_hung_up(client: RawClient) -> None:
    assert b"".join(data for _, data in client.recv_raw()) == b""


# --- heads ---


@pytest.mark.parametrize("piece", [b"x" * 1000, b"x: y\r\n" * 200])
def test_a_head_without_end_is_refused_and_takes_no_memory(
    proxy: RunningProxy, piece: bytes
) -> None:
    before = resident_bytes(proxy.pid)
    with RawClient(proxy.port) as client:
        client.send(b"POST / HTTP/1.1\r\nlong: ")
        with suppress(ConnectionError):
            for _ in range(20_000_000 // len(piece)):
                client.send(piece)
            pytest.fail("all of it was taken")
    assert resident_bytes(proxy.pid) - before < 10_000_000
    assert ask(proxy.port, "GET", "/healthz").status == 200


def test_what_comes_behind_a_head_does_not_count_as_head(proxy: RunningProxy, key: str) -> None:
    """A small head in two pieces, the second with a large body behind it in one read."""
    body = json.dumps({"model": "none", "messages": [], "pad": "x" * 200_000}).encode()
    whole = head(key, len(body)) + body
    with RawClient(proxy.port) as client:
        client.send(whole[:20])
        time.sleep(0.1)
        client.send(whole[20:] + whole)
        assert [client.recv_head().status, len(client.body()) > 0] == [400, True]
        assert client.recv_head().status == 400


def test_requests_that_wait_for_their_turn_are_not_read_without_end(proxy: RunningProxy) -> None:
    before = resident_bytes(proxy.pid)
    request = head("sk-unknown", 30_000) + b"x" * 30_000
    with RawClient(proxy.port, timeout_s=1) as client, suppress(TimeoutError, ConnectionError):
        for _ in range(3000):  # 90 MB, of whose answers none is read
            client.send(request)
    assert resident_bytes(proxy.pid) - before < 30_000_000
    assert ask(proxy.port, "GET", "/healthz").status == 200


def test_a_head_that_is_too_large_is_told_so(proxy: RunningProxy) -> None:
    with RawClient(proxy.port) as client:
        client.send(b"GET /healthz HTTP/1.1\r\nhost: x\r\nlong: ")
        time.sleep(0.2)
        # No more than the server reads: a reset would take the answer away.
        client.send(b"x" * 66_000)
        refused = client.recv_head()
        assert refused.status == 431
        error = json.loads(client.body())["error"]
        assert error["code"] == "invalid_request"
        assert "larger than 65536 bytes" in error["message"]


def test_a_large_head_is_served(proxy: RunningProxy, key: str) -> None:
    headers = {**bearer(key), **{f"x-{number}": "y" * 1000 for number in range(50)}}
    assert ask(proxy.port, "POST", CHAT, chat_body(), headers).status == 200


@pytest.mark.parametrize("trickle", [b"", b"x", b"\r\n", b"x: y\r\n"])
def test_a_slow_head_is_refused_in_time(proxy: RunningProxy, trickle: bytes) -> None:
    with RawClient(proxy.port, timeout_s=LATEST_S) as client:
        began = time.monotonic()
        client.send(trickle if trickle == b"\r\n" else b"POST / HTTP/1.1\r\n")
        with suppress(ConnectionError):
            while time.monotonic() - began < 2.5:
                client.send(trickle)
                time.sleep(0.2)
        said = b"".join(data for _, data in client.recv_raw())  # fails if it is not closed in time
        assert said.startswith(b"HTTP/1.1 408 ") or client.reset


def test_an_idle_connection_is_kept(proxy: RunningProxy, key: str) -> None:
    with RawClient(proxy.port) as client:
        time.sleep(2.5)
        for _ in range(2):
            client.post(CHAT, json.dumps(chat_body()).encode(), bearer(key))
            assert client.recv_head().status == 200
            client.body()
            time.sleep(2.5)
        client.post(CHAT, json.dumps(chat_body()).encode(), bearer(key))
        assert client.recv_head().status == 200


@pytest.fixture
def tight(tmp_path: Path, upstream: StubProvider) -> Iterator[RunningProxy]:
    """A server for small heads and few connections."""
    environ = {"LLMPROXY_HEAD_BYTES_MAX": "2048", "LLMPROXY_CONNECTIONS_MAX": "3"}
    with RunningProxy(tmp_path, environ) as proxy:
        proxy.use_provider("openai", f"{upstream.url}/v1")
        proxy.start()
        yield proxy
        proxy.verify_ledger()


def test_the_largest_head_is_a_setting(tight: RunningProxy) -> None:
    key = tight.new_user("ann")
    body = json.dumps(chat_body()).encode()
    start = len(head(key, len(body), more="long: \r\n"))
    # With the body right behind it, in one read or in several.
    for size, status in ((2000 - start, 200), (2100 - start, 431), (20_000, 431)):
        request = head(key, len(body), more=f"long: {'x' * size}\r\n") + body
        for pieces in (1, 3):
            with RawClient(tight.port) as client:
                step = -(-len(request) // pieces)
                with suppress(ConnectionError):
                    for at in range(0, len(request), step):
                        client.send(request[at : at + step])
                        time.sleep(0.05 if pieces > 1 else 0)
                answer = client.recv_head()
                assert answer.status == status
                if status == 431:
                    error = json.loads(client.body())["error"]
                    assert error["type"] == "invalid_request_error"
                    assert "larger than 2048 bytes" in error["message"]


# --- connections ---


def test_a_connection_too_many_is_told_so_and_closed(tight: RunningProxy) -> None:
    key = tight.new_user("ann")
    body = json.dumps(chat_body()).encode()
    with RawClient(tight.port) as one, RawClient(tight.port) as two, RawClient(tight.port) as three:
        for client in (one, two, three):
            client.post(CHAT, body, bearer(key))
            assert client.recv_head().status == 200
            client.body()
        for path in (CHAT, "/health"):
            with RawClient(tight.port) as surplus:
                surplus.post(path, body, bearer(key))
                refused = surplus.recv_head()
                assert (refused.status, refused.header("retry-after")) == (503, b"2")
                assert refused.header("connection") == b"close"
                error = json.loads(surplus.body())["error"]
                assert error["code"] == "overloaded"
                assert "too many connections" in error["message"]
                assert_hung_up(surplus)
        # The server is well: a supervisor that asks must not restart it, nor stay connected.
        for path in ("/healthz", "/readyz"):
            with RawClient(tight.port) as probe:
                probe.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
                assert (answer := probe.recv_head()).status == 200
                assert answer.header("connection") == b"close"
                assert json.loads(probe.body())
                assert_hung_up(probe)
        # One that says nothing does not stay either.
        with RawClient(tight.port, timeout_s=LATEST_S) as silent:
            assert_hung_up(silent)
        # Those that there are go on, and when one leaves there is room again.
        two.post(CHAT, body, bearer(key))
        assert two.recv_head().status == 200
        three.close()
        wait_until(lambda: ask(tight.port, "POST", CHAT, body, bearer(key)).status == 200)


def test_a_flood_of_connections_is_dropped(tight: RunningProxy) -> None:
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(tight.port, timeout_s=5)) for _ in range(250)]
        last = clients[-1]
        assert last._read() == b""
    wait_until(lambda: ask_or_none(tight.port) == 200)


def ask_or_none(port: int) -> int | None:
    try:
        return ask(port, "GET", "/healthz").status
    except OSError:
        return None


# --- bodies ---


def test_a_slow_body_is_refused_in_time(proxy: RunningProxy, key: str) -> None:
    with RawClient(proxy.port, timeout_s=LATEST_S) as client:
        began = time.monotonic()
        client.send(head(key, 1000) + b'{"model"')
        refused = client.recv_head()
        assert refused.status == 408
        assert "body did not come within 1 s" in json.loads(client.body())["error"]["message"]
        assert 0.9 < time.monotonic() - began < LATEST_S


def test_a_body_behind_its_answer_does_not_keep_the_connection(proxy: RunningProxy) -> None:
    with RawClient(proxy.port, timeout_s=LATEST_S) as client:
        client.send(head("sk-unknown", 1000))
        assert client.recv_head().status == 401
        client.body()
        client.send(b"{")
        assert_hung_up(client)


def test_a_large_body_has_more_time(proxy: RunningProxy, key: str) -> None:
    body = large_body(2_200_000)
    with RawClient(proxy.port) as client:
        client.send(head(key, len(body)) + body[:-1])
        time.sleep(2.2)
        client.send(body[-1:])
        assert client.recv_head().status == 200


def test_an_upgrade_that_is_declined_has_the_same_deadline(proxy: RunningProxy, key: str) -> None:
    with RawClient(proxy.port, timeout_s=LATEST_S) as client:
        client.send(head(key, 1000, more="connection: upgrade\r\nupgrade: h2c\r\n") + b"{")
        assert client.recv_head().status == 408


def test_a_pipelined_request_has_time_for_its_turn(
    proxy: RunningProxy, upstream: StubProvider, key: str
) -> None:
    upstream.handle = after(2.5)  # type: ignore[assignment]
    body = large_body(300_000)
    with RawClient(proxy.port) as client:
        client.send(head(key, len(body)) + body)
        client.send(head(key, len(body)) + body[:200_000])
        assert client.recv_head().status == 200
        client.body()
        client.send(body[200_000:])
        assert client.recv_head().status == 200
        assert json.loads(client.body())


def test_bytes_behind_a_request_do_not_end_its_answer(
    proxy: RunningProxy, upstream: StubProvider, key: str
) -> None:
    """Old clients send an empty line behind a body."""
    upstream.handle = after(2.5)  # type: ignore[assignment]
    body = large_body(100)
    with RawClient(proxy.port) as client:
        client.send(head(key, len(body)) + body)
        time.sleep(0.2)
        client.send(b"\r\n")
        assert client.recv_head().status == 200
        assert json.loads(client.body())


def test_a_bad_head_behind_a_request_never_stands_in_its_answer(
    proxy: RunningProxy, upstream: StubProvider, key: str
) -> None:
    upstream.handle = after(1)  # type: ignore[assignment]
    body = large_body(100)
    with RawClient(proxy.port) as client:
        client.send(head(key, len(body)) + body + b"NONSENSE\r\n\r\n")
        with suppress(ConnectionError):
            assert client.recv_head().status == 200


def test_bodies_share_one_budget_and_give_it_back(proxy: RunningProxy, key: str) -> None:
    body = large_body(2_000_000)
    for _ in range(2):
        with RawClient(proxy.port) as one, RawClient(proxy.port) as other:
            one.send(head(key, len(body)) + body[:-1])
            time.sleep(0.3)
            with suppress(ConnectionError):
                other.send(head(key, len(body)) + body)
            refused = other.recv_head()
            assert refused.status == 503
            assert refused.header("retry-after") == b"2"
            assert json.loads(other.body())["error"]["code"] == "overloaded"
            one.send(body[-1:])
            assert one.recv_head().status == 200
    # A client that leaves, and a body that is refused, give theirs back too.
    for _ in range(3):
        with RawClient(proxy.port) as client:
            client.send(head(key, len(body)) + body[:-1])
            time.sleep(0.1)
    assert ask(proxy.port, "POST", CHAT, b"{" + body, bearer(key)).status == 400
    assert ask(proxy.port, "POST", CHAT, body, bearer(key)).status == 200


# --- HTTP/1.0 ---


def test_http_1_0_gets_a_stream_without_chunks(
    proxy: RunningProxy, upstream: StubProvider, key: str
) -> None:
    parts = openai_chat_stream(["one", "two", "three"])
    upstream.handle = stream(parts)
    body = json.dumps(chat_body(stream=True, stream_options={"include_usage": True})).encode()
    with RawClient(proxy.port) as client:
        client.send(head(key, len(body), "1.0") + body)
        answer = client.recv_head()
        assert answer.status == 200
        assert answer.header("transfer-encoding") is None
        assert answer.header("content-length") is None
        assert answer.header("connection") == b"close"
        assert client.body() == b"".join(parts)
        assert client.clean_end


def test_http_1_0_gets_plain_answers_and_errors(proxy: RunningProxy, key: str) -> None:
    body = json.dumps(chat_body()).encode()
    for given, status in ((key, 200), ("sk-unknown", 401)):
        with RawClient(proxy.port) as client:
            client.send(head(given, len(body), "1.0") + body)
            answer = client.recv_head()
            assert answer.status == status
            assert answer.header("transfer-encoding") is None
            content = client.body()
            assert answer.header("content-length") == b"%d" % len(content)
            assert json.loads(content)


def test_http_1_1_still_gets_chunks(proxy: RunningProxy, upstream: StubProvider, key: str) -> None:
    upstream.handle = stream(openai_chat_stream())
    with RawClient(proxy.port) as client:
        client.post(CHAT, json.dumps(chat_body(stream=True)).encode(), bearer(key))
        assert client.recv_head().header("transfer-encoding") == b"chunked"
        assert client.body().endswith(b"[DONE]\n\n")
        assert client.clean_end
