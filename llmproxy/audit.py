"""Owns the audit log: every administrative act, by whom and when, from commands and pages alike.

An act is written in the transaction of what it changes: neither is there without the other. Must
not hold secrets.
"""

import msgspec

from llmproxy.clock import rfc3339
from llmproxy.storage.database import Tx

DETAILS_CHARS_MAX = 16_384
"""No form is longer, and hardly a command."""


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


def list_acts(
    tx: Tx,
    *,
    limit: int,
    before: int | None = None,
    actor: str | None = None,
    text: str | None = None,
) -> list[Act]:
    """Return up to `limit` acts, newest first; a limit of -1 returns all.

    Args:
        tx: a reading transaction.
        limit: the most.
        before: only those with a smaller id: what comes behind a page that ended with it.
        actor: only by them, as the log writes it.
        text: only those in whose act or details it stands, in whatever case.
    """
    rows = tx.execute(
        """SELECT id, actor, act, details, created_at_ms FROM audit_log
           WHERE (:before IS NULL OR id < :before) AND (:actor IS NULL OR actor = :actor)
             AND (:text IS NULL OR instr(lower(act || ' ' || details), lower(:text)) > 0)
           ORDER BY id DESC LIMIT :limit""",
        {"before": before, "actor": actor, "text": text, "limit": limit},
    )
    return [Act(*row) for row in rows]
