"""Owns the proof of the books: every balance derived again, every stored usage priced again.

It only reads, in one transaction that the caller opened, and streams the rows. Rules are those of
`ledger.py`, written a second time and from the other side, so that a mistake there shows here.
Money is nano-USD. Must not repair anything.
"""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator

import msgspec

from llmproxy.catalog import Prices
from llmproxy.clock import request_id_text
from llmproxy.errors import CatalogError
from llmproxy.money import cost_nanousd, format_usd
from llmproxy.pricing import Line, PricedModel, price
from llmproxy.storage.database import Tx
from llmproxy.usage import Usage

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
    _check_requests(tx, report)
    return report


def _check_file(tx: Tx, report: Report) -> None:
    """The file is whole and no row points to a row that is not there."""
    for row in tx.execute("PRAGMA integrity_check"):
        if row[0] != "ok":
            report.add("database", str(row[0]))
    for row in tx.execute("PRAGMA foreign_key_check"):
        report.add(f"{row[0]} row {row[1]}", f"points to a row of {row[2]} that does not exist")


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
       transfers.id AS transfer_id, transfers.amount_nanousd AS transfer_nanousd,
       transfers.wallet_id AS transfer_wallet_id, transfers.kind AS transfer_kind,
       price_versions.provider AS asked_provider, price_versions.model AS asked_model,
       requests.id AS request_id, requests.state AS request_state,
       requests.basis AS request_basis, requests.hold_nanousd AS request_hold,
       requests.cost_nanousd AS request_cost, requests.charged_nanousd AS request_charged,
       requests.shortfall_nanousd AS request_shortfall, requests.user_id AS request_user_id,
       requests.api_key_id AS request_api_key_id, requests.endpoint AS request_endpoint,
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
        for message in _hold_problems(row, report, versions):
            report.add(where, message)
        undone += 1
        if undone == PROGRESS_STEP_ROWS:
            on_progress(undone)
            undone = 0
    on_progress(undone)


def _hold_problems(
    row: sqlite3.Row, report: Report, versions: dict[int, PricedModel]
) -> Iterator[str]:
    if row["wallet_user_id"] != row["key_user_id"]:
        yield "its wallet and its API key belong to different users"
    yield from _open_problems(row) if row["state"] == "open" else _end_problems(row)
    yield from _charge_problems(row)
    if row["request_id"] is not None and row["state"] != "open":
        yield from _request_problems(row)
        yield from _price_problems(row, report, versions.get(row["price_version_id"]))


def _open_problems(row: sqlite3.Row) -> Iterator[str]:
    ends = ("basis", "cost_nanousd", "charged_nanousd", "shortfall_nanousd", "ended_at_ms")
    for column in ends:
        if row[column] is not None:
            yield f"is open, but has {column} {row[column]}"
    if row["request_id"] is not None:
        yield f"is open, but its request is {row['request_state']}"


def _end_problems(row: sqlite3.Row) -> Iterator[str]:
    cost, charged, owed = row["cost_nanousd"], row["charged_nanousd"], row["shortfall_nanousd"]
    if None in {cost, charged, owed, row["basis"], row["ended_at_ms"]}:
        yield f"is {row['state']}, but its end is not complete"
        return
    if cost != charged + owed:
        yield (
            f"cost {format_usd(cost)} is not charged {format_usd(charged)} "
            f"+ shortfall {format_usd(owed)}"
        )
    if row["state"] == "released" and (cost or charged):
        yield f"is released, but cost {format_usd(cost)} and charged {format_usd(charged)}"
    if charged > row["amount_nanousd"] >= cost:
        yield f"charged {format_usd(charged)}, above what it held and what the answer cost"
    if owed and charged < row["amount_nanousd"]:
        yield f"leaves a shortfall of {format_usd(owed)}, but charged less than it held"


def _charge_problems(row: sqlite3.Row) -> Iterator[str]:
    charged = row["charged_nanousd"] or 0
    if row["transfer_id"] is None:
        if charged:
            yield f"charged {format_usd(charged)}, but has no transfer"
        return
    moved = row["transfer_nanousd"]
    if moved != -charged or row["transfer_kind"] != "charge":
        yield (
            f"charged {format_usd(charged)}, but transfer {row['transfer_id']} is a "
            f"{row['transfer_kind']} of {format_usd(moved)}"
        )
    if row["transfer_wallet_id"] != row["wallet_id"]:
        yield f"transfer {row['transfer_id']} moved money of another wallet"


_REQUEST_AGREES = (
    ("state", "request_state"),
    ("basis", "request_basis"),
    ("amount_nanousd", "request_hold"),
    ("cost_nanousd", "request_cost"),
    ("charged_nanousd", "request_charged"),
    ("shortfall_nanousd", "request_shortfall"),
    ("wallet_user_id", "request_user_id"),
    ("api_key_id", "request_api_key_id"),
    ("endpoint", "request_endpoint"),
    ("asked_provider", "request_provider"),
    ("asked_model", "request_model"),
)


def _request_problems(row: sqlite3.Row) -> Iterator[str]:
    for own, theirs in _REQUEST_AGREES:
        if row[own] != row[theirs]:
            yield f"{own} is {row[own]}, its request says {row[theirs]}"


def _price_problems(row: sqlite3.Row, report: Report, asked: PricedModel | None) -> Iterator[str]:
    """The receipt's lines multiply to the cost, and so does the usage at the pinned prices."""
    try:
        lines = msgspec.json.decode(row["request_receipt"] or "null", type=tuple[Line, ...] | None)
        usage = msgspec.json.decode(row["request_usage"] or "null", type=Usage | None)
    except msgspec.DecodeError as error:
        yield f"its usage or receipt cannot be read: {error}"
        return
    cost = row["cost_nanousd"]
    is_measured = row["state"] == "settled" and row["basis"] in {"usage", "estimate"}
    if lines is not None:
        report.count("receipts")
        total = cost_nanousd(
            sum(line.rated_tokens for line in lines),
            row["user_multiplier_micro"],
            row["model_multiplier_micro"],
        )
        if total != cost:
            yield f"cost {format_usd(cost)}, but its receipt sums to {format_usd(total)}"
    elif is_measured and cost:
        yield f"cost {format_usd(cost)}, but has no receipt"
    if usage is None or asked is None or not is_measured:
        return
    if any(leg.model not in {None, asked.id} for leg in usage.legs):
        return
    report.count("usages_repriced")
    again = price(
        usage,
        asked,
        user_multiplier_micro=row["user_multiplier_micro"],
        model_multiplier_micro=row["model_multiplier_micro"],
    )
    if again.nanousd != cost:
        yield f"cost {format_usd(cost)}, but its usage prices to {format_usd(again.nanousd)}"
    elif lines is not None and _amounts(lines) != _amounts(again.lines):
        yield "its receipt has other lines than its usage at the pinned prices"


def _amounts(lines: tuple[Line, ...]) -> list[tuple[str, int, int, int | None]]:
    return [(line.usage_class, line.quantity, line.rate, line.price_version) for line in lines]


def _check_transfers(tx: Tx, report: Report) -> None:
    """No charge without its hold, none twice, and nothing else points to a hold."""
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


def _check_requests(tx: Tx, report: Report) -> None:
    """A request without a hold (refused, or free) moved no money."""
    row = tx.execute("SELECT count(*) FROM requests").fetchone()
    report.count("requests", int(row[0]))
    rows = tx.execute(
        """SELECT requests.id FROM requests LEFT JOIN holds ON holds.id = requests.id
           WHERE holds.id IS NULL
             AND (hold_nanousd <> 0 OR requests.cost_nanousd <> 0
                  OR requests.charged_nanousd <> 0 OR requests.shortfall_nanousd <> 0)"""
    )
    for (request_id,) in rows:
        report.add(f"request {request_id_text(request_id)}", "has amounts, but no hold")
