"""How the tests of the connections to providers ask, and what they are answered."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import uvloop

from llmproxy.upstream import Upstream
from llmproxy.upstream_connection import (
    Answer,
)
from tests.support.stub_provider import Handler, Out, SeenRequest, StubProvider

T = TypeVar("T")
CONNECT_TIMEOUT_S = 5.0
GOOD = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ngood"
PATIENCE_S = 10.0


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
