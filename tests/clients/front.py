"""A door in front of a proxy that counts the requests of each API key on their way through.

So the attempts of any client can be counted, in any language, without a hook in it.
"""

import asyncio
import re
import threading
from collections import Counter
from typing import Self

_HEAD = re.compile(rb"(?:GET|POST) /\S+ HTTP/1\.1\r\n(?:[^\r\n]+\r\n)+")
_KEY = re.compile(rb"\r\n(?:authorization: Bearer|x-(?:goog-)?api-key:) *(\S+)\r\n", re.IGNORECASE)
CHUNK_BYTES = 64 * 1024


class Front:
    """Forwards 127.0.0.1:`port` to another port; `attempts` counts requests by API key."""

    def __init__(self, target_port: int) -> None:
        self.attempts: Counter[str] = Counter()
        self._target_port = target_port
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)

    def __enter__(self) -> Self:
        self._thread.start()
        started = asyncio.run_coroutine_threadsafe(self._start(), self._loop)
        self.port = started.result(5)
        return self

    def __exit__(self, *exc_info: object) -> None:
        asyncio.run_coroutine_threadsafe(self._stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def _start(self) -> int:
        self._tasks: set[asyncio.Task[None]] = set()
        self._server = await asyncio.start_server(self._forward, "127.0.0.1", 0)
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    async def _stop(self) -> None:
        self._server.close()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._server.wait_closed()

    async def _forward(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        there = await asyncio.open_connection("127.0.0.1", self._target_port)
        try:
            await asyncio.gather(
                self._pump(reader, there[1], counts=True), self._pump(there[0], writer)
            )
        finally:
            writer.close()
            there[1].close()

    async def _pump(
        self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, counts: bool = False
    ) -> None:
        try:
            while data := await reader.read(CHUNK_BYTES):
                if counts:
                    self._count(data)
                writer.write(data)
                await writer.drain()
        except OSError:
            pass  # one side is gone: so is the other
        finally:
            writer.close()

    def _count(self, data: bytes) -> None:
        for head in _HEAD.findall(data):
            key = _KEY.search(head)
            self.attempts[key[1].decode() if key else ""] += 1
