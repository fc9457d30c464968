"""Owns users as the operator's list shows them."""

import msgspec

from llmproxy.storage.database import Tx


class UserRow(msgspec.Struct, frozen=True):
    """A user with their wallet, in nano-USD; the multiplier in millionths."""

    id: int
    name: str
    balance_nanousd: int
    held_nanousd: int
    rate_multiplier_micro: int
    is_disabled: bool
    is_admin: bool
    created_at_ms: int


def list_user_rows(
    tx: Tx, *, text: str, limit: int, offset: int = 0, after: str = ""
) -> list[UserRow]:
    """Return users by name, only those in whose name `text` stands.

    Those up to the name `after` are left out, and of the others the first `offset`.
    """
    rows = tx.execute(
        """SELECT users.id, name, balance_nanousd, held_nanousd, rate_multiplier_micro,
                  disabled_at_ms IS NOT NULL, is_admin, users.created_at_ms
           FROM users JOIN wallets ON wallets.user_id = users.id
           WHERE name > :after AND (instr(name, :text) > 0 OR :text = '')
           ORDER BY name LIMIT :limit OFFSET :offset""",
        {"text": text, "limit": limit, "offset": offset, "after": after},
    )
    return [
        UserRow(user_id, name, balance, held, multiplier, bool(disabled), bool(admin), made_ms)
        for user_id, name, balance, held, multiplier, disabled, admin, made_ms in rows
    ]


def count_users(tx: Tx, *, text: str) -> int:
    """Return how many users `list_user_rows` has for a text."""
    row = tx.execute(
        "SELECT count(*) FROM users WHERE instr(name, :text) > 0 OR :text = ''", {"text": text}
    ).fetchone()
    return int(row[0])


def find_user_name(tx: Tx, user_id: int) -> str | None:
    """Return the name of the user with an id, None when there is none."""
    row = tx.execute("SELECT name FROM users WHERE id = ?", (user_id,)).fetchone()
    return None if row is None else str(row[0])
