"""Owns the questions about all users together that the operator's overview asks.

Sums are those of the sums by day: whole days of UTC, today as far as it has gone. What happens now
is read from the newest requests, of which there is a bounded number.
"""

import msgspec

from llmproxy.clock import time_text
from llmproxy.reports.requests import id_bound
from llmproxy.rollups import DAY_MS
from llmproxy.storage.database import Tx

NEWEST_LOOKED_AT_MAX = 5000
"""A few milliseconds; a busy server has as many in less time than is asked for."""


class Totals(msgspec.Struct):
    """The sums over some ended requests, refused ones left out; money in nano-USD."""

    requests: int = 0
    charged_nanousd: int = 0


Named = dict[str, Totals]


class Everybody(msgspec.Struct):
    """What was spent, by the names of days, of users and of providers."""

    days: Named = msgspec.field(default_factory=dict)
    users: Named = msgspec.field(default_factory=dict)
    providers: Named = msgspec.field(default_factory=dict)

    def add(self, kind: str, name: str, requests: int, charged_nanousd: int) -> None:
        """Add to the sums of a name; `kind` is that of the field."""
        named: Named = getattr(self, kind)
        totals = named.setdefault(name, Totals())
        totals.requests += requests
        totals.charged_nanousd += charged_nanousd

    def add_all(self, other: "Everybody") -> None:
        """Add other sums."""
        for kind in self.__struct_fields__:
            for name, totals in getattr(other, kind).items():
                self.add(kind, name, totals.requests, totals.charged_nanousd)


# First by user and day, in the order of the table's key, which needs no sorting.
_DAYS_AND_USERS = """
WITH per AS MATERIALIZED (
  SELECT user_id, day, sum(requests) AS requests, sum(charged_nanousd) AS charged
  FROM requests_by_day WHERE day >= :first AND day < :end GROUP BY user_id, day)
SELECT 'days', date(day * 86400, 'unixepoch'), sum(requests), sum(charged) FROM per GROUP BY day
UNION ALL
SELECT 'users', name, sum(requests), sum(charged) FROM per JOIN users ON users.id = user_id
GROUP BY user_id
"""


def sum_days(tx: Tx, first_day: int, end_day: int) -> Everybody:
    """Return the sums of some days (since 1970), from the first to before the end.

    Walks through the sums of all days there are: some 2 µs for each row, not for every visit.
    """
    found, span = Everybody(), {"first": first_day, "end": end_day}
    for row in tx.execute(_DAYS_AND_USERS, span):
        found.add(*row)
    for row in tx.execute(
        """SELECT provider, sum(requests), sum(charged_nanousd) FROM requests_by_day
           WHERE day >= :first AND day < :end GROUP BY provider""",
        span,
    ):
        found.add("providers", *row)
    return found


# A user's days are found by the table's key.
_USERS = """
SELECT name, sum(requests), sum(charged_nanousd)
FROM users CROSS JOIN requests_by_day
  ON user_id = users.id AND day >= :first AND day < :end
GROUP BY users.id
"""
_PROVIDERS = """
SELECT provider, sum(requests), sum(charged_nanousd)
FROM users CROSS JOIN requests_by_day
  ON user_id = users.id AND day >= :first AND day < :end
GROUP BY provider
"""


def sum_day(tx: Tx, day: int) -> Everybody:
    """Return the sums of one day, some 10 µs for each user."""
    span = {"first": day, "end": day + 1}
    users = {row[0]: Totals(row[1], row[2]) for row in tx.execute(_USERS, span)}
    providers = {row[0]: Totals(row[1], row[2]) for row in tx.execute(_PROVIDERS, span)}
    found = Everybody(users=users, providers=providers)
    for totals in providers.values():
        found.add("days", time_text(day * DAY_MS)[:10], totals.requests, totals.charged_nanousd)
    return found


class Activity(msgspec.Struct):
    """The requests to one provider that have come, and ended, within a moment."""

    provider: str
    requests: int
    refused: int
    """Answered with a 4xx, by us or the provider."""
    failed: int
    """Answered with a 5xx, or by nothing."""


class Recent(msgspec.Struct):
    """What has happened lately."""

    span_ms: int
    """How far back it goes: as far as was asked, or as the newest rows reach."""
    providers: list[Activity]


def recent_activity(
    tx: Tx, *, now_ms: int, span_ms: int, rows_max: int = NEWEST_LOOKED_AT_MAX
) -> Recent:
    """Return what the newest requests were, at most `rows_max` of them."""
    rows = tx.execute(
        """SELECT provider, count(*), sum(status BETWEEN 400 AND 499),
                  sum(status >= 500 OR status < 100), min(created_at_ms)
           FROM (SELECT provider, status, created_at_ms FROM requests WHERE id >= :first
                 ORDER BY id DESC LIMIT :most)
           GROUP BY provider ORDER BY 2 DESC, 1""",
        {"first": id_bound(now_ms - span_ms, 0), "most": rows_max},
    ).fetchall()
    providers = [Activity(*row[:4]) for row in rows]
    if sum(each.requests for each in providers) >= rows_max:
        span_ms = max(1000, now_ms - min(row[4] for row in rows))
    return Recent(span_ms, providers)


class SuspendedKey(msgspec.Struct, frozen=True):
    """An API key that may do nothing until somebody resumes it."""

    user_id: int
    user: str
    name: str
    reason: str


def suspended_keys(tx: Tx, *, now_ms: int, limit: int) -> list[SuspendedKey]:
    """Return up to `limit` suspended API keys that have not ended, the latest first."""
    rows = tx.execute(
        """SELECT users.id, users.name, api_keys.name, suspended_reason
           FROM limits JOIN api_keys ON api_keys.limits_id = limits.id
                       JOIN users ON users.id = api_keys.user_id
           WHERE suspended_at_ms IS NOT NULL
             AND coalesce(revoked_at_ms, :now + 1) > :now
             AND coalesce(expires_at_ms, :now + 1) > :now
           GROUP BY limits.id ORDER BY suspended_at_ms DESC LIMIT :limit""",
        {"now": now_ms, "limit": limit},
    )
    return [SuspendedKey(*row) for row in rows]
