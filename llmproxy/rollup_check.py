"""Owns the proof of the sums by day: derived again from requests, holds and transfers.

It yields what is wrong and where, in words; `ledger_check.py` reports. It only reads. Money is
nano-USD.
"""

import sqlite3
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime

from llmproxy.money import format_usd
from llmproxy.rollups import DAY_MS, REQUESTS_AS_DAYS, TOKEN_CLASSES
from llmproxy.storage.database import Tx

SUMMED = (
    *("requests", "refused", *TOKEN_CLASSES),
    *("cost_nanousd", "charged_nanousd", "shortfall_nanousd"),
)
# What is left of the kept sums when those of the requests are taken from them.
_AGAINST_REQUESTS = """
SELECT user_id, day, api_key_id, provider, endpoint, model,
  sum(requests) AS requests, sum(refused) AS refused, sum(input) AS input, sum(cache_read) AS
  cache_read, sum(cache_write_5m) AS cache_write_5m, sum(cache_write_1h) AS cache_write_1h,
  sum(output) AS output, sum(reasoning) AS reasoning, sum(web_searches) AS web_searches,
  sum(cost_nanousd) AS cost_nanousd, sum(charged_nanousd) AS charged_nanousd,
  sum(shortfall_nanousd) AS shortfall_nanousd
FROM (SELECT * FROM requests_by_day UNION ALL
      SELECT user_id, day, api_key_id, provider, endpoint, model,
        -requests, -refused, -input, -cache_read, -cache_write_5m, -cache_write_1h, -output,
        -reasoning, -web_searches, -cost_nanousd, -charged_nanousd, -shortfall_nanousd
      FROM REQUESTS_AS_DAYS)
GROUP BY user_id, day, api_key_id, provider, endpoint, model
HAVING sum(requests) <> 0 OR sum(refused) <> 0 OR sum(input) <> 0 OR sum(cache_read) <> 0 OR
  sum(cache_write_5m) <> 0 OR sum(cache_write_1h) <> 0 OR sum(output) <> 0 OR sum(reasoning)
  <> 0 OR sum(web_searches) <> 0 OR sum(cost_nanousd) <> 0 OR sum(charged_nanousd) <> 0 OR
  sum(shortfall_nanousd) <> 0
""".replace("REQUESTS_AS_DAYS", REQUESTS_AS_DAYS)
_AGAINST_HOLDS = """
SELECT user_id, day, sum(cost_nanousd) AS cost_nanousd, sum(charged_nanousd) AS charged_nanousd,
       sum(shortfall_nanousd) AS shortfall_nanousd
FROM (SELECT user_id, day, cost_nanousd, charged_nanousd, shortfall_nanousd FROM requests_by_day
      UNION ALL
      SELECT user_id, created_at_ms / 86400000, -cost_nanousd, -charged_nanousd, -shortfall_nanousd
      FROM holds JOIN wallets ON wallets.id = wallet_id WHERE state <> 'open')
GROUP BY user_id, day
HAVING sum(cost_nanousd) <> 0 OR sum(charged_nanousd) <> 0 OR sum(shortfall_nanousd) <> 0
"""
_AGAINST_TRANSFERS = """
SELECT sums.user_id, sum(charged) AS charged
FROM (SELECT user_id, charged_nanousd AS charged FROM requests_by_day
      UNION ALL
      SELECT user_id, amount_nanousd FROM transfers JOIN wallets ON wallets.id = wallet_id
      WHERE kind = 'charge') AS sums
GROUP BY sums.user_id HAVING sum(charged) <> 0
"""

Problem = tuple[str, str]


def day_problems(tx: Tx) -> Iterator[Problem]:
    """Yield where the sums by day are not those of requests, holds and transfers, and how.

    Holds and transfers are there for ever. Of days whose requests have been pruned some may be
    left, and their sums may be more than these.
    """
    names = dict(tx.execute("SELECT id, name FROM users").fetchall())
    keys = dict(tx.execute("SELECT id, name FROM api_keys").fetchall())
    (pruned_day,) = tx.execute("SELECT coalesce(max(before_day), 0) FROM prunes").fetchone()
    statement = _AGAINST_REQUESTS
    for row in tx.execute(statement):
        whose = _of_day(names, row["user_id"], row["day"])
        model = f"/{row['model']}" if row["model"] else ""
        key = keys.get(row["api_key_id"], row["api_key_id"])
        where = f"{whose}, API key {key}, {row['provider']}{model}, {row['endpoint']}"
        # Of a day that was pruned the sums may be more than what is left of its requests.
        wrong = [name for name in SUMMED if row[name] < 0 or row["day"] >= pruned_day]
        if differing := _differing(row, wrong):
            yield where, f"are not those of its requests: {differing}"
    for row in tx.execute(_AGAINST_HOLDS):
        differing = _differing(row, ("cost_nanousd", "charged_nanousd", "shortfall_nanousd"))
        where = _of_day(names, row["user_id"], row["day"])
        yield where, f"are not those of its holds: {differing}"
    for user_id, charged in tx.execute(_AGAINST_TRANSFERS):
        text = f"are not those of the transfers: charges differ by {format_usd(charged)}"
        yield f"sums of user {names.get(user_id, user_id)}", text


def _differing(row: sqlite3.Row, columns: Iterable[str]) -> str:
    """Return the columns that differ, and by how much; empty when none does."""
    return ", ".join(f"{name} by {row[name]}" for name in columns if row[name])


def _of_day(names: dict[int, str], user_id: int, day: int) -> str:
    date = datetime.fromtimestamp(day * DAY_MS // 1000, tz=UTC)
    return f"sums of user {names.get(user_id, user_id)} on {date:%Y-%m-%d}"
