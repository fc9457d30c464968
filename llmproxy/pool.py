"""Owns the pool: the credit that users hold, against what the operator holds at providers.

What is held at a provider is told by the operator, for a moment. What its answers have cost since
is taken from that: at users' prices, for what the provider will bill is not known here. So it is an
estimate. Money is nano-USD. Writers are `f(tx, …)`.
"""

import msgspec

from llmproxy import key_pool
from llmproxy.clock import rfc3339
from llmproxy.errors import MoneyError, NotFoundError
from llmproxy.money import format_usd
from llmproxy.presets import PRESETS
from llmproxy.reports import split_span
from llmproxy.reports.requests import id_bound
from llmproxy.storage.database import Tx


class Fund(msgspec.Struct, frozen=True):
    """What the operator holds at one provider."""

    provider: str
    amount_nanousd: int
    """As it was told."""
    actor: str
    told_at_ms: int
    spent_nanousd: int
    """What answers to requests that came since have cost, at users' prices."""

    @property
    def left_nanousd(self) -> int:
        """What should be left; never below zero, for nobody can lend to a provider."""
        return max(0, self.amount_nanousd - self.spent_nanousd)

    def as_json(self) -> dict[str, object]:
        """Return it as `pool show --json` shows it."""
        return {
            "provider": self.provider,
            "told_usd": format_usd(self.amount_nanousd),
            "told_at": rfc3339(self.told_at_ms),
            "by": self.actor,
            "spent_usd": format_usd(self.spent_nanousd),
            "left_usd": format_usd(self.left_nanousd),
        }


class Pool(msgspec.Struct, frozen=True):
    """What was sold, and what is held."""

    sold_nanousd: int
    """The sum of all users' balances, what is held of them included."""
    held_nanousd: int
    """As much of it is held for running requests."""
    funds: list[Fund]
    untold: list[str]
    """Providers that are set up, of which it was never told what is held there."""

    @property
    def left_nanousd(self) -> int:
        """What should be left at all providers."""
        return sum(fund.left_nanousd for fund in self.funds)

    @property
    def lacking_nanousd(self) -> int:
        """How much more was sold than is held; 0 when there is enough, or nothing was told."""
        return max(0, self.sold_nanousd - self.left_nanousd) if self.funds else 0

    def as_json(self) -> dict[str, object]:
        """Return it as `pool show --json` shows it."""
        return {
            "sold_usd": format_usd(self.sold_nanousd),
            "held_usd": format_usd(self.held_nanousd),
            "left_usd": format_usd(self.left_nanousd) if self.funds else None,
            "lacking_usd": format_usd(self.lacking_nanousd) if self.funds else None,
            "providers": [fund.as_json() for fund in self.funds],
            "untold": self.untold,
        }


def known_providers(tx: Tx) -> list[str]:
    """Return the providers that funds can be told of."""
    return sorted({*PRESETS, *(provider.name for provider in key_pool.list_providers(tx))})


def tell_funds(tx: Tx, provider: str, amount_nanousd: int, *, actor: str, now_ms: int) -> None:
    """Note what the operator holds at a provider from now on.

    Raises:
        NotFoundError: there is no such provider.
        MoneyError: it is below zero.
    """
    if amount_nanousd < 0:
        msg = "What you hold at a provider cannot be below zero."
        raise MoneyError(msg)
    known = known_providers(tx)
    if provider not in known:
        msg = f"There is no provider {provider!r:.80}. Known: {', '.join(known)}."
        raise NotFoundError(msg)
    tx.execute(
        """INSERT INTO provider_funds(provider, amount_nanousd, actor, created_at_ms)
           VALUES(?, ?, ?, ?)""",
        (provider, amount_nanousd, actor, now_ms),
    )


def find_pool(tx: Tx) -> Pool:
    """Return the pool: sums of days, and for each provider the holds of a part of one day."""
    told = tx.execute(
        """SELECT provider, amount_nanousd, actor, created_at_ms FROM provider_funds
           WHERE id IN (SELECT max(id) FROM provider_funds GROUP BY provider) ORDER BY provider"""
    ).fetchall()
    funds = [
        Fund(provider, amount, actor, at_ms, _spent_since(tx, provider, at_ms))
        for provider, amount, actor, at_ms in told
    ]
    names = {fund.provider for fund in funds}
    untold = [each.name for each in key_pool.list_providers(tx) if each.name not in names]
    sold, held = tx.execute(
        "SELECT coalesce(sum(balance_nanousd), 0), coalesce(sum(held_nanousd), 0) FROM wallets"
    ).fetchone()
    return Pool(sold, held, funds, untold)


def warning(pool: Pool) -> str | None:
    """Say that more was sold than is held; None when there is enough, or nothing was told."""
    if not pool.lacking_nanousd:
        return None
    return (
        f"users hold {format_usd(pool.sold_nanousd)} USD of credit, "
        f"{format_usd(pool.lacking_nanousd)} USD more than the estimated "
        f"{format_usd(pool.left_nanousd)} USD that you hold at providers"
    )


# By user: their days are found by the table's key.
_DAYS = """
SELECT coalesce(sum(cost_nanousd), 0)
FROM users CROSS JOIN requests_by_day
  ON user_id = users.id AND day >= :first_day AND provider = :provider
"""
# Of the slim table, which is never pruned, not of the wide one. What runs has no cost yet.
_PART = """
SELECT coalesce(sum(cost), 0)
FROM (SELECT price_version_id, coalesce(sum(cost_nanousd), 0) AS cost FROM holds
      WHERE id >= :since AND id < :until GROUP BY price_version_id) AS sums
     JOIN price_versions ON price_versions.id = price_version_id
WHERE provider = :provider
"""


def _spent_since(tx: Tx, provider: str, since_ms: int) -> int:
    """Return what answers of a provider have cost that were asked for since a moment."""
    span = split_span(since_ms, None)
    days = {"first_day": span.first_day, "provider": provider}
    spent = int(tx.execute(_DAYS, days).fetchone()[0])
    for part in span.parts:
        bounds = {"since": id_bound(part.since_ms, 0), "until": id_bound(part.until_ms, 0)}
        spent += tx.execute(_PART, {**bounds, "provider": provider}).fetchone()[0]
    return spent
