"""Owns what API keys that share limits have used of them, as far as the database knows.

Budgets count requests by the day (UTC) of their arrival, at what their answers have cost.
"""

from typing import NamedTuple

import msgspec

from llmproxy.limits import VELOCITY_SPAN_S, Limits
from llmproxy.meters import DAY_MS, MINUTE_S, Spent, month_start_ms
from llmproxy.money import format_usd
from llmproxy.reports.requests import id_bound
from llmproxy.rollups import REQUESTS_AS_DAYS
from llmproxy.shapes import LimitsUsed
from llmproxy.storage.database import Tx

ANSWER_S_MAX = 86_400
"""The most that `total_timeout_s` can be: what ended lately came not before that."""
TIMEOUT_SLACK_S = 60
"""A server that is busy may end an answer this much later than it must."""


class LimitsUse(NamedTuple):
    """What is used of limits; money in nano-USD."""

    requests_last_minute: int
    tokens_last_minute: int
    running: int
    today: int
    month: int
    last_10_minutes: int | None
    """None where the speed of spending is not limited, and so not looked for."""

    def as_json(self) -> dict[str, object]:
        """Return it with money as exact decimal strings of USD."""
        shown: dict[str, object] = msgspec.to_builtins(self.shown())
        return shown

    def shown(self) -> LimitsUsed:
        """Return it in the shape in which it is told."""
        recent = self.last_10_minutes
        return LimitsUsed(
            requests_last_minute=self.requests_last_minute,
            tokens_last_minute=self.tokens_last_minute,
            running=self.running,
            spent_today_usd=format_usd(self.today),
            spent_month_usd=format_usd(self.month),
            spent_10_minutes_usd=msgspec.UNSET if recent is None else format_usd(recent),
        )


def find_spent(
    tx: Tx,
    user_id: int,
    limits_id: int,
    *,
    now_ms: int,
    resumed_at_ms: int = 0,
    answer_s_max: int = ANSWER_S_MAX,
    with_recent: bool = True,
) -> Spent:
    """Return what the API keys with these limits have spent and hold; see `Spent`.

    Args:
        tx: an open transaction.
        user_id: whose keys they are.
        limits_id: the limits that they share.
        now_ms: the present.
        resumed_at_ms: what ended before that is not recent.
        answer_s_max: the longest that an answer may take; the shorter, the fewer rows are read.
        with_recent: whether to look for what ended lately, which reads all that came lately.
    """
    day = now_ms // DAY_MS
    keys = {"user": user_id, "limits": limits_id}
    today, month = tx.execute(
        """SELECT coalesce(sum(iif(day = :day, cost_nanousd, 0)), 0),
                  coalesce(sum(cost_nanousd), 0)
           FROM requests_by_day
           WHERE user_id = :user AND day >= :first_day
             AND api_key_id IN (SELECT id FROM api_keys WHERE limits_id = :limits)""",
        {**keys, "day": day, "first_day": month_start_ms(now_ms) // DAY_MS},
    ).fetchone()
    open_holds = tx.execute(
        """SELECT id, amount_nanousd, created_at_ms FROM holds INDEXED BY holds_open
           WHERE state = 'open' AND wallet_id = (SELECT id FROM wallets WHERE user_id = :user)
             AND api_key_id IN (SELECT id FROM api_keys WHERE limits_id = :limits)""",
        keys,
    ).fetchall()
    since_ms = max(now_ms - VELOCITY_SPAN_S * 1000, resumed_at_ms)
    recent = _find_recent(tx, keys, since_ms, answer_s_max) if with_recent else []
    return Spent(today, month, [tuple(row) for row in open_holds], recent)


def _find_recent(
    tx: Tx, keys: dict[str, int], since_ms: int, answer_s_max: int
) -> list[tuple[int, int]]:
    """Return when each request that has ended since a time did so, and its cost; oldest first."""
    came_ms = since_ms - (answer_s_max + TIMEOUT_SLACK_S) * 1000
    rows = tx.execute(
        """SELECT created_at_ms + duration_ms AS ended, cost_nanousd
           FROM requests INDEXED BY requests_user
           WHERE user_id = :user AND id >= :first AND cost_nanousd > 0 AND ended > :since
             AND api_key_id IN (SELECT id FROM api_keys WHERE limits_id = :limits)
           ORDER BY ended""",
        {**keys, "first": id_bound(came_ms, 0), "since": since_ms},
    )
    return [tuple(row) for row in rows.fetchall()]


_LAST_MINUTE = """
SELECT count(*), coalesce(sum(input + cache_read + cache_write_5m + cache_write_1h + output), 0)
FROM REQUESTS_AS_DAYS WHERE user_id = :user AND id >= :first AND requests > 0
  AND api_key_id IN (SELECT id FROM api_keys WHERE limits_id = :limits)
""".replace("REQUESTS_AS_DAYS", REQUESTS_AS_DAYS)


def find_limits_use(
    tx: Tx, user_id: int, limits: Limits, *, now_ms: int, answer_s_max: int = ANSWER_S_MAX
) -> LimitsUse:
    """Return what the API keys with these limits have used of them.

    The last minute is that of the arrival of requests; of running ones no tokens are known yet.
    Only where the speed of spending is limited the user's requests of the last `answer_s_max` are
    read, at a microsecond or two each; all else is sums by day, open holds and one minute.
    """
    has_speed = limits.spend_per_hour_nanousd is not None
    spent = find_spent(
        tx,
        user_id,
        limits.id,
        now_ms=now_ms,
        resumed_at_ms=limits.resumed_at_ms,
        answer_s_max=answer_s_max,
        with_recent=has_speed,
    )
    statement = _LAST_MINUTE
    minute_ago_ms = now_ms - MINUTE_S * 1000
    requests, tokens = tx.execute(
        statement,
        {"user": user_id, "limits": limits.id, "first": id_bound(minute_ago_ms, 0)},
    ).fetchone()
    running = sum(came_ms >= minute_ago_ms for _, _, came_ms in spent.open_holds)
    return LimitsUse(
        requests_last_minute=requests + running,
        tokens_last_minute=tokens,
        running=len(spent.open_holds),
        today=spent.today,
        month=spent.month,
        last_10_minutes=sum(cost for _, cost in spent.recent) if has_speed else None,
    )
