"""Owns providers and opened keys in the server's memory: which key a request uses.

What may take a key out of service, and what must not, is decided by `dialects/failures.py`
reading the provider's answer (reference wire.md E). Must not talk to providers or the database.
"""

import logging
from collections.abc import Callable
from typing import NamedTuple

from llmproxy.errors import VaultError
from llmproxy.key_pool import Provider, ProviderKey
from llmproxy.vault import Vault

KEY_STATES = ("active", "cooling", "out_of_quota", "dead", "disabled")
"""As users of the command line see them; `cooling` is an active one that rests for some model."""

OUT_OF_QUOTA_PARK_MS = 3_600_000
"""How long a key without quota is left alone before the next request tries it again."""
REST_MS_FIRST = 5_000
REST_MS_MAX = 60_000

_log = logging.getLogger("llmproxy.live_keys")


class _Rest(NamedTuple):
    until_ms: int
    for_ms: int

    def left_ms(self, now_ms: int) -> int:
        """Return how long it still lasts; 0 also when the clock has been set back since."""
        left_ms = self.until_ms - now_ms
        return left_ms if 0 < left_ms <= self.for_ms else 0


class LiveKey:
    """A provider key as the server uses it: its secret in memory, and what keeps it from use."""

    __slots__ = ("_rests", "id", "name", "secret", "state", "until_ms")

    def __init__(self, row: ProviderKey, secret: str) -> None:
        """Take the stored row and the opened secret, empty where no key is needed."""
        self.id = row.id
        self._rests: dict[str, _Rest] = {}
        """When it may be tried again, by what it was rate limited for; see `Order.scope`."""
        self.update(row, secret)

    def update(self, row: ProviderKey, secret: str) -> None:
        """Take the row as it is now: running requests go on with this very object."""
        self.name = row.name
        self.secret = secret
        self.state = row.state
        self.until_ms = row.state_until_ms

    def __repr__(self) -> str:  # type: ignore[explicit-override]
        """Name the key without its secret, for logs."""
        return f"LiveKey({self.id}, {self.name!r}, {self.state})"

    def is_in_service(self, now_ms: int) -> bool:
        """Say whether it may be tried: active, or parked for so long that it is tried again."""
        if self.state == "active":
            return True
        if self.state != "out_of_quota" or self.until_ms is None:
            return False
        # None is parked for longer: a clock that was set back must not keep it out for days.
        return not 0 < self.until_ms - now_ms <= OUT_OF_QUOTA_PARK_MS

    def rest(self, scope: str, now_ms: int, told_ms: int | None) -> int:
        """Let it rest for one scope, and return how long, in milliseconds.

        As long as the provider told; else for 5 s, and twice as long each time that it is limited
        again right after a rest.
        """
        last = self._rests.get(scope)
        left_ms = self.rest_left_ms(scope, now_ms)
        if told_ms is not None:
            wait_ms = max(told_ms, left_ms)
        elif left_ms:  # what was sent before the rest has been limited too
            return left_ms
        else:
            wait_ms = REST_MS_FIRST if last is None else min(last.for_ms * 2, REST_MS_MAX)
        # For a while it is remembered how long the last one was.
        kept_ms = now_ms - REST_MS_MAX
        self._rests = {
            name: rest
            for name, rest in self._rests.items()
            if kept_ms < rest.until_ms <= now_ms + rest.for_ms
        }
        self._rests[scope] = _Rest(now_ms + wait_ms, wait_ms)
        return wait_ms

    def note_answer(self, scope: str, now_ms: int) -> None:
        """Take note that it has just been answered: the next rest is a short one again."""
        if self._rests and not self.rest_left_ms(scope, now_ms):
            self._rests.pop(scope, None)

    def rest_left_ms(self, scope: str, now_ms: int) -> int:
        """Return for how long it is not to be tried for a scope; 0 when it may be."""
        rest = self._rests.get(scope)
        return rest.left_ms(now_ms) if rest else 0

    def is_resting(self, now_ms: int) -> bool:
        """Say whether it rests for any scope."""
        return any(rest.left_ms(now_ms) for rest in self._rests.values())

    def forget_rests(self) -> None:
        """Take note that it is used elsewhere now."""
        self._rests.clear()

    def leave(self) -> None:
        """Note that it is there no more: running requests must not try it either."""
        self.state = "removed"


class Pool:
    """The providers and opened keys in the server's memory."""

    def __init__(
        self, vault: Vault | None, find_vault: Callable[[], Vault | None] = lambda: None
    ) -> None:
        """Take the vault, or None when there is no master key yet and no key can be used.

        `find_vault` looks for one when the first key comes: adding it makes the master key.
        """
        self._vault = vault
        self._find_vault = find_vault
        self.providers: dict[str, Provider] = {}
        self._keys: dict[str, list[LiveKey]] = {}

    def publish(self, providers: list[Provider], rows: list[ProviderKey]) -> None:
        """Replace what is known by what the database says; known keys stay the same objects."""
        known = {key.id: key for keys in self._keys.values() for key in keys}
        before = self.providers
        self.providers = {provider.name: provider for provider in providers}
        self._keys = {name: [] for name in self.providers}
        for row in rows:
            key = known.get(row.id)
            try:
                secret = self._open(row)
            except VaultError as error:
                if key is None or not self._is_where_it_was(row, before):
                    _log.error(
                        "provider key %s of %s is not used: %s", row.name, row.provider, error
                    )
                    continue
                # A row's secret never changes: a master key that has yet to be handed over keeps
                # nobody from being served.
                _log.warning(
                    "provider key %s of %s is used as it was opened before: %s",
                    *(row.name, row.provider, error),
                )
                secret = key.secret
            if key is None:
                key = LiveKey(row, secret)
            else:
                key.update(row, secret)
                if not self._is_where_it_was(row, before):
                    key.forget_rests()
            self._keys[row.provider].append(key)
        staying = {key.id for keys in self._keys.values() for key in keys}
        for key in known.values():
            if key.id not in staying:
                key.leave()

    def _open(self, row: ProviderKey) -> str:
        """Return a row's secret, by the master key that is known or the one that there is now.

        Raises:
            VaultError: neither opens it.
        """
        if row.is_keyless:
            return ""
        base_url = self.providers[row.provider].base_url
        error = VaultError("there is no master key")
        for find in (self._known_vault, self._find_vault):
            try:
                vault = find()
                if vault is None:
                    continue
                secret = vault.open(
                    row.sealed, row_id=row.id, provider=row.provider, base_url=base_url
                )
            except VaultError as why:
                error = why
                continue
            self._vault = vault
            return secret
        raise error

    def _known_vault(self) -> Vault | None:
        return self._vault

    def _is_where_it_was(self, row: ProviderKey, before: dict[str, Provider]) -> bool:
        """Say whether a key's provider has not been moved: that takes the master key."""
        provider = before.get(row.provider)
        return provider is not None and provider.base_url == self.providers[row.provider].base_url

    def usable(
        self,
        provider: str,
        scope: str,
        user_id: int,
        now_ms: int,
        *,
        only_id: int | None = None,
    ) -> list[LiveKey]:
        """Return the keys that may be tried for a request of a scope, best first.

        Or the only one that will do, by its id.

        The same user meets the same key first (rendezvous order), so that prompt caches at the
        provider keep working. Each key's place depends on the user and itself alone, so one that
        comes or goes moves no other. Python salts the hashes of texts, not those of whole numbers:
        it is the same order after a restart.
        """
        keys = [
            key
            for key in self._keys.get(provider, ())
            if key.is_in_service(now_ms) and not key.rest_left_ms(scope, now_ms)
        ]
        if only_id is not None:
            return [key for key in keys if key.id == only_id]
        if len(keys) > 1:
            keys.sort(key=lambda key: hash((user_id, key.id)))
        return keys

    def rest_left_ms(
        self, provider: str, scope: str, now_ms: int, *, only_id: int | None = None
    ) -> int | None:
        """Return how long until the first resting key is back, or None when none rests."""
        waits = [
            key.rest_left_ms(scope, now_ms)
            for key in self._keys.get(provider, ())
            if key.is_in_service(now_ms) and only_id in {None, key.id}
        ]
        return min(filter(None, waits), default=None)

    def count_states(self, provider: str, now_ms: int) -> dict[str, int]:
        """Return how many keys of a provider are in each of KEY_STATES."""
        counts = dict.fromkeys(KEY_STATES, 0)
        for key in self._keys.get(provider, ()):
            is_cooling = key.state == "active" and key.is_resting(now_ms)
            counts["cooling" if is_cooling else key.state] += 1
        return counts

    def has_usable_key(self, now_ms: int) -> bool:
        """Say whether any provider has a key in service: one thing that readiness asks."""
        return any(key.is_in_service(now_ms) for keys in self._keys.values() for key in keys)
