"""The connections to providers, alone: on the other side a real server that does as it is told."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import TypeVar

import pytest
import uvloop

from llmproxy import upstream as upstream_module
from llmproxy.upstream import Upstream
from llmproxy.upstream_connection import (
    HEAD_BYTES_MAX,
    WAITING_BYTES_MAX,
    Answer,
    UpstreamError,
)
from tests.faults.certificates import Authority
from tests.support.stub_provider import Handler, Out, SeenRequest, StubProvider

T = TypeVar("T")
CONNECT_TIMEOUT_S = 5.0
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
PATIENCE_S = 10.0


@pytest.fixture
def stub() -> Iterator[StubProvider]:
    with StubProvider() as provider:
        yield provider


def sends(*parts: bytes, closes: bool = False) -> Handler:
    async def handle(request: SeenRequest, out: Out) -> None:
        del request
        for part in parts:
            await out.send(part)
        if closes:
            out.close()

    return handle


def with_upstream(act: Callable[[Upstream], Awaitable[T]]) -> T:
    """Run a coroutine with an `Upstream` of its own."""

    async def run() -> T:
        upstream = Upstream(CONNECT_TIMEOUT_S)
        try:
            return await asyncio.wait_for(act(upstream), PATIENCE_S)
        finally:
            await upstream.close()

    return uvloop.run(run())


def nothing() -> None:
    """Nobody wants to know when a request leaves."""


async def ask(upstream: Upstream, base_url: str) -> tuple[Answer, bytes]:
    answer = await upstream.post(base_url, "/x", [(b"a", b"b")], b"{}", nothing)
    parts: list[bytes] = []
    while (chunk := await answer.next_chunk()) is not None:
        parts.append(chunk)
    answer.close()
    return answer, b"".join(parts)


def ask_times(stub: StubProvider, times: int) -> list[bytes]:
    async def act(upstream: Upstream) -> list[bytes]:
        return [(await ask(upstream, base_url(stub)))[1] for _ in range(times)]

    return with_upstream(act)


def base_url(stub: StubProvider) -> str:
    return f"http://127.0.0.1:{stub.port}/base"


def connections(stub: StubProvider) -> list[int]:
    return [request.connection for request in stub.requests]


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


@pytest.mark.parametrize(
    ("parts", "what"),
    [
        ([b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\ngood"], "ended in the middle"),
        ([b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\n"], "in the middle"),
        (
            [b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\ngood\r\nzz\r\n"],
            "its body is no valid HTTP",
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


def test_nothing_was_sent_where_nobody_listens() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))  # and does not listen
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"

        async def act(upstream: Upstream) -> None:
            for _ in range(2):
                with pytest.raises(UpstreamError) as raised:
                    await ask(upstream, url)
                assert not raised.value.was_sent

        with_upstream(act)


def test_nothing_was_sent_on_a_connection_that_is_closed_at_once() -> None:
    """Or that says something before it is asked, which closes it too."""

    async def act(upstream: Upstream) -> None:
        loop = asyncio.get_running_loop()
        with socket.socket() as listener:
            listener.bind(("127.0.0.1", 0))
            listener.listen()
            listener.setblocking(False)
            url = f"http://127.0.0.1:{listener.getsockname()[1]}"
            asking = asyncio.ensure_future(ask(upstream, url))
            with (await loop.sock_accept(listener))[0] as taken:
                await loop.sock_sendall(taken, b"220 smtp.example.com ESMTP\r\n")
                with pytest.raises(UpstreamError):
                    await asking

    with_upstream(act)


def test_a_name_that_does_not_resolve_was_sent_nothing() -> None:
    async def act(upstream: Upstream) -> None:
        with pytest.raises(UpstreamError) as raised:
            await ask(upstream, "http://no-such-host.invalid")
        assert not raised.value.was_sent

    with_upstream(act)


def test_a_handshake_that_hangs_is_given_up_and_was_sent_nothing(
    stub: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.test_upstream.CONNECT_TIMEOUT_S", 0.3)

    async def act(upstream: Upstream) -> None:
        with pytest.raises(UpstreamError, match=r"no connection within 0\.3 s") as raised:
            await ask(upstream, f"https://127.0.0.1:{stub.port}")
        assert not raised.value.was_sent

    with_upstream(act)


def test_the_next_address_of_a_host_is_tried_when_the_first_does_not_answer(
    stub: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A laptop with an IPv6 address that leads nowhere."""
    stub.handle = sends(GOOD)
    kind = (socket.SOCK_STREAM, socket.IPPROTO_TCP, "")
    with silent_listener() as dead:
        live = ("127.0.0.1", stub.port)
        found = [(socket.AF_INET, *kind, dead), (socket.AF_INET, *kind, live)]

        async def addresses(site: object) -> list[object]:
            del site
            return list(found)

        monkeypatch.setattr(upstream_module._Site, "_addresses", addresses)

        async def act(upstream: Upstream) -> bytes:
            return (await ask(upstream, "http://two-addresses.test"))[1]

        assert with_upstream(act) == b"good"


@contextlib.contextmanager
def silent_listener() -> Iterator[tuple[str, int]]:
    """Give an address where connecting neither succeeds nor fails: its backlog is full."""
    with contextlib.ExitStack() as sockets:
        full = sockets.enter_context(socket.socket())
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        for _ in range(4):
            waiting = sockets.enter_context(socket.socket())
            waiting.setblocking(False)
            waiting.connect_ex(full.getsockname())
        yield full.getsockname()


def test_one_look_up_serves_all_who_wait_for_it(
    stub: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    stub.handle = sends(GOOD)
    looked_up: list[str] = []

    async def act(upstream: Upstream) -> None:
        loop = asyncio.get_running_loop()

        class Loop:
            def __getattr__(self, name: str) -> object:
                return getattr(loop, name)

            async def getaddrinfo(self, host: str, *rest: object, **options: object) -> object:
                looked_up.append(host)
                await asyncio.sleep(0.05)
                return await loop.getaddrinfo(host, *rest, **options)  # type: ignore[arg-type]

        monkeypatch.setattr(upstream, "_loop", Loop())
        url = f"http://localhost:{stub.port}"
        first = asyncio.ensure_future(ask(upstream, url))
        others = [asyncio.ensure_future(ask(upstream, url)) for _ in range(9)]
        await asyncio.sleep(0.02)
        first.cancel()  # who leaves does not take the answer from the others
        assert [body for _, body in await asyncio.gather(*others)] == [b"good"] * 9

    with_upstream(act)
    assert looked_up == ["localhost"]


def test_an_answer_that_is_not_read_is_not_taken_from_the_provider(stub: StubProvider) -> None:
    total, piece = 200 * WAITING_BYTES_MAX, b"x" * WAITING_BYTES_MAX
    sent = 0

    async def handle(request: SeenRequest, out: Out) -> None:
        nonlocal sent
        del request
        await out.send(b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n" % total)
        while sent < total:
            await out.send(piece)
            sent += len(piece)

    stub.handle = handle

    async def act(upstream: Upstream) -> int:
        answer = await upstream.post(base_url(stub), "/x", [], b"{}", nothing)
        before = -1
        while sent != before:  # until nothing moves any more
            before = sent
            await asyncio.sleep(0.2)
        assert sent < total // 2
        size = 0
        while (chunk := await answer.next_chunk()) is not None:
            size += len(chunk)
        return size

    assert with_upstream(act) == total


def test_a_connection_that_was_idle_for_too_long_is_not_used_again(
    stub: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "PLAIN_KEEPALIVE_S", -1.0)
    stub.handle = sends(GOOD)
    assert ask_times(stub, 2) == [b"good"] * 2
    assert connections(stub) == [0, 1]


@contextlib.contextmanager
def tls_server(home: Path, answer: bytes) -> Iterator[tuple[Authority, int]]:
    """Serve one answer to each connection; it ends with FIN alone, as many servers do."""
    authority = Authority(home)
    context = authority.trusted()
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with contextlib.suppress(OSError):
                while True:
                    plain, _ = listener.accept()
                    with context.wrap_socket(plain, server_side=True) as encrypted:
                        encrypted.recv(1000)
                        encrypted.sendall(answer)
                        encrypted.shutdown(socket.SHUT_WR)  # of the socket: no close_notify
                        encrypted.recv(1)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield authority, listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
    thread.join(PATIENCE_S)


def test_a_large_answer_over_tls_comes_whole_however_it_ends_and_is_read(tmp_path: Path) -> None:
    size = 3_000_000
    whole = b"HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: %d\r\n\r\n" % size
    whole += b"x" * size
    with tls_server(tmp_path, whole) as (authority, port):

        async def act(upstream: Upstream) -> list[int]:
            upstream._tls.load_verify_locations(authority.file)
            sizes: list[int] = []
            for _ in range(8):
                answer = await upstream.post(f"https://127.0.0.1:{port}", "/", [], b"", nothing)
                await asyncio.sleep(0.1)  # more waits than is taken at once
                read = 0
                while (chunk := await answer.next_chunk()) is not None:
                    read += len(chunk)
                sizes.append(read)
            return sizes

        assert with_upstream(act) == [size] * 8


def test_over_tls_an_answer_without_a_length_needs_an_end_that_is_meant(tmp_path: Path) -> None:
    """Anybody on the way can send a FIN; only the server can say that it has ended."""
    with tls_server(tmp_path, b"HTTP/1.1 200 OK\r\n\r\nhalf of it") as (authority, port):

        async def act(upstream: Upstream) -> None:
            upstream._tls.load_verify_locations(authority.file)
            with pytest.raises(UpstreamError, match="ended in the middle"):
                await ask(upstream, f"https://127.0.0.1:{port}")

        with_upstream(act)


def test_an_answer_that_comes_before_all_was_sent_ends_the_connection() -> None:
    """The provider may take the rest of this request for the beginning of the next one."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        loop_answers: list[socket.socket] = []

        async def act(upstream: Upstream) -> None:
            loop = asyncio.get_running_loop()
            listener.setblocking(False)
            big = b"x" * 64 * 1024 * 1024
            posting = asyncio.ensure_future(upstream.post(url, "/x", [], big, nothing))
            taken, _ = await loop.sock_accept(listener)
            loop_answers.append(taken)
            await loop.sock_recv(taken, 1000)
            await loop.sock_sendall(taken, GOOD)
            answer = await posting
            assert await answer.next_chunk() == b"good"
            assert await answer.next_chunk() is None
            posting = asyncio.ensure_future(upstream.post(url, "/x", [], b"{}", nothing))
            again, _ = await loop.sock_accept(listener)
            loop_answers.append(again)
            await loop.sock_recv(again, 1000)
            await loop.sock_sendall(again, GOOD)
            assert (await posting).status == 200

        with_upstream(act)
        for each in loop_answers:
            each.close()


def test_whoever_leaves_before_the_answer_hangs_up_on_the_provider(stub: StubProvider) -> None:
    gone = asyncio.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        del request
        await out.client_gone.wait()
        gone.set()

    stub.handle = handle

    async def act(upstream: Upstream) -> None:
        asking = asyncio.ensure_future(ask(upstream, base_url(stub)))
        while not stub.requests:
            await asyncio.sleep(0.01)
        asking.cancel()
        while not gone.is_set():
            await asyncio.sleep(0.01)

    with_upstream(act)


def test_a_connection_that_was_idle_for_long_is_closed(
    stub: StubProvider, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(upstream_module, "PLAIN_KEEPALIVE_S", 0.1)
    monkeypatch.setattr(upstream_module, "SWEEP_INTERVAL_S", 0.05)
    gone = asyncio.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        del request
        await out.send(GOOD)
        await out.client_gone.wait()
        gone.set()

    stub.handle = handle

    async def act(upstream: Upstream) -> None:
        await ask(upstream, base_url(stub))
        while not gone.is_set():
            await asyncio.sleep(0.01)

    with_upstream(act)
