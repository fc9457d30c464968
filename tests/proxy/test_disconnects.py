"""Clients that leave: the answer is read to its end, and exactly what it cost is paid."""

import asyncio
import threading
import time
from collections.abc import Sequence

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, message
from tests.support.answers import (
    anthropic_message,
    anthropic_stream,
    anthropic_usage,
    openai_chat,
    openai_chat_stream,
    openai_usage,
)
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest

USAGE = openai_usage(1000, 200, cached=600)
COST = 400 * 2_500 + 600 * 1_250 + 200 * 10_000
SONNET_USAGE = anthropic_usage(12, 90, cache_read=1000, cache_write_5m=100, cache_write_1h=50)
SONNET_COST = 12 * 3_000 + 1000 * 300 + 100 * 3_750 + 50 * 6_000 + 90 * 15_000
EVENTS = openai_chat_stream(usage=USAGE)
SONNET_EVENTS = anthropic_stream(usage=SONNET_USAGE)
NOTICED_S = 0.01
"""Time for the proxy to notice that a client has left; nothing depends on it but coverage."""


class Paused:
    """Sends some parts of an answer, waits for `go`, and sends the rest."""

    def __init__(
        self, parts: Sequence[bytes], count: int, content_type: str = "text/event-stream"
    ) -> None:
        self.parts = parts
        self.count = count
        self.headers = [("content-type", content_type)]
        self.go = threading.Event()
        self.was_read = threading.Event()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        if not self.count:
            await self._wait()
        await out.head(200, self.headers)
        for number, part in enumerate(self.parts, 1):
            await out.chunk(part)
            if number == self.count:
                await self._wait()
        await out.end()
        self.was_read.set()

    async def _wait(self) -> None:
        while not self.go.is_set():
            await asyncio.sleep(0.001)


def leave(client: RawClient, how: str) -> None:
    if how == "RST":
        client.abort()
    else:
        client.close()
    time.sleep(NOTICED_S)


def take(client: RawClient, wanted: bytes) -> None:
    """Read until exactly this much of the body has come."""
    if not wanted:
        return
    client.recv_head()
    taken = b""
    for _, piece in client.recv_chunks():
        taken += piece
        if len(taken) >= len(wanted):
            break
    assert taken == wanted


@pytest.mark.parametrize("how", ["RST", "FIN"])
@pytest.mark.parametrize(
    ("path", "events", "nanousd"),
    [(CHAT, EVENTS, COST), (MESSAGES, SONNET_EVENTS, SONNET_COST)],
    ids=["openai", "anthropic"],
)
def test_a_client_that_leaves_after_any_event_pays_exactly_what_the_provider_reported(
    site: Site, path: str, events: list[bytes], nanousd: int, how: str
) -> None:
    body = chat(stream=True) if path == CHAT else message(stream=True)
    site.stub.handle = Paused(events, len(events))
    site.stub.handle.go.set()
    site.ask(site.visitor(), path, body)  # the connection that all others use again
    opened = site.stub.connections_opened
    for count in range(len(events) + 1):
        site.stub.handle = paused = Paused(events, count)
        visitor = site.visitor()
        before = len(site.stub.requests)
        client = site.send(visitor, path, body)
        site.stub.wait_for_requests(before + 1)
        passed = [event for event in events[:count] if b'"choices":[]' not in event]
        take(client, b"".join(passed))
        leave(client, how)
        paused.go.set()
        row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)
        assert (row["status"], row["upstream_status"], row["is_stream"]) == (200, 200, 1)
        assert paused.was_read.wait(5)
    # A connection that was not read to its end could not have been used again.
    assert site.stub.connections_opened == opened


@pytest.mark.parametrize("how", ["RST", "FIN"])
@pytest.mark.parametrize("count", [0, 1, 2])
@pytest.mark.parametrize(
    ("path", "answer", "nanousd"),
    [
        (CHAT, openai_chat(usage=USAGE), COST),
        (MESSAGES, anthropic_message(usage=SONNET_USAGE), SONNET_COST),
    ],
    ids=["openai", "anthropic"],
)
def test_a_client_that_leaves_before_a_plain_answer_pays_exactly(
    site: Site, path: str, answer: bytes, nanousd: int, count: int, how: str
) -> None:
    parts = [answer[:50], answer[50:100], answer[100:]]
    site.stub.handle = paused = Paused(parts, count, "application/json")
    visitor = site.visitor()
    before = len(site.stub.requests)
    client = site.send(visitor, path, chat() if path == CHAT else message())
    site.stub.wait_for_requests(before + 1)
    leave(client, how)
    paused.go.set()
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)
    assert paused.was_read.wait(5)


def test_a_client_that_leaves_during_a_large_answer_pays_exactly(site: Site) -> None:
    answer = openai_chat(text="x" * 12_000_000, usage=USAGE)
    parts = [answer[:10_000_000], answer[10_000_000:]]
    site.stub.handle = paused = Paused(parts, 1, "application/json")
    visitor = site.visitor()
    client = site.send(visitor, CHAT, chat())
    client.recv_head()
    next(client.recv_chunks())
    leave(client, "RST")
    paused.go.set()
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)


def test_a_client_that_leaves_before_its_request_is_complete_sends_nothing(site: Site) -> None:
    before = len(site.stub.requests)
    visitor = site.visitor()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {visitor.key}\r\n"
    for how in ("RST", "FIN"):
        client = RawClient(site.proxy.port)
        client.send(f"{head}content-length: 500\r\n\r\n".encode() + chat())
        leave(client, how)
    time.sleep(0.1)
    assert len(site.stub.requests) == before
    assert site.books.rows(visitor.name) == []
    assert site.books.wallet(visitor.name) == (5_000_000_000, 0)


def test_a_client_may_ask_again_at_once_and_finds_its_money_back(site: Site) -> None:
    """The settlement stands in the queue before the last byte does: here ten times in a row."""
    site.stub.handle = Paused(EVENTS, len(EVENTS))
    site.stub.handle.go.set()
    name, key = site.books.user(credit="0.03")
    # Each request holds about 0.003 USD for 100 tokens, and costs 0.00375.
    with RawClient(site.proxy.port) as client:
        for _ in range(7):
            client.post(CHAT, chat(stream=True), {"authorization": f"Bearer {key}"})
            assert client.recv_head().status == 200
            client.body()
    assert site.books.settled_wallet(name) == 30_000_000 - 7 * COST


def test_a_client_that_has_asked_twice_and_leaves_pays_for_what_was_answered(site: Site) -> None:
    """Of two requests on a connection uvicorn tells only the last that it is over."""
    comment = b": " + b"x" * 99_996 + b"\n\n"  # 20 MB: more than the buffers on the way hold

    async def handle(request: SeenRequest, out: Out) -> None:
        del request
        await out.head(200, [("content-type", "text/event-stream")])
        for _ in range(200):
            await out.chunk(comment)
        await out.chunk(b"".join(EVENTS))
        await out.end()

    site.stub.handle = handle
    visitor = site.visitor()
    client = site.send(visitor, CHAT, chat(stream=True))
    client.post(CHAT, chat(stream=True), {"authorization": f"Bearer {visitor.key}"})
    client.recv_head()
    time.sleep(0.3)  # until nothing more can be written to it
    leave(client, "RST")
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=COST)
    assert row["reason"] is None
