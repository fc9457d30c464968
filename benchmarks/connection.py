"""One keep-alive connection of the load generator, and what it saw of each answer."""

# mypy: disable-error-code="explicit-override"
# asyncio calls the methods of a Protocol; typing.override is younger than Python 3.11.

import asyncio
import time
from collections.abc import Callable
from time import perf_counter
from typing import NamedTuple, cast

import httptools

from benchmarks.answers import STAMP_DIGITS, STAMP_MARK, STREAM_END

_STAMP_BYTES = len(STAMP_MARK) + STAMP_DIGITS


class Seen(NamedTuple):
    """A complete answer; times are of `perf_counter`, in seconds."""

    status: int
    due_s: float
    first_s: float
    done_s: float
    body: bytes
    """All of it if the status is not 200, else its end."""


class Stamps:
    """Finds the times that were written into a stream's events, however it is cut into pieces."""

    def __init__(self) -> None:
        """Start at the beginning of a stream."""
        self._rest = b""

    def delays_s(self, data: bytes) -> list[float]:
        """Return how long ago the events that end in this piece were sent, in seconds."""
        now_ns = time.monotonic_ns()
        data = self._rest + data
        found: list[float] = []
        at = data.find(STAMP_MARK)
        while 0 <= at <= len(data) - _STAMP_BYTES:
            digits = data[at + len(STAMP_MARK) : at + _STAMP_BYTES]
            found.append((now_ns - int(digits)) / 1e9)
            data = data[at + _STAMP_BYTES :]
            at = data.find(STAMP_MARK)
        self._rest = data[at:] if at >= 0 else data[-len(STAMP_MARK) :]
        return found


class Connection(asyncio.Protocol):
    """Sends one request at a time and tells of its answer.

    `on_seen` is called with each complete answer, `on_lost` once, when the connection has ended.
    """

    def __init__(
        self,
        request: bytes,
        on_seen: Callable[["Connection", Seen], None],
        on_lost: Callable[["Connection"], None],
        delays_s: list[float] | None,
    ) -> None:
        """Take what is sent, and where the delays of stamped events go."""
        self._request, self._on_seen, self._on_lost = request, on_seen, on_lost
        self._delays_s = delays_s
        self.is_open = False
        self.is_busy = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self.is_open = True

    def send(self, due_s: float) -> None:
        """Send the request; its times count from `due_s`."""
        self.is_busy = True
        self._due_s, self._first_s, self._body = due_s, 0.0, b""
        self._stamps = Stamps()
        self._transport.write(self._request)

    def close(self) -> None:
        """Hang up."""
        self.is_open = False
        self._transport.close()

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._first_s = self._first_s or perf_counter()
        if self._parser.get_status_code() != 200:
            self._body += body
            return
        self._body = (self._body + body)[-len(STREAM_END) :]
        if self._delays_s is not None:
            self._delays_s += self._stamps.delays_s(body)

    def on_message_complete(self) -> None:
        now_s = perf_counter()
        self.is_busy = False
        if not self._parser.should_keep_alive():
            self.close()
        status = self._parser.get_status_code()
        self._on_seen(self, Seen(status, self._due_s, self._first_s, now_s, self._body))

    def connection_lost(self, exc: Exception | None) -> None:
        self.is_open = False
        self._on_lost(self)
