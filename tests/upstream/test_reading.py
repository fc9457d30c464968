"""Answers over time: read slowly, over TLS, too early, left alone."""

import asyncio
import contextlib
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy import upstream as upstream_module
from llmproxy.upstream import Upstream
from llmproxy.upstream_connection import (
    WAITING_BYTES_MAX,
    UpstreamError,
)
from tests.faults.certificates import Authority
from tests.support.stub_provider import Out, SeenRequest, StubProvider
from tests.upstream.helpers import (
    GOOD,
    PATIENCE_S,
    ask,
    ask_times,
    base_url,
    connections,
    nothing,
    sends,
    with_upstream,
)


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
