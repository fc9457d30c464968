"""Owns what an operator does to a wallet: credit, and adjust with a reason.

Both are `f(tx, …)` over an open immediate transaction and whole by themselves, as the operations of
ledger.py are. Amounts are nano-USD.
"""

import msgspec

from llmproxy.errors import RefusedError
from llmproxy.money import AMOUNT_NANOUSD_MAX, format_usd
from llmproxy.storage.database import Tx

IDEMPOTENCY_KEY_CHARS_MAX = 255


class Credited(msgspec.Struct, frozen=True):
    """A credit or adjustment as it now stands; `is_repeat` when its idempotency key was known."""

    transfer_id: int
    amount_nanousd: int
    balance_nanousd: int
    is_repeat: bool


def credit(
    tx: Tx,
    wallet_id: int,
    amount_nanousd: int,
    *,
    actor: str,
    reason: str | None,
    now_ms: int,
    idempotency_key: str | None = None,
) -> Credited:
    """Add money to a wallet; a repeated idempotency key adds nothing and returns the first.

    Raises:
        RefusedError: not above zero, the balance would pass a billion dollars, the key is blank
            or too long, or was used for another wallet or amount.
    """
    if amount_nanousd <= 0:
        msg = "A credit must be above zero; to take money back, correct the balance"
        raise RefusedError(msg, command="llmproxy credits adjust")
    if idempotency_key is not None:
        # A blank one comes of an unset variable, and would swallow all credits but the first.
        if not idempotency_key.strip() or len(idempotency_key) > IDEMPOTENCY_KEY_CHARS_MAX:
            msg = f"An idempotency key must have 1 to {IDEMPOTENCY_KEY_CHARS_MAX} characters."
            raise RefusedError(msg)
        known = tx.execute(
            "SELECT id, wallet_id, amount_nanousd FROM transfers WHERE idempotency_key = ?",
            (idempotency_key,),
        ).fetchone()
        if known is not None:
            if (known[1], known[2]) != (wallet_id, amount_nanousd):
                msg = f"Idempotency key {idempotency_key!r:.80} was used for another credit."
                raise RefusedError(msg)
            return Credited(int(known[0]), amount_nanousd, _balance(tx, wallet_id), is_repeat=True)
    return _transfer(
        tx, wallet_id, "credit", amount_nanousd, actor, reason, now_ms, idempotency_key
    )


def adjust(
    tx: Tx, wallet_id: int, by_nanousd: int, *, actor: str, reason: str, now_ms: int
) -> Credited:
    """Correct a balance up or down, with a reason that stays in the history.

    Raises:
        RefusedError: zero, without a reason, or more than is available would be taken.
    """
    if not reason.strip():
        msg = "An adjustment needs a reason: it stays in the history."
        raise RefusedError(msg)
    if by_nanousd == 0:
        msg = "An adjustment of zero changes nothing."
        raise RefusedError(msg)
    row = tx.execute(
        "SELECT balance_nanousd - held_nanousd FROM wallets WHERE id = ?", (wallet_id,)
    ).fetchone()
    available = int(row[0])
    if available + by_nanousd < 0:
        msg = f"Only {format_usd(available)} USD are available to be taken."
        raise RefusedError(msg)
    return _transfer(tx, wallet_id, "adjust", by_nanousd, actor, reason, now_ms, None)


def _balance(tx: Tx, wallet_id: int) -> int:
    row = tx.execute("SELECT balance_nanousd FROM wallets WHERE id = ?", (wallet_id,)).fetchone()
    return int(row[0])


def _transfer(  # noqa: PLR0913, PLR0917 - the columns of a transfer
    tx: Tx,
    wallet_id: int,
    kind: str,
    amount_nanousd: int,
    actor: str,
    reason: str | None,
    now_ms: int,
    idempotency_key: str | None,
) -> Credited:
    if _balance(tx, wallet_id) + amount_nanousd > AMOUNT_NANOUSD_MAX:
        msg = "The balance would pass a billion dollars."
        raise RefusedError(msg)
    row = tx.execute(
        """INSERT INTO transfers(wallet_id, kind, amount_nanousd, idempotency_key, actor, reason,
                                 created_at_ms)
           VALUES(?, ?, ?, ?, ?, ?, ?) RETURNING id""",
        (wallet_id, kind, amount_nanousd, idempotency_key, actor, reason, now_ms),
    ).fetchone()
    tx.execute(
        "UPDATE wallets SET balance_nanousd = balance_nanousd + ? WHERE id = ?",
        (amount_nanousd, wallet_id),
    )
    return Credited(int(row[0]), amount_nanousd, _balance(tx, wallet_id), is_repeat=False)
