"""Whether the ledger is right: against the provider's own count, to the nano-dollar.

What each answer should cost is worked out here from the catalog's decimals, by fractions and apart
from the program's own arithmetic.
"""

import contextlib
import json
import math
import sqlite3
from dataclasses import dataclass
from fractions import Fraction
from functools import cache
from pathlib import Path
from typing import Any

from benchmarks.answers import CHAT_MODEL, EMBEDDING_MODEL, USAGES
from benchmarks.site import MULTIPLIER, Home

CATALOG = Path(__file__).parents[1] / "model_catalog.json"
VERIFIED_ROWS_MAX = 200_000
NANOUSD_PER_USD = 10**9
_MODELS = {"chat": CHAT_MODEL, "embeddings": EMBEDDING_MODEL}

Counts = dict[str, list[int]]


@dataclass(frozen=True)
class Totals:
    """What the ledger has: ended holds that were charged, their sum, and all other holds."""

    settled: int
    charged_nanousd: int
    others: int

    def __add__(self, other: "Totals") -> "Totals":
        return Totals(
            self.settled + other.settled,
            self.charged_nanousd + other.charged_nanousd,
            self.others + other.others,
        )


def cost_nanousd(kind: str, variant: int) -> int:
    """Return what one answer costs a user, in nano-USD, rounded up."""
    usage, prices = USAGES[kind][variant], _prices(kind)
    usd = (usage.prompt_tokens * prices[0] + usage.completion_tokens * prices[1]) / 10**6
    return math.ceil(usd * Fraction(MULTIPLIER) * NANOUSD_PER_USD)


@cache
def _prices(kind: str) -> tuple[Fraction, Fraction]:
    """Return the catalog's prices for input and output, in USD per million tokens."""
    entry = json.loads(CATALOG.read_text())["models"][f"openai/{_MODELS[kind]}"]
    return Fraction(entry["in_price"]), Fraction(entry["out_price"])


def given_between(before: Counts, after: Counts) -> Totals:
    """Return what the ledger must have for the answers given between two counts."""
    answers = charged = 0
    for kind, given in after.items():
        for variant, number in enumerate(given):
            new = number - before[kind][variant]
            answers += new
            charged += new * cost_nanousd(kind, variant)
    return Totals(answers, charged, 0)


def read_totals(database: Path) -> Totals:
    """Return what the ledger has now, from the database file itself."""
    with _reading(database) as db:
        row = db.execute(
            """SELECT count(*) FILTER (WHERE state = 'settled'),
                      coalesce(sum(charged_nanousd) FILTER (WHERE state = 'settled'), 0),
                      count(*) FILTER (WHERE state <> 'settled') FROM holds"""
        ).fetchone()
    return Totals(*row)


def problems(home: Home, wanted: Totals, received: int) -> list[str]:
    """Return what is wrong with the books, in words.

    Args:
        home: its server has stopped.
        wanted: what the provider's count says, with what stood in the ledger before.
        received: complete answers that the load generator counted, with what stood there before.
    """
    found = read_totals(home.database)
    told = []
    if found != wanted:
        told.append(f"the ledger has {found}, by the provider's count it should have {wanted}")
    if found.settled != received:
        told.append(f"{received} answers were received, but {found.settled} holds are settled")
    told += _sum_problems(home.database)
    if found.settled <= VERIFIED_ROWS_MAX:
        told += home.ledger_problems()
    return told


def _sum_problems(database: Path) -> list[str]:
    """Check sums by SQL: they are affordable where `ledger verify` would take too long."""
    with _reading(database) as db:
        one: Any = db.execute(
            """SELECT (SELECT sum(balance_nanousd) FROM wallets) AS balances,
                      (SELECT sum(amount_nanousd) FROM transfers) AS transfers,
                      (SELECT sum(held_nanousd) FROM wallets) AS held,
                      (SELECT coalesce(-sum(amount_nanousd), 0) FROM transfers
                       WHERE kind = 'charge') AS charges,
                      (SELECT coalesce(sum(charged_nanousd), 0) FROM holds) AS charged"""
        ).fetchone()
    told = []
    if one["balances"] != one["transfers"]:
        told.append(f"balances are {one['balances']}, transfers sum to {one['transfers']}")
    if one["held"]:
        told.append(f"{one['held']} nano-USD are still held")
    if one["charges"] != one["charged"]:
        told.append(f"transfers charge {one['charges']}, holds {one['charged']}")
    return told


def _reading(database: Path) -> contextlib.closing[sqlite3.Connection]:
    connection = sqlite3.connect(f"file:{database}?mode=ro", uri=True)
    connection.row_factory = sqlite3.Row
    return contextlib.closing(connection)
