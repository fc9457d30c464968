"""Owns users, their wallets' existence, and API keys. Must not move money.

Every function that writes is `f(tx, …)` over an open transaction.
"""

import re
import sqlite3

import msgspec

from llmproxy import limit_store, vault
from llmproxy.errors import NotFoundError, RefusedError
from llmproxy.limits import Limits, limits_from
from llmproxy.money import MULTIPLIER_ONE
from llmproxy.storage.database import Tx

_USER_NAME = re.compile(r"[a-z0-9][a-z0-9._@-]{0,63}")
_KEY_NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@ -]{0,63}")
NEVER_MS = 2**63 - 1


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
    is_admin: bool
    """An operator: may do on the dashboard what the command line can."""
    has_password: bool
    limits: Limits | None = None
    """Those that hold for all the user's API keys together."""

    @property
    def available_nanousd(self) -> int:
        """What can still be spent: balance less held."""
        return self.balance_nanousd - self.held_nanousd


class ApiKey(msgspec.Struct, frozen=True):
    """An API key as lists show it; the key itself is not known.

    `revoked_at_ms` may lie ahead: a key that was replaced by another of the same name works until
    then. `expires_at_ms` is the end that it was made with, if any.
    """

    id: int
    user: str
    name: str
    masked: str
    created_at_ms: int
    expires_at_ms: int | None
    revoked_at_ms: int | None
    limits: Limits | None = None

    @property
    def ends_at_ms(self) -> int | None:
        """When it stops or stopped working; None when no end is set."""
        return min((at for at in (self.expires_at_ms, self.revoked_at_ms) if at), default=None)

    def state(self, now_ms: int) -> str:
        """Return `live`, `replaced` (works until it ends), `suspended`, `expired` or `revoked`."""
        if self.ends_at_ms is None or self.ends_at_ms > now_ms:
            if self.limits is not None and self.limits.is_suspended:
                return "suspended"
            return "live" if self.revoked_at_ms is None else "replaced"
        return "revoked" if self.ends_at_ms == self.revoked_at_ms else "expired"


class Principal(msgspec.Struct, frozen=True):
    """Who a valid API key speaks for: all the request path needs to know of them."""

    user_id: int
    user: str
    wallet_id: int
    api_key_id: int
    api_key: str
    rate_multiplier_micro: int
    ends_at_ms: int
    """When the key stops working; NEVER_MS when no end is set."""
    disabled_at_ms: int | None
    """Since when the user is disabled: the key is known, and nothing may be done with it."""
    limits: Limits | None = None
    user_limits: Limits | None = None
    """The limits of the key, and of the user with all their keys; None where there are none."""

    @property
    def is_limited(self) -> bool:
        """Say whether anything of either is limited."""
        return self.limits is not None or self.user_limits is not None

    @property
    def is_disabled(self) -> bool:
        """Say whether the user is disabled."""
        return self.disabled_at_ms is not None


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
    is_admin: bool | None = None,
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
    if is_admin is not None:
        tx.execute("UPDATE users SET is_admin = ? WHERE id = ?", (is_admin, user.id))
    return find_user(tx, name)


_LIMITS = """
  limits.id, requests_per_minute, tokens_per_minute, concurrent_max, daily_budget_nanousd,
  monthly_budget_nanousd, spend_per_hour_nanousd, models, providers, networks, suspended_at_ms,
  suspended_reason, resumed_at_ms
"""
_USERS = (
    """
SELECT users.id, users.name, rate_multiplier_micro, disabled_at_ms, created_at_ms,
       wallets.id AS wallet_id, balance_nanousd, held_nanousd,
       is_admin, password_hash IS NOT NULL,
"""
    + _LIMITS
    + """
FROM users JOIN wallets ON wallets.user_id = users.id
           LEFT JOIN limits ON limits.id = users.limits_id
"""
)
_USER_NUMBERS = 8
_USER_COLUMNS = 10


def find_user(tx: Tx, name: str) -> User:
    """Return a user by name.

    Raises:
        NotFoundError: there is no such user.
    """
    row = tx.execute(_USERS + "WHERE users.name = ?", (name,)).fetchone()
    if row is None:
        msg = f"There is no user {name!r:.80}. See: llmproxy users list"
        raise NotFoundError(msg)
    return _user(row)


def list_users(tx: Tx, *, limit: int) -> list[User]:
    """Return up to `limit` users by name."""
    rows = tx.execute(_USERS + "ORDER BY users.name LIMIT ?", (limit,))
    return [_user(row) for row in rows]


def _user(row: sqlite3.Row) -> User:
    flags = map(bool, row[_USER_NUMBERS:_USER_COLUMNS])
    return User(*(*row[:_USER_NUMBERS], *flags, limits_from(row[_USER_COLUMNS:])))


def create_api_key(
    tx: Tx, user: User, name: str, *, now_ms: int, expires_at_ms: int | None = None
) -> str:
    """Make an API key for a user and return it: the only time that it can be seen.

    Args:
        tx: an open transaction.
        user: whose key it is.
        name: what it is called; the name of one that has ended may be used again.
        now_ms: the present.
        expires_at_ms: when it stops working, if ever.

    Raises:
        RefusedError: the user has a live key of that name, the name is no name, or the end is past.
    """
    if not _KEY_NAME.fullmatch(name):
        msg = f"{name!r:.80} cannot be a key name: use 1 to 64 letters, digits, . _ @ - or spaces."
        raise RefusedError(msg)
    if expires_at_ms is not None and expires_at_ms <= now_ms:
        msg = "The key would have expired already. Give an end that lies ahead."
        raise RefusedError(msg)
    # Only one live key has a name; one that has expired gives it back.
    tx.execute(
        """UPDATE api_keys SET revoked_at_ms = expires_at_ms
           WHERE user_id = ? AND name = ? AND revoked_at_ms IS NULL AND expires_at_ms <= ?""",
        (user.id, name, now_ms),
    )
    if _live_key(tx, user, name) is not None:
        msg = (
            f"User {user.name} has an API key named {name!r} already. Choose another name, or "
            "replace it: llmproxy keys rotate"
        )
        raise RefusedError(msg)
    api_key = vault.new_api_key()
    tx.execute(
        """INSERT INTO api_keys(user_id, name, hash, masked, created_at_ms, expires_at_ms)
           VALUES(?, ?, ?, ?, ?, ?)""",
        (user.id, name, vault.hash_api_key(api_key), vault.mask(api_key), now_ms, expires_at_ms),
    )
    return api_key


def rotate_api_key(
    tx: Tx,
    user: User,
    name: str,
    *,
    now_ms: int,
    overlap_ms: int = 0,
    expires_at_ms: int | None = None,
) -> str:
    """Replace an API key by a new one of the same name, and return the new one.

    The old one works on for `overlap_ms` (at most until its own end). The new one ends at
    `expires_at_ms`, or when the old one would have. Both share their limits, and what is used.

    Raises:
        NotFoundError: the user has no live key of that name.
        RefusedError: the end of the new one is past.
    """
    old = _live_key(tx, user, name)
    if old is None or (old[1] is not None and old[1] <= now_ms):
        raise _no_live_key(user, name)
    tx.execute("UPDATE api_keys SET revoked_at_ms = ? WHERE id = ?", (now_ms + overlap_ms, old[0]))
    ends_at_ms = old[1] if expires_at_ms is None else expires_at_ms
    api_key = create_api_key(tx, user, name, now_ms=now_ms, expires_at_ms=ends_at_ms)
    new = tx.execute("SELECT id FROM api_keys WHERE hash = ?", (vault.hash_api_key(api_key),))
    limit_store.share_limits(tx, [old[0], new.fetchone()[0]])
    return api_key


def _live_key(tx: Tx, user: User, name: str) -> tuple[int, int | None] | None:
    """Return the id and the set end of the one key that has this name now."""
    row = tx.execute(
        """SELECT id, expires_at_ms FROM api_keys
           WHERE user_id = ? AND name = ? AND revoked_at_ms IS NULL""",
        (user.id, name),
    ).fetchone()
    return None if row is None else (row[0], row[1])


def _no_live_key(user: User, name: str) -> NotFoundError:
    msg = f"User {user.name} has no live API key {name!r:.80}. See: llmproxy keys list {user.name}"
    return NotFoundError(msg)


def revoke_api_key(tx: Tx, user: User, name: str, *, now_ms: int) -> int:
    """End the API keys of a name, one that was replaced and still works too; return how many.

    Running answers finish, new requests get a 401.

    Raises:
        NotFoundError: the user has no live key of that name.
    """
    done = tx.execute(
        """UPDATE api_keys SET revoked_at_ms = :now
           WHERE user_id = :user AND name = :name AND ends_at_ms > :now""",
        {"now": now_ms, "user": user.id, "name": name},
    )
    if done.rowcount == 0:
        raise _no_live_key(user, name)
    return done.rowcount


def end_api_key(tx: Tx, key: ApiKey, *, now_ms: int) -> None:
    """End one API key of those that share a name: one that was replaced, and still works."""
    tx.execute("UPDATE api_keys SET revoked_at_ms = ? WHERE id = ?", (now_ms, key.id))


_KEYS = (
    """
SELECT api_keys.id, users.name, api_keys.name, masked, api_keys.created_at_ms,
       expires_at_ms, revoked_at_ms,
"""
    + _LIMITS
    + """
FROM api_keys JOIN users ON users.id = user_id
              LEFT JOIN limits ON limits.id = api_keys.limits_id
"""
)
_KEY_COLUMNS = 7
_OF_ALL = """
WHERE :live_at IS NULL OR ends_at_ms > :live_at
ORDER BY users.name, api_keys.id LIMIT :limit
"""
_OF_USER = """
WHERE user_id = :user_id AND (:live_at IS NULL OR ends_at_ms > :live_at)
ORDER BY api_keys.id LIMIT :limit
"""


def list_api_keys(
    tx: Tx, user: User | None, *, limit: int, live_at_ms: int | None = None
) -> list[ApiKey]:
    """Return up to `limit` API keys, of one user or of all; ended ones too, or those live then."""
    values = {"live_at": live_at_ms, "limit": limit}
    if user is None:
        rows = tx.execute(_KEYS + _OF_ALL, values)
    else:
        rows = tx.execute(_KEYS + _OF_USER, {**values, "user_id": user.id})
    return [_api_key(row) for row in rows]


def _api_key(row: sqlite3.Row) -> ApiKey:
    return ApiKey(*(*row[:_KEY_COLUMNS], limits_from(row[_KEY_COLUMNS:])))


def find_api_key(tx: Tx, user: User, key_id: int) -> ApiKey | None:
    """Return one API key of a user, live or ended; None when they have none with this id."""
    row = tx.execute(_KEYS + "WHERE api_keys.id = ? AND user_id = ?", (key_id, user.id)).fetchone()
    return None if row is None else _api_key(row)


def find_live_keys(tx: Tx, user: User, name: str, *, now_ms: int) -> list[ApiKey]:
    """Return the API keys of a name that work: one, or two while one replaces the other.

    Raises:
        NotFoundError: there is none.
    """
    rows = tx.execute(
        _KEYS + "WHERE user_id = ? AND ends_at_ms > ? AND api_keys.name = ? ORDER BY api_keys.id",
        (user.id, now_ms, name),
    ).fetchall()
    if not rows:
        raise _no_live_key(user, name)
    return [_api_key(row) for row in rows]


def load_principals(tx: Tx, *, now_ms: int, ended_for_ms: int = 0) -> dict[bytes, Principal]:
    """Return every live API key by its SHA-256, for the server's memory.

    Those too that ended less than `ended_for_ms` ago: what they began may still run, and their
    limits may be changed meanwhile. Who uses it must look at `ends_at_ms` in any case: a key ends
    without any change of the database.
    """
    # CROSS JOIN keeps this order: by users, the index finds their keys that work without going
    # through those that ended, which are kept for good.
    rows = tx.execute(
        """SELECT api_keys.hash, users.id, users.name, wallets.id, api_keys.id, api_keys.name,
                  users.rate_multiplier_micro, api_keys.ends_at_ms, users.disabled_at_ms,
                  api_keys.limits_id, users.limits_id
           FROM users CROSS JOIN wallets ON wallets.user_id = users.id
                      CROSS JOIN api_keys ON api_keys.user_id = users.id
           WHERE api_keys.ends_at_ms > ?""",
        (now_ms - ended_for_ms,),
    ).fetchall()
    limits = limit_store.load_limits(tx, {limits_id for row in rows for limits_id in row[9:]})
    return {
        row[0]: Principal(*(*row[1:9], limits.get(row[9]), limits.get(row[10]))) for row in rows
    }
