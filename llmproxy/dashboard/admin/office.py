"""Owns what pages need of the server beyond its database; most of it only the operator's."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from llmproxy.config import Config
from llmproxy.dashboard.admin.ledger_checks import LedgerChecks
from llmproxy.key_pool import Provider
from llmproxy.live_catalog import LiveCatalog
from llmproxy.probe import Probe


class Office(NamedTuple):
    """Objects that are there as long as the server."""

    config: Config
    catalog: LiveCatalog
    checks: LedgerChecks
    ask: Callable[[Provider, str], Awaitable[Probe]]
    """Asks a provider, with the secret of one of its keys, whether it answers; never raises."""
    is_left_alone: Callable[[str], bool]
    """Says whether the server leaves a provider, or single models of it, alone: they failed."""
    is_stopping: Callable[[], bool]
    """Says whether the server ends as soon as what runs has ended."""
