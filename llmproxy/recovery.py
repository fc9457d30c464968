"""Owns what the start of the serving process makes of the work of one that died.

It writes the money tables as `ledger.py` does, by whole sets. Must not run beside another server.
"""

from llmproxy.storage.database import Tx


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
             user_id, provider, model, seen_cost_nanousd > 0, 0,
             max(:now - holds.created_at_ms, 0), 'the proxy stopped while this request ran', 0
           FROM holds JOIN wallets ON wallets.id = wallet_id
                      JOIN price_versions ON price_versions.id = price_version_id
           WHERE state = 'open'""",
        at,
    )
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
