"""A request for a stream that is answered in one piece is held in full before it is passed on."""

import asyncio
import json
import threading

import pytest

from tests.proxy.conftest import INPUT, OUTPUT
from tests.proxy.helpers import CHAT, Site, Visitor, chat
from tests.support.answers import openai_chat, openai_usage
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

WHY = "openai sent one piece where a stream was asked for, and it could not be held in full"
SENT_BYTES = 100


def dear_chat(**fields: object) -> bytes:
    return chat(**{"model": "dear", "max_tokens": 20_000, "stream": True, **fields})


class InOnePiece:
    """An answer of so many tokens; its end waits for `go`."""

    def __init__(self, tokens: int, filler: int = 0) -> None:
        text = "x" * (SENT_BYTES + filler)
        self.answer = openai_chat(text, usage=openai_usage(10, tokens))
        self.go = threading.Event()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        length = len(self.answer)
        await out.head(200, [("content-type", "application/json")], length=length)
        await out.chunk(self.answer[:SENT_BYTES])
        await asyncio.to_thread(self.go.wait, 20)
        await out.chunk(self.answer[SENT_BYTES:])


def visitor(site: Site, credit: str) -> Visitor:
    return Visitor(*site.books.user(credit))


def test_it_is_held_in_full_while_it_comes(dear: Site) -> None:
    dear.stub.handle = piece = InOnePiece(tokens=18_000)
    ann = visitor(dear, "3")
    with dear.send(ann, CHAT, dear_chat()) as client:
        wait_until(lambda: dear.books.wallet(ann.name)[1] >= 20_000 * OUTPUT)
        # What is held for it nobody can spend.
        assert dear.ask(ann, CHAT, dear_chat(stream=False)).status == 402
        piece.go.set()
        assert dear.take(client).body == piece.answer
    dear.books.settled_wallet(ann.name)
    row = next(row for row in dear.books.rows(ann.name) if row["state"] == "settled")
    assert row["cost_nanousd"] == 10 * INPUT + 18_000 * OUTPUT <= row["hold_nanousd"]
    assert (row["shortfall_nanousd"], row["reason"]) == (0, None)


@pytest.mark.parametrize("filler", [0, 9 * 1024 * 1024])
def test_where_the_credit_does_not_cover_it_all_of_it_is_charged_and_told(
    dear: Site, filler: int
) -> None:
    dear.stub.handle = piece = InOnePiece(18_000, filler)
    piece.go.set()
    ann = visitor(dear, "0.5")
    got = dear.ask(ann, CHAT, dear_chat())
    assert (got.status, got.body) == (200, piece.answer)
    row = dear.ended(ann)
    assert (row["state"], row["basis"], row["reason"]) == ("settled", "usage", WHY)
    assert row["cost_nanousd"] == 10 * INPUT + 18_000 * OUTPUT
    assert row["charged_nanousd"] == 500_000_000
    assert dear.books.wallet(ann.name) == (0, 0)


def test_a_short_one_that_the_credit_covers_costs_what_it_says(dear: Site) -> None:
    dear.stub.handle = piece = InOnePiece(100)
    piece.go.set()
    ann = visitor(dear, "0.5")
    assert json.loads(dear.ask(ann, CHAT, dear_chat()).body)["usage"]["completion_tokens"] == 100
    row = dear.ended(ann)
    assert row["cost_nanousd"] == row["charged_nanousd"] == 10 * INPUT + 100 * OUTPUT
