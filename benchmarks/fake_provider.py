"""A provider that costs as little CPU as it can: `python -m benchmarks.fake_provider`.

It answers every request with the same chat completion, or with the same stream of 20 events when
the request says `"stream":true`, each event in a write of its own. It prints its port.
"""

# mypy: disable-error-code="explicit-override"
# asyncio calls the methods of a Protocol; typing.override is younger than Python 3.11.

import asyncio
import json
from collections.abc import Iterator
from typing import cast

import httptools
import uvloop

MODEL = "gpt-4o-mini"
STREAM_EVENTS = 20
_USAGE = {"prompt_tokens": 30, "completion_tokens": 18, "total_tokens": 48}


def _frame(kind: str) -> dict[str, object]:
    return {"id": "chatcmpl-bench", "object": kind, "created": 1_795_000_000, "model": MODEL}


def _plain_answer() -> bytes:
    message = {"role": "assistant", "content": "A short answer of some eighteen tokens. " * 2}
    choices = [{"index": 0, "message": message, "logprobs": None, "finish_reason": "stop"}]
    body = json.dumps({**_frame("chat.completion"), "choices": choices, "usage": _USAGE}).encode()
    head = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: %d\r\n\r\n"
    return head % len(body) + body


def _stream_answer(*, with_usage: bool) -> list[bytes]:
    """The writes of a stream: the head, one per event, the end."""

    def event(choices: list[object], usage: object = None) -> bytes:
        value = {**_frame("chat.completion.chunk"), "choices": choices}
        if with_usage:
            value["usage"] = usage
        data = b"data: %b\n\n" % json.dumps(value).encode()
        return b"%x\r\n%b\r\n" % (len(data), data)

    def choice(delta: dict[str, str], reason: str | None = None) -> list[object]:
        return [{"index": 0, "delta": delta, "logprobs": None, "finish_reason": reason}]

    words = [event(choice({"content": " word"})) for _ in range(STREAM_EVENTS - 2)]
    first, last = event(choice({"role": "assistant", "content": ""})), event(choice({}, "stop"))
    usage = [event([], _USAGE)] if with_usage else []
    head = b"HTTP/1.1 200 OK\r\ncontent-type: text/event-stream\r\n"
    head += b"transfer-encoding: chunked\r\n\r\n"
    return [head, first, *words, last, *usage, b"e\r\ndata: [DONE]\n\n\r\n0\r\n\r\n"]


class _Connection(asyncio.Protocol):
    def __init__(self, plain: bytes, stream: list[bytes], stream_usage: list[bytes]) -> None:
        self._plain, self._stream, self._stream_usage = plain, stream, stream_usage
        self._parser = httptools.HttpRequestParser(self)
        self._loop = asyncio.get_running_loop()
        self._body = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast("asyncio.Transport", transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed_data(data)

    def on_message_begin(self) -> None:
        self._body = b""

    def on_body(self, body: bytes) -> None:
        self._body += body

    def on_message_complete(self) -> None:
        if b'"stream":true' not in self._body.replace(b" ", b""):
            self._transport.write(self._plain)
            return
        asked = b'"include_usage"' in self._body
        self._write_next(iter(self._stream_usage if asked else self._stream))

    def _write_next(self, parts: Iterator[bytes]) -> None:
        # One write per turn of the loop: uvloop would join those of one turn.
        part = next(parts, None)
        if part is not None and not self._transport.is_closing():
            self._transport.write(part)
            self._loop.call_soon(self._write_next, parts)


async def _serve() -> None:
    answers = _plain_answer(), _stream_answer(with_usage=False), _stream_answer(with_usage=True)
    loop = asyncio.get_running_loop()
    server = await loop.create_server(lambda: _Connection(*answers), "127.0.0.1", 0)
    print(server.sockets[0].getsockname()[1], flush=True)
    await server.serve_forever()


if __name__ == "__main__":
    uvloop.run(_serve())
