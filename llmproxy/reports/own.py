"""Owns what a user may ask about themselves with their API key: their standing and their sums.

Every question names the user; no answer holds a row of anybody else's.
"""

import msgspec

from llmproxy.clock import rfc3339, time_text
from llmproxy.limit_store import find_limits
from llmproxy.limits import Limits
from llmproxy.money import format_multiplier, format_usd
from llmproxy.reports.days import Part, split_span
from llmproxy.reports.requests import id_bound
from llmproxy.reports.spending import ANSWER_S_MAX, LimitsUse, find_limits_use
from llmproxy.rollups import DAY_MS, REQUESTS_AS_DAYS
from llmproxy.shapes import Group, GroupSums, KeyStanding, LimitsSet, LimitsUsed, Sums
from llmproxy.storage.database import Tx

OWN_GROUPS: tuple[Group, ...] = ("day", "model", "endpoint")
_NOTHING = Part(0, 0)


class OwnSums(msgspec.Struct, frozen=True):
    """The sums over a user's ended requests of one group, refused ones left out."""

    name: str
    requests: int
    tokens_in: int
    """All input tokens, cached or not."""
    tokens_out: int
    """All output tokens, reasoning included."""
    cost_nanousd: int
    charged_nanousd: int

    def shown(self) -> Sums:
        """Return the sums without their name, in the shape in which they are told."""
        return Sums(
            requests=self.requests,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            cost_usd=format_usd(self.cost_nanousd),
            charged_usd=format_usd(self.charged_nanousd),
        )

    def row(self, group: Group) -> GroupSums:
        """Return the sums with their name, which is that of a `group` (one of OWN_GROUPS)."""
        name = {group: self.name}
        return GroupSums(
            day=name.get("day", msgspec.UNSET),
            model=name.get("model", msgspec.UNSET),
            endpoint=name.get("endpoint", msgspec.UNSET),
            requests=self.requests,
            tokens_in=self.tokens_in,
            tokens_out=self.tokens_out,
            cost_usd=format_usd(self.cost_nanousd),
            charged_usd=format_usd(self.charged_nanousd),
        )


class OwnKey(msgspec.Struct, frozen=True):
    """An API key and its user's wallet; money in nano-USD, the multiplier in millionths."""

    name: str
    user: str
    rate_multiplier_micro: int
    balance_nanousd: int
    held_nanousd: int
    created_at_ms: int
    expires_at_ms: int | None
    today: OwnSums
    limits: Limits | None = None
    user_limits: Limits | None = None
    used: LimitsUse | None = None
    """What is used of the key's own limits."""

    @property
    def suspended_reason(self) -> str | None:
        """Why the key may do nothing now; None when it may."""
        if self.limits is None or not self.limits.is_suspended:
            return None
        return self.limits.suspended_reason

    def shown(self) -> KeyStanding:
        """Return what `GET /v1/key` answers."""
        return KeyStanding(
            name=self.name,
            user=self.user,
            balance_usd=format_usd(self.balance_nanousd),
            held_usd=format_usd(self.held_nanousd),
            available_usd=format_usd(self.balance_nanousd - self.held_nanousd),
            rate_multiplier=format_multiplier(self.rate_multiplier_micro),
            usage_today=self.today.shown(),
            limits=self.limits.shown() if self.limits else LimitsSet(),
            limits_used=self.used.shown() if self.used else LimitsUsed(),
            user_limits=self.user_limits.shown() if self.user_limits else LimitsSet(),
            suspended=self.suspended_reason,
            created_at=time_text(self.created_at_ms),
            expires_at=rfc3339(self.expires_at_ms),
        )


def find_own_key(
    tx: Tx, user_id: int, api_key_id: int, *, now_ms: int, answer_s_max: int = ANSWER_S_MAX
) -> OwnKey:
    """Return an API key with its limits, its user's wallet, and their sums since midnight UTC.

    `answer_s_max` is how long an answer may take; the shorter, the fewer rows are read.
    """
    *row, limits_id, user_limits_id = tx.execute(
        """SELECT api_keys.name, users.name, rate_multiplier_micro, balance_nanousd, held_nanousd,
                  api_keys.created_at_ms, api_keys.expires_at_ms, api_keys.limits_id,
                  users.limits_id
           FROM api_keys JOIN users ON users.id = api_keys.user_id
                         JOIN wallets ON wallets.user_id = users.id
           WHERE api_keys.id = ? AND users.id = ?""",
        (api_key_id, user_id),
    ).fetchone()
    today_ms = now_ms - now_ms % DAY_MS
    sums = sum_own(tx, user_id, "", since_ms=today_ms, until_ms=now_ms + DAY_MS, limit=1)
    today = sums[0] if sums else OwnSums("", 0, 0, 0, 0, 0)
    limits, used = find_limits(tx, limits_id), None
    if limits is not None:
        used = find_limits_use(tx, user_id, limits, now_ms=now_ms, answer_s_max=answer_s_max)
    return OwnKey(*(*row, today, limits, find_limits(tx, user_limits_id), used))


_SUMS = """
WITH sums AS (
  SELECT day, provider, endpoint, model, requests, input + cache_read + cache_write_5m
         + cache_write_1h AS tokens_in, output, cost_nanousd, charged_nanousd
  FROM requests_by_day WHERE user_id = :user AND day >= :first_day AND day < :end_day
  UNION ALL
  SELECT day, provider, endpoint, model, requests, input + cache_read + cache_write_5m
         + cache_write_1h AS tokens_in, output, cost_nanousd, charged_nanousd
  FROM REQUESTS_AS_DAYS WHERE user_id = :user AND id >= :head AND id < :head_end
  UNION ALL
  SELECT day, provider, endpoint, model, requests, input + cache_read + cache_write_5m
         + cache_write_1h AS tokens_in, output, cost_nanousd, charged_nanousd
  FROM REQUESTS_AS_DAYS WHERE user_id = :user AND id >= :tail AND id < :tail_end
)
SELECT CASE :group WHEN 'day' THEN date(day * 86400, 'unixepoch')
                   WHEN 'model' THEN provider || iif(model = '', ' (no model)', '/' || model)
                   WHEN 'endpoint' THEN provider || '/' || endpoint ELSE '' END AS name,
       sum(requests), sum(tokens_in), sum(output), sum(cost_nanousd), sum(charged_nanousd)
FROM sums WHERE requests > 0
GROUP BY name HAVING name > :after OR :after = '' ORDER BY name LIMIT :limit
""".replace("REQUESTS_AS_DAYS", REQUESTS_AS_DAYS)


def sum_own(
    tx: Tx, user_id: int, group: str, *, since_ms: int, until_ms: int, limit: int, after: str = ""
) -> list[OwnSums]:
    """Return the sums over a user's ended requests, by the names of their groups.

    Of days of which only a part lies in the span, requests that were pruned are left out.

    Args:
        tx: a reading transaction.
        user_id: whose.
        group: one of OWN_GROUPS, or empty for one sum over all.
        since_ms: not before this arrival.
        until_ms: before this arrival.
        limit: the most groups.
        after: only groups whose name comes behind this one.
    """
    span = split_span(since_ms, until_ms)
    head, tail = (*span.parts, _NOTHING, _NOTHING)[:2]
    statement = _SUMS
    rows = tx.execute(
        statement,
        {
            "user": user_id,
            "group": group,
            "first_day": span.first_day,
            "end_day": span.end_day,
            "head": id_bound(head.since_ms, 0),
            "head_end": id_bound(head.until_ms, 0),
            "tail": id_bound(tail.since_ms, 0),
            "tail_end": id_bound(tail.until_ms, 0),
            "limit": limit,
            "after": after,
        },
    )
    return [OwnSums(*row) for row in rows]
