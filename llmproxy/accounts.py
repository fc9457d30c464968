"""Owns users, their wallets' existence, and API keys. Must not move money: that is ledger.py.

Every function that writes is `f(tx, …)` over an open transaction.
"""

import re

import msgspec

from llmproxy import vault
from llmproxy.errors import NotFoundError, RefusedError
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.storage.database import Tx

_USER_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}")


class User(msgspec.Struct, frozen=True):
    """A user with their wallet. Money in nano-USD, the multiplier in millionths."""

    id: int
    name: str
    rate_multiplier_micro: int
    disabled_at_ms: int | None
    created_at_ms: int
    wallet_id: int
    balance_nanousd: int
    held_nanousd: int

    @property
    def available_nanousd(self) -> int:
        """What can still be spent: balance less held."""
        return self.balance_nanousd - self.held_nanousd


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as lists show it; the key itself is not known."""

    id: int
    user: str
    name: str
    masked: str
    created_at_ms: int
    revoked_at_ms: int | None


class Principal(msgspec.Struct, frozen=True):
    """Who a valid API key speaks for: all the request path needs to know of them."""

    user_id: int
    user: str
    wallet_id: int
    api_key_id: int
    api_key: str
    rate_multiplier_micro: int


def create_user(
    tx: Tx, name: str, *, now_ms: int, rate_multiplier_micro: int = MULTIPLIER_ONE
) -> User:
    """Make a user with an empty wallet.

    Raises:
        RefusedError: the name is taken or not of the form `[a-z0-9][a-z0-9._@-]{0,63}`.
    """
    if not _USER_NAME.fullmatch(name):
        msg = (
            f"{name!r:.80} cannot be a user name: use 1 to 64 of a-z 0-9 . _ @ - and begin with "
            "a letter or digit."
        )
        raise RefusedError(msg)
    if tx.execute("SELECT 1 FROM users WHERE name = ?", (name,)).fetchone():
        msg = f"User {name} exists already."
        raise RefusedError(msg)
    user_id = tx.execute(
        "INSERT INTO users(name, rate_multiplier_micro, created_at_ms) VALUES(?, ?, ?)",
        (name, rate_multiplier_micro, now_ms),
    ).lastrowid
    tx.execute("INSERT INTO wallets(user_id) VALUES(?)", (user_id,))
    return find_user(tx, name)


def set_user(
    tx: Tx,
    name: str,
    *,
    now_ms: int,
    rate_multiplier_micro: int | None = None,
    is_disabled: bool | None = None,
) -> User:
    """Change what is given of a user; what is None stays.

    Raises:
        NotFoundError: there is no such user.
    """
    user = find_user(tx, name)
    if rate_multiplier_micro is not None:
        tx.execute(
            "UPDATE users SET rate_multiplier_micro = ? WHERE id = ?",
            (rate_multiplier_micro, user.id),
        )
    if is_disabled is not None:
        tx.execute(
            "UPDATE users SET disabled_at_ms = ? WHERE id = ?",
            (now_ms if is_disabled else None, user.id),
        )
    return find_user(tx, name)


_USERS = """
SELECT users.id, users.name, rate_multiplier_micro, disabled_at_ms, created_at_ms,
       wallets.id AS wallet_id, balance_nanousd, held_nanousd
FROM users JOIN wallets ON wallets.user_id = users.id
"""


def find_user(tx: Tx, name: str) -> User:
    """Return a user by name.

    Raises:
        NotFoundError: there is no such user.
    """
    row = tx.execute(_USERS + "WHERE users.name = ?", (name,)).fetchone()
    if row is None:
        msg = f"There is no user {name!r:.80}. See: llmproxy users list"
        raise NotFoundError(msg)
    return User(*row)


def list_users(tx: Tx, *, limit: int) -> list[User]:
    """Return up to `limit` users by name."""
    rows = tx.execute(_USERS + "ORDER BY users.name LIMIT ?", (limit,))
    return [User(*row) for row in rows]


def create_api_key(tx: Tx, user: User, name: str, *, now_ms: int) -> str:
    """Make an API key for a user and return it: the only time that it can be seen.

    Raises:
        RefusedError: the user has a live key of that name, or the name is no name.
    """
    if not _KEY_NAME.fullmatch(name):
        msg = f"{name!r:.80} cannot be a key name: use 1 to 64 letters, digits, . _ @ - or spaces."
        raise RefusedError(msg)
    taken = tx.execute(
        "SELECT 1 FROM api_keys WHERE user_id = ? AND name = ? AND revoked_at_ms IS NULL",
        (user.id, name),
    ).fetchone()
    if taken:
        msg = f"User {user.name} has an API key named {name!r} already. Choose another."
        raise RefusedError(msg)
    api_key = vault.new_api_key()
    tx.execute(
        """INSERT INTO api_keys(user_id, name, hash, masked, created_at_ms)
           VALUES(?, ?, ?, ?, ?)""",
        (user.id, name, vault.hash_api_key(api_key), vault.mask(api_key), now_ms),
    )
    return api_key


def revoke_api_key(tx: Tx, user: User, name: str, *, now_ms: int) -> None:
    """End an API key; running answers finish, new requests get a 401.

    Raises:
        NotFoundError: the user has no live key of that name.
    """
    done = tx.execute(
        """UPDATE api_keys SET revoked_at_ms = ?
           WHERE user_id = ? AND name = ? AND revoked_at_ms IS NULL""",
        (now_ms, user.id, name),
    )
    if done.rowcount == 0:
        msg = f"User {user.name} has no live API key {name!r:.80}. See: llmproxy keys list"
        raise NotFoundError(msg)


def list_api_keys(tx: Tx, user: User | None, *, limit: int) -> list[ApiKey]:
    """Return up to `limit` API keys, of one user or of all, live ones and revoked ones."""
    rows = tx.execute(
        """SELECT api_keys.id, users.name, api_keys.name, masked, api_keys.created_at_ms,
                  revoked_at_ms
           FROM api_keys JOIN users ON users.id = user_id
           WHERE :user_id IS NULL OR user_id = :user_id
           ORDER BY users.name, api_keys.id LIMIT :limit""",
        {"user_id": user.id if user else None, "limit": limit},
    )
    return [ApiKey(*row) for row in rows]


def load_principals(tx: Tx) -> dict[bytes, Principal]:
    """Return every live API key of every enabled user by its SHA-256, for the server's memory."""
    rows = tx.execute(
        """SELECT api_keys.hash, users.id, users.name, wallets.id, api_keys.id, api_keys.name,
                  users.rate_multiplier_micro
           FROM api_keys JOIN users ON users.id = api_keys.user_id
                         JOIN wallets ON wallets.user_id = users.id
           WHERE api_keys.revoked_at_ms IS NULL AND users.disabled_at_ms IS NULL"""
    )
    return {row[0]: Principal(*row[1:]) for row in rows}
