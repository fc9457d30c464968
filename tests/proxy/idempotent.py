"""What tests of idempotency keys share: a provider that waits, and its answer."""

import asyncio
import threading

from tests.proxy.helpers import Site, Visitor
from tests.support.answers import openai_chat, openai_chat_stream, openai_usage
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until

COST_NANOUSD = 10 * 2500 + 5 * 10_000
ANSWER = openai_chat(usage=openai_usage(10, 5))


def key(value: str = "order-17") -> dict[str, str]:
    return {"idempotency-key": value}


def refusals(site: Site, who: Visitor) -> list[str]:
    """Why requests of the visitor were refused, once that is written."""
    wait_until(lambda: any(row["state"] == "refused" for row in site.books.rows(who.name)))
    return [row["reason"] for row in site.books.rows(who.name) if row["state"] == "refused"]


class Gate:
    """A provider that begins a stream at once and answers when it is let."""

    def __init__(self) -> None:
        self.go = threading.Event()

    async def plain(self, request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(self.go.wait, 30)
        await out.json(200, ANSWER)

    async def failing(self, request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(self.go.wait, 30)
        await out.json(500, b'{"error":{"message":"no"}}')

    async def stream(self, request: SeenRequest, out: Out) -> None:
        first, *rest = openai_chat_stream(usage=openai_usage(10, 5))
        await out.head(200, [("content-type", "text/event-stream")])
        await out.chunk(first)
        await asyncio.to_thread(self.go.wait, 30)
        for part in rest:
            await out.chunk(part)
        await out.end()
