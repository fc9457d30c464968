"""Streams hold little and grow: what has not been held is not passed on, and nobody overdraws."""

import asyncio
import json
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path

import openai
import pytest

from tests.proxy.conftest import INPUT, OUTPUT, STEP, running_site
from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, Visitor, chat, estimate_nanousd, message
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    broken_stream,
    data_event,
    named_event,
    openai_chat_stream,
    openai_usage,
)
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

PIECE = "x" * 100


def visitor(site: Site, credit: str) -> Visitor:
    return Visitor(*site.books.user(credit))


def dear_chat(**fields: object) -> bytes:
    return chat(**{"model": "dear", "max_tokens": 128_000, "stream": True, **fields})


class Pieces:
    """A chat stream of equal pieces: so many at once, the others and the end when it may go on."""

    def __init__(
        self, at_once: int, later: int = 0, usage: int | None = None, *, waits: bool = False
    ) -> None:
        """With `waits`, the end comes only when it may go on once more."""
        self._at_once, self._later, self._usage = at_once, later, usage
        self.go = asyncio.Event()
        self.may_end = asyncio.Event()
        self._waits = waits
        self.loop: asyncio.AbstractEventLoop | None = None
        self.was_hung_up_on = threading.Event()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        self.loop = asyncio.get_running_loop()
        events = openai_chat_stream([PIECE] * (self._at_once + self._later))
        await out.head(200, [("content-type", "text/event-stream")])
        try:
            for event in events[: 1 + self._at_once]:
                await out.chunk(event)
            await self.go.wait()
            for event in events[1 + self._at_once : -3]:
                await out.chunk(event)
                await asyncio.sleep(0.002)
            if self._waits:
                await self.may_end.wait()
            count = self._usage or (self._at_once + self._later) * 25
            usage = openai_usage(10, count)
            for event in openai_chat_stream([], usage=usage)[1:]:
                await out.chunk(event)
            await out.end()
        except ConnectionError:
            self.was_hung_up_on.set()

    def let_go(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.go.set)

    def let_end(self) -> None:
        assert self.loop is not None
        self.loop.call_soon_threadsafe(self.may_end.set)


class Paced:
    """Streams without end, none of which is far ahead of its reader.

    On a busy machine much may come at once otherwise, and what has come is charged.
    """

    def __init__(self, streams: int, piece: bytes | None = None) -> None:
        """Each stream, which its request names by a number, may be two pieces ahead.

        `piece` is an event to send instead of one with PIECE as its text; PIECE is in it too.
        """
        self._piece = piece
        self._may_send = [threading.Semaphore(2) for _ in range(streams)]
        self.hung_up = threading.Event()
        """The proxy has hung up on one of them."""

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        may_send = self._may_send[int(request.json().get("user", 0))]
        events = openai_chat_stream([PIECE])
        if request.target.endswith(b"messages"):
            events = anthropic_stream([PIECE], anthropic_usage(10, 1))
        index = next(n for n, event in enumerate(events) if PIECE.encode() in event)
        await out.head(200, [("content-type", "text/event-stream")])
        try:
            for event in events[:index]:
                await out.chunk(event)
            while True:
                await asyncio.to_thread(may_send.acquire, timeout=20)
                await out.chunk(self._piece or events[index])
        except ConnectionError:
            self.hung_up.set()

    def take(
        self, site: Site, visitor: Visitor, stream: int = 0, asked: tuple[str, bytes] | None = None
    ) -> Got:
        """Ask for a stream and read it, each piece making room for another."""
        may_send = self._may_send[stream]
        path, body = asked or (CHAT, dear_chat(user=str(stream)))
        with site.send(visitor, path, body) as client:
            head = client.recv_head()
            body, pieces = b"", 0
            for _, part in client.recv_chunks():
                body += part
                fresh = body.count(PIECE.encode()) - pieces
                pieces += fresh
                for _ in range(fresh):
                    may_send.release()
            may_send.release(500)  # it is to notice that nobody reads any more
            return Got(head.status, head.headers, body, client.clean_end, client.reset)


def seen_text(got: Got) -> int:
    return got.body.count(PIECE.encode()) * len(PIECE)


def test_text_of_more_bytes_than_its_maximum_of_tokens_is_held_as_that_maximum(dear: Site) -> None:
    # 1,200 bytes come at once: as 600 tokens they are more than the 300 that there can be.
    events = openai_chat_stream([PIECE] * 12, usage=openai_usage(10, 300))
    may_end = threading.Event()

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        await out.chunk(b"".join(events[:-3]))
        await asyncio.to_thread(may_end.wait, 10)
        await out.chunk(b"".join(events[-3:]))
        await out.end()

    dear.stub.handle = handle
    ann = visitor(dear, "5")
    with dear.send(ann, CHAT, dear_chat(max_tokens=300)) as client:
        client.recv_head()
        taken = b""
        for _, piece in client.recv_chunks():
            taken += piece
            if taken.count(PIECE.encode()) == 12:
                may_end.set()
        assert client.clean_end
    row = dear.ended(ann)
    assert (row["basis"], row["cost_nanousd"]) == ("usage", 10 * INPUT + 300 * OUTPUT)


def test_a_stream_holds_little_and_more_before_it_needs_it(dear: Site) -> None:
    dear.stub.handle = pieces = Pieces(at_once=2, later=20, waits=True)
    ann = visitor(dear, "5")
    with dear.send(ann, CHAT, dear_chat()) as client:
        client.recv_head()
        taken = b""
        for _, piece in client.recv_chunks():
            taken += piece
            if taken.count(PIECE.encode()) == 2:
                break
        _, first = dear.books.wallet(ann.name)
        # 256 tokens of output, not 128,000, which are 12.80 USD: more than there is.
        assert STEP * OUTPUT < first < STEP * OUTPUT + 1000 * INPUT
        pieces.let_go()
        for _, piece in client.recv_chunks():
            taken += piece
            if taken.count(PIECE.encode()) == 22:
                pieces.let_end()  # what comes with the end is settled, and needs no hold
        assert client.clean_end
    row = dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 550 * OUTPUT)
    # 2,200 bytes may be 1,100 tokens.
    assert row["hold_nanousd"] >= first + 3 * STEP * OUTPUT
    assert row["hold_nanousd"] >= 1100 * OUTPUT
    assert row["shortfall_nanousd"] == 0


@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_when_the_credit_ends_so_does_the_stream(dear: Site, path: str) -> None:
    dear.stub.handle = paced = Paced(streams=1)
    ann = visitor(dear, "0.1")
    body = dear_chat() if path == CHAT else message(model="dear", max_tokens=128_000, stream=True)
    got = paced.take(dear, ann, asked=(path, body))
    name, data = got.last_event()
    assert name == b"error"
    assert data["error"]["code"] == "insufficient_credit"
    assert data["error"]["message"].startswith("Insufficient credit balance — ")
    assert b"[DONE]" not in got.body
    assert paced.hung_up.wait(5)
    row = dear.ended(ann)
    assert (row["state"], row["basis"]) == ("settled", "estimate")
    assert row["reason"] == "the credit ended before the answer"
    # What could be 936 tokens at most was passed on, and a piece more was seen, or several at once.
    passed = seen_text(got)
    assert passed <= 2 * 936
    input_tokens = -(-len(body) // 3) if path == CHAT else 10
    assert row["cost_nanousd"] in {
        input_tokens * INPUT + -(-(passed + pieces * len(PIECE)) // 3) * OUTPUT
        for pieces in range(1, 10)
    }
    assert row["cost_nanousd"] <= row["hold_nanousd"] <= 100_000_000
    assert row["shortfall_nanousd"] == 0
    assert dear.books.wallet(ann.name) == (100_000_000 - row["cost_nanousd"], 0)


def test_the_sdk_raises_it_when_the_credit_ends_in_the_middle(dear: Site) -> None:
    dear.stub.handle = pieces = Pieces(at_once=1, later=100)
    ann = visitor(dear, "0.1")
    client = openai.OpenAI(base_url=f"{dear.proxy.url}/v1/openai", api_key=ann.key, max_retries=0)
    text = ""
    with client:
        stream = client.chat.completions.create(
            model="dear",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=128_000,
            stream=True,
        )
        with pytest.raises(openai.APIError, match="Insufficient credit") as raised:  # noqa: PT012
            for chunk in stream:
                text += chunk.choices[0].delta.content or ""
                pieces.let_go()
    assert raised.value.code == "insufficient_credit"
    assert text.startswith(PIECE)


def test_a_top_up_in_time_lets_the_stream_go_on(dear: Site) -> None:
    dear.stub.handle = pieces = Pieces(at_once=10, later=30)
    ann = visitor(dear, "0.1")
    with dear.send(ann, CHAT, dear_chat()) as client:
        client.recv_head()
        wait_until(lambda: dear.books.wallet(ann.name)[1] > 70_000_000, within_s=30)
        dear.books.credit(ann.name, "1")
        pieces.let_go()
        body = b"".join(piece for _, piece in client.recv_chunks())
        assert client.clean_end
    assert b"[DONE]" in body
    dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 1000 * OUTPUT)


TOOL_CALLS = [
    {"function_call": {"name": "look", "arguments": PIECE}},
    {"tool_calls": [{"index": 0, "custom": {"name": "look", "input": PIECE}}]},
    {"tool_calls": [{"index": 0, "function": {"name": "look", "arguments": PIECE}}]},
]


@pytest.mark.parametrize("delta", TOOL_CALLS)
def test_calls_of_tools_count_as_text(dear: Site, delta: dict[str, object]) -> None:
    """In whatever form a model calls a tool, it is billed, so the hold grows and ends with it."""
    choice = {"index": 0, "delta": delta, "finish_reason": None}
    dear.stub.handle = paced = Paced(streams=1, piece=data_event({"choices": [choice]}))
    ann = visitor(dear, "0.1")
    got = paced.take(dear, ann)
    assert got.last_event()[1]["error"]["code"] == "insufficient_credit"
    assert paced.hung_up.wait(5)
    row = dear.ended(ann)
    assert (row["state"], row["basis"], row["shortfall_nanousd"]) == ("settled", "estimate", 0)
    # There is credit for 936 tokens at most; each call has a name too.
    assert 0 < seen_text(got) <= 2 * 936


def test_a_call_of_a_tool_of_anthropic_counts_as_text(dear: Site) -> None:
    block = {"type": "tool_use", "id": "toolu_1", "name": "x" * 99, "input": {}}
    events = anthropic_stream([], anthropic_usage(10, 1))
    begin = named_event("content_block_start", index=1, content_block=block)
    dear.stub.handle = broken_stream([events[0], begin])
    ann = visitor(dear, "5")
    dear.ask(ann, MESSAGES, message(model="dear", stream=True))
    # The name's 99 bytes, and 30 for what stands around it.
    dear.assert_row(ann, state="settled", basis="estimate", cost=10 * INPUT + 43 * OUTPUT)


def test_a_maximum_is_not_lowered_where_nothing_would_be_refused(dear: Site) -> None:
    dear.stub.handle = pieces = Pieces(at_once=1)
    ann = visitor(dear, "1")
    with dear.send(ann, CHAT, dear_chat(), {"x-llmproxy-clamp": "1"}) as client:
        head = client.recv_head()
        pieces_sent = dear.last_request().json()
    assert pieces is dear.stub.handle
    assert head.status == 200
    assert pieces_sent["max_tokens"] == 128_000


def test_streams_that_race_for_the_last_cent_leave_no_debt(dear: Site) -> None:
    dear.stub.handle = paced = Paced(streams=2)
    ann = visitor(dear, "0.2")
    with ThreadPoolExecutor(2) as threads:
        answers = [threads.submit(paced.take, dear, ann, number) for number in range(2)]
        results = [answer.result(30).last_event()[1]["error"]["code"] for answer in answers]
    assert results == ["insufficient_credit"] * 2
    left = dear.books.settled_wallet(ann.name)
    rows = dear.books.rows(ann.name)
    assert left == 200_000_000 - sum(row["charged_nanousd"] for row in rows) >= 0
    assert [row["shortfall_nanousd"] for row in rows] == [0, 0]


def test_a_ledger_that_cannot_be_written_stops_only_what_has_outgrown_its_hold(dear: Site) -> None:
    dear.stub.handle = pieces = Pieces(at_once=2, later=30)
    ann = visitor(dear, "5")
    with dear.send(ann, CHAT, dear_chat()) as client:
        client.recv_head()
        wait_until(lambda: dear.books.wallet(ann.name)[1] > 0)
        with dear.books.write():
            pieces.let_go()
            body = b"".join(piece for _, piece in client.recv_chunks())
    text = body.count(PIECE.encode()) * len(PIECE)
    # What was held before has passed, and nothing beyond it.
    assert 200 <= text <= 2 * STEP
    assert json.loads(body.rpartition(b"data: ")[2])["error"]["code"] == "ledger_busy"
    row = dear.ended(ann)
    assert (row["state"], row["basis"]) == ("settled", "estimate")
    assert row["reason"] == "the ledger could not be written while the answer ran"
    assert row["cost_nanousd"] in {
        estimate_nanousd(
            dear_chat(), text + pieces * len(PIECE), input_rate=INPUT, output_rate=OUTPUT
        )
        for pieces in range(1, 10)
    }


def test_a_killed_proxy_charges_what_it_has_durably_seen(tmp_path: Path) -> None:
    with running_site(tmp_path, {}) as site:
        site.stub.handle = Pieces(at_once=30)
        ann, bob = site.visitor(), site.visitor()
        body = chat(stream=True, max_tokens=2000)
        with site.send(ann, CHAT, body) as client, site.send(bob, CHAT, chat()) as plain:
            client.recv_head()
            plain.recv_head()
            noted = "SELECT max(seen_cost_nanousd) FROM holds"
            # Noted at the first chunk, however much that was, and again some seconds later.
            text = 30 * len(PIECE)
            seen = estimate_nanousd(body, text, input_rate=2500, output_rate=10_000)
            wait_until(lambda: site.books.count(noted) == seen, within_s=30)
            site.proxy.kill()
        site.proxy.start()
        row = site.assert_paid(ann, state="expired", basis="estimate", nanousd=seen)
        assert row["reason"] == "the proxy stopped while this request ran"
        assert (row["is_stream"], site.ended(bob)["is_stream"]) == (1, 0)


def test_a_killed_proxy_charges_nothing_where_nothing_had_been_generated(tmp_path: Path) -> None:
    """Not even the input: before an answer has begun its provider may still refuse it."""
    events = openai_chat_stream([PIECE])

    async def begin(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        # The role, with an empty text; of Bob's answer some text too.
        count = 2 if request.json()["user"] == "bob" else 1
        await out.chunk(b"".join(events[:count]))
        await out.client_gone.wait()

    with running_site(tmp_path, {}) as site:
        site.stub.handle = begin
        ann, bob = site.visitor(), site.visitor()
        with ExitStack() as stack:
            for who, name in ((ann, "ann"), (bob, "bob")):
                client = site.send(who, CHAT, chat(stream=True, user=name))
                stack.enter_context(client)
                client.recv_head()
                next(client.recv_chunks())
            # Notes are written in their order: hers, if there were one, stands before his.
            wait_until(lambda: site.books.count("SELECT max(seen_cost_nanousd) FROM holds") > 0)
            site.proxy.kill()
        site.proxy.start()
        site.assert_paid(ann, state="expired", basis="none", nanousd=0)
        assert site.ended(bob)["charged_nanousd"] > 0
