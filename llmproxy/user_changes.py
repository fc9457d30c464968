"""Owns what an operator does to a user as a whole, for the command line and the dashboard alike.

Every function is `f(tx, …)` over an open transaction: all of it is done, or nothing.
"""

from collections.abc import Mapping
from typing import NamedTuple

from llmproxy import accounts, crediting, limit_store, passwords, sessions
from llmproxy.accounts import User
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.storage.database import Tx

NOTHING: Mapping[str, object] = {}


class NewUser(NamedTuple):
    """A user that is wanted; money in nano-USD, the multiplier in millionths."""

    name: str
    rate_multiplier_micro: int = MULTIPLIER_ONE
    credit_nanousd: int | None = None
    """What they begin with, if anything."""
    key: str | None = None
    """The name of their first API key, if they get one."""


class UserChanges(NamedTuple):
    """What is to be changed of a user; what is None stays."""

    rate_multiplier_micro: int | None = None
    is_disabled: bool | None = None
    is_admin: bool | None = None
    forgets_password: bool = False
    limits: Mapping[str, object] = NOTHING
    """As `limit_store.set_user_limits` takes them."""


def make_user(tx: Tx, wanted: NewUser, *, actor: str, now_ms: int) -> tuple[User, str | None]:
    """Make a user with all that is wanted; return them, and their API key, seen only now.

    Raises:
        RefusedError: a name is taken or is none, or the credit is not above zero.
    """
    user = accounts.create_user(
        tx, wanted.name, now_ms=now_ms, rate_multiplier_micro=wanted.rate_multiplier_micro
    )
    if wanted.credit_nanousd is not None:
        crediting.credit(
            tx,
            user.wallet_id,
            wanted.credit_nanousd,
            actor=actor,
            reason="first credit",
            now_ms=now_ms,
        )
    api_key = None
    if wanted.key is not None:
        api_key = accounts.create_api_key(tx, user, wanted.key, now_ms=now_ms)
    return accounts.find_user(tx, wanted.name), api_key


def change_user(tx: Tx, name: str, changes: UserChanges, *, now_ms: int) -> User:
    """Change a user. Whoever is disabled, loses their password or whose part changes is signed out.

    Raises:
        NotFoundError: there is no such user.
    """
    user = accounts.set_user(
        tx,
        name,
        now_ms=now_ms,
        rate_multiplier_micro=changes.rate_multiplier_micro,
        is_disabled=changes.is_disabled,
        is_admin=changes.is_admin,
    )
    if changes.forgets_password:
        passwords.store_password(tx, user, None)
    if changes.is_disabled or changes.is_admin is not None or changes.forgets_password:
        sessions.end_all_sessions(tx, user)
    if changes.limits:
        limit_store.set_user_limits(tx, user.id, dict(changes.limits))
    return accounts.find_user(tx, name)


def resume_api_key(tx: Tx, user: User, name: str, *, now_ms: int) -> bool:
    """Let a suspended API key work again; False when it was not suspended.

    Raises:
        NotFoundError: the user has no live key of that name.
    """
    key = accounts.find_live_keys(tx, user, name, now_ms=now_ms)[-1]
    if key.limits is None:
        return False
    limit_store.resume(tx, key.limits.id, now_ms=now_ms)
    return key.limits.is_suspended
