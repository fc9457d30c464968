"""Any order of operations, faults and crashes leaves the ledger as a few plain numbers say.

A hypothesis state machine. The model beside it knows no SQL: a wallet is a balance and its open
holds, all plain ints. Every operation may be cut short: its nth statement fails, the disk is full,
or the power goes before COMMIT; then it must have done nothing at all.
"""

# mypy: disable-error-code="explicit-override"
# typing.override is younger than Python 3.11.

import sqlite3
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from llmproxy import accounts, crediting, ledger, ledger_check, recovery
from llmproxy.errors import DatabaseError, RefusedError
from llmproxy.storage.database import AdminDatabase, Tx
from tests.support.books import NOW_MS, Book, costing

T = TypeVar("T")
AMOUNT_NANOUSD = st.integers(0, 1_500_000_000)
BY_NANOUSD = st.integers(-2_000_000_000, 2_000_000_000)
WALLETS = st.sampled_from([0, 1])
CREDIT = 2_000_000_000

FATES = st.sampled_from(["commits"] * 12 + ["power goes", "disk is full", *range(1, 6)])
"""How an operation ends; a number is that of its statement that fails."""
RECENT = st.sampled_from([0, 0, 0, 1, 1, 2, 3, 4])
"""Which of the holds, from the newest open one back."""


class PowerCutError(Exception):
    """The process ends before COMMIT."""


class FailingTx:
    """A transaction one of whose statements fails."""

    def __init__(self, tx: Tx, number: int) -> None:
        self._tx = tx
        self._left = number

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # noqa: ANN401
        self._left -= 1
        if self._left == 0:
            raise sqlite3.OperationalError("disk I/O error")
        return self._tx.execute(sql, *parameters)


class Wallet:
    """What a wallet must be: plain numbers."""

    def __init__(self, wallet_id: int) -> None:
        self.id = wallet_id
        self.balance = CREDIT
        self.open: dict[bytes, int] = {}
        self.seen: dict[bytes, int] = {}

    @property
    def available(self) -> int:
        return self.balance - sum(self.open.values())

    def end(self, hold_id: bytes, charged: int) -> None:
        self.balance -= charged
        del self.open[hold_id]
        self.seen.pop(hold_id, None)


class Placed(NamedTuple):
    """A hold that was to be placed, and whose."""

    hold: ledger.Hold
    wallet: int


class Ledger(RuleBasedStateMachine):
    """Two wallets, everything that may happen to them, and what must be true after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.book = Book(Path(self.directory.name) / "data" / "llmproxy.db", credit="2")
        with self.book.write() as tx:
            other = accounts.create_user(tx, "ben", now_ms=NOW_MS)
            accounts.create_api_key(tx, other, "phone", now_ms=NOW_MS)
            crediting.credit(tx, other.wallet_id, CREDIT, actor="test", reason=None, now_ms=NOW_MS)
        self.wallets = [Wallet(self.book.wallet_id), Wallet(other.wallet_id)]
        self.user_ids = [self.book.user_id, other.id]
        self.keys: dict[str, tuple[int, int]] = {}
        self.placed: list[Placed] = []

    def is_open(self, placed: Placed) -> bool:
        return placed.hold.id in self.wallets[placed.wallet].open

    def recent(self, back: int) -> tuple[ledger.Hold, Wallet, int]:
        """An open hold, or one of the last others, and its wallet."""
        others = [each for each in self.placed if not self.is_open(each)][-2:]
        near = [*others, *filter(self.is_open, self.placed)]
        hold, wallet = near[-1 - back % len(near)]
        return hold, self.wallets[wallet], wallet

    def run(self, fate: str | int, operation: Callable[[Tx], T]) -> tuple[bool, T | None]:
        """Run an operation that may be cut short; say whether it was committed."""
        try:
            with self.book.write() as tx:
                if fate == "disk is full":
                    pages = tx.execute("PRAGMA page_count").fetchone()[0]
                    tx.execute(f"PRAGMA max_page_count = {pages}")
                result = operation(FailingTx(tx, fate) if isinstance(fate, int) else tx)
                if fate == "power goes":
                    raise PowerCutError
        except PowerCutError:
            self.reopen()
            return False, None
        except DatabaseError:
            return False, None
        finally:
            with self.book.read() as tx:
                tx.execute("PRAGMA max_page_count = 1073741823").fetchone()
        return True, result

    def outcome(self, wallet: int) -> ledger.Outcome:
        outcome = self.book.outcome()
        return ledger.Outcome(
            **{name: getattr(outcome, name) for name in outcome.__struct_fields__}
            | {"user_id": self.user_ids[wallet]}
        )

    @rule(amount=AMOUNT_NANOUSD, wallet=WALLETS, fate=FATES)
    def place(self, amount: int, wallet: int, fate: str | int) -> None:
        model = self.wallets[wallet]
        hold = ledger.Hold(
            id=self.book.hold().id,
            wallet_id=model.id,
            api_key_id=wallet + 1,
            price_version_id=self.book.price_version,
            boot_id=self.book.boot_id,
            endpoint="messages",
            user_multiplier_micro=1_000_000,
            model_multiplier_micro=1_000_000,
            amount_nanousd=amount,
            created_at_ms=NOW_MS,
        )
        done, refused = self.run(fate, lambda tx: ledger.place_hold(tx, hold))
        if done:
            assert (refused is None) == (amount <= model.available)
            if refused is None:
                model.open[hold.id] = amount
            else:
                assert refused.available_nanousd == model.available
        self.placed.append(Placed(hold, wallet))

    @precondition(lambda self: self.placed)
    @rule(back=RECENT, by=AMOUNT_NANOUSD, fate=FATES)
    def extend(self, back: int, by: int, fate: str | int) -> None:
        hold, model, _ = self.recent(back)
        fits = by <= model.available
        try:
            done, refused = self.run(fate, lambda tx: ledger.extend_hold(tx, hold, by))
        except ledger.HoldEndedError:
            assert hold.id not in model.open
            assert fits
            return
        if done:
            assert (refused is None) == fits
            if refused is None:
                model.open[hold.id] += by

    @precondition(lambda self: self.placed)
    @rule(back=RECENT, cost=AMOUNT_NANOUSD, fate=FATES)
    def note_seen(self, back: int, cost: int, fate: str | int) -> None:
        hold, model, _ = self.recent(back)
        done, _ = self.run(fate, lambda tx: ledger.note_seen(tx, hold, cost))
        if done and hold.id in model.open:
            model.seen[hold.id] = max(cost, model.seen.get(hold.id, 0))

    @precondition(lambda self: self.placed)
    @rule(back=RECENT, cost=AMOUNT_NANOUSD, fate=FATES)
    def settle(self, back: int, cost: int, fate: str | int) -> None:
        hold, model, wallet = self.recent(back)
        outcome = costing(self.outcome(wallet), cost, hold.user_multiplier_micro)
        end = ledger.End("settled", "usage", cost, outcome, NOW_MS)
        try:
            done, charged = self.run(fate, lambda tx: ledger.end_hold(tx, hold, end))
        except ledger.HoldEndedError:
            assert hold.id not in model.open
            return
        if done:
            assert charged == min(cost, model.open[hold.id] + model.available)
            model.end(hold.id, charged)

    @precondition(lambda self: self.placed)
    @rule(back=RECENT, fate=FATES)
    def release(self, back: int, fate: str | int) -> None:
        hold, model, wallet = self.recent(back)
        end = ledger.released(self.outcome(wallet), at_ms=NOW_MS)
        done, was_open = self.run(fate, lambda tx: ledger.end_if_open(tx, hold, end))
        if done:
            assert was_open == (hold.id in model.open)
            if was_open:
                model.end(hold.id, 0)

    @rule(by=BY_NANOUSD.filter(bool), wallet=WALLETS, fate=FATES)
    def adjust(self, by: int, wallet: int, fate: str | int) -> None:
        model = self.wallets[wallet]
        words = {"actor": "test", "reason": "because"}
        try:
            done, _ = self.run(
                fate, lambda tx: crediting.adjust(tx, model.id, by, **words, now_ms=NOW_MS)
            )
        except RefusedError:
            assert by < -model.available
            return
        if done:
            model.balance += by

    @rule(
        amount=st.integers(1, 1_000_000_000),
        key=st.sampled_from([None, "a", "b"]),
        wallet=WALLETS,
        fate=FATES,
    )
    def credit(self, amount: int, key: str | None, wallet: int, fate: str | int) -> None:
        model = self.wallets[wallet]

        def add(tx: Tx) -> crediting.Credited:
            return crediting.credit(
                tx,
                model.id,
                amount,
                actor="test",
                reason=None,
                now_ms=NOW_MS,
                idempotency_key=key,
            )

        known = self.keys.get(key or "")
        try:
            done, credited = self.run(fate, add)
        except RefusedError:
            assert known is not None
            assert known != (wallet, amount)
            return
        if done:
            assert credited is not None
            assert credited.is_repeat == (known is not None)
            model.balance += 0 if known else amount
            if key is not None:
                self.keys[key] = (wallet, amount)

    @precondition(lambda self: len(list(filter(self.is_open, self.placed))) > 2)
    @rule(fate=FATES)
    def start_again_after_a_crash(self, fate: str | int) -> None:
        self.reopen()
        done, count = self.run(fate, lambda tx: recovery.expire_open_holds(tx, now_ms=NOW_MS))
        if done:
            assert count == sum(len(model.open) for model in self.wallets)
            for model in self.wallets:
                for hold_id, held in [*model.open.items()]:
                    model.end(hold_id, min(model.seen.get(hold_id, 0), held))

    @rule()
    def reopen(self) -> None:
        """As after kill -9: what was committed is there."""
        self.book.close()
        self.book.database = AdminDatabase(self.book.path)

    @invariant()
    def the_wallets_are_what_the_model_says(self) -> None:
        with self.book.read() as tx:
            for model in self.wallets:
                held = sum(model.open.values())
                now = ledger.standing(tx, model.id)
                assert (now.balance_nanousd, now.held_nanousd) == (model.balance, held)
                assert 0 <= held <= model.balance
            rows = tx.execute("SELECT id, amount_nanousd FROM holds WHERE state = 'open'")
            assert dict(rows.fetchall()) == self.wallets[0].open | self.wallets[1].open

    @invariant()
    def the_books_are_right(self) -> None:
        with self.book.read() as tx:
            assert ledger_check.verify(tx).problems == []

    def teardown(self) -> None:
        self.book.close()
        self.directory.cleanup()


def at_length(examples: int, steps: int) -> settings:
    return settings(
        max_examples=examples,
        stateful_step_count=steps,
        deadline=None,
        suppress_health_check=[HealthCheck.too_slow],
    )


class LongLedger(Ledger):
    """The same, for longer."""


TestLedger = Ledger.TestCase
TestLedger.settings = at_length(examples=40, steps=50)
TestLongLedger = pytest.mark.slow(LongLedger.TestCase)
TestLongLedger.settings = at_length(examples=200, steps=50)
