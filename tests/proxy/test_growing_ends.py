"""Where the credit of a growing stream ends: more is asked for, and it is asked for again."""

import asyncio
import contextlib
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.proxy.conftest import INPUT, OUTPUT
from tests.proxy.helpers import CHAT, Got, Site, Visitor
from tests.proxy.stuffed import Stuffed
from tests.proxy.test_growing import Pieces, dear_chat, visitor
from tests.support.answers import data_event, openai_chat, openai_chat_stream, openai_usage
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until


def all_is_held(site: Site, who: Visitor) -> bool:
    """Say whether what is left pays for no further token."""
    balance, held = site.books.wallet(who.name)
    return held > 0 and balance - held < OUTPUT


def test_a_top_up_when_all_of_the_credit_is_held_lets_the_stream_go_on(dear: Site) -> None:
    """It was short of credit when the last extension was taken; the next one is asked for anew."""
    dear.stub.handle = pieces = Pieces(at_once=17, later=30)
    ann = visitor(dear, "0.1")
    with dear.send(ann, CHAT, dear_chat()) as client:
        client.recv_head()
        wait_until(lambda: all_is_held(dear, ann), within_s=30)
        dear.books.credit(ann.name, "1")
        pieces.let_go()
        body = client.body()
        assert client.clean_end
    assert body.endswith(b"data: [DONE]\n\n")
    dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 47 * 25 * OUTPUT)


def test_who_was_short_of_credit_and_has_some_now_is_asked_again(dear: Site) -> None:
    """Nothing came since an extension was asked for: its short answer is old when it is taken."""
    first, second = openai_chat_stream(["x" * 300, "x" * 700])[1:3]
    go, go_on = threading.Event(), threading.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        # 300 bytes, 150 tokens: within the 256 that are held, and enough to ask for 512.
        await out.chunk(first)
        await asyncio.to_thread(go.wait, 30)
        # 500 tokens: more than the credit was for.
        await out.chunk(second)
        await asyncio.to_thread(go_on.wait, 30)
        for event in openai_chat_stream([], usage=openai_usage(10, 250))[1:]:
            await out.chunk(event)
        await out.end()

    dear.stub.handle = handle
    ann = visitor(dear, "0.05")
    with dear.send(ann, CHAT, dear_chat()) as client:
        client.recv_head()
        wait_until(lambda: all_is_held(dear, ann))
        held = dear.books.wallet(ann.name)[1]
        assert 256 * OUTPUT < held < 500 * OUTPUT
        dear.books.credit(ann.name, "1")
        go.set()
        taken = bytearray()
        for _, piece in client.recv_chunks():
            taken += piece
            if b"x" * 700 in taken:
                go_on.set()
        assert client.clean_end
    assert taken.endswith(b"data: [DONE]\n\n")
    dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 250 * OUTPUT)


def test_what_has_caught_up_with_an_old_extension_is_extended_ahead_of_need_again(
    dear: Site,
) -> None:
    """Nothing more comes: who waits for the next piece of text should find it held."""
    first, second = openai_chat_stream(["x" * 300, "x" * 700])[1:3]
    go, may_end = threading.Event(), threading.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(go.wait, 30)
        await out.head(200, [("content-type", "text/event-stream")])
        # 150 tokens: enough to ask for 512; then 500, more than the 256 that are held.
        await out.chunk(first)
        await asyncio.sleep(0.05)
        await out.chunk(second)
        await asyncio.to_thread(may_end.wait, 30)
        for event in openai_chat_stream([], usage=openai_usage(10, 250))[1:]:
            await out.chunk(event)
        await out.end()

    dear.stub.handle = handle
    ann = visitor(dear, "0.2")
    seen = len(dear.stub.requests)
    with dear.send(ann, CHAT, dear_chat()) as client:
        dear.stub.wait_for_requests(seen + 1)
        with dear.books.write():  # the extension takes until this is over
            go.set()
            client.recv_head()
            time.sleep(0.3)
        wait_until(lambda: dear.books.wallet(ann.name)[1] > 700 * OUTPUT)
        may_end.set()
        assert client.body().endswith(b"data: [DONE]\n\n")
    dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 250 * OUTPUT)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems have other buffers")
def test_where_the_credit_ends_the_provider_is_hung_up_on_though_the_client_does_not_read(
    dear: Site,
) -> None:
    """What it generates meanwhile nobody would pay for: it must not wait for the client."""
    # 1,500 tokens, of which there is credit for less than 1,000.
    dear.stub.handle = provider = Stuffed(openai_chat_stream(["x" * 3000])[1])
    ann = visitor(dear, "0.1")
    with RawClient(dear.proxy.port, takes_little=True) as client:
        client.post(CHAT, dear_chat(), {"authorization": f"Bearer {ann.key}"})
        client.recv_head()
        parts = client.recv_chunks()
        taken = next(parts)[1]
        assert len(taken) < 100_000
        provider.may_go_on.set()
        assert provider.hung_up.wait(10)
        taken += b"".join(piece for _, piece in parts)
        assert client.clean_end
    assert taken.startswith(b": xx")
    assert b"insufficient_credit" in taken.rpartition(b"data: ")[2]
    assert dear.ended(ann)["reason"] == "the credit ended before the answer"


class Honest:
    """A provider that generates as many tokens as it may: five bytes each, ten an event.

    Of each stream, which its request names by a number, it is never more than a few events ahead
    of its reader: what comes at once although it cannot be paid is another matter
    (`test_growing_piles.py`), which no test should leave to the load of the machine.
    """

    def __init__(self, streams: int) -> None:
        self.limits: list[int] = []
        self._may_send = [threading.Semaphore(4) for _ in range(streams)]

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        body = request.json()
        limit = min(body.get("max_completion_tokens") or body.get("max_tokens") or 128_000, 128_000)
        self.limits.append(limit)
        usage = openai_usage(10, limit)
        if not body.get("stream"):
            await out.json(200, openai_chat(text=" word" * limit, usage=usage))
            return
        may_send = self._may_send[int(body["user"])]
        events = [" word" * min(10, limit - done) for done in range(0, limit, 10)]
        await out.head(200, [("content-type", "text/event-stream")])
        with contextlib.suppress(ConnectionError):
            for text in events:
                await asyncio.to_thread(may_send.acquire, timeout=20)
                delta = {"index": 0, "delta": {"content": text}, "finish_reason": None}
                await out.chunk(data_event({"choices": [delta]}))
            for event in openai_chat_stream([], usage=usage, finish_reason="length")[1:]:
                await out.chunk(event)
            await out.end()

    def take(self, site: Site, who: Visitor, number: int, **fields: object) -> Got:
        """Ask for an answer and read it, each event making room for another."""
        may_send = self._may_send[number]
        with site.send(who, CHAT, dear_chat(user=str(number), **fields)) as client:
            head = client.recv_head()
            body, events = bytearray(), 0
            for _, part in client.recv_chunks():
                body += part
                for _ in range(body.count(b"\n\n") - events):
                    may_send.release()
                    events += 1
            may_send.release(10)  # it is to notice that nobody reads any more
            return Got(head.status, head.headers, bytes(body), client.clean_end, client.reset)


@pytest.mark.parametrize("together", [1, 5])
@pytest.mark.parametrize("maximum", [None, 128_000])
@pytest.mark.parametrize("is_stream", [False, True])
def test_128k_tokens_of_a_dear_model_on_one_dollar_never_cost_the_operator_a_cent(
    dear: Site, is_stream: bool, maximum: int | None, together: int
) -> None:
    dear.stub.handle = honest = Honest(together)
    ann = visitor(dear, "1")

    def ask(number: int) -> Got:
        return honest.take(dear, ann, number, stream=is_stream, max_tokens=maximum)

    with ThreadPoolExecutor(together) as threads:
        answers = list(threads.map(ask, range(together)))
    left = dear.books.settled_wallet(ann.name)
    rows = [row for row in dear.books.rows(ann.name) if row["state"] != "refused"]
    assert len(rows) == len(honest.limits)
    assert sum(row["shortfall_nanousd"] for row in rows) == 0
    assert left == 10**9 - sum(row["charged_nanousd"] for row in rows) >= 0
    for row in rows:
        assert row["cost_nanousd"] == row["charged_nanousd"] <= row["hold_nanousd"]
    passed = sum(got.body.count(b" word") for got in answers)
    assert sum(row["charged_nanousd"] for row in rows) >= passed * OUTPUT
    if maximum is not None and not is_stream:
        assert {got.status for got in answers} == {402}
    if maximum is None and together == 1:
        # It ends by the maximum that was written in, not by us.
        assert passed == honest.limits[0] > 9000
        assert rows[0]["basis"] == "usage"
