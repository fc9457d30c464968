"""Owns reading beside the writer in the serving process: in a thread, in short transactions.

A read that lasted would keep the write-ahead log from being emptied, so each has a time limit. Must
not write, and must not know any table.
"""

import asyncio
import contextlib
import sqlite3
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, TypeVar

from llmproxy.errors import DatabaseError
from llmproxy.storage.database import Tx, connect_for_reading

T = TypeVar("T")

READ_TIMEOUT_S = 3.0
LOOK_AFTER_STEPS = 10_000
"""Instructions of SQLite's machine between two looks at the time: about a millisecond."""


class ReadTimeoutError(DatabaseError):
    """The question took too long to answer and was given up."""


class Reader:
    """One reading connection with a thread of its own; questions are answered one at a time."""

    def __init__(self, path: Path) -> None:
        """Take the database's path; it is opened with the first question."""
        self._path = path
        self._thread = ThreadPoolExecutor(1, "reader")
        self._connection: sqlite3.Connection | None = None

    async def read(self, function: Callable[..., T], *args: Any) -> T:  # noqa: ANN401 - any f(tx, …)
        """Return `function(tx, *args)`, run in the thread on one consistent moment.

        Raises:
            ReadTimeoutError: it took longer than READ_TIMEOUT_S.
            DatabaseError: the database cannot be read.
        """
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, self._read, function, args)

    def _read(self, function: Callable[..., T], args: tuple[Any, ...]) -> T:
        if self._connection is None:
            self._connection = connect_for_reading(self._path)
        deadline_s = time.monotonic() + READ_TIMEOUT_S
        self._connection.set_progress_handler(
            lambda: time.monotonic() > deadline_s, LOOK_AFTER_STEPS
        )
        try:
            with _moment(self._connection) as tx:
                return function(tx, *args)
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", None) == sqlite3.SQLITE_INTERRUPT:
                msg = f"The question took longer than {READ_TIMEOUT_S:g} s."
                raise ReadTimeoutError(msg) from error
            msg = f"The database cannot be read: {error}."
            raise DatabaseError(msg) from error

    def close(self) -> None:
        """Wait for the question under way, and close the file."""
        self._thread.shutdown()
        if self._connection is not None:
            self._connection.close()


@contextlib.contextmanager
def _moment(connection: sqlite3.Connection) -> Iterator[Tx]:
    connection.execute("BEGIN")
    try:
        yield connection
    finally:
        if connection.in_transaction:
            connection.set_progress_handler(None, 0)  # the time is up for the question only
            connection.execute("ROLLBACK")
