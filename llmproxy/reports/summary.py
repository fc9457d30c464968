"""Owns the sums of requests: tokens and money by day, user, model, provider or API key."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import msgspec

from llmproxy.money import format_usd
from llmproxy.reports.days import Part, pruned_before_ms, split_span
from llmproxy.reports.requests import USAGE_CLASSES, RequestFilter, id_bound
from llmproxy.rollups import REQUESTS_AS_DAYS
from llmproxy.storage.database import Tx

GROUPINGS = ("day", "user", "model", "provider", "key")
"""What requests can be summed by. Days are those of UTC, by a request's arrival."""
SLICE_MS = 3_600_000
"""Parts of days are read by the hour: no reading transaction lasts."""


class Sums(msgspec.Struct):
    """The sums over some ended requests; money in nano-USD. Refused ones are counted apart."""

    requests: int = 0
    refused: int = 0
    usage: dict[str, int] = msgspec.field(default_factory=lambda: dict.fromkeys(USAGE_CLASSES, 0))
    cost_nanousd: int = 0
    charged_nanousd: int = 0
    shortfall_nanousd: int = 0

    @property
    def cached(self) -> int:
        """Input tokens that were read from the provider's cache."""
        return self.usage["cache_read"]

    @property
    def input(self) -> int:
        """All input tokens, cached ones included."""
        names = ("input", "cache_read", "cache_write_5m", "cache_write_1h")
        return sum(self.usage[name] for name in names)

    @property
    def output(self) -> int:
        """All output tokens, reasoning included."""
        return self.usage["output"]

    def add(self, other: "Sums") -> None:
        """Add other sums."""
        self.requests += other.requests
        self.refused += other.refused
        self.cost_nanousd += other.cost_nanousd
        self.charged_nanousd += other.charged_nanousd
        self.shortfall_nanousd += other.shortfall_nanousd
        for name, tokens in other.usage.items():
            self.usage[name] += tokens

    def as_json(self) -> dict[str, object]:
        """Return the sums with money as decimal strings of USD."""
        return {
            "requests": self.requests,
            "refused": self.refused,
            "usage": self.usage,
            "cost_usd": format_usd(self.cost_nanousd),
            "charged_usd": format_usd(self.charged_nanousd),
            "shortfall_usd": format_usd(self.shortfall_nanousd),
        }


class Summary(msgspec.Struct):
    """Sums by group, and over all of them."""

    by: str
    groups: dict[str, Sums]
    total: Sums
    pruned_before_ms: int | None = None
    """Set when a part of a day was asked for whose requests have been pruned: the sums lack it."""


_NAMED_SUMS = """
SELECT CASE :by WHEN 'day' THEN date(day * 86400, 'unixepoch')
                WHEN 'user' THEN users.name
                WHEN 'model' THEN provider || iif(model = '', ' (no model)', '/' || model)
                WHEN 'provider' THEN provider
                WHEN 'key' THEN users.name || '/' || api_keys.name END AS name,
  sum(requests), sum(refused), sum(input), sum(cache_read), sum(cache_write_5m),
  sum(cache_write_1h), sum(output), sum(reasoning), sum(web_searches),
  sum(cost_nanousd), sum(charged_nanousd), sum(shortfall_nanousd)
FROM
"""
# By user: their days are found by the table's key.
_WHOLE_DAYS = """
users CROSS JOIN requests_by_day AS sums
  ON sums.user_id = users.id AND day >= :first AND day < :end
"""
_PART_OF_ALL = (
    REQUESTS_AS_DAYS
    + """
AS sums JOIN users ON users.id = sums.user_id AND sums.id >= :first AND sums.id < :end
"""
)
_PART_OF_ONE_USER = _PART_OF_ALL + "AND sums.user_id = :user"
_CHOSEN = """
JOIN api_keys ON api_keys.id = api_key_id
WHERE (:user IS NULL OR users.id = :user) AND (:provider IS NULL OR provider = :provider)
  AND (:model IS NULL OR model = :model) AND (:key IS NULL OR api_keys.name = :key)
GROUP BY 1
"""


def summarise(
    read: Callable[[], AbstractContextManager[Tx]],
    wanted: RequestFilter,
    by: str,
    *,
    on_progress: Callable[[int, int], None] = lambda _done, _total: None,
) -> Summary:
    """Return the sums of ended requests; running ones do not count yet.

    Days come in their order, anything else with what was charged most first.

    Args:
        read: opens a reading transaction; each is short.
        wanted: which requests; the sums know nothing of single states.
        by: one of GROUPINGS.
        on_progress: called with the number of steps that are done, and that there are.
    """
    span = split_span(wanted.since_ms, wanted.until_ms)
    slices = [each for part in span.parts for each in _slices(part)]
    groups: dict[str, Sums] = {}
    with read() as tx:
        pruned_ms = pruned_before_ms(tx)
        _add(groups, tx, _WHOLE_DAYS, wanted, by, span.first_day, span.end_day)
    source = _PART_OF_ALL if wanted.user_id is None else _PART_OF_ONE_USER
    for done, (since_ms, until_ms) in enumerate(slices):
        on_progress(done, len(slices))
        with read() as tx:
            _add(groups, tx, source, wanted, by, id_bound(since_ms, 0), id_bound(until_ms, 0))
    total = Sums()
    for sums in groups.values():
        total.add(sums)
    by_charge = sorted(groups.items(), key=lambda item: (-item[1].charged_nanousd, item[0]))
    ranked = sorted(groups.items()) if by == "day" else by_charge
    is_lacking = span.has_pruned_part(pruned_ms)
    return Summary(by, dict(ranked), total, pruned_ms if is_lacking else None)


def _slices(part: Part) -> Iterator[Part]:
    for since_ms in range(part.since_ms, part.until_ms, SLICE_MS):
        yield Part(since_ms, min(since_ms + SLICE_MS, part.until_ms))


def _add(
    groups: dict[str, Sums],
    tx: Tx,
    source: str,
    wanted: RequestFilter,
    by: str,
    first: int | bytes,
    end: int | bytes,
) -> None:
    """Add the sums of a source, by their names."""
    statement = _NAMED_SUMS + source + _CHOSEN
    rows = tx.execute(
        statement,
        {
            "by": by,
            "first": first,
            "end": end,
            "user": wanted.user_id,
            "key": wanted.key,
            "provider": wanted.provider,
            "model": wanted.model,
        },
    )
    for name, requests, refused, *numbers in rows:
        usage = dict(zip(USAGE_CLASSES, numbers[:7], strict=True))
        groups.setdefault(name, Sums()).add(Sums(requests, refused, usage, *numbers[7:]))
