"""Owns where a request's body is read, so that no other request waits for it.

Short bodies on the event loop, longer ones in a thread, and those that take seconds one after the
other in a thread of their own: several at once would only make each other, and the loop, wait.
"""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from llmproxy.dialects.json_gate import LOOP_BYTES, is_light

T = TypeVar("T")


class BodyReader:
    """Runs functions over bodies where it is right for the body."""

    def __init__(self) -> None:
        """Make the thread for heavy bodies; it starts with the first of them."""
        self._heavy = ThreadPoolExecutor(max_workers=1, thread_name_prefix="heavy-body")

    async def run(self, body: bytes, function: Callable[[], T]) -> T:
        """Return `function()`, which reads all of `body`."""
        if len(body) <= LOOP_BYTES:
            return function()
        if is_light(body):
            return await asyncio.to_thread(function)
        return await asyncio.get_running_loop().run_in_executor(self._heavy, function)

    def close(self) -> None:
        """Let go of the thread; what is still being read is not waited for."""
        self._heavy.shutdown(wait=False, cancel_futures=True)
