"""A real ledger in a real file: one user with a key, pinned prices, and holds to place."""

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import msgspec

from llmproxy import accounts, crediting, ledger
from llmproxy.catalog import Prices, Rates
from llmproxy.clock import RequestIds
from llmproxy.money import MULTIPLIER_ONE, parse_rate, parse_usd
from llmproxy.pricing import Cost, Line, PricedModel, price
from llmproxy.storage.database import AdminDatabase, Tx
from llmproxy.usage import Leg, Usage

NOW_MS = 1_795_000_000_000
PRICES = Prices(
    Rates(
        input=parse_rate("2.50"),
        output=parse_rate("10"),
        cache_read=parse_rate("1.25"),
        cache_write_5m=parse_rate("2.50"),
        cache_write_1h=parse_rate("2.50"),
    )
)

USER_MULTIPLIER_MICRO = 1_200_000


def costing(
    outcome: ledger.Outcome, nanousd: int, user_multiplier_micro: int = USER_MULTIPLIER_MICRO
) -> ledger.Outcome:
    """Return an outcome that proves a cost: tokens of another model, at rates to match."""
    usage = Usage((Leg(output=1, model="gpt-other"),))
    rated = nanousd * 1_000_000 * MULTIPLIER_ONE // user_multiplier_micro
    rate, rest = divmod(rated, 1_000_000)
    lines = [Line("gpt-other", "output", *each, None) for each in ((1_000_000, rate), (1, rest))]
    return msgspec.structs.replace(
        outcome,
        usage=msgspec.json.encode(usage).decode(),
        receipt=msgspec.json.encode(lines).decode(),
    )


class Book:
    """A database with user `ann`, API key `laptop`, and the prices of `openai/gpt-test`."""

    def __init__(self, path: Path, *, credit: str = "10") -> None:
        self.path = path
        self.database = AdminDatabase(path)
        self.now_ms = NOW_MS
        with self.write() as tx:
            user = accounts.create_user(tx, "ann", now_ms=NOW_MS, rate_multiplier_micro=1_200_000)
            self.api_key = accounts.create_api_key(tx, user, "laptop", now_ms=NOW_MS)
            self.wallet_id = user.wallet_id
            self.user_id = user.id
            crediting.credit(
                tx, user.wallet_id, parse_usd(credit), actor="test", reason=None, now_ms=NOW_MS
            )
            self.boot_id = ledger.start_boot(tx, pid=1, version="test", now_ms=NOW_MS)
            self.price_version = ledger.pin_prices(
                tx, "openai", "gpt-test", PRICES.canonical_json(), now_ms=NOW_MS
            )

    @contextmanager
    def write(self) -> Iterator[Tx]:
        """One transaction."""
        with self.database.write() as tx:
            yield tx

    @contextmanager
    def read(self) -> Iterator[Tx]:
        """One consistent look."""
        with self.database.read() as tx:
            yield tx

    def balance(self) -> tuple[int, int]:
        """Ann's balance and what is held of it."""
        with self.read() as tx:
            user = accounts.find_user(tx, "ann")
        return user.balance_nanousd, user.held_nanousd

    def hold(self, amount: str = "1") -> ledger.Hold:
        """A hold that has not been placed."""
        self.now_ms += 1
        return ledger.Hold(
            id=RequestIds().new(self.now_ms),
            wallet_id=self.wallet_id,
            api_key_id=1,
            price_version_id=self.price_version,
            boot_id=self.boot_id,
            endpoint="/v1/openai/chat/completions",
            user_multiplier_micro=USER_MULTIPLIER_MICRO,
            model_multiplier_micro=MULTIPLIER_ONE,
            amount_nanousd=parse_usd(amount),
            created_at_ms=self.now_ms,
        )

    def placed(self, amount: str = "1") -> ledger.Hold:
        """A hold that has been placed."""
        hold = self.hold(amount)
        with self.write() as tx:
            assert ledger.place_hold(tx, hold) is None
        return hold

    def outcome(self, usage: Usage | None = None, cost: Cost | None = None) -> ledger.Outcome:
        """The reporting columns of an ended request."""
        return ledger.Outcome(
            user_id=self.user_id,
            provider="openai",
            model="gpt-test",
            is_stream=True,
            status=200,
            duration_ms=1234,
            model_served="gpt-test-2026-01-01",
            usage=None if usage is None else msgspec.json.encode(usage).decode(),
            receipt=None if cost is None else msgspec.json.encode(cost.lines).decode(),
            upstream_status=200,
            attempts=1,
            ttfb_ms=210,
        )

    def settled(self, *legs: Leg, amount: str = "1") -> ledger.Hold:
        """A hold that has been settled by usage, at exactly what its legs cost."""
        hold = self.placed(amount)
        usage = Usage(legs or (Leg(input=1200, cache_read=800, output=350),))
        cost = price(
            usage,
            PricedModel("gpt-test", PRICES, self.price_version),
            user_multiplier_micro=hold.user_multiplier_micro,
            model_multiplier_micro=hold.model_multiplier_micro,
        )
        with self.write() as tx:
            outcome = self.outcome(usage, cost)
            end = ledger.End("settled", "usage", cost.nanousd, outcome, self.now_ms + 1234)
            ledger.end_hold(tx, hold, end)
        return hold

    def close(self) -> None:
        """Close the file."""
        self.database.close()
