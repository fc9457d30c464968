"""Owns what all users spent lately, cheaply: the sums of days that are over are kept in memory.

A request counts for the day of its arrival, when it ends; none runs for longer than a day. So the
days before yesterday stay as they are, yesterday hardly changes, and today is read at each look.
All of it runs in the reader's one thread.
"""

from llmproxy import reports
from llmproxy.dashboard.bars import DAYS
from llmproxy.dashboard.formats import DAY_MS
from llmproxy.reports import Everybody
from llmproxy.storage.database import Tx

YESTERDAY_KEPT_MS = 600_000


class Spending:
    """The sums over all users of the last DAYS days."""

    def __init__(self) -> None:
        """Begin without any."""
        self._today = -1
        self._old = Everybody()
        self._yesterday = Everybody()
        self._looked_at_ms = 0
        """When yesterday was read."""

    def read(self, tx: Tx, now_ms: int) -> Everybody:
        """Return the sums; those of yesterday may be some minutes old."""
        today, age_ms = now_ms // DAY_MS, now_ms - self._looked_at_ms
        if today != self._today:
            self._old = reports.sum_days(tx, today - DAYS + 1, today - 1)
        if today != self._today or not 0 <= age_ms < YESTERDAY_KEPT_MS:
            self._yesterday = reports.sum_day(tx, today - 1)
            self._looked_at_ms = now_ms
        self._today = today
        found = reports.sum_day(tx, today)
        found.add_all(self._yesterday)
        found.add_all(self._old)
        return found
