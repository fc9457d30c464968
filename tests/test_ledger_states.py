"""Any order of operations on the ledger keeps its promises (a hypothesis state machine)."""

# mypy: disable-error-code="explicit-override"
# typing.override is younger than Python 3.11.

import tempfile
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, rule

from llmproxy import ledger, ledger_check, recovery
from llmproxy.errors import RefusedError
from tests.support.books import NOW_MS, Book

AMOUNT_NANOUSD = st.integers(0, 4_000_000_000)


class Ledger(RuleBasedStateMachine):
    """Holds, settlements, releases, crashes and credits, in any order; a model keeps the sums."""

    holds = Bundle("holds")

    def __init__(self) -> None:
        super().__init__()
        self.directory = tempfile.TemporaryDirectory()
        self.book = Book(Path(self.directory.name) / "data" / "llmproxy.db", credit="5")
        self.balance = 5_000_000_000
        self.open: dict[bytes, ledger.Hold] = {}

    @property
    def held(self) -> int:
        return sum(hold.amount_nanousd for hold in self.open.values())

    @rule(target=holds, amount=AMOUNT_NANOUSD)
    def place(self, amount: int) -> ledger.Hold:
        hold = self.book.hold(f"{amount // 10**9}.{amount % 10**9:09d}")
        fits = amount <= self.balance - self.held
        with self.book.write() as tx:
            assert (ledger.place_hold(tx, hold) is None) == fits
        if fits:
            self.open[hold.id] = hold
        return hold

    @rule(hold=holds, cost=AMOUNT_NANOUSD)
    def settle(self, hold: ledger.Hold, cost: int) -> None:
        most = hold.amount_nanousd + self.balance - self.held
        try:
            with self.book.write() as tx:
                end = ledger.End("settled", "hold", cost, self.book.outcome(), NOW_MS)
                charged = ledger.end_hold(tx, hold, end)
        except ledger.HoldEndedError:
            assert hold.id not in self.open
            return
        del self.open[hold.id]
        assert charged == min(cost, most)
        self.balance -= charged

    @rule(hold=holds)
    def release(self, hold: ledger.Hold) -> None:
        with self.book.write() as tx:
            end = ledger.released(self.book.outcome(), at_ms=NOW_MS)
            ledger.end_if_open(tx, hold, end)
        self.open.pop(hold.id, None)

    @rule(by=st.integers(-4_000_000_000, 4_000_000_000).filter(bool))
    def adjust(self, by: int) -> None:
        try:
            with self.book.write() as tx:
                ledger.adjust(
                    tx, self.book.wallet_id, by, actor="test", reason="because", now_ms=NOW_MS
                )
        except RefusedError:
            assert by < -(self.balance - self.held)
            return
        self.balance += by

    @rule(amount=st.integers(1, 4_000_000_000), key=st.sampled_from([None, "a", "b"]))
    def credit(self, amount: int, key: str | None) -> None:
        try:
            with self.book.write() as tx:
                done = ledger.credit(
                    tx,
                    self.book.wallet_id,
                    amount,
                    actor="test",
                    reason=None,
                    now_ms=NOW_MS,
                    idempotency_key=key,
                )
        except RefusedError:
            assert key is not None
            return
        self.balance += 0 if done.is_repeat else amount

    @rule()
    def crash(self) -> None:
        with self.book.write() as tx:
            assert recovery.expire_open_holds(tx, now_ms=NOW_MS) == len(self.open)
        self.open.clear()

    @invariant()
    def the_wallet_is_what_the_operations_say(self) -> None:
        assert self.book.balance() == (self.balance, self.held)
        assert 0 <= self.held <= self.balance

    def teardown(self) -> None:
        with self.book.read() as tx:
            assert ledger_check.verify(tx).problems == []
        self.book.close()
        self.directory.cleanup()


TestLedger = Ledger.TestCase
TestLedger.settings = settings(
    max_examples=20,
    stateful_step_count=25,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],
)
