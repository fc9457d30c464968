"""Owns what only the operator's pages need of the server."""

from typing import NamedTuple

from llmproxy.dashboard.admin.ledger_checks import LedgerChecks
from llmproxy.live_catalog import LiveCatalog
from llmproxy.storage.database import DatabaseFiles


class Office(NamedTuple):
    """Objects that live as long as the server."""

    files: DatabaseFiles
    catalog: LiveCatalog
    checks: LedgerChecks
