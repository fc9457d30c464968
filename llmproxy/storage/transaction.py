"""Owns the serving process's one transaction: begun, filled with jobs, committed or rolled back.

All of it runs on the event loop but `commit`, which waits for the disk. Must not decide what
becomes of its jobs, or of a database that does not take them: that is the writer's.
"""

import sqlite3

from llmproxy.errors import DatabaseError
from llmproxy.storage.database import DatabaseFiles
from llmproxy.storage.jobs import FileGoneError, Job, run_in_savepoints, run_together

_NOT_RETURNED = DatabaseError("the last COMMIT did not return")


class Transaction:
    """The transaction of the one writing connection, used again for each batch of jobs."""

    def __init__(self, files: DatabaseFiles, connection: sqlite3.Connection) -> None:
        """Take the connection, open on the file that is at its path now."""
        self._files = files
        self._identity = files.identity()
        self._connection = connection
        self.jobs: list[Job] = []
        """What is in it, and is not answered yet."""
        self.commit_error: Exception | None = None
        """Why its COMMIT is not known to have succeeded; None once it is."""
        self._isolates_jobs = False

    def begin(self) -> None:
        """Begin it, on the file that everybody else finds at its path.

        Raises:
            sqlite3.Error: the database cannot be written now.
            FileGoneError: what is written now would be gone with the file.
        """
        if self._files.identity() != self._identity:
            raise FileGoneError(self._files.path)
        self._connection.execute("BEGIN IMMEDIATE")
        self.commit_error = _NOT_RETURNED

    def run(self, jobs: list[Job]) -> bool:
        """Run jobs in it; False if one has failed: rolled back, they can be run once more.

        Only then each gets a savepoint, so that one that fails undoes no other.

        Raises:
            sqlite3.Error: the trouble is the database's.
        """
        self.jobs = jobs
        if self._isolates_jobs:
            run_in_savepoints(self._connection, jobs)
            self._isolates_jobs = False
        else:
            self._isolates_jobs = not run_together(self._connection, jobs)
        return not self._isolates_jobs

    def commit(self) -> None:
        """Return when all of it is on disk; for a thread that may wait.

        How it went is noted too: the loop may have ended before it hears of it.
        """
        try:
            self._connection.execute("COMMIT")
        except Exception as error:
            self.commit_error = error
            raise
        self.commit_error = None

    def roll_back(self) -> None:
        """Undo what has not been committed; does nothing when there is nothing.

        Raises:
            sqlite3.Error: it cannot be undone.
        """
        # SQLITE_FULL and I/O errors have already rolled everything back (money.md 1.2).
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def take_jobs(self) -> list[Job]:
        """Take out its jobs, once it is known what becomes of them."""
        jobs, self.jobs = self.jobs, []
        return jobs
