"""Much of a growing stream comes at once, as after a moment in which the proxy did not get to run.

The provider writes all of it at once, which stands for any time in which nothing was read.
"""

import threading
from typing import Any

import pytest

from tests.proxy.conftest import INPUT, OUTPUT
from tests.proxy.helpers import CHAT, MESSAGES, Got, Site, Visitor, chat, message
from tests.proxy.test_growing import dear_chat, visitor
from tests.support.answers import (
    anthropic_stream,
    anthropic_usage,
    data_event,
    openai_chat_stream,
    openai_usage,
    plain,
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
        import asyncio

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
    # 0.1 USD pays for the input's bound and 936 tokens, which 18 events of 100 bytes can be.
    assert 1 <= seen(got) <= 18
    # Were any piece of more than 4 KiB withheld, it would be fewer: events have 270 bytes.
    assert seen(got) >= 2
