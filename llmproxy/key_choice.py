"""Owns which keys of a provider a request may try, and why there are none.

Must not talk to providers: what their answers do to keys is in live_keys.py and health.py.
"""

from collections.abc import Awaitable, Callable

from llmproxy.clock import Clock
from llmproxy.errors import (
    all_keys_cooling,
    no_active_provider_keys,
    previous_response_unavailable,
    provider_paused,
)
from llmproxy.health import Health
from llmproxy.key_pool import Provider
from llmproxy.live_keys import LiveKey, Pool


class KeyChoice:
    """Chooses by what the operator has set, what is failing, and what rests."""

    def __init__(
        self, pool: Pool, health: Health, clock: Clock, refresh: Callable[[], Awaitable[None]]
    ) -> None:
        """Take what is known of providers and keys; `refresh` looks at the database again."""
        self._pool = pool
        self._health = health
        self._clock = clock
        self._refresh = refresh

    async def choose(
        self, name: str, scope: str, user_id: int, only_id: int | None
    ) -> tuple[Provider, list[LiveKey]]:
        """Return the provider and its keys to try, best first, or the only one that will do.

        Raises:
            ApiError: 429 when it is paused or all keys are cooling down, 503 without any key, 400
                without the only one.
        """
        now_ms = self._clock.now_ms()
        found = self.usable(name, scope, user_id, now_ms, only_id)
        if found is None:
            await self._refresh()
            found = self.usable(name, scope, user_id, now_ms, only_id)
        if found is not None:
            return found
        provider = self._pool.providers.get(name)
        if provider is not None and provider.is_paused_by_operator:
            raise provider_paused(name, provider.paused_reason or "no reason given")
        failing = self._health.refusal(name, scope)
        if failing is not None:
            raise failing
        wait_ms = self._pool.rest_left_ms(name, scope, now_ms, only_id=only_id)
        if wait_ms is not None:
            raise all_keys_cooling(name, wait_ms)
        if only_id is not None:
            raise previous_response_unavailable()
        raise no_active_provider_keys(name)

    def usable(
        self, name: str, scope: str, user_id: int, now_ms: int, only_id: int | None
    ) -> tuple[Provider, list[LiveKey]] | None:
        """Return the same by what is known here; None when there are no keys to try."""
        provider = self._pool.providers.get(name)
        if provider is None or provider.is_paused_by_operator:
            return None
        if self._health.refusal(name, scope) is not None:
            return None
        keys = self._pool.usable(name, scope, user_id, now_ms, only_id=only_id)
        return (provider, keys) if keys else None
