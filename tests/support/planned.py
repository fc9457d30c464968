"""How SQLite is going to answer what is really executed, on the real schema."""

import re
import sqlite3
from pathlib import Path
from typing import Any

from llmproxy.storage.database import Tx, connect

STATEMENT = re.compile(r"\s*(WITH|SELECT|INSERT|UPDATE|DELETE)\b")


class Planned:
    """A transaction that notes how each statement is going to be answered."""

    def __init__(self, tx: Tx, path: Path) -> None:
        self._tx = tx
        self._planner = connect(path)
        # Who inserts a parent looks for children only while there are some without one.
        self._planner.execute("PRAGMA foreign_keys=OFF")
        self.plans: dict[str, list[str]] = {}

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:  # noqa: ANN401
        if STATEMENT.match(sql):
            rows = self._planner.execute(f"EXPLAIN QUERY PLAN {sql}", *parameters)
            self.plans[sql] = [row[3] for row in rows]
        return self._tx.execute(sql, *parameters)

    def close(self) -> None:
        self._planner.close()
