"""Owns how a command gets at the database and the clock."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

    import click

    from llmproxy.catalog import Catalog
    from llmproxy.storage.database import AdminDatabase, DatabaseFiles, Tx

_SAY_NOTHING = frozenset({"as_json", "quiet", "yes"})
"""Options that concern what is printed or asked, not what is done."""


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
    opened = AdminDatabase(path, as_it_is=as_it_is, on_change=note_act)
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


def note_act(tx: "Tx") -> None:
    """Write the command that runs to the audit log; it is called where one changes anything."""
    import click

    from llmproxy import audit

    context = click.get_current_context(silent=True)
    if context is not None:  # else no command runs: a test uses this module by itself
        act = context.command_path.partition(" ")[2]
        audit.note(tx, actor=actor(), act=act, details=_given(context), now_ms=now_ms())


def _given(context: "click.Context") -> str:
    """Return a command's arguments as they were given. Secrets are never among them."""
    from click.core import ParameterSource

    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        is_given = context.get_parameter_source(name) is ParameterSource.COMMANDLINE
        if not is_given or name in _SAY_NOTHING:
            continue
        value = context.params[name]
        if parameter.param_type_name == "option":
            words.append((parameter.secondary_opts if value is False else parameter.opts)[0])
        if not isinstance(value, bool):
            words.append(shlex.quote(str(value)))
    return " ".join(words)


@contextmanager
def serving(files: "DatabaseFiles", command: str) -> Iterator[None]:
    """Be the one process that serves the database, so that no server can start meanwhile.

    Raises:
        RefusedError: a server runs.
    """
    from llmproxy.storage.database import require_serving_lock

    require_serving_lock(files, f"llmproxy db {command}, pid {os.getpid()}")
    try:
        yield
    finally:
        files.serving_lock.release()


def catalog_path() -> "Path | None":
    """Return the catalog file in force, or None for the one that came with the program."""
    from llmproxy.config import find_catalog, load_config

    return find_catalog(load_config())


def catalog() -> "Catalog":
    """Return the catalog as the server has it: the file in force with the operator's own entries.

    Raises:
        CatalogError: the file cannot be used.
    """
    from llmproxy.catalog_overrides import read_overrides, with_overrides
    from llmproxy.catalog_parser import load_catalog

    found = load_catalog(catalog_path())
    if not database_exists():  # looking something up must not make one
        return found
    with reading() as tx:
        return with_overrides(found, read_overrides(tx))


def broken_overrides() -> list[str]:
    """Say of each own catalog entry that cannot be read what is wrong with it."""
    from llmproxy.catalog_overrides import read_overrides

    if not database_exists():
        return []
    with reading() as tx:
        broken = read_overrides(tx).broken
    return [f"Your own entry for {'/'.join(name)}: {why}" for name, why in broken.items()]
