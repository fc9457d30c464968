"""Owns which part of a span of time is summed from the sums by day, and which from requests.

Days are those of UTC. A span may begin or end within a day: that part is summed from the requests
themselves, unless these have been pruned.
"""

from typing import NamedTuple

from llmproxy.rollups import DAY_MS
from llmproxy.storage.database import Tx

TIME_MS_MAX = 2**48 - 1
"""No id of a request can name a later moment."""


class Part(NamedTuple):
    """A part of one day: from `since_ms` to before `until_ms`."""

    since_ms: int
    until_ms: int


class Span(NamedTuple):
    """A span of time as whole days, `first_day` to before `end_day`, and the parts around them."""

    first_day: int
    end_day: int
    parts: tuple[Part, ...]

    def has_pruned_part(self, pruned_before_ms: int | None) -> bool:
        """Say whether requests that a part would be summed from have been pruned."""
        return any(part.since_ms < (pruned_before_ms or 0) for part in self.parts)


def split_span(since_ms: int | None, until_ms: int | None) -> Span:
    """Return a span of time as whole days and parts of days; None means without a bound."""
    since_ms = min(max(0, since_ms or 0), TIME_MS_MAX)
    until_ms = TIME_MS_MAX if until_ms is None else min(max(since_ms, until_ms), TIME_MS_MAX)
    first_day, end_day = -(-since_ms // DAY_MS), until_ms // DAY_MS
    if until_ms == TIME_MS_MAX:
        end_day += 1
    if first_day > end_day:  # all of it within a day
        end_day = first_day
        parts = [Part(since_ms, until_ms)]
    else:
        parts = [Part(since_ms, first_day * DAY_MS), Part(end_day * DAY_MS, until_ms)]
    return Span(first_day, end_day, tuple(part for part in parts if part.since_ms < part.until_ms))


def pruned_before_ms(tx: Tx) -> int | None:
    """Return the moment before which requests have been pruned; None when none ever were."""
    (day,) = tx.execute("SELECT max(before_day) FROM prunes").fetchone()
    return None if day is None else int(day) * DAY_MS
