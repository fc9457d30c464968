"""Owns the questions about the whole ledger: credits, sums, sizes, and what `doctor` asks."""

import msgspec

from llmproxy.clock import arrival_ms
from llmproxy.reports.requests import id_bound
from llmproxy.storage.database import Tx

REQUESTS_LOOKED_AT_MAX = 100_000


class CreditEntry(msgspec.Struct, frozen=True):
    """A credit or an adjustment as it stands in the history."""

    id: int
    kind: str
    amount_nanousd: int
    reason: str | None
    actor: str
    idempotency_key: str | None
    created_at_ms: int


_CREDITS = """
SELECT id, kind, amount_nanousd, reason, actor, idempotency_key, created_at_ms
FROM transfers WHERE wallet_id = :wallet AND kind <> 'charge'
"""
_CREDITS_BEFORE = _CREDITS + "AND id < :before ORDER BY id DESC LIMIT :limit"
_CREDITS_AFTER = _CREDITS + "AND id > :after ORDER BY id LIMIT :limit"
_ID_MAX = 2**63 - 1


def list_credits(tx: Tx, wallet_id: int, *, limit: int, before: int = _ID_MAX) -> list[CreditEntry]:
    """Return up to `limit` credits and adjustments of a wallet, newest first; -1 returns all.

    Only those with an id below `before`: what comes behind a page that ended with it.
    """
    rows = tx.execute(_CREDITS_BEFORE, {"wallet": wallet_id, "before": before, "limit": limit})
    return [CreditEntry(*row) for row in rows]


def list_credits_after(tx: Tx, wallet_id: int, after: int, *, limit: int) -> list[CreditEntry]:
    """Return up to `limit` credits and adjustments of a wallet above an id, oldest first."""
    rows = tx.execute(_CREDITS_AFTER, {"wallet": wallet_id, "after": after, "limit": limit})
    return [CreditEntry(*row) for row in rows]


class Standing(msgspec.Struct, frozen=True):
    """The whole ledger in a few numbers, for `doctor` and the dashboard."""

    users: int
    balance_nanousd: int
    held_nanousd: int
    open_holds: int
    shortfalls: int
    shortfall_nanousd: int


def standing(tx: Tx) -> Standing:
    """Return the sums over all users; reads every hold that ended with a shortfall."""
    wallets = tx.execute(
        """SELECT count(*), coalesce(sum(balance_nanousd), 0), coalesce(sum(held_nanousd), 0)
           FROM wallets"""
    ).fetchone()
    open_holds = tx.execute("SELECT count(*) FROM holds WHERE state = 'open'").fetchone()
    owed = tx.execute(
        """SELECT count(*), coalesce(sum(shortfall_nanousd), 0) FROM holds
           WHERE shortfall_nanousd > 0"""
    ).fetchone()
    return Standing(*(int(value) for value in (*wallets, *open_holds, *owed)))


def count_rows(tx: Tx) -> dict[str, int]:
    """Return the number of rows of each table that grows; counts by walking their indexes."""
    row = tx.execute(
        """SELECT (SELECT count(*) FROM users), (SELECT count(*) FROM api_keys),
                  (SELECT count(*) FROM provider_keys), (SELECT count(*) FROM holds),
                  (SELECT count(*) FROM transfers), (SELECT count(*) FROM requests),
                  (SELECT count(*) FROM price_versions)"""
    ).fetchone()
    names = (
        "users",
        "api_keys",
        "provider_keys",
        "holds",
        "transfers",
        "requests",
        "price_versions",
    )
    return dict(zip(names, row, strict=True))


def count_requests(tx: Tx) -> tuple[int, int]:
    """Return how many requests have ended, and how many were refused: by the sums of days."""
    row = tx.execute(
        "SELECT coalesce(sum(requests), 0), coalesce(sum(refused), 0) FROM requests_by_day"
    ).fetchone()
    return int(row[0]), int(row[1])


def newest_request_ms(tx: Tx) -> int | None:
    """Return when the newest request came, running or ended; None when there is none."""
    row = tx.execute(
        """SELECT max(coalesce((SELECT max(id) FROM requests), x''),
                      coalesce((SELECT max(id) FROM holds), x''))"""
    ).fetchone()
    return arrival_ms(row[0]) if row[0] else None


def count_open_holds(tx: Tx, *, before_ms: int) -> int:
    """Return how many open holds were placed before a moment."""
    row = tx.execute(
        "SELECT count(*) FROM holds WHERE state = 'open' AND created_at_ms < ?", (before_ms,)
    ).fetchone()
    return int(row[0])


def unpriced_models(
    tx: Tx, *, since_ms: int, rows_max: int = REQUESTS_LOOKED_AT_MAX
) -> list[tuple[str, str, int]]:
    """Return the models that were refused for want of a price: provider, model, how often.

    Looks at the newest `rows_max` requests since then; most frequent first. The
    wording is that of `errors.unknown_model_pricing`.
    """
    rows = tx.execute(
        """SELECT provider, model, count(*) FROM
             (SELECT provider, model, state, reason FROM requests WHERE id >= :first
              ORDER BY id DESC LIMIT :most)
           WHERE state = 'refused' AND reason LIKE 'Unknown model pricing:%'
           GROUP BY provider, model ORDER BY 3 DESC, 1, 2""",
        {"first": id_bound(since_ms, 0), "most": rows_max},
    )
    return [(row[0], row[1], row[2]) for row in rows]


class ServedModel(msgspec.Struct, frozen=True):
    """Answers to one model's requests that named another model as theirs."""

    provider: str
    asked: str
    served: str
    requests: int
    newest_id: bytes


def served_models(
    tx: Tx, *, since_ms: int, rows_max: int = REQUESTS_LOOKED_AT_MAX
) -> list[ServedModel]:
    """Return the models whose charged answers came under another name, most frequent first.

    Looks at the newest `rows_max` requests since then.
    """
    rows = tx.execute(
        """SELECT provider, model, model_served, count(*), max(id) FROM
             (SELECT id, provider, model, model_served, state FROM requests WHERE id >= :first
              ORDER BY id DESC LIMIT :most)
           WHERE state = 'settled' AND model_served <> model
           GROUP BY provider, model, model_served ORDER BY 4 DESC, 1, 2, 3""",
        {"first": id_bound(since_ms, 0), "most": rows_max},
    )
    return [ServedModel(*row) for row in rows]
