"""A provider that costs as little CPU as it can: `python -m benchmarks.provider [CERTIFICATE]`.

It prints its port, and with a certificate a second one, for TLS. It answers chat completions and
embeddings, and counts each answer that it gives: `GET /control/counts` tells how many of each
variant. The member `user` of a request asks for something else than a short answer at once:
`answer_bytes=102400`, or `gap_ms=20` for a stream whose events come so far apart, each stamped with
the time at which it was sent.
"""

# mypy: disable-error-code="explicit-override"
# asyncio calls the methods of a Protocol; typing.override is younger than Python 3.11.

import asyncio
import json
import ssl
import sys
import time
from collections.abc import Iterator
from functools import lru_cache
from itertools import cycle
from typing import NamedTuple, cast

import httptools
import uvloop

from benchmarks.answers import (
    USAGES,
    chat_answers,
    embedding_answers,
    stamped,
    stream_answers,
)

SHORT_BYTES = 80
_USER = b'"user": "'
_ROOM = 64


class Wish(NamedTuple):
    """What a request's `user` asks for."""

    answer_bytes: int = SHORT_BYTES
    gap_s: float = 0.0


@lru_cache
def read_wish(user: bytes) -> Wish:
    """Return what `user` asks for."""
    name, _, value = user.partition(b"=")
    if name == b"answer_bytes":
        return Wish(answer_bytes=int(value))
    return Wish(gap_s=int(value) / 1000) if name == b"gap_ms" else Wish()


def _wish(body: bytes) -> Wish:
    # It stands near the front: the rest of a prompt of a megabyte is not looked through.
    _, found, rest = body[:_ROOM].partition(_USER)
    return read_wish(rest.partition(b'"')[0]) if found else Wish()


class Counts:
    """How many of each variant have been given, by kind."""

    def __init__(self) -> None:
        """Start from nothing."""
        self._given = {kind: [0] * len(usages) for kind, usages in USAGES.items()}
        self._turns = {kind: cycle(range(len(usages))) for kind, usages in USAGES.items()}

    def next_variant(self, kind: str) -> int:
        """Return which variant comes next, and count it."""
        variant = next(self._turns[kind])
        self._given[kind][variant] += 1
        return variant

    def answer(self) -> bytes:
        """Return the answer of the control path."""
        body = json.dumps(self._given).encode()
        return b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(body) + body


class _Connection(asyncio.Protocol):
    def __init__(self, counts: Counts) -> None:
        self._counts = counts
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._url = b""
        self._parts: list[bytes] = []

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._url = b""
        self._parts = []

    def on_url(self, url: bytes) -> None:
        self._url += url

    def on_body(self, body: bytes) -> None:
        self._parts.append(body)

    def on_message_complete(self) -> None:
        if self._url.startswith(b"/control/"):
            self._transport.write(self._counts.answer())
        elif self._url.endswith(b"/embeddings"):
            variant = self._counts.next_variant("embeddings")
            self._transport.write(embedding_answers()[variant])
        else:
            self._answer_chat(b"".join(self._parts))

    def _answer_chat(self, body: bytes) -> None:
        wish, variant = _wish(body), self._counts.next_variant("chat")
        # JSON has this with a space or without one, by who wrote it; at either end of the body.
        ends = (body[:1000] + body[-1000:]).replace(b" ", b"")
        if b'"stream":true' not in ends:
            self._transport.write(chat_answers(wish.answer_bytes)[variant])
            return
        answers = stream_answers(
            with_usage=b'"include_usage":true' in ends, is_stamped=wish.gap_s > 0
        )
        parts = iter(answers[variant])
        if wish.gap_s:
            self._transport.write(next(parts))
            self._write_at(self._loop.time(), wish.gap_s, parts)
        else:
            self._write_next(parts)

    def _write_next(self, parts: Iterator[bytes]) -> None:
        # One write per turn of the loop: uvloop would join those of one turn.
        part = next(parts, None)
        if part is not None and not self._transport.is_closing():
            self._transport.write(part)
            self._loop.call_soon(self._write_next, parts)

    def _write_at(self, due_s: float, gap_s: float, parts: Iterator[bytes]) -> None:
        """Write an event now, and the next when it is due: lateness does not add up."""
        part = next(parts, None)
        if part is not None and not self._transport.is_closing():
            self._transport.write(stamped(part, time.monotonic_ns()))
            self._loop.call_at(due_s + gap_s, self._write_at, due_s + gap_s, gap_s, parts)


async def _serve(certificate: str | None) -> None:
    counts = Counts()
    servers = [await _listen(counts, None)]
    if certificate is not None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(certificate)
        servers.append(await _listen(counts, context))
    print(*(server.sockets[0].getsockname()[1] for server in servers), flush=True)
    await asyncio.gather(*(server.serve_forever() for server in servers))


async def _listen(counts: Counts, context: ssl.SSLContext | None) -> asyncio.Server:
    loop = asyncio.get_running_loop()
    return await loop.create_server(
        lambda: _Connection(counts), "127.0.0.1", 0, backlog=2048, ssl=context
    )


if __name__ == "__main__":
    uvloop.run(_serve(sys.argv[1] if len(sys.argv) > 1 else None))
