"""Owns passwords: what may be one, and whether one is right. A user need not have any.

They are kept as Argon2id in the PHC format, which names its costs: hashes of another cost still
count. Both directions take some 30 ms of CPU and 19 MiB by design, so never on the serving loop,
and one at a time. Must not log or store a password.
"""

import secrets
import unicodedata
from functools import cache

from cryptography.exceptions import InvalidKey
from cryptography.hazmat.primitives.kdf.argon2 import Argon2id

from llmproxy.accounts import User
from llmproxy.errors import RefusedError
from llmproxy.storage.database import Tx

CHARS_MIN = 12
CHARS_MAX = 256
_SALT_BYTES = 16


def hash_password(password: str, user: str) -> str:
    """Return what is stored of a new password of a user.

    Raises:
        RefusedError: it is too short, too long, or much like the user's name.
    """
    if not CHARS_MIN <= len(password) <= CHARS_MAX:
        msg = f"A password has {CHARS_MIN} to {CHARS_MAX} characters. A few words do well."
        raise RefusedError(msg)
    folded = password.casefold()
    if len(set(folded)) < 5 or folded.replace(user.casefold(), "").strip(" -_.0123456789") == "":
        msg = "That password is easily guessed. A few words that do not belong together do well."
        raise RefusedError(msg)
    return _derive(_bytes(password))


def is_right(password: str, stored: str | None) -> bool:
    """Say whether it is the password that is stored; with None it takes as long, and is not."""
    if len(password) > CHARS_MAX:
        return False
    try:
        Argon2id.verify_phc_encoded(_bytes(password), stored or _nobodys())
    except (InvalidKey, ValueError):  # wrong, or what is stored is no hash
        return False
    return stored is not None


@cache
def _nobodys() -> str:
    """Return a hash that is compared where there is none, so that time tells nothing."""
    return _derive(secrets.token_bytes(32))


def _derive(password: bytes) -> str:
    # The costs are those of the OWASP cheat sheet on password storage: 19 MiB, two passes.
    salt = secrets.token_bytes(_SALT_BYTES)
    costs = Argon2id(salt=salt, length=32, iterations=2, lanes=1, memory_cost=19 * 1024)
    return costs.derive_phc_encoded(password)


def _bytes(password: str) -> bytes:
    """Return a password's bytes: the same ones on whatever keyboard it was typed."""
    return unicodedata.normalize("NFC", password).encode("utf-8", "surrogatepass")


def find_password_hash(tx: Tx, name: str) -> str | None:
    """Return what is stored of the password of a user who may sign in; None when nothing is."""
    row = tx.execute(
        "SELECT password_hash FROM users WHERE name = ? AND disabled_at_ms IS NULL", (name,)
    ).fetchone()
    return None if row is None else row[0]


def store_password(tx: Tx, user: User, hashed: str | None) -> None:
    """Let a user sign in with a password from now on, or (with None) with links alone."""
    tx.execute("UPDATE users SET password_hash = ? WHERE id = ?", (hashed, user.id))
