"""Owns the money tables: the only module that writes wallets, holds and transfers.

Five operations move money and nothing else does: credit, hold, settle, release/expire, adjust.
Each is `f(tx, …)` over an open immediate transaction and whole by itself: a crash before COMMIT
leaves nothing of it. Amounts are nano-USD. Must not price, parse or wait.
"""

import hashlib

import msgspec

from llmproxy.errors import LlmproxyError, RefusedError
from llmproxy.money import AMOUNT_NANOUSD_MAX, format_usd
from llmproxy.storage.database import Tx


class HoldEndedError(LlmproxyError):
    """The hold was settled, released or expired before: it ends exactly once."""


class Hold(msgspec.Struct, frozen=True):
    """Money set aside for one request before it is sent; pins all that its price depends on."""

    id: bytes
    wallet_id: int
    api_key_id: int
    price_version_id: int
    boot_id: int
    endpoint: str
    user_multiplier_micro: int
    model_multiplier_micro: int
    amount_nanousd: int
    created_at_ms: int


class Shortage(msgspec.Struct, frozen=True):
    """Why a hold was not placed: what the wallet had at that moment."""

    balance_nanousd: int
    held_nanousd: int

    @property
    def available_nanousd(self) -> int:
        """What could have been held."""
        return self.balance_nanousd - self.held_nanousd


class Outcome(msgspec.Struct, frozen=True):
    """The reporting row of an ended request: the columns of `requests` that describe it.

    `usage`, `raw_usage` and `receipt` are JSON texts. What was held, charged and owed stands in
    columns that the ledger fills in itself.
    """

    user_id: int
    provider: str
    model: str
    is_stream: bool
    status: int
    duration_ms: int
    model_served: str | None = None
    reason: str | None = None
    usage: str | None = None
    raw_usage: str | None = None
    receipt: str | None = None
    upstream_status: int | None = None
    provider_key_id: int | None = None
    attempts: int = 0
    ttfb_ms: int | None = None


class Credited(msgspec.Struct, frozen=True):
    """A credit or adjustment as it now stands; `is_repeat` when its idempotency key was known."""

    transfer_id: int
    amount_nanousd: int
    balance_nanousd: int
    is_repeat: bool


def start_boot(tx: Tx, *, pid: int, version: str, now_ms: int) -> int:
    """Record that a serving process has started; its id marks the holds that it owns."""
    row = tx.execute(
        "INSERT INTO boots(pid, version, started_at_ms) VALUES(?, ?, ?) RETURNING id",
        (pid, version, now_ms),
    ).fetchone()
    return int(row[0])


def pin_prices(tx: Tx, provider: str, model: str, prices: bytes, *, now_ms: int) -> int:
    """Return the id of the immutable price version that holds `prices` (canonical JSON)."""
    digest = hashlib.sha256(prices).digest()
    tx.execute(
        """INSERT INTO price_versions(provider, model, prices, sha256, created_at_ms)
           VALUES(?, ?, ?, ?, ?) ON CONFLICT DO NOTHING""",
        (provider, model, prices.decode(), digest, now_ms),
    )
    row = tx.execute(
        "SELECT id FROM price_versions WHERE provider = ? AND model = ? AND sha256 = ?",
        (provider, model, digest),
    ).fetchone()
    return int(row[0])


def place_hold(tx: Tx, hold: Hold) -> Shortage | None:
    """Set money aside, or return what was there when it did not suffice (nothing is written).

    The check and the change are one statement, so that parallel requests cannot both pass it.
    """
    placed = tx.execute(
        """UPDATE wallets SET held_nanousd = held_nanousd + :amount
           WHERE id = :wallet AND balance_nanousd - held_nanousd >= :amount""",
        {"amount": hold.amount_nanousd, "wallet": hold.wallet_id},
    )
    if placed.rowcount == 0:
        row = tx.execute(
            "SELECT balance_nanousd, held_nanousd FROM wallets WHERE id = ?", (hold.wallet_id,)
        ).fetchone()
        return Shortage(*row)
    tx.execute(
        """INSERT INTO holds(id, wallet_id, api_key_id, price_version_id, boot_id, endpoint,
                             user_multiplier_micro, model_multiplier_micro, amount_nanousd,
                             created_at_ms)
           VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        msgspec.structs.astuple(hold),
    )
    return None


def settle(
    tx: Tx, hold: Hold, *, cost_nanousd: int, basis: str, outcome: Outcome, now_ms: int
) -> int:
    """End a hold by charging what the answer cost; return what was charged in nano-USD.

    A cost above the hold is drawn from what is available, never below zero; the rest is the
    operator's shortfall.

    Raises:
        HoldEndedError: it had ended already.
    """
    charged = cost_nanousd
    if cost_nanousd > hold.amount_nanousd:
        row = tx.execute(
            "SELECT balance_nanousd - held_nanousd FROM wallets WHERE id = ?", (hold.wallet_id,)
        ).fetchone()
        charged = min(cost_nanousd, hold.amount_nanousd + int(row[0]))
    _end_hold(tx, hold, "settled", basis, cost_nanousd, charged, now_ms)
    if charged:
        tx.execute(
            """INSERT INTO transfers(wallet_id, kind, amount_nanousd, hold_id, actor, created_at_ms)
               VALUES(?, 'charge', ?, ?, 'proxy', ?)""",
            (hold.wallet_id, -charged, hold.id, now_ms),
        )
    _record(tx, hold, "settled", basis, cost_nanousd, charged, outcome)
    return charged


def release(tx: Tx, hold: Hold, *, outcome: Outcome, now_ms: int) -> None:
    """End a hold without a charge: nothing was generated.

    Raises:
        HoldEndedError: it had ended already.
    """
    _end_hold(tx, hold, "released", "none", 0, 0, now_ms)
    _record(tx, hold, "released", "none", 0, 0, outcome)


def release_if_open(tx: Tx, hold: Hold, *, outcome: Outcome, now_ms: int) -> None:
    """End a hold whose placing nobody waited for; does nothing when it was never placed."""
    placed = tx.execute(
        "SELECT amount_nanousd FROM holds WHERE id = ? AND state = 'open'", (hold.id,)
    ).fetchone()
    if placed is not None:
        # It may have been placed with less than was asked for.
        hold = msgspec.structs.replace(hold, amount_nanousd=placed[0])
        release(tx, hold, outcome=outcome, now_ms=now_ms)


def _end_hold(
    tx: Tx, hold: Hold, state: str, basis: str, cost: int, charged: int, now_ms: int
) -> None:
    ended = tx.execute(
        """UPDATE holds SET state = ?, basis = ?, cost_nanousd = ?, charged_nanousd = ?,
                  shortfall_nanousd = ?, ended_at_ms = ?
           WHERE id = ? AND state = 'open' AND amount_nanousd = ?""",
        (state, basis, cost, charged, cost - charged, now_ms, hold.id, hold.amount_nanousd),
    )
    if ended.rowcount != 1:
        msg = f"Hold {hold.id.hex()} has ended already."
        raise HoldEndedError(msg)
    # One statement for both columns: the wallet's CHECK is tested per statement.
    tx.execute(
        """UPDATE wallets SET balance_nanousd = balance_nanousd - ?,
                  held_nanousd = held_nanousd - ? WHERE id = ?""",
        (charged, hold.amount_nanousd, hold.wallet_id),
    )


_INSERT_REQUEST = """
INSERT INTO requests(id, api_key_id, endpoint, created_at_ms, hold_nanousd, state, basis,
  cost_nanousd, charged_nanousd, shortfall_nanousd, user_id, provider, model, is_stream, status,
  duration_ms, model_served, reason, usage, raw_usage, receipt, upstream_status, provider_key_id,
  attempts, ttfb_ms)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


def _record(
    tx: Tx, hold: Hold, state: str, basis: str, cost: int, charged: int, outcome: Outcome
) -> None:
    money = (hold.amount_nanousd, state, basis, cost, charged, cost - charged)
    tx.execute(
        _INSERT_REQUEST,
        (
            *(hold.id, hold.api_key_id, hold.endpoint, hold.created_at_ms),
            *money,
            *msgspec.structs.astuple(outcome),
        ),
    )


def record_unheld(
    tx: Tx,
    request_id: bytes,
    *,
    api_key_id: int,
    endpoint: str,
    outcome: Outcome,
    now_ms: int,
    state: str = "refused",
) -> None:
    """Leave a reporting row for a request that needed no hold: refused, or free (`settled`)."""
    tx.execute(
        _INSERT_REQUEST,
        (
            *(request_id, api_key_id, endpoint, now_ms, 0, state, "none", 0, 0, 0),
            *msgspec.structs.astuple(outcome),
        ),
    )


def expire_open_holds(tx: Tx, *, now_ms: int) -> int:
    """End every open hold, charging only what had durably been seen; return how many there were.

    Called at the start of the one serving process, when each of them belongs to a dead owner.
    """
    rows = tx.execute(
        """SELECT holds.id, wallet_id, api_key_id, price_version_id, boot_id, endpoint,
                  user_multiplier_micro, model_multiplier_micro, amount_nanousd,
                  holds.created_at_ms, seen_cost_nanousd, user_id, provider, model
           FROM holds JOIN wallets ON wallets.id = wallet_id
                      JOIN price_versions ON price_versions.id = price_version_id
           WHERE state = 'open'"""
    ).fetchall()
    for row in rows:
        hold, (seen, user_id, provider, model) = Hold(*row[:10]), row[10:]
        charged = min(seen, hold.amount_nanousd)
        basis = "estimate" if seen else "none"
        outcome = Outcome(
            user_id=user_id,
            provider=provider,
            model=model,
            is_stream=False,
            status=0,
            duration_ms=max(0, now_ms - hold.created_at_ms),
            reason="the proxy stopped while this request ran",
        )
        _end_hold(tx, hold, "expired", basis, seen, charged, now_ms)
        if charged:
            tx.execute(
                """INSERT INTO transfers(wallet_id, kind, amount_nanousd, hold_id, actor,
                                         created_at_ms)
                   VALUES(?, 'charge', ?, ?, 'recovery', ?)""",
                (hold.wallet_id, -charged, hold.id, now_ms),
            )
        _record(tx, hold, "expired", basis, seen, charged, outcome)
    return len(rows)


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
        RefusedError: not above zero, the balance would pass a billion dollars, or the key was
            used for another wallet or amount.
    """
    if amount_nanousd <= 0:
        msg = "A credit must be above zero. To take money back: llmproxy credits adjust"
        raise RefusedError(msg)
    if idempotency_key is not None:
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
        RefusedError: zero, or more than is available would be taken.
    """
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
