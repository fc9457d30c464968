"""Checks the books after a kill against what had been acknowledged before it.

Acknowledged is a top-up whose call returned, a hold whose answer began to reach a client or whose
request reached the provider, and every charge and end of a hold that was seen in the database.
The journals are those of `crash_load`.
"""

import contextlib
import sqlite3
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.crash_load import (
    FIRST_TAG,
    INPUT_TOKENS_HELD,
    MAX_TOKENS,
    STREAM_TOKENS_HELD,
    cost_nanousd,
    idempotency_hash,
    is_stream,
    top_up,
    top_up_key,
)
from llmproxy import accounts, ledger_check
from llmproxy.clock import parse_request_id, request_id_text
from llmproxy.storage.copies import reading_copy
from llmproxy.storage.database import AdminDatabase, Tx


class Journal:
    """The lines that a process of `crash_load` writes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._read_bytes = 0
        path.touch()

    def new_lines(self) -> list[str]:
        """The whole lines that have come since the last call."""
        with self.path.open("rb") as file:
            file.seek(self._read_bytes)
            data = file.read()
        data = data[: data.rfind(b"\n") + 1]
        self._read_bytes += len(data)
        return data.decode().splitlines()


class Hold(NamedTuple):
    """What the ledger says of a request."""

    idempotency_hash: bytes
    wallet_id: int
    amount_nanousd: int
    state: str
    basis: str | None
    cost_nanousd: int | None
    charged_nanousd: int | None


class Books:
    """All that was acknowledged, and the comparison with the database."""

    def __init__(self, home: Path, database: Path, *, users: int, seed: int) -> None:
        self.provider, self.clients, self.operator = (
            Journal(home / f"{role}.journal") for role in ("provider", "clients", "operator")
        )
        self.database = database
        self._users, self._seed = users, seed
        self.forwarded: Counter[int] = Counter()
        """How often each request has reached the provider."""
        self.heads: dict[int, bytes] = {}
        self.complete: set[int] = set()
        self.other_answers: dict[str, int] = {}
        self.top_ups: list[int] = []
        self.moved: dict[int, tuple[Any, ...]] = {}
        self.ended: dict[bytes, Hold] = {}
        self.expired_complete = 0
        self.grown = 0
        self.sent_again = 0
        self._tags: dict[bytes, int] = {}
        self.lost: set[str] = set()
        self.violations: set[str] = set()

    def read_journals(self) -> None:
        """Take note of what the processes around the server have seen."""
        self.forwarded.update(map(int, self.provider.new_lines()))
        self.top_ups += map(int, self.operator.new_lines())
        for line in self.clients.new_lines():
            what, value, *request_id = line.split()
            if what == "head":
                self.heads[int(value)] = parse_request_id(request_id[0]) or b""
            elif what == "end":
                self.complete.add(int(value))
            elif what == "again":
                self.sent_again += 1
            else:
                self.other_answers[value] = self.other_answers.get(value, 0) + 1

    def look(self) -> None:
        """Take note of the transfers that have come since the last look: they are durable.

        The connection can write nothing and does not outlive the call: an open one would keep the
        next server from recovering the write-ahead log.
        """
        uri = f"file:{self.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            self.moved |= _transfers(connection, max(self.moved, default=0))

    def check(self) -> None:
        """Compare everything with the database, beside a server that runs."""
        self.read_journals()  # first: what is in them must be in the database by now
        self._learn_tags()
        with contextlib.closing(AdminDatabase(self.database)) as database, database.read() as tx:
            report = ledger_check.verify(tx)
            self.violations.update(
                f"verify: {each.row}: {each.message}" for each in report.problems
            )
            transfers = _transfers(tx, 0)
            holds = {row[0]: Hold(*row[1:]) for row in tx.execute(_HOLDS)}
            self.violations.update(_dead_holds(tx))
            users = {user.wallet_id: user for user in accounts.list_users(tx, limit=self._users)}
        self.lost.update(self._lost(transfers, holds))
        self.lost.update(self._lost_top_ups(transfers, {u.name: w for w, u in users.items()}))
        self.violations.update(self._wrong_amounts(holds))
        balances = {wallet_id: user.balance_nanousd for wallet_id, user in users.items()}
        self.violations.update(_wrong_balances(transfers, balances))
        self.moved = transfers
        self.ended = {each: hold for each, hold in holds.items() if hold.state != "open"}

    def check_backup(self, path: Path, top_ups: list[int]) -> None:
        """A backup that has its name is right, and has what was acknowledged before it began."""
        with reading_copy(path) as copy:
            report = ledger_check.verify(copy)
            self.violations.update(
                f"backup: {each.row}: {each.message}" for each in report.problems
            )
            credited = {row[4] for row in _transfers(copy, 0).values()}
        missing = [number for number in top_ups if top_up_key(number) not in credited]
        self.lost.update(f"top-up {number} is not in a backup begun after it" for number in missing)

    def _lost(
        self, transfers: dict[int, tuple[Any, ...]], holds: dict[bytes, Hold]
    ) -> Iterator[str]:
        for number, row in self.moved.items():
            if transfers.get(number) != row:
                yield f"transfer {number} was {row}, is {transfers.get(number)}"
        for request_id, hold in self.ended.items():
            if holds.get(request_id) != hold:
                text = request_id_text(request_id)
                yield f"hold {text} had ended as {hold}, is {holds.get(request_id)}"
        tags = Counter(self._tag(hold) for hold in holds.values())
        for tag, request_id in self.heads.items():
            if request_id not in holds:
                yield f"request {tag} was answered, and has no hold"
            elif self._tag(holds[request_id]) != tag:
                yield f"request {tag} was answered with the id of another"
        for tag, times in self.forwarded.items():
            if times > tags[tag]:
                yield f"request {tag} was sent {times} times to the provider, has {tags[tag]} holds"

    def _tag(self, hold: Hold) -> int:
        return self._tags[hold.idempotency_hash]

    def _learn_tags(self) -> None:
        """Know all that may be in the database: clients count up, and each has one that runs."""
        last = max([*self.forwarded, *self.heads], default=FIRST_TAG) + 10 * self._users
        for tag in range(FIRST_TAG + len(self._tags), last):
            self._tags[idempotency_hash(tag)] = tag

    def _lost_top_ups(
        self, transfers: dict[int, tuple[Any, ...]], wallets: dict[str, int]
    ) -> Iterator[str]:
        """Each acknowledged top-up is there once, with its amount; one more may be."""
        there = Counter((row[4], row[0], row[2]) for row in transfers.values() if row[4])
        for number in self.top_ups:
            user, amount = top_up(self._seed, number, self._users)
            count = there[top_up_key(number), wallets[user], amount]
            if count != 1:
                yield f"top-up {number} is there {count} times"
        if there.total() > len(self.top_ups) + 1:
            yield f"{there.total()} top-ups are there, {len(self.top_ups)} were made"

    def _wrong_amounts(self, holds: dict[bytes, Hold]) -> Iterator[str]:
        kept = Counter(self._tag(hold) for hold in holds.values() if hold.state != "released")
        yield from (
            f"request {tag} has {n} holds that were kept" for tag, n in kept.items() if n > 1
        )
        self.expired_complete = self.grown = 0
        for request_id, hold in holds.items():
            where, tag = f"hold {request_id_text(request_id)}", self._tag(hold)
            most = INPUT_TOKENS_HELD + MAX_TOKENS
            least = INPUT_TOKENS_HELD + STREAM_TOKENS_HELD if is_stream(tag) else most
            if not least <= hold.amount_nanousd <= most:
                yield f"{where} holds {hold.amount_nanousd}"
            self.grown += hold.amount_nanousd > least
            if hold.state == "open":
                continue
            if not 0 <= (hold.charged_nanousd or 0) <= hold.amount_nanousd:
                yield f"{where} charged {hold.charged_nanousd} of {hold.amount_nanousd}"
            if hold.basis == "usage" and hold.cost_nanousd != cost_nanousd(tag):
                yield f"{where} cost {hold.cost_nanousd}, its usage costs {cost_nanousd(tag)}"
            if tag in self.complete and hold.state == "expired":
                self.expired_complete += 1


_HOLDS = """
SELECT id, idempotency_hash, wallet_id, amount_nanousd, state, basis, cost_nanousd, charged_nanousd
FROM holds
"""


def _transfers(tx: Tx, after: int) -> dict[int, tuple[Any, ...]]:
    rows = tx.execute(
        """SELECT id, wallet_id, kind, amount_nanousd, hold_id, idempotency_key FROM transfers
           WHERE id > ?""",
        (after,),
    )
    return {row[0]: tuple(row)[1:] for row in rows}


def _dead_holds(tx: Tx) -> Iterator[str]:
    [(count,)] = tx.execute(
        """SELECT count(*) FROM holds
           WHERE state = 'open' AND boot_id <> (SELECT max(id) FROM boots)"""
    )
    if count:
        yield f"{count} holds of dead servers are open"


def _wrong_balances(
    transfers: dict[int, tuple[Any, ...]], balances: dict[int, int]
) -> Iterator[str]:
    """A balance is what was credited less what was charged, and never below zero."""
    sums = dict.fromkeys(balances, 0)
    for wallet_id, _, amount, *_ in transfers.values():
        sums[wallet_id] += amount
    for wallet_id, balance in balances.items():
        if balance != sums[wallet_id] or balance < 0:
            yield f"wallet {wallet_id} has {balance}, its transfers sum to {sums[wallet_id]}"
