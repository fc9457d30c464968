"""Owns the database file: how it is opened, by the command line and by the serving process.

All writing goes through `f(tx, …)` functions inside an immediate transaction, so that commands
compose. Files are 0600 in a 0700 directory. Must not know any table.
"""

import os
import sqlite3
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE
from typing import Protocol

from llmproxy.errors import DatabaseError, LlmproxyError, RefusedError
from llmproxy.storage.locks import FileLock, ServingLock

BUSY_TIMEOUT_MS = 5000
GATE_TIMEOUT_S = 5.0
CLOSING_GATE_TIMEOUT_S = 0.5
STATEMENT_CACHE = 256
SCHEMA_VERSION = 12
"""The schema this program works on; equal to `migrations.SCHEMA_VERSION` (a test says so), and
repeated here because most commands need no migration and should not load sqlite-utils for it."""


class Tx(Protocol):
    """An open transaction (or, for readers, a connection): the one thing SQL is run on."""

    @property
    def execute(self) -> Callable[..., sqlite3.Cursor]:
        """Run one literal statement with named or positional parameters."""


def connect(path: Path, *, must_exist: bool = False) -> sqlite3.Connection:
    """Return a read-write connection with all our pragmas, in manual transaction mode.

    Checkpoints never happen by themselves: see `storage/writer.py`.

    Raises:
        DatabaseError: the file cannot be opened or is no database.
    """
    if must_exist and not path.exists():
        msg = f"There is no database at {path}. Create a user first: llmproxy users create NAME"
        raise DatabaseError(msg)
    try:
        connection = sqlite3.connect(
            path,
            isolation_level=None,
            check_same_thread=False,
            cached_statements=STATEMENT_CACHE,
            timeout=BUSY_TIMEOUT_MS / 1000,
        )
        connection.row_factory = sqlite3.Row
        for pragma in (
            "PRAGMA journal_mode=WAL",
            "PRAGMA synchronous=FULL",
            "PRAGMA wal_autocheckpoint=0",
            "PRAGMA foreign_keys=ON",
            "PRAGMA trusted_schema=OFF",
        ):
            connection.execute(pragma)
        if sys.platform == "darwin":
            connection.execute("PRAGMA fullfsync=1")
    except sqlite3.Error as error:
        raise _unusable(path, error) from error
    return connection


def _unusable(path: Path, error: sqlite3.Error) -> DatabaseError:
    """Return what to raise for a database that cannot be opened."""
    why = str(error)
    if error.sqlite_errorcode == sqlite3.SQLITE_IOERR_SHMSIZE:
        why = "no room on its disk"  # SQLite says merely "disk I/O error"
    return DatabaseError(f"The database {path} cannot be used: {why}.")


def connect_for_reading(path: Path) -> sqlite3.Connection:
    """Return a connection to an existing database that cannot write to it.

    Raises:
        DatabaseError: the file cannot be opened or is no database.
    """
    connection = connect(path, must_exist=True)
    connection.execute("PRAGMA query_only=ON")
    return connection


@contextmanager
def transaction(connection: sqlite3.Connection) -> Iterator[Tx]:
    """Run a block in one immediate transaction: committed at its end, rolled back on any error."""
    try:
        connection.execute("BEGIN IMMEDIATE")
    except sqlite3.OperationalError as error:
        is_busy = error.sqlite_errorcode & 0xFF == sqlite3.SQLITE_BUSY
        what = "The database is busy" if is_busy else "The database cannot be written"
        msg = f"{what}: {error}.{' Try again.' if is_busy else ''}"
        raise DatabaseError(msg) from error
    try:
        yield connection
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:  # a full disk has already rolled everything back
            connection.execute("ROLLBACK")
        raise


def prepare_directory(directory: Path) -> None:
    """Make the data directory (0700), or refuse one that others can read.

    Raises:
        DatabaseError: it cannot be made, or its mode is looser than 0700.
    """
    os.umask(0o077)
    try:
        directory.mkdir(parents=True, exist_ok=True, mode=0o700)
    except OSError as error:
        msg = f"The data directory {directory} cannot be made: {error.strerror}."
        raise DatabaseError(msg) from error
    _refuse_loose_mode(directory, 0o700)


def _refuse_loose_mode(path: Path, mode: int) -> None:
    actual = S_IMODE(path.stat().st_mode)
    if actual & 0o077:
        msg = f"{path} can be reached by others (mode {actual:04o}). Run: chmod {mode:o} {path}"
        raise DatabaseError(msg)


class DatabaseFiles:
    """The names of the database and of what stands beside it."""

    def __init__(self, path: Path) -> None:
        """Take the path of the database file."""
        self.path = path
        self.wal = path.with_name(path.name + "-wal")
        self.spill = path.with_name(path.name + ".spill")
        self.serving_lock = ServingLock(path.with_name(path.name + ".lock"))

    def identity(self) -> tuple[int, int] | None:
        """Return which file is at the path now (device, inode); None when none can be seen."""
        try:
            found = self.path.stat()
        except OSError:
            return None
        return found.st_dev, found.st_ino

    def gate(self) -> FileLock:
        """Return the write gate (one object per holder: flock counts open descriptions)."""
        return FileLock(self.path.with_name(self.path.name + ".gate"))


def open_current(files: DatabaseFiles, *, is_serving: bool) -> sqlite3.Connection:
    """Open the database, making or migrating it where that may be done now.

    Args:
        files: the database file and its neighbours.
        is_serving: the caller already holds the serving lock.

    Raises:
        DatabaseError: it cannot be used, is newer than this program, or needs a migration while
            another process serves it.
    """
    prepare_directory(files.path.parent)
    if files.path.exists():
        _refuse_loose_mode(files.path, 0o600)
    connection = connect(files.path)
    try:
        _bring_up_to_date(connection, files, is_serving=is_serving)
    except sqlite3.DatabaseError as error:
        connection.close()
        raise _unusable(files.path, error) from error
    except LlmproxyError:
        connection.close()
        raise
    return connection


def _bring_up_to_date(
    connection: sqlite3.Connection, files: DatabaseFiles, *, is_serving: bool
) -> None:
    found = connection.execute("PRAGMA user_version").fetchone()[0]
    if found == SCHEMA_VERSION:
        return
    if found > SCHEMA_VERSION:
        msg = (
            f"The database is of a newer llmproxy (schema {found}, this program knows "
            f"{SCHEMA_VERSION}). Use that version, or restore a backup."
        )
        raise DatabaseError(msg)
    lock = files.serving_lock
    if not is_serving and not lock.try_acquire():
        msg = (
            f"The database has schema {found}, this program needs {SCHEMA_VERSION}, and a server "
            f"is running on it ({lock.holder()}). Restart the server with this version first."
        )
        raise DatabaseError(msg)
    # Imported here: most commands need no migration, and sqlite-utils costs 70 ms to load.
    from llmproxy.storage.migrations import migrate  # noqa: PLC0415

    try:
        migrate(connection)
    finally:
        if not is_serving:
            lock.release()


class AdminDatabase:
    """The database as a command uses it: short transactions beside a server that may be running."""

    def __init__(
        self,
        path: Path,
        *,
        as_it_is: bool = False,
        on_change: Callable[[Tx], None] | None = None,
    ) -> None:
        """Open the file at `path`, making it when it does not exist; see `open_current`.

        Inside the write gate, which a restore takes for itself while it changes the file. With
        `as_it_is` nothing is made and nothing migrated. `on_change` is called in the first
        transaction that changes anything, before it is committed.
        """
        self._on_change = on_change
        self.files = DatabaseFiles(path)
        prepare_directory(path.parent)
        with self.files.gate().held(shared=True, timeout_s=GATE_TIMEOUT_S):
            if as_it_is:
                self._connection = connect(path, must_exist=True)
            else:
                self._connection = open_current(self.files, is_serving=False)

    @contextmanager
    def write(self, *, changes_files: bool = False) -> Iterator[Tx]:
        """Run a block in one transaction, inside the write gate.

        Args:
            changes_files: the block changes something, even where it changes no row.

        Raises:
            DatabaseError: busy, full or damaged; nothing was written.
        """
        is_told = False
        with self.files.gate().held(shared=True, timeout_s=GATE_TIMEOUT_S):
            try:
                with transaction(self._connection) as tx:
                    changes = self._connection.total_changes
                    yield tx
                    is_change = changes_files or self._connection.total_changes > changes
                    if is_change and self._on_change is not None:
                        self._on_change(tx)
                        is_told = True
            except sqlite3.IntegrityError:
                raise
            except sqlite3.DatabaseError as error:
                msg = f"The database could not be written: {error}. Nothing was changed."
                raise DatabaseError(msg) from error
        if is_told:
            self._on_change = None

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """Run a block that only reads, seeing one consistent moment."""
        self._connection.execute("BEGIN")
        try:
            yield self._connection
        finally:
            self._connection.execute("ROLLBACK")

    @contextmanager
    def snapshot(self) -> Iterator[sqlite3.Connection]:
        """Hold one consistent moment of the database open, for a copy of it."""
        with self.read() as tx:
            tx.execute("SELECT count(*) FROM sqlite_schema").fetchone()
            yield self._connection

    def checkpoint_unless_served(self) -> bool:
        """Copy the write-ahead log into the file unless a server runs, which does it; say if so.

        For long work, during which the log would else grow and grow. Waits for nobody.
        """
        lock, gate = self.files.serving_lock, self.files.gate()
        if not lock.try_acquire():
            return False
        try:
            if gate.try_acquire():
                self._connection.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
        finally:
            gate.release()
            lock.release()
        return True

    def vacuum(self) -> None:
        """Write the file anew without its free room; the caller holds the serving lock.

        Raises:
            DatabaseError: another command has it open, or there is no room for the second copy
                that is made meanwhile; nothing was changed.
        """
        with self.files.gate().held(shared=False, timeout_s=GATE_TIMEOUT_S):
            try:
                self._connection.execute("VACUUM")
                self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            except sqlite3.DatabaseError as error:
                msg = f"The database could not be written anew: {error}. Nothing was changed."
                raise DatabaseError(msg) from error

    def close(self) -> None:
        """Close the file; the last of all connections to close checkpoints.

        SQLite does so under an exclusive lock on the file, which any other open connection
        prevents, so no foreign writer can be beside it (the WAL-reset bug, locks.py). The gate
        comes on top and is not waited for long: whoever holds it has the file open.
        """
        try:
            with self.files.gate().held(shared=False, timeout_s=CLOSING_GATE_TIMEOUT_S):
                self._connection.close()
        except DatabaseError:
            self._connection.close()


def require_serving_lock(files: DatabaseFiles, holder: str) -> None:
    """Take the serving lock for life.

    Raises:
        RefusedError: another process serves this file, or the platform has no flock.
    """
    prepare_directory(files.path.parent)
    if sys.platform not in {"linux", "darwin"}:
        msg = f"llmproxy serves on Linux and macOS, not on {sys.platform}."
        raise RefusedError(msg)
    files.serving_lock.acquire(holder)
