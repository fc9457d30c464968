"""The stub provider and the raw client, against each other."""

import asyncio
import json
import threading
from collections.abc import Iterator
from itertools import pairwise

import pytest

from tests.support import answers
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest, StubProvider, closed_port


@pytest.fixture
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture
def client(stub: StubProvider) -> Iterator[RawClient]:
    with RawClient(stub.port) as client:
        yield client


def test_a_request_is_seen_byte_for_byte(stub: StubProvider, client: RawClient) -> None:
    raw = b"POST /v1/x%20y?b=1&a HTTP/1.1\r\nHost: h\r\nX-A:  1 \r\nx-a: 2\r\n"
    raw += b"content-length: 3\r\n\r\n"
    client.send(raw + b"abc")
    assert client.recv_head().status == 200
    [seen] = stub.requests
    assert (seen.method, seen.target, seen.body) == ("POST", b"/v1/x%20y?b=1&a", b"abc")
    assert seen.headers[:3] == [(b"Host", b"h"), (b"X-A", b"1"), (b"x-a", b"2")]
    assert seen.header("x-A") == b"1"
    assert seen.raw_head == raw


def test_the_default_answer_is_a_chat_completion(client: RawClient) -> None:
    client.post("/v1/chat/completions", b"{}")
    assert client.recv_head().header("Content-Type") == b"application/json"
    assert json.loads(client.body())["usage"]["total_tokens"] == 15
    assert client.clean_end


def test_a_connection_is_used_again(stub: StubProvider, client: RawClient) -> None:
    for _ in range(2):
        client.post("/", b"{}")
        client.recv_head()
        client.body()
    assert [request.connection for request in stub.requests] == [0, 0]
    assert stub.connections_opened == 1


def test_a_chunked_request_body_is_put_together(stub: StubProvider, client: RawClient) -> None:
    client.send(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n3;x=1\r\nabc\r\n")
    client.send(b"2\r\nde\r\n0\r\n\r\n")
    client.recv_head()
    assert stub.requests[0].body == b"abcde"


def test_events_sent_apart_arrive_apart(stub: StubProvider, client: RawClient) -> None:
    events = answers.openai_chat_stream(["a", "b"])
    stub.handle = answers.stream(events, gap_s=0.05)
    client.post("/", b"{}")
    client.recv_head()
    arrivals = list(client.recv_chunks())
    assert [data for _, data in arrivals] == events
    gaps = [later[0] - earlier[0] for earlier, later in pairwise(arrivals)]
    assert min(gaps) > 0.025
    assert client.clean_end


@pytest.mark.parametrize("reset", [False, True])
def test_a_broken_stream_has_no_clean_end(
    stub: StubProvider, client: RawClient, reset: bool
) -> None:
    stub.handle = answers.broken_stream([b"data: 1\n\n"], reset=reset)
    client.post("/", b"{}")
    client.recv_head()
    client.body()
    assert not client.clean_end
    assert client.reset is reset


def test_a_handler_learns_that_the_client_is_gone(stub: StubProvider) -> None:
    gone = threading.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200)
        await out.client_gone.wait()
        gone.set()

    stub.handle = handle
    for hang_up in (RawClient.close, RawClient.abort):
        client = RawClient(stub.port)
        client.post("/", b"{}")
        client.recv_head()
        assert not gone.is_set()
        hang_up(client)
        assert gone.wait(2)
        gone.clear()


def test_bytes_are_sent_as_written(stub: StubProvider, client: RawClient) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.send(b"HTTP/1.1 200 OK\r\n\r\nno ")
        await asyncio.sleep(0.02)
        await out.send(b"framing")
        out.close()

    stub.handle = handle
    client.post("/", b"{}")
    assert client.recv_head().headers == []
    assert client.body() == b"no framing"
    assert client.clean_end


def test_handlers_answer_in_turn(stub: StubProvider, client: RawClient) -> None:
    limited, good = answers.openai_error("rate_limit"), answers.openai_chat()
    stub.handle = answers.in_turn(answers.failing(limited), answers.plain(good))
    statuses = []
    for _ in range(3):
        client.post("/", b"{}")
        head = client.recv_head()
        statuses.append((head.status, head.header("retry-after")))
        client.body()
    assert statuses == [(429, b"7"), (200, None), (200, None)]


def test_a_stub_can_answer_before_the_body_is_read(stub: StubProvider, client: RawClient) -> None:
    stub.read_bodies = False
    client.send(b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n\r\n")
    assert client.recv_head().status == 200


def test_a_stub_can_reset_at_the_accept(stub: StubProvider) -> None:
    async def reset(out: Out) -> None:
        out.abort()

    stub.on_connect = reset
    with pytest.raises(ConnectionError):
        read_head(stub.port)
    assert stub.connections_opened == 1


def read_head(port: int) -> None:
    with RawClient(port) as client:
        client.recv_head()


def test_a_closed_port_refuses() -> None:
    with pytest.raises(ConnectionRefusedError):
        RawClient(closed_port())


def test_a_failure_of_a_handler_reaches_the_test() -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        message = "from the handler"
        raise ValueError(message)

    stub = StubProvider()
    stub.handle = handle
    stub.__enter__()
    with RawClient(stub.port) as client:
        client.post("/", b"{}")
        assert list(client.recv_raw()) == []
    with pytest.raises(ValueError, match="from the handler"):
        stub.__exit__(None, None, None)


def test_the_streams_have_the_shapes_of_the_providers() -> None:
    chunks = [json.loads(event[6:]) for event in answers.openai_chat_stream()[:-1]]
    assert (chunks[-1]["choices"], chunks[-1]["usage"]["total_tokens"]) == ([], 15)
    assert [chunk["usage"] for chunk in chunks[:-1]] == [None] * 5
    unasked = answers.openai_chat_stream(include_usage=False)
    assert not any(b'"usage"' in event for event in unasked)
    usage = answers.anthropic_usage(5, 9, cache_write_1h=7)
    events = [json.loads(e.split(b"data: ")[1]) for e in answers.anthropic_stream(usage=usage)]
    assert events[0]["message"]["usage"]["cache_creation"]["ephemeral_1h_input_tokens"] == 7
    assert events[-2]["usage"] == {
        "input_tokens": 5,
        "cache_creation_input_tokens": 7,
        "cache_read_input_tokens": 0,
        "output_tokens": 9,
    }
