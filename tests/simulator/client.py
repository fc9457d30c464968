"""The clients' side: what stands in the place of `llmproxy.server.cycle.Cycle`."""

import asyncio
from collections.abc import Callable
from typing import Any

from llmproxy.headers import Headers
from llmproxy.server.cycle import DisconnectedError
from tests.simulator.visit import Visit

BODY_TIMEOUT_S = 6.0
"""As `ProxyServer` has it: a body that does not come ends the connection."""
BUFFER_BYTES = 600
"""What a connection takes before its writer must wait; small, since the answers are."""


class SimulatedConnection:
    """One request's connection; see `llmproxy.server.proxy.ClientConnection`."""

    def __init__(self, visit: Visit, on_write: Callable[[Visit, bool], None]) -> None:
        """Take the visit; `on_write(visit, is_last)` looks at the books before bytes leave."""
        self._visit = visit
        self._client = visit.ask.client
        self._on_write = on_write
        self._loop = asyncio.get_running_loop()
        self._disconnected = asyncio.Event()
        self._writable = asyncio.Event()
        self._writable.set()
        self._unread = 0
        self._pieces = self._cut_body()
        self._complete = False

    def open(self) -> None:
        """Begin: set the timers of what the client will do by itself."""
        if self._client.leaves_after_s is not None:
            self._loop.call_later(self._client.leaves_after_s, self._leave)
        if len(self._pieces) > 1 or self._client.leaves_in_body:
            self._loop.call_later(BODY_TIMEOUT_S, self._time_out_body)

    # --- what the proxy calls ----------------------------------------------------------------

    def is_gone(self) -> bool:
        """See `ClientConnection`."""
        return self._visit.is_gone

    def abort(self) -> None:
        """See `ClientConnection`."""
        self._close("aborted by the proxy")

    @property
    def more_body(self) -> bool:
        """See `ClientConnection`."""
        return bool(self._pieces)

    async def read(self) -> bytes:
        """Return the next part of the body, or raise when the client has left."""
        if self._pieces and not self._disconnected.is_set():
            gap_s = self._client.body_gap_s
            if gap_s:
                await self._or_gone(asyncio.sleep(gap_s))
            if not self._disconnected.is_set():
                piece = self._pieces.pop(0)
                if not self._pieces and self._client.leaves_in_body:
                    self._leave()
                else:
                    return piece
        await self._disconnected.wait()
        raise DisconnectedError

    def start(self, status: int, headers: Headers) -> None:
        """Take the head of the answer."""
        visit = self._visit
        if visit.is_gone:
            return
        assert not visit.status, "two answers to one request"
        visit.status = status
        visit.headers = dict(headers)
        visit.note(f"client gets {visit.status}")

    @property
    def is_full(self) -> bool:
        """See `ClientConnection`."""
        return not self._visit.is_gone and not self._writable.is_set()

    async def drained(self) -> None:
        """See `ClientConnection`."""
        await self._writable.wait()

    def write(self, body: bytes, *, more: bool) -> None:
        """Take a piece of the answer."""
        visit = self._visit
        if visit.is_gone:
            return  # the cycle does nothing then, or its transport does
        assert visit.status, "a body without a head"
        assert not self._complete, "more after the end"
        visit.body += body
        self._on_write(visit, not more)
        if not more:
            self._complete = visit.ended_cleanly = True
            visit.note(f"client has {len(visit.body)} bytes and a clean end")
        self._fill(len(body))
        limit = self._client.leaves_after_bytes
        if limit is not None and len(visit.body) >= limit:
            self._leave()

    # --- what the client does ----------------------------------------------------------------

    def _cut_body(self) -> list[bytes]:
        body, count = self._visit.ask.body, self._client.body_pieces
        size = -(-len(body) // count)
        return [body[at : at + size] for at in range(0, len(body), size)]

    def _fill(self, size: int) -> None:
        self._unread += size
        if self._client.read_s and self._unread > BUFFER_BYTES:
            self._writable.clear()
            if self._client.read_s < 99:
                self._loop.call_later(self._client.read_s, self._drain)

    def _drain(self) -> None:
        self._unread = 0
        self._writable.set()

    def _leave(self) -> None:
        if not self._complete:
            self._visit.left = True
        self._close("the client leaves")

    def _time_out_body(self) -> None:
        if self._pieces:
            self._close("the body did not come")

    def _close(self, why: str) -> None:
        if self._visit.is_gone or self._complete:
            return
        self._visit.is_gone = True
        self._visit.note(why)
        self._loop.call_soon(self._lost)

    def _lost(self) -> None:
        self._disconnected.set()
        self._writable.set()

    async def _or_gone(self, waiting: Any) -> None:  # noqa: ANN401 - any awaitable
        """Wait for something, or until the connection is lost."""
        task = self._loop.create_task(waiting)
        gone = self._loop.create_task(self._disconnected.wait())
        try:
            await asyncio.wait({task, gone}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            task.cancel()
            gone.cancel()
