"""Much of a growing stream comes at once, as after a moment in which the proxy did not get to run.

The provider writes all of it at once, which stands for any time in which nothing was read.
"""

import asyncio
import threading
from typing import Any

from llmproxy.upstream_connection import WAITING_BYTES_MAX
from tests.proxy.conftest import INPUT, OUTPUT, STEP
from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, Visitor, chat, message
from tests.proxy.test_growing import dear_chat, visitor
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    data_event,
    openai_chat_stream,
    openai_usage,
)
from tests.support.limits import limit_key
from tests.support.stub_provider import Out, SeenRequest

WORDS = " word" * 20
"""100 bytes, which an honest provider counts as 20 tokens, and we as 50 at most."""
CREDIT = 10**8
"""Of 0.1 USD: less than 1,000 tokens of `dear`."""


class Pile:
    """Sends an answer in one write, its head too; where told so, only when it may."""

    def __init__(self, events: list[bytes], *, waits: bool = False) -> None:
        self._events = events
        self.may_send = threading.Event()
        if not waits:
            self.may_send.set()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(self.may_send.wait, 20)
        body = b"".join(self._events)
        head = "HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\ncontent-length: {}\r\n\r\n"
        await out.send(head.format(len(body)).encode() + body)


def stream(count: int, tokens: int | None = None, **fields: Any) -> list[bytes]:  # noqa: ANN401
    """The events of a chat stream of so many times 20 tokens, with its end."""
    usage = openai_usage(10, count * 20 if tokens is None else tokens)
    return openai_chat_stream([WORDS] * count, usage=usage, **fields)


def seen(got: Got) -> int:
    return got.body.count(WORDS.encode())


def assert_covered(got: Got, row: dict[str, Any]) -> None:
    """What was passed on was held: all of it may have been tokens of two bytes."""
    assert seen(got) * 50 * OUTPUT <= row["hold_nanousd"]


def assert_cut(got: Got, code: str) -> None:
    """It ended with an error, between two events, not cleanly."""
    *events, error, rest = got.body.split(b"\n\n")
    assert rest == b""
    assert b'"code":"%b"' % code.encode() in error.replace(b": ", b":")
    assert all(not event or event.endswith(b"}") for event in events)
    assert b"[DONE]" not in got.body


def assert_owed(site: Site, who: Visitor, *, cost: int, credit: int = CREDIT) -> dict[str, Any]:
    """All of the credit is charged, nothing beyond it, and the rest is told as the operator's."""
    row = site.ended(who)
    assert (row["state"], row["cost_nanousd"]) == ("settled", cost)
    assert row["charged_nanousd"] == credit
    assert row["shortfall_nanousd"] == cost - credit
    assert site.books.wallet(who.name) == (0, 0)
    return row


def test_a_whole_answer_that_comes_at_once_passes_as_far_as_it_is_covered(dear: Site) -> None:
    """Its usage and `[DONE]` come with it: still nothing passes that is not held."""
    dear.stub.handle = Pile(stream(100))
    ann = visitor(dear, "0.1")
    got = dear.ask(ann, CHAT, dear_chat())
    assert_cut(got, "insufficient_credit")
    row = assert_owed(dear, ann, cost=10 * INPUT + 2000 * OUTPUT)
    assert (row["basis"], row["reason"]) == ("usage", "the credit ended before the answer")
    assert_covered(got, row)
    # 0.1 USD pays for the bound of the input and for 936 tokens, as which 18 events are held. They
    # are read in pieces of 4 KiB, so not all of the 18 pass.
    assert 10 <= seen(got) <= 18


def test_what_comes_at_once_is_held_before_it_passes(dear: Site) -> None:
    """Its credit suffices: it passes as it came, and the hold was there before."""
    events = stream(100)
    dear.stub.handle = Pile(events)
    ann = visitor(dear, "0.5")
    got = dear.ask(ann, CHAT, dear_chat(stream_options={"include_usage": True}))
    assert got.body == b"".join(events)
    row = dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 2000 * OUTPUT)
    # 2,000 tokens, of which 256 were held at first.
    assert row["hold_nanousd"] >= row["cost_nanousd"]
    assert row["shortfall_nanousd"] == 0


def test_a_pile_without_its_end_passes_as_far_as_it_is_covered(dear: Site) -> None:
    """What was read is charged by the estimate: it has been generated."""
    dear.stub.handle = Pile(stream(100)[:-3])
    ann = visitor(dear, "0.1")
    body = dear_chat()
    got = dear.ask(ann, CHAT, body)
    assert_cut(got, "insufficient_credit")
    cost = -(-len(body) // 3) * INPUT + -(-100 * 100 // 3) * OUTPUT
    row = assert_owed(dear, ann, cost=cost)
    assert (row["basis"], row["reason"]) == ("estimate", "the credit ended before the answer")
    assert_covered(got, row)
    assert seen(got) >= 10


def test_at_its_end_an_answer_is_held_by_what_it_is_billed(dear: Site) -> None:
    """As text it could be 1,500 tokens, more than there is credit for; it is 600, which fit."""
    dear.stub.handle = Pile(stream(30))
    ann = visitor(dear, "0.1")
    got = dear.ask(ann, CHAT, dear_chat())
    assert got.body.endswith(b"data: [DONE]\n\n")
    assert seen(got) == 30
    row = dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 600 * OUTPUT)
    assert row["hold_nanousd"] >= row["cost_nanousd"]


def test_at_its_end_an_answer_without_usage_is_held_by_the_estimate(dear: Site) -> None:
    """As text it could be 1,250 tokens, more than there is credit for; three bytes each fit."""
    dear.stub.handle = Pile(stream(25, include_usage=False))
    ann = visitor(dear, "0.1")
    body = dear_chat()
    got = dear.ask(ann, CHAT, body)
    assert got.body.endswith(b"data: [DONE]\n\n")
    cost = -(-len(body) // 3) * INPUT + -(-25 * 100 // 3) * OUTPUT
    dear.assert_row(ann, state="settled", basis="estimate", cost=cost)


def test_more_tokens_than_the_text_can_be_cut_nothing(dear: Site) -> None:
    """The provider bills them all the same; what is beyond the credit is the operator's."""
    dear.stub.handle = Pile(stream(10, tokens=5000))
    ann = visitor(dear, "0.1")
    got = dear.ask(ann, CHAT, dear_chat())
    assert got.body.endswith(b"data: [DONE]\n\n")
    assert_owed(dear, ann, cost=10 * INPUT + 5000 * OUTPUT)


def test_messages_that_come_at_once_pass_as_far_as_they_are_covered(dear: Site) -> None:
    dear.stub.handle = Pile(anthropic_stream([WORDS] * 100, anthropic_usage(10, 2000)))
    ann = visitor(dear, "0.1")
    got = dear.ask(ann, MESSAGES, message(model="dear", max_tokens=128_000, stream=True))
    assert got.last_event()[1]["error"]["code"] == "insufficient_credit"
    assert b"message_stop" not in got.body
    row = assert_owed(dear, ann, cost=10 * INPUT + 2000 * OUTPUT)
    assert_covered(got, row)
    assert seen(got) >= 5


def test_all_that_an_answer_is_billed_for_must_be_covered_whichever_leg_it_is(dear: Site) -> None:
    """Of 600 tokens in two goes there is credit for all, of 1,500 for less than 1,000."""
    for tokens, is_covered in ((500, True), (1400, False)):
        legs = [{"type": "message", "input_tokens": 5, "output_tokens": n} for n in (100, tokens)]
        usage = anthropic_usage(10, 100 + tokens, iterations=legs)
        dear.stub.handle = Pile(anthropic_stream([WORDS] * 30, usage))
        ann = visitor(dear, "0.1")
        got = dear.ask(ann, MESSAGES, message(model="dear", max_tokens=128_000, stream=True))
        assert (b"message_stop" in got.body) == is_covered
        row = dear.ended(ann)
        assert row["cost_nanousd"] == 10 * INPUT + (100 + tokens) * OUTPUT
        if not is_covered:
            assert got.last_event()[1]["error"]["code"] == "insufficient_credit"
            assert_covered(got, row)


def test_the_last_event_without_a_blank_line_must_be_covered_too(dear: Site) -> None:
    """It is held back until the stream ends, and is read only then."""
    choice = {"index": 0, "delta": {"content": WORDS * 25}, "finish_reason": "stop"}
    last = data_event({"choices": [choice]}).removesuffix(b"\n\n")
    dear.stub.handle = Pile([*stream(2)[:-3], last])
    ann = visitor(dear, "0.1")
    body = dear_chat()
    got = dear.ask(ann, CHAT, body)
    assert_cut(got, "insufficient_credit")
    assert seen(got) == 2
    cost = -(-len(body) // 3) * INPUT + -(-27 * 100 // 3) * OUTPUT
    row = dear.assert_row(ann, state="settled", basis="estimate", cost=cost)
    assert row["reason"] == "the credit ended before the answer"


def test_a_budget_counts_as_credit_does(dear: Site) -> None:
    dear.stub.handle = Pile(stream(100))
    ann = visitor(dear, "5")
    limit_key(dear.books, ann.name, daily_budget_nanousd=CREDIT)
    got = dear.ask(ann, CHAT, dear_chat())
    assert_cut(got, "budget_exceeded")
    row = dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 2000 * OUTPUT)
    assert row["reason"] == "the budget of the API key ended before the answer"
    assert seen(got) * 50 * OUTPUT <= CREDIT


def test_what_cannot_be_held_for_the_ledgers_sake_does_not_pass(dear: Site) -> None:
    dear.stub.handle = pile = Pile(stream(100), waits=True)
    ann = visitor(dear, "5")
    asked = len(dear.stub.requests)
    with dear.send(ann, CHAT, dear_chat()) as client:
        dear.stub.wait_for_requests(asked + 1)
        with dear.books.write():
            pile.may_send.set()
            got = dear.take(client)
    assert_cut(got, "ledger_busy")
    assert seen(got) * 50 <= STEP
    # It is settled when the ledger can be written again, by what the provider said.
    row = dear.assert_row(ann, state="settled", basis="usage", cost=10 * INPUT + 2000 * OUTPUT)
    assert row["reason"] == "the ledger could not be written while the answer ran"


def test_credit_that_others_hold_meanwhile_covers_nothing_of_a_pile(dear: Site) -> None:
    """As it was found: a maximum is written in that fits, and then others take the credit."""
    dear.stub.handle = first = Pile(stream(100), waits=True)
    ann = visitor(dear, "1")
    asked = len(dear.stub.requests)
    with dear.send(ann, CHAT, dear_chat(max_tokens=None)) as client:
        dear.stub.wait_for_requests(asked + 1)
        dear.stub.handle = second = Pile([], waits=True)
        with dear.send(ann, CHAT, dear_chat(stream=False, max_tokens=8500)):
            dear.stub.wait_for_requests(asked + 2)
            first.may_send.set()
            got = dear.take(client)
            row = dear.ended(ann)
            second.may_send.set()
    assert dear.stub.requests[asked].json()["max_completion_tokens"] > 9000
    assert_cut(got, "insufficient_credit")
    assert_covered(got, row)
    assert row["cost_nanousd"] == 10 * INPUT + 2000 * OUTPUT
    assert row["shortfall_nanousd"] == row["cost_nanousd"] - row["charged_nanousd"] > 0
    # What is held for the other request is left for it.
    assert row["charged_nanousd"] <= 10**9 - 8500 * OUTPUT


def test_the_largest_pile_owes_no_more_than_the_text_of_one_chunk(dear: Site) -> None:
    """A chunk is what may wait, and what one reading of the socket adds to it."""
    chunk_bytes_max = WAITING_BYTES_MAX + 256 * 1024
    events = stream(128_000 // 20)
    dear.stub.handle = Pile(events)
    ann = visitor(dear, "0.1")
    got = dear.ask(ann, CHAT, dear_chat())
    assert_cut(got, "insufficient_credit")
    row = dear.ended(ann)
    assert_covered(got, row)
    assert row["charged_nanousd"] <= CREDIT
    assert dear.books.wallet(ann.name) == (CREDIT - row["charged_nanousd"], 0)
    # Each event has 100 bytes of text; what is charged for them is a third of a token a byte.
    texts = chunk_bytes_max // len(events[1]) * len(WORDS)
    assert row["shortfall_nanousd"] <= -(-texts // 3) * OUTPUT


def test_strictly_all_is_held_before_anything_comes(strict_site: Site) -> None:
    """However it comes, no honest answer costs more."""
    events = stream(50)
    strict_site.stub.handle = Pile(events)
    ann = strict_site.visitor()
    fields = {"stream": True, "stream_options": {"include_usage": True}}
    got = strict_site.ask(ann, CHAT, chat(max_tokens=1000, **fields))
    assert got.body == b"".join(events)
    row = strict_site.assert_row(
        ann, state="settled", basis="usage", cost=10 * 2500 + 1000 * 10_000
    )
    assert row["hold_nanousd"] >= row["cost_nanousd"]
    assert row["shortfall_nanousd"] == 0
