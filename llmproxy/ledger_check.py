"""Owns the proof of the books: every balance derived again, every stored usage priced again.

It only reads, in one transaction that the caller opened, and streams the rows. Rules are those of
`ledger.py`, written a second time and from the other side, so that a mistake there shows here.
Money is nano-USD. Must not repair anything.
"""

import hashlib
from collections.abc import Callable

import msgspec

from llmproxy.catalog import Prices
from llmproxy.clock import request_id_text
from llmproxy.errors import CatalogError
from llmproxy.hold_check import hold_problems
from llmproxy.money import format_usd
from llmproxy.pricing import PricedModel
from llmproxy.rollup_check import day_problems
from llmproxy.storage.database import Tx

PROBLEMS_SHOWN_MAX = 1000
PROGRESS_STEP_ROWS = 1000


class Problem(msgspec.Struct, frozen=True):
    """What is wrong, and with which row."""

    row: str
    message: str


class Report(msgspec.Struct):
    """What was checked and what was found; of many problems only the first are kept."""

    checked: dict[str, int] = msgspec.field(default_factory=dict)
    problems: list[Problem] = msgspec.field(default_factory=list)
    found: int = 0

    @property
    def is_ok(self) -> bool:
        """Whether nothing was found."""
        return self.found == 0

    def add(self, row: str, message: str) -> None:
        """Take note of a problem."""
        self.found += 1
        if len(self.problems) < PROBLEMS_SHOWN_MAX:
            self.problems.append(Problem(row, message))

    def count(self, what: str, number: int = 1) -> None:
        """Take note that so many rows of a kind were checked."""
        self.checked[what] = self.checked.get(what, 0) + number

    def as_json(self) -> dict[str, object]:
        """Return the report as `ledger verify --json` shows it."""
        return {
            "ok": self.is_ok,
            "checked": self.checked,
            "problems_found": self.found,
            "problems": msgspec.to_builtins(self.problems),
        }


def count_rows(tx: Tx) -> int:
    """Return how many rows `verify` will report progress on."""
    row = tx.execute("SELECT count(*) FROM holds").fetchone()
    return int(row[0])


def verify(tx: Tx, *, on_progress: Callable[[int], object] | None = None) -> Report:
    """Check the whole ledger; see the functions below for what is checked.

    Args:
        tx: a reading transaction with rows by name.
        on_progress: called with the number of holds done since the last call.
    """
    report = Report()
    _check_file(tx, report)
    _check_wallets(tx, report)
    versions = _check_price_versions(tx, report)
    _check_holds(tx, report, versions, on_progress or (lambda _rows: None))
    _check_transfers(tx, report)
    _check_idempotency(tx, report)
    _check_requests(tx, report)
    _check_days(tx, report)
    return report


def _check_file(tx: Tx, report: Report) -> None:
    """The file is whole and no row points to a row that is not there."""
    for row in tx.execute("PRAGMA integrity_check"):
        if row[0] != "ok":
            report.add("database", str(row[0]))
    has_orphaned_holds = False
    for table, row_id, parent, _ in tx.execute("PRAGMA foreign_key_check"):
        if table == "holds":  # has no row ids: SQLite does not say which rows it has found
            has_orphaned_holds = True
        else:
            report.add(f"{table} row {row_id}", _points_nowhere(parent))
    if has_orphaned_holds:
        for hold_id, parent in tx.execute(_ORPHANED_HOLDS):
            report.add(f"hold {request_id_text(hold_id)}", _points_nowhere(parent))


def _points_nowhere(parent: str) -> str:
    return f"points to a row of {parent} that does not exist"


_ORPHANED_HOLDS = """
SELECT id, 'wallets' FROM holds WHERE wallet_id NOT IN (SELECT id FROM wallets)
UNION ALL
SELECT id, 'api_keys' FROM holds WHERE api_key_id NOT IN (SELECT id FROM api_keys)
UNION ALL
SELECT id, 'price_versions' FROM holds
WHERE price_version_id NOT IN (SELECT id FROM price_versions)
UNION ALL
SELECT id, 'boots' FROM holds WHERE boot_id NOT IN (SELECT id FROM boots)
"""


def _check_wallets(tx: Tx, report: Report) -> None:
    """Balance = Σ transfers, held = Σ open holds, 0 ≤ held ≤ balance, one wallet per user."""
    rows = tx.execute(
        """SELECT users.name, wallets.id, balance_nanousd, held_nanousd,
                  coalesce(moved.total, 0) AS moved, coalesce(set_aside.total, 0) AS set_aside
           FROM users
           LEFT JOIN wallets ON wallets.user_id = users.id
           LEFT JOIN (SELECT wallet_id, sum(amount_nanousd) AS total FROM transfers
                      GROUP BY wallet_id) AS moved ON moved.wallet_id = wallets.id
           LEFT JOIN (SELECT wallet_id, sum(amount_nanousd) AS total FROM holds
                      WHERE state = 'open' GROUP BY wallet_id) AS set_aside
                  ON set_aside.wallet_id = wallets.id"""
    )
    for name, wallet_id, balance, held, moved, set_aside in rows:
        report.count("wallets")
        where = f"wallet of user {name}"
        if wallet_id is None:
            report.add(f"user {name}", "has no wallet")
            continue
        if balance != moved:
            text = f"balance is {format_usd(balance)}, its transfers sum to {format_usd(moved)}"
            report.add(where, text)
        if held != set_aside:
            text = f"held is {format_usd(held)}, its open holds sum to {format_usd(set_aside)}"
            report.add(where, text)
        if not 0 <= held <= balance:
            text = f"held {format_usd(held)} is not between 0 and its balance {format_usd(balance)}"
            report.add(where, text)


def _check_price_versions(tx: Tx, report: Report) -> dict[int, PricedModel]:
    """Return every price version that can be read; each has the SHA-256 that it was stored with."""
    versions: dict[int, PricedModel] = {}
    for row in tx.execute("SELECT id, model, prices, sha256 FROM price_versions"):
        report.count("price_versions")
        where = f"price version {row['id']}"
        data = row["prices"].encode()
        if hashlib.sha256(data).digest() != row["sha256"]:
            report.add(where, "its prices are not those that it was stored with")
        try:
            versions[row["id"]] = PricedModel(row["model"], Prices.from_json(data), row["id"])
        except CatalogError as error:
            report.add(where, str(error))
    return versions


_HOLDS = """
SELECT holds.*, wallets.user_id AS wallet_user_id, api_keys.user_id AS key_user_id,
       (SELECT max(id) FROM boots) AS newest_boot_id,
       transfers.id AS transfer_id, transfers.amount_nanousd AS transfer_nanousd,
       transfers.wallet_id AS transfer_wallet_id, transfers.kind AS transfer_kind,
       price_versions.provider AS asked_provider, price_versions.model AS asked_model,
       requests.id AS request_id, requests.state AS request_state,
       requests.basis AS request_basis, requests.hold_nanousd AS request_hold,
       requests.cost_nanousd AS request_cost, requests.charged_nanousd AS request_charged,
       requests.shortfall_nanousd AS request_shortfall, requests.user_id AS request_user_id,
       requests.api_key_id AS request_api_key_id, requests.endpoint AS request_endpoint,
       requests.created_at_ms AS request_created_at_ms,
       requests.provider AS request_provider, requests.model AS request_model,
       requests.usage AS request_usage, requests.receipt AS request_receipt
FROM holds
LEFT JOIN wallets ON wallets.id = holds.wallet_id
LEFT JOIN api_keys ON api_keys.id = holds.api_key_id
LEFT JOIN price_versions ON price_versions.id = holds.price_version_id
LEFT JOIN transfers ON transfers.hold_id = holds.id
LEFT JOIN requests ON requests.id = holds.id
"""


def _check_holds(
    tx: Tx,
    report: Report,
    versions: dict[int, PricedModel],
    on_progress: Callable[[int], object],
) -> None:
    """Every hold ends at most once, and its charge, its request and its price agree with that."""
    undone = 0
    for row in tx.execute(_HOLDS):
        report.count("holds")
        where = f"hold {request_id_text(row['id'])}"
        for message in hold_problems(row, versions, report.count):
            report.add(where, message)
        undone += 1
        if undone == PROGRESS_STEP_ROWS:
            on_progress(undone)
            undone = 0
    on_progress(undone)


def _check_transfers(tx: Tx, report: Report) -> None:
    """No charge without its hold, none twice, nothing else points to a hold, and each adds up."""
    row = tx.execute("SELECT count(*) FROM transfers").fetchone()
    report.count("transfers", int(row[0]))
    rows = tx.execute(
        """SELECT transfers.id, kind FROM transfers LEFT JOIN holds ON holds.id = hold_id
           WHERE (kind = 'charge') <> (holds.id IS NOT NULL)"""
    )
    for transfer_id, kind in rows:
        what = "has no hold" if kind == "charge" else f"is a {kind}, but points to a hold"
        report.add(f"transfer {transfer_id}", what)
    rows = tx.execute(
        """SELECT hold_id, count(*) FROM transfers WHERE hold_id IS NOT NULL
           GROUP BY hold_id HAVING count(*) > 1"""
    )
    for hold_id, count in rows:
        report.add(f"hold {request_id_text(hold_id)}", f"was charged {count} times")
    rows = tx.execute(
        """SELECT id, kind, amount_nanousd FROM transfers
           WHERE CASE kind WHEN 'credit' THEN amount_nanousd <= 0
                           WHEN 'charge' THEN amount_nanousd >= 0 ELSE amount_nanousd = 0 END"""
    )
    for transfer_id, kind, amount in rows:
        report.add(f"transfer {transfer_id}", f"is a {kind} of {format_usd(amount)}")
    rows = tx.execute("SELECT id FROM transfers WHERE kind = 'adjust' AND reason IS NULL")
    for (transfer_id,) in rows:
        report.add(f"transfer {transfer_id}", "is an adjust without a reason")


def _check_idempotency(tx: Tx, report: Report) -> None:
    """A key credits once, and only one hold of a wallet that was not released has it."""
    rows = tx.execute(
        """SELECT max(id), count(*) FROM transfers WHERE idempotency_key IS NOT NULL
           GROUP BY idempotency_key HAVING count(*) > 1"""
    )
    for transfer_id, count in rows:
        report.add(f"transfer {transfer_id}", f"is one of {count} with its idempotency key")
    rows = tx.execute(
        """SELECT max(id), count(*) FROM holds
           WHERE idempotency_hash IS NOT NULL AND state <> 'released'
           GROUP BY wallet_id, idempotency_hash HAVING count(*) > 1"""
    )
    for hold_id, count in rows:
        where = f"hold {request_id_text(hold_id)}"
        report.add(where, f"is one of {count} of its wallet with its idempotency key")


def _check_requests(tx: Tx, report: Report) -> None:
    """A request without a hold (refused, or free) moved no money and is of the key's own user."""
    row = tx.execute("SELECT count(*) FROM requests").fetchone()
    report.count("requests", int(row[0]))
    rows = tx.execute(
        """SELECT requests.id, requests.state, requests.basis,
                  (hold_nanousd <> 0 OR requests.cost_nanousd <> 0
                   OR requests.charged_nanousd <> 0
                   OR requests.shortfall_nanousd <> 0) AS has_amounts,
                  coalesce(api_keys.user_id, -1) <> requests.user_id AS is_foreign
           FROM requests LEFT JOIN holds ON holds.id = requests.id
                         LEFT JOIN api_keys ON api_keys.id = requests.api_key_id
           WHERE holds.id IS NULL
             AND (has_amounts OR is_foreign OR requests.basis <> 'none'
                  OR requests.state = 'expired')"""
    )
    for request_id, state, basis, has_amounts, is_foreign in rows:
        where = f"request {request_id_text(request_id)}"
        if has_amounts:
            report.add(where, "has amounts, but no hold")
        if is_foreign:
            report.add(where, "its API key belongs to another user")
        if basis != "none" or state == "expired":
            report.add(where, f"is {state} by {basis}, but has no hold")


def _check_days(tx: Tx, report: Report) -> None:
    """The sums by day are those of the requests, the holds and the transfers."""
    row = tx.execute("SELECT count(*) FROM requests_by_day").fetchone()
    report.count("sums_by_day", int(row[0]))
    for where, message in day_problems(tx):
        report.add(where, message)
