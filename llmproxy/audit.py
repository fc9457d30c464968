"""Owns the audit log: every administrative act, by whom and when, from commands and pages alike.

An act is written in the transaction of what it changes: neither is there without the other. Must
not hold secrets.
"""

from typing import NamedTuple

import msgspec

from llmproxy.clock import rfc3339
from llmproxy.storage.database import Tx

DETAILS_CHARS_MAX = 16_384
"""No form is longer, and hardly a command."""
LOOKED_AT_MAX = 20_000
"""So many acts are looked through at once, for a page or a piece of a download."""
_ID_MAX = 2**63 - 1


class Act(msgspec.Struct, frozen=True):
    """One administrative act."""

    id: int
    """Rises with time."""
    actor: str
    """Who: `cli:` with the name of the account on the machine, or `dashboard:` with the user's."""
    act: str
    """What, in the words of the command line, such as `credits add`."""
    details: str
    """To whom or what, and how; as the command's arguments are written."""
    created_at_ms: int

    def as_json(self) -> dict[str, object]:
        """Return the act as `audit list --json` and downloads show it."""
        return {
            "id": self.id,
            "created_at": rfc3339(self.created_at_ms),
            "actor": self.actor,
            "act": self.act,
            "details": self.details,
        }


class Look(NamedTuple):
    """What one look through the log has found."""

    acts: list[Act]
    go_on: int | None
    """The id before which there is more to look at; None when that was all."""
    back_to_ms: int | None
    """When the oldest of those looked at was done, where there were too many of them."""


def note(tx: Tx, *, actor: str, act: str, details: str, now_ms: int) -> None:
    """Write one act; details beyond DETAILS_CHARS_MAX are cut off."""
    if len(details) > DETAILS_CHARS_MAX:
        details = details[: DETAILS_CHARS_MAX - 1] + "…"
    tx.execute(
        "INSERT INTO audit_log(actor, act, details, created_at_ms) VALUES(?, ?, ?, ?)",
        (actor, act, details, now_ms),
    )


def count(tx: Tx) -> int:
    """Return how many acts there are: they are numbered from 1, and none is ever deleted."""
    row = tx.execute("SELECT coalesce(max(id), 0) FROM audit_log").fetchone()
    return int(row[0])


_ACTS = """
SELECT id, actor, act, details, created_at_ms FROM audit_log
WHERE id >= :first AND id < :end AND (:actor IS NULL OR actor = :actor)
  AND (:text IS NULL OR instr(lower(act || ' ' || details), lower(:text)) > 0)
ORDER BY id DESC LIMIT :limit
"""


def list_acts(
    tx: Tx, *, limit: int, actor: str | None = None, text: str | None = None
) -> list[Act]:
    """Return up to `limit` acts, newest first; a limit of -1 returns all.

    Args:
        tx: a reading transaction.
        limit: the most.
        actor: only by them, as the log writes it.
        text: only those in whose act or details it stands, in whatever case.
    """
    bounds = {"first": 0, "end": _ID_MAX, "limit": limit}
    rows = tx.execute(_ACTS, {"actor": actor, "text": text, **bounds})
    return [Act(*row) for row in rows]


def look_back(
    tx: Tx,
    *,
    limit: int,
    before: int | None = None,
    actor: str | None = None,
    text: str | None = None,
    most: int = LOOKED_AT_MAX,
) -> Look:
    """Return up to `limit` acts as `list_acts` does, from those before an id on.

    There can be fewer though more would fit: where `most` were looked at before.
    """
    end = count(tx) + 1 if before is None else before
    first = max(1, end - most)
    bounds = {"first": first, "end": end, "limit": limit + 1}
    rows = tx.execute(_ACTS, {"actor": actor, "text": text, **bounds})
    acts = [Act(*row) for row in rows]
    if len(acts) > limit:
        return Look(acts[:limit], acts[limit - 1].id, None)
    if first == 1:
        return Look(acts, None, None)
    (back_to_ms,) = tx.execute(
        "SELECT min(created_at_ms) FROM audit_log WHERE id = ?", (first,)
    ).fetchone()
    return Look(acts, first, back_to_ms)
