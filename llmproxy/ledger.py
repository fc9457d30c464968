"""Owns the money tables: holds, from being placed to their one end, and the rows they leave.

Six operations move money and nothing else does: hold, extend, end (settle or release), credit and
adjust (crediting.py) and, at the start, expire (recovery.py).
Each is `f(tx, …)` over an open immediate transaction and whole by itself: a crash before COMMIT
leaves nothing of it. Amounts are nano-USD. Must not price, parse or wait.
"""

import hashlib

import msgspec

from llmproxy import rollups, stored_responses
from llmproxy.errors import LlmproxyError
from llmproxy.money import AMOUNT_NANOUSD_MAX
from llmproxy.pricing import Line
from llmproxy.storage.database import Tx
from llmproxy.stored_responses import KeptResponse


class HoldEndedError(LlmproxyError):
    """The hold was settled, released or expired before: it ends exactly once."""

    def __init__(self, hold_id: bytes) -> None:
        """Take the hold's id."""
        super().__init__(f"Hold {hold_id.hex()} is not open.")


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
    idempotency_hash: bytes | None = None
    body_hash: bytes | None = None
    """SHA-256 of the idempotency key, and of what was asked with it; None without a key."""
    is_stream: bool = False
    """For the row of a request that a crash has ended: nobody else is left to say it."""


class EarlierHold(msgspec.Struct, frozen=True):
    """The hold that has an idempotency key already; its cost is None while it is open."""

    hold_id: bytes
    body_hash: bytes
    state: str
    cost_nanousd: int | None


class Standing(msgspec.Struct, frozen=True):
    """What a wallet has at a moment; also the answer to a hold that it does not cover."""

    balance_nanousd: int
    held_nanousd: int

    @property
    def available_nanousd(self) -> int:
        """What can be held."""
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


class Unpinned(msgspec.Struct, frozen=True):
    """A model that a receipt has a name for though it was not asked for."""

    name: str
    """In the lines of the receipt: as the answer has it."""
    model: str
    """Whose prices count."""
    prices: str
    """Canonical JSON."""


class End(msgspec.Struct, frozen=True):
    """How a hold ends, as plain data: it can be kept elsewhere while the database is full.

    `state` is `settled` or `released`; a released hold has the basis `none` and costs nothing.
    """

    state: str
    basis: str
    cost_nanousd: int
    outcome: Outcome
    at_ms: int
    kept: KeptResponse | None = None
    """The answer, if the provider keeps it and requests may go on from it."""
    unpinned: tuple[Unpinned, ...] = ()
    """Prices in the receipt that are to be pinned with it: nobody knew of them before the end."""


def released(outcome: Outcome, *, at_ms: int) -> End:
    """Return the end of a hold without a charge: nothing was generated."""
    return End("released", "none", 0, outcome, at_ms)


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


def find_earlier_hold(tx: Tx, hold: Hold) -> EarlierHold | None:
    """Return the hold that has the idempotency key of one that is to be placed, if there is any.

    To be asked in the transaction that places it. A released hold has given its key back; all
    others keep theirs for ever.
    """
    if hold.idempotency_hash is None:
        return None
    row = tx.execute(
        """SELECT id, body_hash, state, cost_nanousd FROM holds INDEXED BY holds_idempotency
           WHERE wallet_id = ? AND idempotency_hash = ? AND state <> 'released'""",
        (hold.wallet_id, hold.idempotency_hash),
    ).fetchone()
    return None if row is None else EarlierHold(*row)


def place_hold(tx: Tx, hold: Hold) -> Standing | None:
    """Set money aside, or return what was there when it did not suffice (nothing is written).

    An idempotency key must be free: see `find_earlier_hold`.
    """
    # More than the most is more than anybody has, or SQLite can count.
    is_possible = hold.amount_nanousd <= AMOUNT_NANOUSD_MAX
    if not (is_possible and _set_aside(tx, hold.wallet_id, hold.amount_nanousd)):
        return standing(tx, hold.wallet_id)
    tx.execute(
        """INSERT INTO holds(id, wallet_id, api_key_id, price_version_id, boot_id, endpoint,
                             user_multiplier_micro, model_multiplier_micro, amount_nanousd,
                             created_at_ms, idempotency_hash, body_hash, is_stream)
           VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)""",
        msgspec.structs.astuple(hold),
    )
    return None


def extend_hold(tx: Tx, hold: Hold, by_nanousd: int) -> Standing | None:
    """Set more aside for an open hold, or return what was there when it did not suffice.

    The row says from then on what is held; `hold` itself stays as it was placed.

    Raises:
        HoldEndedError: it has ended.
    """
    if not _set_aside(tx, hold.wallet_id, by_nanousd):
        return standing(tx, hold.wallet_id)
    grown = tx.execute(
        "UPDATE holds SET amount_nanousd = amount_nanousd + ? WHERE id = ? AND state = 'open'",
        (by_nanousd, hold.id),
    )
    if grown.rowcount != 1:
        raise HoldEndedError(hold.id)
    return None


def _set_aside(tx: Tx, wallet_id: int, amount_nanousd: int) -> bool:
    """Hold so much of a wallet if it is available; say whether it was.

    The check and the change are one statement, so that parallel requests cannot both pass it.
    """
    held = tx.execute(
        """UPDATE wallets SET held_nanousd = held_nanousd + ?1
           WHERE id = ?2 AND balance_nanousd - held_nanousd >= ?1""",
        (amount_nanousd, wallet_id),
    )
    return held.rowcount == 1


def note_seen(tx: Tx, hold: Hold, cost_nanousd: int) -> None:
    """Note what of a running answer has been seen, priced: what it ends by if we are killed.

    It never goes back, and means nothing any more for a hold that has ended.
    """
    tx.execute(
        """UPDATE holds SET seen_cost_nanousd = :seen
           WHERE id = :id AND state = 'open' AND seen_cost_nanousd < :seen""",
        {"seen": cost_nanousd, "id": hold.id},
    )


def end_hold(tx: Tx, hold: Hold, end: End) -> int:
    """Settle or release a hold; return what was charged in nano-USD.

    A cost above what is held is drawn from what is available, never below zero; the rest is the
    operator's shortfall.

    Raises:
        HoldEndedError: it had ended already, or was never placed.
    """
    # Not by RETURNING, for which SQLite would make a table of its own each time.
    row = tx.execute(
        "SELECT amount_nanousd FROM holds WHERE id = ? AND state = 'open'", (hold.id,)
    ).fetchone()
    if row is None:
        raise HoldEndedError(hold.id)
    held = int(row[0])
    charged = end.cost_nanousd
    if charged > held:
        charged = min(charged, held + standing(tx, hold.wallet_id).available_nanousd)
    owed = end.cost_nanousd - charged
    tx.execute(
        """UPDATE holds SET state = ?, basis = ?, cost_nanousd = ?, charged_nanousd = ?,
                  shortfall_nanousd = ?, ended_at_ms = ?
           WHERE id = ?""",
        (end.state, end.basis, end.cost_nanousd, charged, owed, end.at_ms, hold.id),
    )
    # One statement for both columns: the wallet's CHECK is tested per statement.
    tx.execute(
        """UPDATE wallets SET balance_nanousd = balance_nanousd - ?,
                  held_nanousd = held_nanousd - ? WHERE id = ?""",
        (charged, held, hold.wallet_id),
    )
    if charged:
        tx.execute(
            """INSERT INTO transfers(wallet_id, kind, amount_nanousd, hold_id, actor, created_at_ms)
               VALUES(?, 'charge', ?, ?, 'proxy', ?)""",
            (hold.wallet_id, -charged, hold.id, end.at_ms),
        )
    outcome = _with_pins(tx, end) if end.unpinned else end.outcome
    tx.execute(
        _INSERT_REQUEST,
        (
            *(hold.id, hold.api_key_id, hold.endpoint, hold.created_at_ms),
            *(held, end.state, end.basis, end.cost_nanousd, charged, owed),
            *msgspec.structs.astuple(outcome),
        ),
    )
    rollups.add_request(
        tx,
        rollups.Group(
            *(outcome.user_id, rollups.day_of(hold.created_at_ms), hold.api_key_id),
            *(outcome.provider, hold.endpoint, outcome.model),
        ),
        is_refused=False,
        usage=outcome.usage,
        cost_nanousd=end.cost_nanousd,
        charged_nanousd=charged,
        shortfall_nanousd=owed,
    )
    if end.kept is not None and outcome.provider_key_id is not None:
        stored_responses.remember(
            tx,
            end.kept,
            user_id=outcome.user_id,
            provider=outcome.provider,
            provider_key_id=outcome.provider_key_id,
            model=outcome.model,
            now_ms=end.at_ms,
        )
    return charged


def _with_pins(tx: Tx, end: End) -> Outcome:
    """Pin the prices of other models; return the outcome with a receipt that names the versions."""
    outcome = end.outcome
    versions = {
        one.name: pin_prices(tx, outcome.provider, one.model, one.prices.encode(), now_ms=end.at_ms)
        for one in end.unpinned
    }
    lines = [
        msgspec.structs.replace(line, price_version=versions.get(line.model, line.price_version))
        for line in msgspec.json.decode(outcome.receipt or "[]", type=list[Line])
    ]
    return msgspec.structs.replace(outcome, receipt=msgspec.json.encode(lines).decode())


def end_if_open(tx: Tx, hold: Hold, end: End) -> bool:
    """End a hold that may never have been placed, or have ended: say whether it was open."""
    row = tx.execute("SELECT 1 FROM holds WHERE id = ? AND state = 'open'", (hold.id,)).fetchone()
    if row is not None:
        end_hold(tx, hold, end)
    return row is not None


def standing(tx: Tx, wallet_id: int) -> Standing:
    """Return what a wallet has now."""
    row = tx.execute(
        "SELECT balance_nanousd, held_nanousd FROM wallets WHERE id = ?", (wallet_id,)
    ).fetchone()
    return Standing(*row)


_INSERT_REQUEST = """
INSERT INTO requests(id, api_key_id, endpoint, created_at_ms, hold_nanousd, state, basis,
  cost_nanousd, charged_nanousd, shortfall_nanousd, user_id, provider, model, is_stream, status,
  duration_ms, model_served, reason, usage, raw_usage, receipt, upstream_status, provider_key_id,
  attempts, ttfb_ms)
VALUES(?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)
"""


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
    """Leave a reporting row for a request that needed no hold: refused, or free (`settled`).

    `now_ms` is when it came.
    """
    tx.execute(
        _INSERT_REQUEST,
        (
            *(request_id, api_key_id, endpoint, now_ms, 0, state, "none", 0, 0, 0),
            *msgspec.structs.astuple(outcome),
        ),
    )
    day = rollups.day_of(now_ms)
    rollups.add_request(
        tx,
        rollups.Group(outcome.user_id, day, api_key_id, outcome.provider, endpoint, ""),
        is_refused=state == "refused",
        usage=outcome.usage,
    )
