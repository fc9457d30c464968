"""Owns what only the operator's pages need of the server."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from llmproxy.config import Config
from llmproxy.key_pool import Provider
from llmproxy.live_catalog import LiveCatalog
from llmproxy.probe import Probe


class Office(NamedTuple):
    """Objects that live as long as the server."""

    catalog: LiveCatalog
    config: Config
    ask: Callable[[Provider, str], Awaitable[Probe]]
    """Asks a provider, with the secret of one of its keys, whether it answers; never raises."""
