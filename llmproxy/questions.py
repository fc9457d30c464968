"""Owns the questions that the server asks providers by itself: about what, and how often.

A question carries the key and nothing of any client's request, so that no client can change its
answer. Must not know what follows from an answer.
"""

import asyncio
import logging
from collections.abc import Awaitable, Callable

from llmproxy.key_pool import Provider
from llmproxy.probe import Probe, unasked

ASK_AGAIN_MS = 30_000
"""The same is not asked about more often, whatever requests fail with it."""

_log = logging.getLogger("llmproxy.relay")

Ask = Callable[[Provider, str], Awaitable[Probe]]
"""Asks a provider, with the secret of one of its keys, whether it answers."""


class Questions:
    """What is asked, and what has been asked a moment ago."""

    def __init__(self, ask: Ask) -> None:
        """Take how to ask."""
        self._ask = ask
        self._asked_ms: dict[object, int] = {}
        """When we have last asked about a key, by its id, or a provider, by its name."""
        self._running: set[asyncio.Task[None]] = set()

    def put(
        self,
        about: object,
        provider: Provider,
        secret: str,
        judge: Callable[[Probe], None],
        now_ms: int,
        *,
        is_urgent: bool = False,
    ) -> bool:
        """Ask a provider whether it answers to a key, and let that be judged; say if it is asked.

        Not when the same was asked a moment ago, unless it is urgent.
        """
        recent = {what: ms for what, ms in self._asked_ms.items() if now_ms - ms < ASK_AGAIN_MS}
        self._asked_ms = recent
        if about in recent and not is_urgent:
            return False
        recent[about] = now_ms

        async def ask() -> None:
            try:
                found = await self._ask(provider, secret)
            except Exception:  # noqa: BLE001 - our own mistake: it must not count against anybody
                _log.exception("a question about %s went wrong", provider.name)
                found = unasked("an internal error")
            if found.result == "unknown":
                _log.warning("%s could not be asked: %s", provider.name, found.message)
            judge(found)

        task = asyncio.get_running_loop().create_task(ask())
        self._running.add(task)
        task.add_done_callback(self._running.discard)
        return True

    def forget(self, about: object) -> None:
        """Let it be asked about again at any time."""
        self._asked_ms.pop(about, None)

    def close(self) -> None:
        """Ask no more."""
        for task in self._running:
            task.cancel()
