"""Owns how a command gets at the database and the clock."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    from llmproxy.storage.database import AdminDatabase, Tx


def now_ms() -> int:
    """Return the wall time in milliseconds since 1970."""
    from llmproxy.clock import Clock

    return Clock().now_ms()


def actor() -> str:
    """Return who acts, as the history will show it."""
    from llmproxy.config import operator_name

    return operator_name()


def database_exists() -> bool:
    """Say whether there is a database where it would be looked for."""
    from llmproxy.config import find_paths

    return find_paths().database.exists()


@contextmanager
def database(*, must_exist: bool = False, as_it_is: bool = False) -> Iterator["AdminDatabase"]:
    """Open the database in force and close it afterwards; it is made when there is none.

    With `as_it_is` it keeps the schema that it has.

    Raises:
        DatabaseError: it cannot be used, or there is none and `must_exist`.
    """
    from llmproxy.config import find_paths
    from llmproxy.errors import DatabaseError
    from llmproxy.storage.database import AdminDatabase

    path = find_paths().database
    if must_exist and not path.exists():
        msg = f"There is no database at {path}. Where is it? See: llmproxy config show"
        raise DatabaseError(msg)
    opened = AdminDatabase(path, as_it_is=as_it_is)
    try:
        yield opened
    finally:
        opened.close()


@contextmanager
def reading() -> Iterator["Tx"]:
    """Open the database for one consistent look at it."""
    with database() as opened, opened.read() as tx:
        yield tx


@contextmanager
def writing() -> Iterator["Tx"]:
    """Open the database for one transaction: all of the block, or nothing."""
    with database() as opened, opened.write() as tx:
        yield tx


def catalog_path() -> "Path | None":
    """Return the operator's own catalog file, or None for the one that came with the program."""
    from pathlib import Path

    from llmproxy.config import load_config

    named = load_config().settings.catalog_file
    return Path(named) if named else None
