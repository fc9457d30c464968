"""Owns how the state of a provider key in use changes: in memory at once, then in the database.

Which answer asks for which state is `health.py`'s. Must not talk to providers.
"""

import logging
from typing import NamedTuple

from llmproxy import key_pool
from llmproxy.clock import Clock
from llmproxy.live_keys import LiveKey
from llmproxy.storage.database import Tx
from llmproxy.storage.queue import Enqueue

ACTOR = "proxy"

_log = logging.getLogger("llmproxy.relay")


class Tried(NamedTuple):
    """A key that is tried, and the state that it had then: only that may the answer change."""

    key: LiveKey
    state: str
    until_ms: int | None

    @classmethod
    def now(cls, key: LiveKey) -> "Tried":
        """Return a key as it is."""
        return cls(key, key.state, key.until_ms)

    @property
    def is_as_it_was(self) -> bool:
        """Say whether nobody has had a newer word on the key."""
        return (self.key.state, self.key.until_ms) == (self.state, self.until_ms)


class State(NamedTuple):
    """A state that a key gets, why, by what HTTP status, and until when."""

    name: str
    reason: str | None = None
    upstream_status: int | None = None
    until_ms: int | None = None


class KeyStates:
    """Takes keys out of use and puts them back, unless somebody has had a newer word on them."""

    def __init__(self, enqueue: Enqueue, clock: Clock) -> None:
        """Take where writes go."""
        self._enqueue = enqueue
        self._clock = clock

    def take_out(self, provider: str, tried: Tried, state: State) -> None:
        """Give a key of a provider a state in which it is not used."""
        if tried.is_as_it_was:
            what = (tried.key.name, provider, state.name, state.reason)
            _log.warning("provider key %s of %s is now %s: %s", *what)
            self._set(tried, state)

    def put_back(self, tried: Tried) -> None:
        """Let a key be used again."""
        if tried.is_as_it_was:
            self._set(tried, State("active"))

    def _set(self, tried: Tried, state: State) -> None:
        # In memory at once; again when it is written, should an older state be read meanwhile.
        tried.key.state, tried.key.until_ms = state.name, state.until_ms
        self._enqueue(_write, tried, state, self._clock.now_ms())


def _write(tx: Tx, tried: Tried, state: State, now_ms: int) -> None:
    key = tried.key
    is_changed = key_pool.set_key_state(
        tx,
        key.id,
        state.name,
        reason=state.reason,
        actor=ACTOR,
        now_ms=now_ms,
        until_ms=state.until_ms,
        upstream_status=state.upstream_status,
        only_from=tried.state,
    )
    if is_changed:
        key.state, key.until_ms = state.name, state.until_ms
