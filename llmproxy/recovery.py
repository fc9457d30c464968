"""Owns what becomes of the ends of holds that a serving process could not write, or left open.

While it runs, `EndsKeeper` puts the ends that the database does not take into the spill, as plain
data. Its next start writes them, each once, and then ends the holds that are still open. It writes
the money tables as `ledger.py` does, by whole sets. Must not run beside another server.
"""

import enum
import logging
from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from llmproxy import ledger, rollups
from llmproxy.storage.database import Tx
from llmproxy.storage.jobs import Write
from llmproxy.storage.spill import Spill

_log = logging.getLogger("llmproxy.server")


class KeptEnd(msgspec.Struct, frozen=True, tag="end"):
    """The end of a hold that the database did not take."""

    hold: ledger.Hold
    end: ledger.End


class Failure(msgspec.Struct, frozen=True, tag="failure"):
    """The database had failed, and why: it is not to be trusted before it has been checked."""

    why: str


class Kept(NamedTuple):
    """What the last process has left in the spill."""

    ends: list[KeptEnd]
    failures: list[str]
    damaged: int
    """How many lines could not be read."""


_DECODER = msgspec.json.Decoder(KeptEnd | Failure)


class EndsKeeper:
    """Keeps the ends of holds, and nothing else: the writer's `Keeper`."""

    def __init__(self, spill: Spill) -> None:
        """Take the file to keep them in."""
        self._spill = spill

    def keep(self, writes: Sequence[Write]) -> int:
        """Keep the ends of holds among some writes, durably; return how many they were."""
        ends = [
            KeptEnd(*arguments)
            for function, arguments in writes
            if function in {ledger.end_hold, ledger.end_if_open}
        ]
        return self._append(ends)

    def note_failure(self, why: str) -> None:
        """Note that the database has failed, for the next start."""
        self._append([Failure(why)])

    def _append(self, records: Sequence[KeptEnd | Failure]) -> int:
        """Add records durably; return how many there was room for."""
        if not records:
            return 0
        errors: list[Exception] = []
        for record in records:
            try:
                self._spill.append(msgspec.json.encode(record))
            except Exception as error:  # noqa: BLE001 - the others are to be kept, whatever it is
                errors.append(error)
        if errors:
            _log.critical(
                "%d of %d settlements could not be kept in %s: %s. Their holds end at the next "
                "start by what had been seen of the answers.",
                *(len(errors), len(records), self._spill.path, errors[0]),
            )
        return len(records) - len(errors) if self._is_safe() else 0

    def _is_safe(self) -> bool:
        try:
            self._spill.sync()
        except OSError as error:
            _log.critical("%s may not be on disk: %s", self._spill.path, error.strerror)
            return False
        return True


def read_kept(spill: Spill) -> Kept:
    """Return what the last process has left in the spill.

    Raises:
        OSError: it cannot be read.
    """
    contents = spill.read()
    kept = Kept([], [], contents.damaged)
    for record in contents.records:
        try:
            read = _DECODER.decode(record)
        except msgspec.DecodeError:  # of another version
            kept = kept._replace(damaged=kept.damaged + 1)
            continue
        if isinstance(read, Failure):
            kept.failures.append(read.why)
        else:
            kept.ends.append(read)
    return kept


class Fate(enum.Enum):
    """What became of an end that had been kept."""

    WRITTEN = "its hold was open, and has ended so now"
    HAD_ENDED = "its hold had ended: it had been written after all, or by an earlier start"
    UNKNOWN = "its hold is not in this database, such as an older copy of it"


def write_kept(tx: Tx, kept: KeptEnd) -> Fate:
    """End a hold as it was to end, unless it has ended: it may be written any number of times."""
    if ledger.end_if_open(tx, kept.hold, kept.end):
        return Fate.WRITTEN
    known = tx.execute("SELECT 1 FROM holds WHERE id = ?", (kept.hold.id,)).fetchone()
    # A release of a hold that was never placed owes nobody anything.
    return Fate.HAD_ENDED if known or kept.end.state == "released" else Fate.UNKNOWN


def expire_open_holds(tx: Tx, *, now_ms: int) -> int:
    """End every open hold, charging only what had durably been seen; return how many there were.

    Called at the start of the one serving process, when each of them belongs to a dead owner.
    Whole sets at a time: ten thousand of them must not keep the server from starting.
    """
    at = {"now": now_ms}
    tx.execute(
        """UPDATE wallets SET
             balance_nanousd = balance_nanousd - ended.charged,
             held_nanousd = held_nanousd - ended.held
           FROM (SELECT wallet_id, sum(min(seen_cost_nanousd, amount_nanousd)) AS charged,
                        sum(amount_nanousd) AS held
                 FROM holds WHERE state = 'open' GROUP BY wallet_id) AS ended
           WHERE wallets.id = ended.wallet_id"""
    )
    tx.execute(
        """INSERT INTO transfers(wallet_id, kind, amount_nanousd, hold_id, actor, created_at_ms)
           SELECT wallet_id, 'charge', -min(seen_cost_nanousd, amount_nanousd), id, 'recovery', :now
           FROM holds WHERE state = 'open' AND min(seen_cost_nanousd, amount_nanousd) > 0""",
        at,
    )
    tx.execute(
        """INSERT INTO requests(id, api_key_id, endpoint, created_at_ms, hold_nanousd, state, basis,
             cost_nanousd, charged_nanousd, shortfall_nanousd, user_id, provider, model, is_stream,
             status, duration_ms, reason, attempts)
           SELECT holds.id, api_key_id, endpoint, holds.created_at_ms, amount_nanousd, 'expired',
             iif(seen_cost_nanousd > 0, 'estimate', 'none'), seen_cost_nanousd,
             min(seen_cost_nanousd, amount_nanousd), max(seen_cost_nanousd - amount_nanousd, 0),
             user_id, provider, model, coalesce(is_stream, 0), 0,
             max(:now - holds.created_at_ms, 0), 'the proxy stopped while this request ran', 0
           FROM holds JOIN wallets ON wallets.id = wallet_id
                      JOIN price_versions ON price_versions.id = price_version_id
           WHERE state = 'open'""",
        at,
    )
    rollups.add_open_holds(tx)
    ended = tx.execute(
        """UPDATE holds SET state = 'expired', ended_at_ms = :now,
             basis = iif(seen_cost_nanousd > 0, 'estimate', 'none'),
             cost_nanousd = seen_cost_nanousd,
             charged_nanousd = min(seen_cost_nanousd, amount_nanousd),
             shortfall_nanousd = max(seen_cost_nanousd - amount_nanousd, 0)
           WHERE state = 'open'""",
        at,
    )
    return ended.rowcount
