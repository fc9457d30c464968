"""Owns the words for the state of a provider with its keys, on the command line and on pages."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence

    from llmproxy.key_pool import Provider, ProviderKey

NO_ACTIVE_KEYS = "no active keys"
NOT_SET_UP = "not set up"


def state_of(provider: "Provider | None", keys: "Sequence[ProviderKey]") -> str:
    """Return a provider's state: `active`, `paused`, `no active keys` or `not set up`."""
    if provider is None:
        return NOT_SET_UP
    if provider.paused_at_ms is not None:
        return "paused"
    return "active" if any(key.state == "active" for key in keys) else NO_ACTIVE_KEYS


def count_by_state(keys: "Sequence[ProviderKey]") -> str:
    """Return how many keys are in each state, in words."""
    states = [key.state for key in keys]
    counts = (f"{states.count(state)} {state}" for state in dict.fromkeys(states))
    return ", ".join(counts) or "none"
