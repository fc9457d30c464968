"""Owns copies of the database file: made beside a running server, and put back in its place.

A copy is one file of its own (no write-ahead log beside it), mode 0600. Must not know any table,
and must not judge what is in a copy: that is the ledger's check.
"""

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from llmproxy.errors import DatabaseError
from llmproxy.files import sync_directory
from llmproxy.storage.database import (
    GATE_TIMEOUT_S,
    SCHEMA_VERSION,
    AdminDatabase,
    DatabaseFiles,
    Tx,
    connect,
    transaction,
)

PAGES_PER_STEP = 1024

OnProgress = Callable[[int, int], None]
"""Called with the pages that are done and the pages that there are."""


def copy_database(database: AdminDatabase, target: Path, on_progress: OnProgress) -> None:
    """Write a copy of one consistent moment to `target`, which must not exist.

    The server may write on meanwhile: the copy is read in one transaction. Until it ends, the
    write-ahead log cannot be emptied, so it grows by what is written in that time.

    Raises:
        DatabaseError: the copy cannot be written, or the database cannot be read.
    """
    with _errors_about(target), database.snapshot() as source:
        _copy(source, target, on_progress)


def _copy(source: sqlite3.Connection, target: Path, on_progress: OnProgress) -> None:
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    with closing(sqlite3.connect(target, isolation_level=None)) as copy:
        source.backup(
            copy,
            pages=PAGES_PER_STEP,
            progress=lambda _status, left, total: on_progress(total - left, total),
        )
        _fold(copy)


def _fold(connection: sqlite3.Connection) -> None:
    """Bring the write-ahead log into the file and remove it; nobody else may have it open."""
    connection.execute("PRAGMA journal_mode=DELETE").fetchone()


@contextmanager
def _errors_about(path: Path) -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        msg = f"{path} cannot be made: {error}."
        raise DatabaseError(msg) from error
    except OSError as error:
        msg = f"{path} cannot be made: {error.strerror}."
        raise DatabaseError(msg) from error


@contextmanager
def reading_copy(path: Path) -> Iterator[Tx]:
    """Open a copy for one consistent look at it; nothing is written, not even beside it.

    Raises:
        DatabaseError: it is no file, or no database.
    """
    if not path.is_file():
        msg = f"There is no file {path}."
        raise DatabaseError(msg)
    try:
        uri = f"{path.resolve().as_uri()}?mode=ro"
        with closing(sqlite3.connect(uri, uri=True, isolation_level=None)) as connection:
            connection.row_factory = sqlite3.Row
            connection.execute("BEGIN")
            connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield connection
    except sqlite3.Error as error:
        msg = f"{path} cannot be read as a database: {error}."
        raise DatabaseError(msg) from error


def stored_schema(tx: Tx) -> int:
    """Return the version of the schema that a database has; 0 when it is not one of ours."""
    return int(tx.execute("PRAGMA user_version").fetchone()[0])


def prepare_restore(files: DatabaseFiles, source: Path, on_progress: OnProgress) -> Path:
    """Copy `source` beside the database, in the present schema, and return where it is.

    The caller holds the serving lock. The copy is removed again when anything fails.

    Raises:
        DatabaseError: it is no database of ours, is of a newer schema, or cannot be copied.
    """
    prepared = files.path.with_name(files.path.name + ".restoring")
    remove_copy(prepared)
    try:
        with reading_copy(source) as tx, _errors_about(prepared):
            found = _known_schema(tx, source)
            assert isinstance(tx, sqlite3.Connection)
            _copy(tx, prepared, on_progress)
            if found < SCHEMA_VERSION:
                _migrate(prepared)
    except BaseException:
        remove_copy(prepared)
        raise
    return prepared


def _known_schema(tx: Tx, source: Path) -> int:
    found = stored_schema(tx)
    if 0 < found <= SCHEMA_VERSION:
        return found
    what = f"of a newer llmproxy (schema {found})" if found > 0 else "not of llmproxy"
    msg = f"{source} is a database {what}. This program restores its own."
    raise DatabaseError(msg)


def _migrate(path: Path) -> None:
    from llmproxy.storage.migrations import migrate  # noqa: PLC0415 - as in database.py

    with closing(connect(path)) as connection:
        migrate(connection)
        _fold(connection)


def write_into(copy: Path, function: Callable[[Tx], None]) -> None:
    """Run `function(tx)` in one transaction of a copy that nobody else has open.

    Raises:
        DatabaseError: it cannot be written.
    """
    with _errors_about(copy), closing(connect(copy)) as connection:
        with transaction(connection) as tx:
            function(tx)
        _fold(connection)


def name_copy(partial: Path, target: Path) -> None:
    """Give a finished copy its name, in the place of what has it; durable when this returns.

    Raises:
        DatabaseError: it cannot be named so, or its disk fails.
    """
    with _errors_about(target):
        descriptor = os.open(partial, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
        partial.replace(target)
        sync_directory(target.parent)


def remove_copy(path: Path) -> None:
    """Remove a copy that is not wanted, and what SQLite may have left beside it."""
    for suffix in ("", "-wal", "-shm", "-journal"):
        path.with_name(path.name + suffix).unlink(missing_ok=True)


def put_in_place(files: DatabaseFiles, prepared: Path, aside: Path) -> bool:
    """Put a prepared copy in the database's place; return whether there was one to set aside.

    The caller holds the serving lock. Commands open the database inside the write gate, which is
    taken here alone: none can open it, or write to it, while the files change. At no moment is
    there no database, so that none is made anew.

    Raises:
        DatabaseError: a command has the database open; nothing was changed.
    """
    with files.gate().held(shared=False, timeout_s=GATE_TIMEOUT_S), _errors_about(aside):
        had_one = files.path.exists()
        if had_one:
            _set_aside(files, aside)
        prepared.replace(files.path)
        sync_directory(files.path.parent)
    return had_one


def _set_aside(files: DatabaseFiles, aside: Path) -> None:
    """Keep the present database under another name, as one file if it can still be read."""
    try:
        with closing(sqlite3.connect(files.path, isolation_level=None)) as connection:
            _fold(connection)
    except sqlite3.DatabaseError as error:
        if error.sqlite_errorcode in {sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED}:
            msg = "Another command has the database open. Try again when it has ended."
            raise DatabaseError(msg) from error
        # It is damaged: whatever there is of it is kept as it is.
        for suffix in ("-wal", "-shm"):
            left = files.path.with_name(files.path.name + suffix)
            if left.exists():
                left.rename(aside.with_name(aside.name + suffix))
    os.link(files.path, aside)
