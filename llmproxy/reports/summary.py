"""Owns the sums of requests: tokens and money by day, user, model, provider or API key."""

from collections.abc import Callable, Iterable

import msgspec

from llmproxy.clock import rfc3339
from llmproxy.money import format_usd
from llmproxy.reports.requests import USAGE_CLASSES, Request

GROUPINGS: dict[str, Callable[[Request], str]] = {
    "day": lambda row: (rfc3339(row.created_at_ms) or "")[:10],
    "user": lambda row: row.user,
    "model": lambda row: row.full_model,
    "provider": lambda row: row.provider,
    "key": lambda row: f"{row.user}/{row.api_key}",
}
"""What requests can be summed by. Days are those of UTC, by a request's arrival."""


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

    def add(self, row: Request) -> None:
        """Count one ended request."""
        if row.state == "refused":
            self.refused += 1
            return
        self.requests += 1
        self.cost_nanousd += row.cost_nanousd
        self.charged_nanousd += row.charged_nanousd
        self.shortfall_nanousd += row.shortfall_nanousd
        for name, tokens in (row.usage_totals() or {}).items():
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


def summarise(pages: Iterable[list[Request]], by: str) -> Summary:
    """Return the sums of all ended requests on these pages; running ones do not count yet.

    Days come in their order, anything else with what was charged most first.
    """
    name_of = GROUPINGS[by]
    groups: dict[str, Sums] = {}
    total = Sums()
    for page in pages:
        for row in page:
            if row.state != "open":
                groups.setdefault(name_of(row), Sums()).add(row)
                total.add(row)
    if by != "day":
        ranked = sorted(groups.items(), key=lambda item: (-item[1].charged_nanousd, item[0]))
        groups = dict(ranked)
    return Summary(by, groups, total)
