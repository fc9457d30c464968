"""Owns what past requests would have cost by another catalog, before anybody puts it in force.

It only reads, in short transactions and constant memory, and changes no charge. The user's
multiplier is the one that the request was made with; prices and the model's multiplier are the
other catalog's. Money is nano-USD.
"""

from collections.abc import Callable
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple

import msgspec

from llmproxy.catalog import Catalog, Model
from llmproxy.clock import arrival_ms
from llmproxy.pricing import INSTEAD_OF_TOKENS, UNITS, PricedModel, leg_model, price
from llmproxy.storage.database import Tx
from llmproxy.usage import Usage

PAGE_ROWS = 2000
DAYS = 7
DAY_MS = 86_400_000
"""So many days are looked at before a catalog changes."""

Transaction = Callable[[], AbstractContextManager[Tx]]
"""Opens a reading transaction."""


class Why(Enum):
    """Why a charge cannot be calculated again by another catalog."""

    NO_MODEL = "the other catalog has no such model: they would be refused"
    OTHER_MEASURE = "the other catalog bills the model by what their usage does not tell"
    BY_HOLD = "charged by the hold: how many tokens there were is not known"
    CUT_OFF = "cut off when the server stopped: how many tokens there were is not known"
    PRUNED = "their details were pruned"
    UNREADABLE = "their usage cannot be read"


class Sum(msgspec.Struct):
    """What some requests cost, and would have cost."""

    requests: int = 0
    old_nanousd: int = 0
    new_nanousd: int = 0

    @property
    def difference_nanousd(self) -> int:
        """How much more it would have been; below zero for less."""
        return self.new_nanousd - self.old_nanousd

    def add(self, old_nanousd: int, new_nanousd: int) -> None:
        """Add a request."""
        self.requests += 1
        self.old_nanousd += old_nanousd
        self.new_nanousd += new_nanousd


class Rerating(msgspec.Struct):
    """The difference that another catalog would have made."""

    users: dict[str, Sum] = msgspec.field(default_factory=dict)
    """By the user's name: the requests that could be rated again."""
    left_out: dict[Why, Sum] = msgspec.field(default_factory=dict)
    """The others, by the reason; their new cost is 0."""

    @property
    def total(self) -> Sum:
        """All requests that could be rated again."""
        users = self.users.values()
        return Sum(
            sum(user.requests for user in users),
            sum(user.old_nanousd for user in users),
            sum(user.new_nanousd for user in users),
        )

    def by_difference(self) -> list[tuple[str, Sum]]:
        """Return the users whose cost would have been another, the largest difference first."""
        found = [(name, user) for name, user in self.users.items() if user.difference_nanousd]
        return sorted(found, key=lambda one: (-abs(one[1].difference_nanousd), one[0]))


class _Charge(NamedTuple):
    """A hold that has ended and was not released, with the usage in its request's row."""

    id: bytes
    user: str
    state: str
    basis: str
    cost_nanousd: int
    user_multiplier_micro: int
    provider: str
    model: str
    has_details: int
    usage: str | None


# Released holds and refused requests have no part in it: they cost nothing by any catalog.
# Of one model's requests, those count too in which it did a part as another one: a leg's model is
# written only where it is not the model that was asked for.
_CHARGES = """
SELECT holds.id, users.name, holds.state, holds.basis, holds.cost_nanousd,
       holds.user_multiplier_micro, price_versions.provider, price_versions.model,
       requests.id IS NOT NULL, requests.usage
FROM holds
JOIN wallets ON wallets.id = holds.wallet_id
JOIN users ON users.id = wallets.user_id
JOIN price_versions ON price_versions.id = holds.price_version_id
LEFT JOIN requests ON requests.id = holds.id
WHERE holds.id >= :first AND holds.id < :before
  AND (holds.state = 'settled' OR holds.state = 'expired')
  AND (:provider IS NULL OR price_versions.provider = :provider)
  AND (:provider IS NULL
       OR price_versions.model IN (SELECT value FROM json_each(:names))
       OR instr(requests.usage, '"model":'))
ORDER BY holds.id
"""

_FIRST_OF_PAGE = """
SELECT id FROM holds WHERE id >= :first AND id < :before ORDER BY id DESC LIMIT 1 OFFSET :others
"""


class Span:
    """A span of time whose requests are priced again page by page, the newest first.

    Where nobody waits for the rest, what was gone through are the requests since `seen_since_ms`.
    """

    def __init__(
        self, catalog: Catalog, *, since_ms: int, until_ms: int, only: Model | None = None
    ) -> None:
        """Begin with none.

        Args:
            catalog: whose prices count.
            since_ms: the first moment of arrival.
            until_ms: the moment before which they arrived.
            only: a model of the catalog; requests in which it has no part are left aside.
        """
        self.rerating = Rerating()
        self.since_ms = since_ms
        self.until_ms = until_ms
        self.seen_since_ms = until_ms
        self.is_done = False
        self._catalog = catalog
        self._only = only
        self._first = since_ms.to_bytes(6) + bytes(10)
        self._before = until_ms.to_bytes(6) + bytes(10)

    def rate_page(self, tx: Tx) -> None:
        """Price the next PAGE_ROWS requests again, or as many as there are.

        Raises:
            sqlite3.Error: they cannot be read; none of this page is counted.
        """
        values: dict[str, object] = {"first": self._first, "before": self._before}
        row = tx.execute(_FIRST_OF_PAGE, {**values, "others": PAGE_ROWS - 1}).fetchone()
        if row is not None:
            values["first"] = row[0]
        only = self._only
        values["provider"] = only.provider if only else None
        values["names"] = msgspec.json.encode([only.id, *only.aliases] if only else []).decode()
        for found in tx.execute(_CHARGES, values).fetchall():  # all of a page, or nothing of it
            self._add(_Charge(*found))
        if row is None:
            self.is_done, self.seen_since_ms = True, self.since_ms
        else:
            self._before, self.seen_since_ms = row[0], arrival_ms(row[0])

    def _add(self, charge: _Charge) -> None:
        usage = _usage(charge)
        if self._only is not None and not _has_part(self._only, charge, usage, self._catalog):
            return
        found = usage if isinstance(usage, Why) else _price_again(usage, charge, self._catalog)
        if isinstance(found, Why):
            left_out = self.rerating.left_out.setdefault(found, Sum())
            left_out.add(charge.cost_nanousd, 0)
        else:
            self.rerating.users.setdefault(charge.user, Sum()).add(charge.cost_nanousd, found)


def rerate(
    read: Transaction,
    catalog: Catalog,
    *,
    since_ms: int,
    until_ms: int,
    on_progress: Callable[[int, int], object] = lambda _done, _total: None,
) -> Rerating:
    """Price the requests of a span of time again, by another catalog.

    Args:
        read: opens a reading transaction; one for each page lets a server go on with its log.
        catalog: whose prices count.
        since_ms: the first moment of arrival.
        until_ms: the moment before which they arrived.
        on_progress: called with how much of the span has been gone through, and its length.
    """
    span = Span(catalog, since_ms=since_ms, until_ms=until_ms)
    while not span.is_done:
        with read() as tx:
            span.rate_page(tx)
        on_progress(until_ms - span.seen_since_ms, until_ms - since_ms)
    return span.rerating


def _has_part(only: Model, charge: _Charge, usage: Usage | Why, catalog: Catalog) -> bool:
    """Say whether a model was asked for, or prices a part of what another one was asked for."""
    names = {only.id, *only.aliases}
    others = set() if isinstance(usage, Why) else {leg.model for leg in usage.legs if leg.model}
    if charge.model in names or others & names:
        return True
    asked = catalog.find(charge.provider, charge.model) if others else None
    return asked is not None and any(
        leg_model(name, asked, catalog).model.id == only.id for name in others
    )


def _price_again(usage: Usage, charge: _Charge, catalog: Catalog) -> int | Why:
    """Return what a request would have cost in nano-USD, or why that cannot be said."""
    asked = catalog.find(charge.provider, charge.model)
    if asked is None:
        return Why.NO_MODEL
    cost = price(
        usage,
        PricedModel(asked.id, asked.prices, None),
        user_multiplier_micro=charge.user_multiplier_micro,
        model_multiplier_micro=asked.multiplier_micro,
        other_model=lambda name: PricedModel(
            name, leg_model(name, asked, catalog).model.prices, None
        ),
    )
    if charge.cost_nanousd and not cost.nanousd and _has_price(asked):
        return Why.OTHER_MEASURE  # while it runs it would be estimated
    return cost.nanousd


def _has_price(model: Model) -> bool:
    """Say whether a model is not free: by tokens, or what counts instead of them."""
    rates = model.prices.rates
    by_units = (getattr(rates, UNITS[name].rate) for name in INSTEAD_OF_TOKENS)
    return any((rates.input, rates.output, *by_units))


def _usage(charge: _Charge) -> Usage | Why:
    if charge.state == "expired":
        return Why.CUT_OFF
    if charge.basis == "hold":
        return Why.BY_HOLD
    if not charge.has_details:
        return Why.PRUNED
    try:
        return msgspec.json.decode(charge.usage or "", type=Usage)
    except msgspec.DecodeError:  # `ledger verify` names it
        return Why.UNREADABLE
