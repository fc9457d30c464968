"""Where a connection cannot be had, nothing was sent."""

import asyncio
import contextlib
import resource
import socket
from collections.abc import Iterator

import pytest

from llmproxy import upstream as upstream_module
from llmproxy.upstream import Upstream
from llmproxy.upstream_connection import (
    UpstreamError,
)
from tests.support.stub_provider import StubProvider
from tests.upstream.helpers import (
    GOOD,
    ask,
    sends,
    with_upstream,
)


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
    monkeypatch.setattr("tests.upstream.helpers.CONNECT_TIMEOUT_S", 0.3)

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


def test_a_name_that_we_have_no_file_left_to_look_up_is_our_own_lack() -> None:
    async def act(upstream: Upstream) -> None:
        soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
        with socket.socket() as last:
            number = last.fileno()
        resource.setrlimit(resource.RLIMIT_NOFILE, (number, hard))
        try:
            with pytest.raises(UpstreamError) as raised:
                await ask(upstream, "http://no-such-host.invalid")
        finally:
            resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
        assert raised.value.is_ours

    with_upstream(act)
