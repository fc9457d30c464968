"""Owns checks of the ledger beside the serving loop: one at a time, in a thread of their own.

A check reads one consistent moment, as the command does: as long as it lasts, the write-ahead log
is not emptied. What it has found stays until the next one, or until the server stops.
"""

import sqlite3
import threading
from pathlib import Path

from llmproxy import ledger_check
from llmproxy.clock import Clock
from llmproxy.errors import DatabaseError
from llmproxy.ledger_check import Report
from llmproxy.storage.database import connect_for_reading

LOOK_AFTER_STEPS = 10_000
"""Instructions of SQLite's machine between two looks whether to stop: about a millisecond."""


class Check:
    """One check: how far it is, and what came of it."""

    def __init__(self, by: str, began_ms: int) -> None:
        """Begin with nothing."""
        self.by = by
        """The operator's name."""
        self.began_ms = began_ms
        self.ended_ms: int | None = None
        """None as long as it runs."""
        self.done = 0
        self.total = 0
        """Of how many holds so many are done; 0 before they are counted."""
        self.report: Report | None = None
        self.failure = "an error of the check itself; the server's log has it"
        """Why there is no report, where there is none once it has ended."""

    @property
    def percent(self) -> int:
        """How much of it is done, as far as can be told."""
        return 100 * self.done // self.total if self.total else 0


class LedgerChecks:
    """Runs checks of one database."""

    def __init__(self, path: Path, clock: Clock) -> None:
        """Take the database's path; it is opened by each check."""
        self._path = path
        self._clock = clock
        self._thread: threading.Thread | None = None
        self._is_closing = False
        self._is_reserved = False
        self.last: Check | None = None
        """The one that runs, or else the one that has ended last."""

    @property
    def is_running(self) -> bool:
        """Whether one is under way."""
        return self.last is not None and self.last.ended_ms is None

    def reserve(self) -> bool:
        """Say whether a check may begin now; if so, no other may before it is released."""
        if self.is_running or self._is_closing or self._is_reserved:
            return False
        self._is_reserved = True
        return True

    def release(self) -> None:
        """Let others begin a check again, as far as none is under way."""
        self._is_reserved = False

    def start(self, by: str) -> None:
        """Begin a check, unless one is under way; `by` is who has asked for it."""
        if self.is_running or self._is_closing:
            return
        check = self.last = Check(by, self._clock.now_ms())
        # A daemon: a process that has to end at once does not wait for it.
        self._thread = threading.Thread(
            target=self._run, args=(check,), name="llmproxy-check", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """End the check under way, and wait until it has closed the file."""
        self._is_closing = True
        if self._thread is not None:
            self._thread.join()

    def _run(self, check: Check) -> None:
        try:
            check.report = self._verify(check)
        except (sqlite3.Error, DatabaseError) as error:
            check.failure = "the server was stopped" if self._is_closing else str(error)
        finally:
            check.ended_ms = self._clock.now_ms()

    def _verify(self, check: Check) -> Report:
        connection = connect_for_reading(self._path)
        try:
            connection.set_progress_handler(lambda: self._is_closing, LOOK_AFTER_STEPS)
            connection.execute("BEGIN")
            check.total = ledger_check.count_rows(connection)

            def advance(rows: int) -> None:
                check.done += rows

            return ledger_check.verify(connection, on_progress=advance)
        finally:
            connection.close()
