"""Owns what past requests would have cost by another catalog, before anybody puts it in force.

It only reads, in short transactions and constant memory, and changes no charge. The user's
multiplier is the one that the request was made with; prices and the model's multiplier are the
other catalog's. Money is nano-USD.
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from enum import Enum
from typing import NamedTuple

import msgspec

from llmproxy.catalog import Catalog, Model
from llmproxy.clock import arrival_ms
from llmproxy.pricing import PricedModel, price
from llmproxy.storage.database import Tx
from llmproxy.usage import Usage

PAGE_ROWS = 2000

Transaction = Callable[[], AbstractContextManager[Tx]]
"""Opens a reading transaction."""


class Why(Enum):
    """Why a charge cannot be calculated again by another catalog."""

    NO_MODEL = "the other catalog has no such model: they would be refused"
    NO_LEG_MODEL = "another model did a part, and the other catalog does not have it"
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
_CHARGES = """
SELECT holds.id, users.name, holds.state, holds.basis, holds.cost_nanousd,
       holds.user_multiplier_micro, price_versions.provider, price_versions.model,
       requests.id IS NOT NULL, requests.usage
FROM holds
JOIN wallets ON wallets.id = holds.wallet_id
JOIN users ON users.id = wallets.user_id
JOIN price_versions ON price_versions.id = holds.price_version_id
LEFT JOIN requests ON requests.id = holds.id
WHERE holds.id > :after AND holds.id < :end
  AND (holds.state = 'settled' OR holds.state = 'expired')
ORDER BY holds.id LIMIT :limit
"""


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
        read: opens a reading transaction.
        catalog: whose prices count.
        since_ms: the first moment of arrival.
        until_ms: the moment before which they arrived.
        on_progress: called with how much of the span has been gone through, and its length.
    """
    rerating = Rerating()
    for page in _pages(read, since_ms, until_ms):
        for charge in page:
            _add(rerating, charge, catalog)
        on_progress(arrival_ms(page[-1].id) - since_ms, until_ms - since_ms)
    return rerating


def _pages(read: Transaction, since_ms: int, until_ms: int) -> Iterator[list[_Charge]]:
    """Yield the charges of a span; a transaction for each page lets a server go on with its log."""
    after = since_ms.to_bytes(6) + bytes(10)
    while True:
        values = {"after": after, "end": until_ms.to_bytes(6) + bytes(10), "limit": PAGE_ROWS}
        with read() as tx:
            page = [_Charge(*row) for row in tx.execute(_CHARGES, values)]
        if not page:
            return
        yield page
        after = page[-1].id


def _add(rerating: Rerating, charge: _Charge, catalog: Catalog) -> None:
    found = _price_again(charge, catalog)
    if isinstance(found, Why):
        rerating.left_out.setdefault(found, Sum()).add(charge.cost_nanousd, 0)
    else:
        rerating.users.setdefault(charge.user, Sum()).add(charge.cost_nanousd, found)


def _price_again(charge: _Charge, catalog: Catalog) -> int | Why:
    """Return what a request would have cost in nano-USD, or why that cannot be said."""
    usage = _usage(charge)
    if isinstance(usage, Why):
        return usage
    asked = catalog.find(charge.provider, charge.model)
    if asked is None:
        return Why.NO_MODEL
    others: dict[str, PricedModel] = {}
    for name in {leg.model for leg in usage.legs if leg.model}:
        model = _leg_model(name, charge, asked, catalog)
        if model is None:
            return Why.NO_LEG_MODEL
        others[name] = PricedModel(model.id, model.prices, None)
    cost = price(
        usage,
        PricedModel(asked.id, asked.prices, None),
        user_multiplier_micro=charge.user_multiplier_micro,
        model_multiplier_micro=asked.multiplier_micro,
        other_model=others.__getitem__,
    )
    return cost.nanousd


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


def _leg_model(name: str, charge: _Charge, asked: Model, catalog: Catalog) -> Model | None:
    if name in {charge.model, asked.id, *asked.aliases}:
        return asked
    return catalog.find(charge.provider, name)
