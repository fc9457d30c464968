"""Owns what the operator's pages need of the server beyond its database."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from llmproxy.config import Config
from llmproxy.key_pool import Provider
from llmproxy.probe import Probe


class Backstage(NamedTuple):
    """What is there as long as the server."""

    config: Config
    ask: Callable[[Provider, str], Awaitable[Probe]]
    """Asks a provider, with the secret of one of its keys, whether it answers; never raises."""
