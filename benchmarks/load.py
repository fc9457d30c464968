"""The load generator, a process of its own: `python -m benchmarks.load`.

Each line of its input is an `Order` as JSON, and is answered by a line with a `Result`.
A closed loop has N connections, each of which sends its next request when the answer to its last
one is complete. An open loop starts requests by a clock, and counts their times from when they were
due: a server that is late is seen to be late, for all that it kept waiting.
"""

import asyncio
import json
import signal
import sys
import time
from collections import Counter, deque
from time import perf_counter
from typing import Any, NamedTuple

import uvloop

from benchmarks.answers import CHAT_MODEL, EMBEDDING_MODEL, STREAM_END
from benchmarks.connection import Connection, Seen
from benchmarks.figures import Quantiles, quantiles_us
from benchmarks.scenarios import Shape

HOST = "127.0.0.1"
PROMPT = "Explain in one short paragraph why a metered proxy should hold credit before it sends. "
GRACE_S = 15.0
PROGRESS_INTERVAL_S = 0.1
REQUEST_S_MAX = 0.1
FAILURES_MAX = 200
EXAMPLE_CHARS_MAX = 500


class Order(NamedTuple):
    """What to send where, for so many seconds or, if that is not 0, until so many were sent."""

    port: int
    path: str
    headers: dict[str, str]
    shape: Shape
    seconds: float
    requests: int = 0


class Result(NamedTuple):
    """What one load saw.

    `answers` have the status that was expected and are complete; everything else is a failure, by
    its reason. Times are from when a request was sent, or in an open loop was due; `delay` is that
    of stamped events since they were sent.
    """

    answers: int
    failures: dict[str, int]
    example: str
    seconds: float
    latency_us: Quantiles
    first_us: Quantiles
    delay_us: Quantiles
    load_cpu_s: float
    progress: list[tuple[float, int]]


def build_request(order: Order) -> bytes:
    """Return the request, byte for byte."""
    shape = order.shape
    prompt = (PROMPT * (shape.prompt_bytes // len(PROMPT) + 1))[: shape.prompt_bytes]
    value: dict[str, Any] = {"user": shape.user} if shape.user else {}
    if shape.kind == "embeddings":
        value |= {"model": EMBEDDING_MODEL, "input": prompt}
    else:
        value |= {"model": CHAT_MODEL, "max_tokens": 100}
        value |= {"stream": True} if shape.is_stream else {}
        value["messages"] = [{"role": "user", "content": prompt}]
    body = json.dumps(value).encode()
    fields = {
        "host": f"{HOST}:{order.port}",
        "content-type": "application/json",
        "content-length": str(len(body)),
        **order.headers,
    }
    lines = [f"POST {order.path} HTTP/1.1", *(f"{name}: {text}" for name, text in fields.items())]
    return "\r\n".join([*lines, "", ""]).encode() + body


class Run:
    """One load while it runs."""

    def __init__(self, order: Order) -> None:
        """Begin now."""
        self._order, self._shape = order, order.shape
        self._request = build_request(order)
        self._began_s, self._began_cpu_s = perf_counter(), time.process_time()
        self._ends_s = self._began_s + order.seconds
        self._started = 0
        self._latencies: list[float] = []
        self._firsts: list[float] = []
        self._delays: list[float] = []
        self._delays_wanted = self._delays if order.shape.user.startswith("gap_ms") else None
        self._failures: Counter[str] = Counter()
        self._example = ""
        self._idle: list[Connection] = []
        self._connected: set[Connection] = set()
        self._waiting: deque[float] = deque()
        self._progress: list[tuple[float, int]] = []
        self._connecting = 0
        self._busy = 0
        self._over = asyncio.Event()

    @property
    def _is_over(self) -> bool:
        """Whether no further request is to be started."""
        if self._failures.total() >= FAILURES_MAX:
            return True
        if self._order.requests:
            return self._started >= self._order.requests
        return perf_counter() >= self._ends_s

    async def finish(self) -> Result:
        """Run to the end, the last answers included; what takes 15 s longer has failed."""
        order = self._order
        limit_s = GRACE_S + (order.requests * REQUEST_S_MAX if order.requests else order.seconds)
        try:
            async with asyncio.timeout(limit_s), asyncio.TaskGroup() as self._tasks:
                noting = self._tasks.create_task(self._note_progress())
                await (self._open_loop() if self._shape.rate_per_s else self._closed_loop())
                await self._over.wait()
                noting.cancel()
        except TimeoutError:
            for _ in range(self._busy + len(self._waiting) + self._connecting):
                self._fail("not in time", f"an answer did not end within {limit_s:.0f} s")
        for connection in self._connected:
            connection.close()
        return Result(
            answers=len(self._latencies),
            failures=dict(self._failures),
            example=self._example,
            seconds=perf_counter() - self._began_s,
            latency_us=quantiles_us(self._latencies),
            first_us=quantiles_us(self._firsts),
            delay_us=quantiles_us(self._delays),
            load_cpu_s=time.process_time() - self._began_cpu_s,
            progress=self._progress,
        )

    async def _note_progress(self) -> None:
        while True:
            self._progress.append((perf_counter(), len(self._latencies)))
            await asyncio.sleep(PROGRESS_INTERVAL_S)

    # --- both loops ---

    def _open(self, after_s: float = 0.0) -> None:
        """Open a connection, which takes up work by itself."""
        self._connecting += 1
        self._tasks.create_task(self._connect(after_s))

    async def _connect(self, after_s: float) -> None:
        await asyncio.sleep(after_s)
        loop = asyncio.get_running_loop()
        connection = Connection(self._request, self._seen, self._lost, self._delays_wanted)
        try:
            await loop.create_connection(lambda: connection, HOST, self._order.port)
        except OSError as error:
            self._fail("cannot connect", str(error))
            self._waiting.clear()
        self._connecting -= 1
        if connection.is_open:
            self._connected.add(connection)
            self._go_on(connection)
        self._check_over()

    def _send(self, connection: Connection, due_s: float) -> None:
        self._busy += 1
        connection.send(due_s)

    def _seen(self, connection: Connection, seen: Seen) -> None:
        self._busy -= 1
        if seen.status != self._shape.status:
            self._fail(str(seen.status), seen.body.decode(errors="replace"))
        elif self._shape.is_stream and seen.status == 200 and seen.body != STREAM_END:
            self._fail("cut stream", f"a stream ends with {seen.body!r}")
        else:
            self._latencies.append(seen.done_s - seen.due_s)
            self._firsts.append(seen.first_s - seen.due_s)
        if connection.is_open:
            self._go_on(connection)

    def _lost(self, connection: Connection) -> None:
        if connection.is_busy:
            connection.is_busy = False
            self._busy -= 1
            self._fail("connection lost", "the connection was lost")
        self._connected.discard(connection)
        if connection in self._idle:
            self._idle.remove(connection)
        if not self._shape.rate_per_s and not self._is_over:
            self._open()
        self._check_over()

    def _go_on(self, connection: Connection) -> None:
        """Give a connection its next request, or let it rest."""
        if self._shape.rate_per_s:
            if self._waiting:
                self._send(connection, self._waiting.popleft())
            else:
                self._idle.append(connection)
        elif self._is_over:
            connection.close()
        else:
            self._started += 1
            self._send(connection, perf_counter())
        self._check_over()

    def _fail(self, reason: str, example: str) -> None:
        self._failures[reason] += 1
        self._example = self._example or f"{reason}: {example}"[:EXAMPLE_CHARS_MAX]

    def _check_over(self) -> None:
        if self._is_over and not (self._busy or self._waiting or self._connecting):
            self._over.set()

    # --- the closed loop ---

    async def _closed_loop(self) -> None:
        count = self._shape.connections
        for number in range(count):
            self._open(number * self._shape.ramp_s / count)

    # --- the open loop ---

    async def _open_loop(self) -> None:
        # A timer of the loop is a millisecond late; this one of the kernel some microseconds.
        interval_s = 1 / self._shape.rate_per_s
        self._due_s = perf_counter() + interval_s
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGALRM, self._start_due, interval_s)
        signal.setitimer(signal.ITIMER_REAL, interval_s, interval_s)
        while not self._is_over:
            await asyncio.sleep(0.05)
        signal.setitimer(signal.ITIMER_REAL, 0)
        self._check_over()

    def _start_due(self, interval_s: float) -> None:
        """Start every request that is due by now."""
        now_s = perf_counter()
        while self._due_s <= now_s and not self._is_over:
            self._start(self._due_s)
            self._due_s += interval_s

    def _start(self, due_s: float) -> None:
        self._started += 1
        if self._idle:
            self._send(self._idle.pop(), due_s)
            return
        self._waiting.append(due_s)
        if self._busy + self._connecting < self._shape.connections:
            self._open()


async def _run(order: Order) -> Result:
    return await Run(order).finish()


def main() -> None:
    """Carry out one order after the other, until there are no more."""
    for line in sys.stdin:
        values = json.loads(line)
        order = Order(**{**values, "shape": Shape(*values["shape"])})
        print(json.dumps(uvloop.run(_run(order))._asdict()), flush=True)


if __name__ == "__main__":
    main()
