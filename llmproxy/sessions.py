"""Owns being signed in to the dashboard: links that work once, and sessions.

Only the SHA-256 of a secret is stored. Every function is `f(tx, …)` over an open transaction.
Must not know of cookies or pages.
"""

import hashlib
import re
import secrets
from typing import NamedTuple

from llmproxy.accounts import User, find_user
from llmproxy.errors import RefusedError
from llmproxy.storage.database import Tx

LINK_LIFE_MS = 15 * 60_000
SESSION_LIFE_MS = 30 * 86_400_000
ADMIN_SESSION_LIFE_MS = 86_400_000
"""An operator's session can do much more, and ends sooner."""
SESSIONS_MAX = 20
"""Of one user; a further one ends the oldest."""
_SECRET_BYTES = 32
_SECRET = re.compile(r"[A-Za-z0-9_-]{43}")


class NewSession(NamedTuple):
    """A session that has just begun."""

    secret: str
    """What the browser keeps."""
    life_ms: int


def session_life_ms(user: User) -> int:
    """Return how long a session of this user lasts."""
    return ADMIN_SESSION_LIFE_MS if user.is_admin else SESSION_LIFE_MS


def is_secret(text: str) -> bool:
    """Say whether a text can be the secret of a link or session at all."""
    return _SECRET.fullmatch(text) is not None


def create_link(tx: Tx, user: User, *, now_ms: int) -> str:
    """Make the secret of a link that signs a user in once, within LINK_LIFE_MS, and return it.

    An earlier link of theirs that was not used ends.

    Raises:
        RefusedError: the user is disabled.
    """
    if user.disabled_at_ms is not None:
        msg = f"User {user.name} is disabled. Enable them first"
        raise RefusedError(msg, command=f"llmproxy users enable {user.name}")
    tx.execute("DELETE FROM login_links WHERE user_id = ? OR expires_at_ms <= ?", (user.id, now_ms))
    secret = secrets.token_urlsafe(_SECRET_BYTES)
    tx.execute(
        "INSERT INTO login_links(hash, user_id, created_at_ms, expires_at_ms) VALUES(?, ?, ?, ?)",
        (_hash(secret), user.id, now_ms, now_ms + LINK_LIFE_MS),
    )
    return secret


def find_link_user(tx: Tx, secret: str, *, now_ms: int) -> User | None:
    """Return the user whom a link would sign in; None when it signs in nobody."""
    if not is_secret(secret):
        return None
    row = tx.execute(
        """SELECT name FROM login_links JOIN users ON users.id = user_id
           WHERE hash = ? AND expires_at_ms > ? AND disabled_at_ms IS NULL""",
        (_hash(secret), now_ms),
    ).fetchone()
    return None if row is None else find_user(tx, row[0])


def use_link(tx: Tx, secret: str, *, now_ms: int, replaced: str = "") -> NewSession | None:
    """Use up a link and begin a session; None when it signs in nobody.

    Args:
        tx: an open transaction.
        secret: the link's.
        now_ms: the present.
        replaced: the secret of the session that the same browser had, which ends.
    """
    user = find_link_user(tx, secret, now_ms=now_ms)
    if user is None:
        return None
    tx.execute("DELETE FROM login_links WHERE hash = ?", (_hash(secret),))
    return begin_session(tx, user, now_ms=now_ms, replaced=replaced)


def begin_session(tx: Tx, user: User, *, now_ms: int, replaced: str = "") -> NewSession:
    """Begin a session of a user who has shown who they are; `replaced` is as for `use_link`."""
    end_session(tx, replaced)
    tx.execute("DELETE FROM sessions WHERE expires_at_ms <= ?", (now_ms,))
    tx.execute(
        """DELETE FROM sessions WHERE hash IN (
             SELECT hash FROM sessions WHERE user_id = ?
             ORDER BY created_at_ms DESC LIMIT -1 OFFSET ?)""",
        (user.id, SESSIONS_MAX - 1),
    )
    session = NewSession(secrets.token_urlsafe(_SECRET_BYTES), session_life_ms(user))
    tx.execute(
        "INSERT INTO sessions(hash, user_id, created_at_ms, expires_at_ms) VALUES(?, ?, ?, ?)",
        (_hash(session.secret), user.id, now_ms, now_ms + session.life_ms),
    )
    return session


def find_session_user(tx: Tx, secret: str, *, now_ms: int) -> User | None:
    """Return whose session it is; None when it is none, has ended, or the user is disabled."""
    if not is_secret(secret):
        return None
    row = tx.execute(
        """SELECT name FROM sessions JOIN users ON users.id = user_id
           WHERE hash = ? AND expires_at_ms > ? AND disabled_at_ms IS NULL""",
        (_hash(secret), now_ms),
    ).fetchone()
    return None if row is None else find_user(tx, row[0])


def count_sessions(tx: Tx, user: User, *, now_ms: int) -> int:
    """Return on how many browsers a user is signed in."""
    row = tx.execute(
        "SELECT count(*) FROM sessions WHERE user_id = ? AND expires_at_ms > ?", (user.id, now_ms)
    ).fetchone()
    return int(row[0])


def end_session(tx: Tx, secret: str) -> None:
    """End a session, if it is one."""
    tx.execute("DELETE FROM sessions WHERE hash = ?", (_hash(secret),))


def end_other_sessions(tx: Tx, user: User, secret: str) -> None:
    """End all sessions of a user but one, and a link that was not used."""
    tx.execute("DELETE FROM login_links WHERE user_id = ?", (user.id,))
    tx.execute("DELETE FROM sessions WHERE user_id = ? AND hash <> ?", (user.id, _hash(secret)))


def end_all_sessions(tx: Tx, user: User) -> int:
    """End all sessions of a user and a link that was not used; return how many sessions."""
    tx.execute("DELETE FROM login_links WHERE user_id = ?", (user.id,))
    return tx.execute("DELETE FROM sessions WHERE user_id = ?", (user.id,)).rowcount


def _hash(secret: str) -> bytes:
    return hashlib.sha256(secret.encode()).digest()
