"""Owns the sight of what other connections have changed: a snapshot, read again after each commit.

Must not know what is in a snapshot, nor decide what becomes of a database that is broken.
"""

import logging
import sqlite3
from collections.abc import Callable
from typing import Generic, TypeVar

from llmproxy.storage.database import Tx
from llmproxy.storage.jobs import ErrorClass, classify

S = TypeVar("S")

_log = logging.getLogger("llmproxy.storage")


class ForeignChanges(Generic[S]):
    """Publishes a snapshot of the database, and another one when somebody else has committed."""

    def __init__(
        self,
        connection: sqlite3.Connection,
        load: Callable[[Tx], S],
        publish: Callable[[S], None],
    ) -> None:
        """Take the connection to look with; `load` reads a snapshot, `publish` receives it."""
        self._connection = connection
        self._load = load
        self._publish = publish
        self._data_version = -1

    def look(self) -> None:
        """Publish a snapshot at the first look, and whenever there is something new.

        Raises whatever `load` or SQLite raises; the next look tries again.
        """
        # Moves only with commits of other connections, never with our own.
        version = self._connection.execute("PRAGMA data_version").fetchone()[0]
        if version != self._data_version:
            self._publish(self._load_at_once())
            self._data_version = version

    def forget(self) -> None:
        """Let the next look find something new, whoever has committed it."""
        self._data_version = -1

    def look_again(self) -> None:
        """Look, and let the last snapshot hold where a new one cannot be read now.

        Raises:
            sqlite3.Error: the database is broken.
        """
        try:
            self.look()
        except Exception as error:
            if classify(error) is ErrorClass.BROKEN:
                raise
            # Whatever it is, `load` being anybody's: it is tried again.
            _log.exception("what has changed in the database could not be read")

    def _load_at_once(self) -> S:
        """Return the snapshot of one moment, whoever commits meanwhile."""
        if self._connection.in_transaction:
            return self._load(self._connection)
        self._connection.execute("BEGIN")
        try:
            return self._load(self._connection)
        finally:
            self._connection.execute("ROLLBACK")
