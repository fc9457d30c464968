"""The operator, who works on the same file beside the server; and the books from the outside.

What the operator was told is done stands in `Office` in plain numbers: what the database says at
the end must agree. All of it runs in virtual time on the process's loop, but is no part of the
process: it lives on when that dies.
"""

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from llmproxy import accounts, catalog_overrides, crediting, key_pool
from llmproxy.catalog_parser import parse_entry
from llmproxy.errors import DatabaseError, LlmproxyError
from llmproxy.storage.database import Tx, connect, transaction
from tests.simulator.plan import Act, Person

BUSY_PAUSE_S = 0.004
MODELS = {
    "openai/sim-mini": {
        "mode": "chat",
        "max_output_tokens": 2048,
        "in_price": "2.50",
        "out_price": "10",
        "prices": {"cache_read": "1.25"},
    },
    "openai/sim-think": {
        "mode": "chat",
        "max_output_tokens": 1024,
        "reasoning": True,
        "in_price": "0.333333333",
        "out_price": "2.777777777",
        "multiplier": "1.1",
    },
    "anthropic/sim-claude": {
        "mode": "chat",
        "max_output_tokens": 1500,
        "in_price": "3",
        "out_price": "15",
        "prices": {"cache_read": "0.3", "cache_write": "3.75"},
    },
}
CATALOG = {
    "schema": 1,
    "currency": "USD",
    "unit": "per 1M tokens",
    "updated": "2026-11-25",
    "models": MODELS,
}


@dataclass
class Account:
    """What the operator knows of a user."""

    person: Person
    wallet_id: int
    user_id: int
    api_key: str
    moved: list[tuple[str, int]] = field(default_factory=list)
    """Every credit and adjustment that was acknowledged, in its order."""
    is_disabled: bool = False
    multipliers: set[int] = field(default_factory=set)
    """All that were ever in force."""
    old_keys: set[str] = field(default_factory=set)


class Office:
    """One database and its operator."""

    def __init__(self, path: Path, now_ms: Callable[[], int], written: Callable[[], None]) -> None:
        self._connection = connect(path)
        self._connection.execute("PRAGMA busy_timeout=0")  # it waits in virtual time
        self._now_ms = now_ms
        self._written = written
        self.accounts: list[Account] = []
        self.paused: set[str] = set()
        self.changes = 0
        """Grows with each change, so that a request can tell whether anything has changed."""

    def open_accounts(self, people: list[Person]) -> None:
        """Make the users with their keys and their first credit."""
        now_ms = self._now_ms()
        with transaction(self._connection) as tx:
            for person in people:
                user = accounts.create_user(
                    tx, person.name, now_ms=now_ms, rate_multiplier_micro=person.multiplier_micro
                )
                api_key = accounts.create_api_key(tx, user, "key", now_ms=now_ms)
                account = Account(person, user.wallet_id, user.id, api_key)
                account.multipliers.add(person.multiplier_micro)
                self.accounts.append(account)
                self._credit(tx, account, person.credit_nanousd, None)()

    async def do(self, act: Act, note: Callable[[str], None]) -> None:
        """Do something, trying again for as long as the database is busy."""
        while True:
            try:
                with transaction(self._connection) as tx:
                    done = self._change(tx, act)
                    if act.takes_s:
                        await asyncio.sleep(act.takes_s)
            except DatabaseError:
                await asyncio.sleep(BUSY_PAUSE_S)
                continue
            except LlmproxyError as error:
                note(f"operator: {act.kind} refused: {error}")
                return
            done()
            self.changes += 1
            note(f"operator: {act.kind} {self.accounts[act.person].person.name} {act.amount}")
            self._written()
            return

    def give_up(self) -> None:
        """Undo a transaction that the end of the loop has left open."""
        if self._connection.in_transaction:
            self._connection.execute("ROLLBACK")

    def close(self) -> None:
        """Close the file."""
        self._connection.close()

    def _change(self, tx: Tx, act: Act) -> Callable[[], object]:
        """Change the database; return what to note down once that is committed."""
        account = self.accounts[act.person]
        name, now_ms = account.person.name, self._now_ms()
        provider = ("openai", "anthropic")[act.amount % 2]
        if act.kind in {"credit", "credit again"}:
            return self._change_credit(tx, account, act)
        if act.kind in {"adjust up", "adjust down"}:
            by = act.amount if act.kind == "adjust up" else -(act.amount // 10)
            crediting.adjust(
                tx, account.wallet_id, by, actor="boss", reason="because", now_ms=now_ms
            )
            return lambda: account.moved.append(("adjust", by))
        if act.kind in {"disable", "enable"}:
            is_disabled = act.kind == "disable"
            accounts.set_user(tx, name, now_ms=now_ms, is_disabled=is_disabled)
            return lambda: setattr(account, "is_disabled", is_disabled)
        if act.kind == "multiplier":
            micro = 1_000_000 + act.amount % 1_000_000
            accounts.set_user(tx, name, now_ms=now_ms, rate_multiplier_micro=micro)
            account.multipliers.add(micro)
            return lambda: None
        if act.kind == "price":
            return _change_price(tx, act.amount, now_ms)
        if act.kind == "pause":
            key_pool.pause_provider(tx, provider, reason="rest", actor="boss", now_ms=now_ms)
            return lambda: self.paused.add(provider)
        if act.kind == "resume":
            key_pool.resume_provider(tx, provider, actor="boss", now_ms=now_ms)
            return lambda: self.paused.discard(provider)
        if act.kind in {"key off", "key on"}:
            state = "disabled" if act.kind == "key off" else "active"
            key = key_pool.find_provider_key(tx, provider, "key-1")
            key_pool.set_key_state(tx, key.id, state, reason=None, actor="boss", now_ms=now_ms)
            return lambda: None
        assert act.kind == "rotate"
        user = accounts.find_user(tx, name)
        new = accounts.rotate_api_key(tx, user, "key", now_ms=now_ms)
        return lambda: self._rotated(account, new)

    def _change_credit(self, tx: Tx, account: Account, act: Act) -> Callable[[], object]:
        key = f"payment-{act.amount}"
        return self._credit(tx, account, act.amount, key if act.kind == "credit again" else None)

    def _credit(
        self, tx: Tx, account: Account, amount: int, key: str | None
    ) -> Callable[[], object]:
        done = [
            crediting.credit(
                tx,
                account.wallet_id,
                amount,
                actor="boss",
                reason=None,
                now_ms=self._now_ms(),
                idempotency_key=key,
            )
            for _ in range(2 if key else 1)
        ]
        assert [one.is_repeat for one in done] == [False, True][: len(done)]
        return lambda: account.moved.append(("credit", amount))

    @staticmethod
    def _rotated(account: Account, new: str) -> None:
        account.old_keys.add(account.api_key)
        account.api_key = new


def _change_price(tx: Tx, amount: int, now_ms: int) -> Callable[[], object]:
    provider, _, model_id = list(MODELS)[amount % len(MODELS)].partition("/")
    entry = {**MODELS[f"{provider}/{model_id}"], "out_price": f"{1 + amount % 20}.5"}
    model = parse_entry(provider, model_id, json.loads(json.dumps(entry)))
    catalog_overrides.set_override(tx, model, entry, actor="boss", now_ms=now_ms)
    return lambda: None
