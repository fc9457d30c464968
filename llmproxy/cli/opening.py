"""Owns how a command gets at the database and the clock."""

import os
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from datetime import date
    from pathlib import Path

    import typer

    from llmproxy.catalog import Catalog
    from llmproxy.storage.database import AdminDatabase, DatabaseFiles, Tx

_SAY_NOTHING = frozenset({"as_json", "quiet", "yes"})
"""Options that concern what is printed or asked, not what is done."""
_running: ContextVar["typer.Context | None"] = ContextVar("running", default=None)


def now_ms() -> int:
    """Return the wall time in milliseconds since 1970."""
    from llmproxy.clock import Clock

    return Clock().now_ms()


def today() -> "date":
    """Return the day that it is, in UTC."""
    from datetime import UTC, datetime

    return datetime.fromtimestamp(now_ms() / 1000, tz=UTC).date()


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
def writing(*, changes_files: bool = False) -> Iterator["Tx"]:
    """Open the database for one transaction: all of the block, or nothing."""
    with database() as opened, opened.write(changes_files=changes_files) as tx:
        yield tx


def note_act(tx: "Tx") -> None:
    """Write the command that runs to the audit log; it is called where one changes anything."""
    from llmproxy import audit

    context = _running.get()
    if context is not None:  # else no command runs: a test uses this module by itself
        act = context.command_path.partition(" ")[2]
        audit.note(tx, actor=actor(), act=act, details=_given(context), now_ms=now_ms())


@contextmanager
def called_as(context: "typer.Context") -> Iterator[None]:
    """Know, for the length of a block, which command runs and what it was given."""
    before = _running.set(context)
    try:
        yield
    finally:
        _running.reset(before)


def _given(context: "typer.Context") -> str:
    """Return a command's arguments as they were given. Secrets are never among them."""
    words: list[str] = []
    for parameter in context.command.params:
        name = parameter.name or ""
        source = context.get_parameter_source(name)
        if source is not None and source.name == "COMMANDLINE" and name not in _SAY_NOTHING:
            value = context.params[name]
            for each in value if isinstance(value, list | tuple) else [value]:
                words += _words_of(parameter, each)
    return " ".join(words)


def _words_of(parameter: Any, value: object) -> Iterator[str]:  # noqa: ANN401 - Typer's own
    """Yield an argument, or an option with its value, as they are written in a shell."""
    if parameter.param_type_name == "option":
        yield (parameter.secondary_opts if value is False else parameter.opts)[0]
    if not isinstance(value, bool):
        yield shlex.quote(_without_secrets(str(value)))


def _without_secrets(text: str) -> str:
    """Return an argument without what addresses may carry to prove who asks."""
    if "://" not in text:
        return text
    address, mark, _ = text.partition("?")
    scheme, _, rest = address.partition("://")
    host, slash, path = rest.partition("/")
    return f"{scheme}://{host.rpartition('@')[2]}{slash}{path}{mark and '?…'}"


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


def answer_s_max() -> int:
    """Return how long an answer may take, in seconds: the most of all where settings are wrong."""
    from llmproxy.config import load_config
    from llmproxy.errors import ConfigError
    from llmproxy.reports import ANSWER_S_MAX

    try:
        return load_config().settings.total_timeout_s
    except ConfigError:
        return ANSWER_S_MAX


def catalog_path() -> "Path | None":
    """Return the catalog file in force, or None for the one that came with the program."""
    from llmproxy.config import find_catalog, load_config

    return find_catalog(load_config())


def catalog() -> "Catalog":
    """Return the catalog as the server has it: the file in force with the operator's own entries.

    Raises:
        CatalogError: the file cannot be used.
    """
    from llmproxy.catalog_parser import load_catalog

    return with_own_entries(load_catalog(catalog_path()))


def with_own_entries(file: "Catalog") -> "Catalog":
    """Return the catalog of a file with the operator's own entries over it."""
    from llmproxy.catalog_overrides import read_overrides, with_overrides

    if not database_exists():  # looking something up must not make one
        return file
    with reading() as tx:
        return with_overrides(file, read_overrides(tx))


def broken_overrides() -> list[str]:
    """Say of each own catalog entry that cannot be read what is wrong with it."""
    from llmproxy.catalog_overrides import read_overrides

    if not database_exists():
        return []
    with reading() as tx:
        broken = read_overrides(tx).broken
    return [f"Your own entry for {'/'.join(name)}: {why}" for name, why in broken.items()]
