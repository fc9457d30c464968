"""A closed loop of requests over N connections: `python -m benchmarks.load --help`.

Each connection sends its next request when the answer to the last one is complete. It prints
one JSON object, see `Result`.
"""

# mypy: disable-error-code="explicit-override"
# asyncio calls the methods of a Protocol; typing.override is younger than Python 3.11.

import argparse
import asyncio
import json
from collections import Counter
from dataclasses import dataclass, field
from time import perf_counter
from typing import cast

import httptools
import uvloop

from benchmarks.fake_provider import MODEL

PROMPT = (
    "Explain in one short paragraph why a metered proxy should hold credit "
    "before it sends them upstream."
)
GRACE_S = 10.0
FAILURES_MAX = 200


@dataclass
class Result:
    """What one run saw.

    Attributes:
        answers: complete answers with status 200.
        failures: other answers by status, and connections lost, by reason.
        example: the first failure in full.
        seconds: from the first request to the last answer.
        p50_us: median time from sending a request to the end of its answer, in microseconds.
        p99_us: the 99th percentile of it.
        first_p50_us: median time to the first byte of the body, in microseconds.
    """

    answers: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    example: str = ""
    seconds: float = 0.0
    p50_us: int = 0
    p99_us: int = 0
    first_p50_us: int = 0


class _Run:
    """What the connections of one run share."""

    def __init__(self, request: bytes, seconds: float) -> None:
        self.request = request
        self.started = perf_counter()
        self.ends = self.started + seconds
        self.result = Result()
        self.latencies: list[float] = []
        self.first: list[float] = []

    @property
    def over(self) -> bool:
        return perf_counter() >= self.ends or self.result.failures.total() >= FAILURES_MAX

    def fail(self, reason: str, example: str) -> None:
        self.result.failures[reason] += 1
        self.result.example = self.result.example or example

    def summary(self) -> Result:
        self.result.seconds = perf_counter() - self.started
        self.result.answers = len(self.latencies)
        self.result.p50_us = _quantile_us(self.latencies, 0.5)
        self.result.p99_us = _quantile_us(self.latencies, 0.99)
        self.result.first_p50_us = _quantile_us(self.first, 0.5)
        return self.result


def _quantile_us(values: list[float], share: float) -> int:
    values.sort()
    return round(values[int(share * (len(values) - 1))] * 1e6) if values else 0


class _Connection(asyncio.Protocol):
    def __init__(self, run: _Run) -> None:
        self._run = run
        self.done = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)
        self._parser = httptools.HttpResponseParser(self)
        self._send()

    def _send(self) -> None:
        self._first = 0.0
        self._failure = b""
        self._sent = perf_counter()
        self._transport.write(self._run.request)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_body(self, body: bytes) -> None:
        self._first = self._first or perf_counter()
        if self._parser.get_status_code() != 200:
            self._failure += body

    def on_message_complete(self) -> None:
        status = self._parser.get_status_code()
        if status == 200:
            self._run.latencies.append(perf_counter() - self._sent)
            self._run.first.append(self._first - self._sent)
        else:
            self._run.fail(str(status), f"{status} {self._failure.decode(errors='replace')}")
        if self._run.over:
            self._finish()
        else:
            self._send()

    def connection_lost(self, exc: Exception | None) -> None:
        if not self.done.done():
            self._run.fail("connection lost", f"connection lost: {exc!r}")
            self._finish()

    def _finish(self) -> None:
        self.done.set_result(None)
        self._transport.close()


def build_request(host: str, path: str, key: str, *, stream: bool) -> bytes:
    """One request, byte for byte: a prompt of 100 bytes."""
    message = {"role": "user", "content": PROMPT}
    value: dict[str, object] = {"model": MODEL, "max_tokens": 100, "messages": [message]}
    body = json.dumps({**value, "stream": True} if stream else value).encode()
    head = f"POST {path} HTTP/1.1\r\nhost: {host}\r\nauthorization: Bearer {key}\r\n"
    head += f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    return head.encode() + body


async def _connection(run: _Run, host: str, port: int) -> None:
    loop = asyncio.get_running_loop()
    while not run.over:
        try:
            _, connection = await loop.create_connection(lambda: _Connection(run), host, port)
        except OSError as e:
            run.fail("cannot connect", str(e))
            return
        async with asyncio.timeout(run.ends - perf_counter() + GRACE_S):
            await connection.done


async def measure(
    port: int, path: str, key: str, *, connections: int, seconds: float, stream: bool
) -> Result:
    """Send requests for so many seconds, then wait for the last answers.

    Raises:
        TimeoutError: an answer did not end within 10 s after that.
    """
    run = _Run(build_request(f"127.0.0.1:{port}", path, key, stream=stream), seconds)
    async with asyncio.TaskGroup() as group:
        for _ in range(connections):
            group.create_task(_connection(run, "127.0.0.1", port))
    return run.summary()


def main() -> None:
    """Run one load and print its result as JSON. The key is read from standard input."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--path", default="/v1/chat/completions")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--seconds", type=float, default=5.0)
    parser.add_argument("--stream", action="store_true")
    options = parser.parse_args()
    key = input()
    load = measure(
        options.port,
        options.path,
        key,
        connections=options.connections,
        seconds=options.seconds,
        stream=options.stream,
    )
    print(json.dumps(vars(uvloop.run(load))))


if __name__ == "__main__":
    main()
