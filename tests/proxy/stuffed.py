"""A provider that sends more than the sockets take to a client that does not read."""

import asyncio
import threading

from tests.support.stub_provider import Out, SeenRequest


class Stuffed:
    """Fills the sockets, sends one thing more when it may, and notes that it is hung up on."""

    def __init__(self, last: bytes) -> None:
        self._last = last
        self.may_go_on, self.hung_up = threading.Event(), threading.Event()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        # It passes when it has come to its end, all at once.
        await out.chunk(b": " + b"x" * 250_000)
        await out.chunk(b"\n\n")
        await asyncio.to_thread(self.may_go_on.wait, 20)
        await out.chunk(self._last)
        await out.client_gone.wait()
        self.hung_up.set()
