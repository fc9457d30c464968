"""Owns what the shell may complete: names out of the database and the catalog.

A completion that cannot be made is silence, never an error: the person is still typing.
"""

import sqlite3
from collections.abc import Callable, Iterable

from llmproxy.cli import opening
from llmproxy.errors import LlmproxyError

COMPLETIONS_MAX = 200


def user_names(incomplete: str) -> list[str]:
    """Return the names of users that begin so."""
    return _beginning(incomplete, _user_names)


def provider_names(incomplete: str) -> list[str]:
    """Return the names of providers that begin so: known ones and those set up."""
    return _beginning(incomplete, _provider_names)


def client_names(incomplete: str) -> list[str]:
    """Return the names of known clients that begin so."""
    return _beginning(incomplete, _client_names)


def model_ids(incomplete: str) -> list[str]:
    """Return the ids of models in the catalog that begin so."""
    return _beginning(incomplete, _model_ids)


def dialect_names(incomplete: str) -> list[str]:
    """Return the names of dialects that begin so."""
    return _beginning(incomplete, _dialect_names)


def _beginning(incomplete: str, names: Callable[[], Iterable[str]]) -> list[str]:
    try:
        found = {name for name in names() if name.startswith(incomplete)}
    except (LlmproxyError, sqlite3.Error):
        return []
    return sorted(found)[:COMPLETIONS_MAX]


def _user_names() -> Iterable[str]:
    from llmproxy import accounts

    with opening.database(must_exist=True) as database, database.read() as tx:
        return [user.name for user in accounts.list_users(tx, limit=-1)]


def _dialect_names() -> Iterable[str]:
    from llmproxy.dialects.families import FAMILIES

    return FAMILIES


def _provider_names() -> Iterable[str]:
    from llmproxy import key_pool
    from llmproxy.presets import PRESETS

    names = set(PRESETS)
    if opening.database_exists():
        with opening.database() as database, database.read() as tx:
            names |= {provider.name for provider in key_pool.list_providers(tx)}
    return names


def _client_names() -> Iterable[str]:
    from llmproxy.client_settings import clients

    return [client.name for client in clients()]


def _model_ids() -> Iterable[str]:
    return [model.id for model in opening.catalog().models()]
