"""Requests and answers on the wire, and which connections are used again."""

import asyncio

import pytest

from llmproxy.upstream import Upstream
from llmproxy.upstream_connection import (
    HEAD_BYTES_MAX,
    Answer,
    UpstreamError,
)
from tests.support.stub_provider import Out, SeenRequest, StubProvider
from tests.upstream.helpers import (
    GOOD,
    ask,
    ask_times,
    base_url,
    connections,
    nothing,
    sends,
    with_upstream,
)


def test_a_request_goes_out_exactly_as_it_is_given(stub: StubProvider) -> None:
    stub.handle = sends(GOOD)
    assert ask_times(stub, 1) == [b"good"]
    head = (
        f"POST /base/x HTTP/1.1\r\nhost: 127.0.0.1:{stub.port}\r\na: b\r\ncontent-length: 2\r\n\r\n"
    )
    assert (stub.requests[0].raw_head, stub.requests[0].body) == (head.encode(), b"{}")


@pytest.mark.parametrize(
    ("name", "value"), [(b"a", b"b\r\nx: y"), (b"a\nb", b"c"), (b"a", b"b\rc"), (b"a", b"b\n")]
)
def test_a_line_break_never_makes_another_header(
    stub: StubProvider, name: bytes, value: bytes
) -> None:
    async def act(upstream: Upstream) -> None:
        await upstream.post(base_url(stub), "/x", [(name, value)], b"{}", nothing)

    with pytest.raises(ValueError, match="line break"):
        with_upstream(act)
    assert stub.requests == []


def test_a_connection_is_used_again(stub: StubProvider) -> None:
    stub.handle = sends(GOOD)
    assert ask_times(stub, 3) == [b"good"] * 3
    assert connections(stub) == [0, 0, 0]


@pytest.mark.parametrize(
    "answer",
    [
        GOOD.replace(b"OK\r\n", b"OK\r\nConnection: close\r\n"),
        GOOD.replace(b"1.1", b"1.0"),
        GOOD + GOOD,  # who would get the second one?
        GOOD + b"HTTP",
        GOOD + b"x",
    ],
)
def test_a_connection_is_not_used_again_behind(stub: StubProvider, answer: bytes) -> None:
    stub.handle = sends(answer)
    assert ask_times(stub, 2) == [b"good"] * 2
    assert connections(stub) == [0, 1]


def test_an_answer_that_comes_while_nobody_asks_closes_the_connection(stub: StubProvider) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        del request
        await out.send(GOOD)
        await asyncio.sleep(0.05)
        await out.send(GOOD.replace(b"good", b"evil"))

    stub.handle = handle

    async def act(upstream: Upstream) -> bytes:
        await ask(upstream, base_url(stub))
        await asyncio.sleep(0.3)
        return (await ask(upstream, base_url(stub)))[1]

    assert with_upstream(act) == b"good"
    assert connections(stub) == [0, 1]


@pytest.mark.parametrize("interim", [b"100 Continue", b"103 Early Hints", b"102 Processing"])
def test_interim_answers_are_passed_over(stub: StubProvider, interim: bytes) -> None:
    hint = b"HTTP/1.1 " + interim + b"\r\nlink: </style.css>\r\n\r\n"
    stub.handle = sends(hint, hint + GOOD)

    async def act(upstream: Upstream) -> Answer:
        return (await ask(upstream, base_url(stub)))[0]

    answer = with_upstream(act)
    assert (answer.status, answer.headers) == (200, [(b"content-length", b"4")])


@pytest.mark.parametrize(
    "head",
    [
        b"HTTP/1.1 200 OK\r\n\r\n",
        b"HTTP/1.0 200 OK\r\nx: y\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
    ],
)
def test_an_answer_without_a_length_ends_with_its_connection(
    stub: StubProvider, head: bytes
) -> None:
    stub.handle = sends(head + b"one ", b"two", closes=True)
    assert ask_times(stub, 2) == [b"one two"] * 2


def test_headers_behind_a_chunked_body_go_nowhere(stub: StubProvider) -> None:
    chunked = (
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n0\r\nlate: x\r\n\r\n"
    )
    stub.handle = sends(chunked)

    async def act(upstream: Upstream) -> list[tuple[bytes, bytes]]:
        return (await ask(upstream, base_url(stub)))[0].headers

    assert with_upstream(act) == [(b"transfer-encoding", b"chunked")]


CHUNKED_GOOD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n"


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ngood"], "ended in the middle"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n"], "in the middle"),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nzz\r\n"],
            "its body is no valid HTTP",
        ),
        (
            [CHUNKED_GOOD + b"0\r\nX: ", *[b"x" * 65_536] * 40],
            "little but framing",
        ),
        (
            [CHUNKED_GOOD + b"1;x=", *[b"x" * 65_536] * 40],
            "little but framing",
        ),
    ],
)
def test_what_came_before_a_break_is_handed_out_first(
    stub: StubProvider, parts: list[bytes], what: str
) -> None:
    stub.handle = sends(*parts, closes=True)

    async def act(upstream: Upstream) -> None:
        answer = await upstream.post(base_url(stub), "/x", [], b"{}", nothing)
        await asyncio.sleep(0.2)  # all of it has come, and the end too
        assert await answer.next_chunk() == b"good"
        for _ in range(2):  # it stays so
            with pytest.raises(UpstreamError, match=what) as raised:
                await answer.next_chunk()
            assert raised.value.was_sent

    with_upstream(act)


@pytest.mark.parametrize(
    ("answer", "what"),
    [
        (b"", "closed the connection"),
        (b"HTTP/1.1 200 OK\r\ncontent-le", "closed the connection"),
        (b"SSH-2.0-OpenSSH\r\n", "no valid HTTP"),
        (
            b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n",
            "another protocol",
        ),
        (b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\nxx", "no valid HTTP"),
        (b"HTTP/1.1 099 Odd\r\nContent-Length: 2\r\n\r\nxx" + GOOD, "no valid HTTP"),
        (
            b"HTTP/1.1 200 OK\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "no valid HTTP",
        ),
        (b"HTTP/1.1 200 OK\r\nx: " + b"y" * HEAD_BYTES_MAX + b"\r\n\r\n", "too large"),
        (b"HTTP/1.1 200 OK\r\n" + b"x: y\r\n" * (HEAD_BYTES_MAX // 2) + b"\r\n", "too large"),
        (b"HTTP/1.1 200 OK\r\n" + b"x" * 3 * HEAD_BYTES_MAX, "too large"),
        (b"HTTP/1.1 100 Continue\r\n\r\n" * HEAD_BYTES_MAX, "too large"),
    ],
)
def test_no_answer_is_an_error_and_the_request_counts_as_sent(
    stub: StubProvider, answer: bytes, what: str
) -> None:
    stub.handle = sends(answer, closes=True)

    async def act(upstream: Upstream) -> None:
        with pytest.raises(UpstreamError, match=what) as raised:
            await ask(upstream, base_url(stub))
        assert raised.value.was_sent

    with_upstream(act)
