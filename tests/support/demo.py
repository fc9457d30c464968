"""The demo provider in a thread of its own, so that tests may block."""

import asyncio
import threading
from typing import Self

from llmproxy.demo.provider import DemoProvider


class RunningDemo:
    """A running demo provider; a context manager, or stopped by `stop`."""

    def __init__(self, chunk_gap_s: float = 0.0) -> None:
        self.provider = DemoProvider(chunk_gap_s=chunk_gap_s)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self.provider.start(), self._loop).result(5)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.stop()

    def stop(self) -> None:
        asyncio.run_coroutine_threadsafe(self.provider.stop(), self._loop).result(5)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()
