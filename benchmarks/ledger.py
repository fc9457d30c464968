"""Measure the ledger alone: `python -m benchmarks.ledger [--seconds 3] [--json]`.

The real writer on a real file (`synchronous=FULL`), without HTTP: so many clients that each place a
hold, wait until it is on disk, and end it. Then how long a start takes to end 10,000 open holds.
At the end the books must be right.
"""

import argparse
import asyncio
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import msgspec
import uvloop
from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from llmproxy import accounts, crediting, ledger, ledger_check, recovery
from llmproxy.catalog import Prices, Rates
from llmproxy.clock import Clock, RequestIds
from llmproxy.recovery import EndsKeeper
from llmproxy.storage.database import AdminDatabase, DatabaseFiles, Tx
from llmproxy.storage.spill import Spill
from llmproxy.storage.writer import Writer

CLIENTS = (1, 16, 128)
OPEN_HOLDS = 10_000
CREDIT_NANOUSD = 10**17
AMOUNT_NANOUSD = 5_000_000

Row = dict[str, Any]


class Bench:
    """A database with one rich user, and holds of theirs."""

    def __init__(self, path: Path) -> None:
        self.files = DatabaseFiles(path)
        self._ids, self._clock = RequestIds(), Clock()
        database = AdminDatabase(path)
        with database.write() as tx:
            self._template = self._set_up(tx)
        database.close()
        self.outcome = ledger.Outcome(
            user_id=1, provider="openai", model="m", is_stream=False, status=200, duration_ms=1
        )

    def _set_up(self, tx: Tx) -> ledger.Hold:
        now_ms = self._clock.now_ms()
        user = accounts.create_user(tx, "bench", now_ms=now_ms)
        accounts.create_api_key(tx, user, "bench", now_ms=now_ms)
        crediting.credit(
            tx, user.wallet_id, CREDIT_NANOUSD, actor="bench", reason=None, now_ms=now_ms
        )
        rates = Rates(input=1, output=1, cache_read=1, cache_write_5m=1, cache_write_1h=1)
        prices = Prices(rates).canonical_json()
        return ledger.Hold(
            id=bytes(16),
            wallet_id=user.wallet_id,
            api_key_id=1,
            price_version_id=ledger.pin_prices(tx, "openai", "m", prices, now_ms=now_ms),
            boot_id=ledger.start_boot(tx, pid=1, version="bench", now_ms=now_ms),
            endpoint="chat/completions",
            user_multiplier_micro=1_000_000,
            model_multiplier_micro=1_000_000,
            amount_nanousd=AMOUNT_NANOUSD,
            created_at_ms=now_ms,
        )

    def hold(self) -> ledger.Hold:
        """A new hold, not placed yet."""
        new_id = self._ids.new(self._clock.now_ms())
        return msgspec.structs.replace(self._template, id=new_id)

    def end(self) -> ledger.End:
        """The end of one, by all that was held."""
        return ledger.End("settled", "hold", AMOUNT_NANOUSD, self.outcome, self._clock.now_ms())

    def pairs(self, clients: int, seconds: float) -> Row:
        """Place and end holds for a while; return how many, and what one costs."""
        spill = Spill(self.files.spill)
        writer: Writer[None] = Writer(self.files, EndsKeeper(spill))
        try:
            return uvloop.run(self._load(writer, clients, seconds))
        finally:
            writer.close()
            spill.close()

    async def _load(self, writer: Writer[None], clients: int, seconds: float) -> Row:
        writer.start(lambda _tx: None, lambda _nothing: None)
        deadline = time.perf_counter() + seconds
        done = 0

        async def client() -> None:
            nonlocal done
            while time.perf_counter() < deadline:
                hold = self.hold()
                await writer.submit(ledger.place_hold, hold)
                await writer.submit(ledger.end_hold, hold, self.end())
                done += 1

        began_s, began_cpu_s = time.perf_counter(), time.process_time()
        await asyncio.gather(*(client() for _ in range(clients)))
        took_s, cpu_s = time.perf_counter() - began_s, time.process_time() - began_cpu_s
        return {
            "clients": clients,
            "pairs_per_s": round(done / took_s),
            "cpu_us_per_pair": round(cpu_s / done * 1e6),
        }

    def recover(self) -> Row:
        """Leave holds open and end them as a start does; return the seconds that it takes."""
        database = AdminDatabase(self.files.path)
        with database.write() as tx:
            for number in range(OPEN_HOLDS):
                hold = self.hold()
                ledger.place_hold(tx, hold)
                ledger.note_seen(tx, hold, number)
        began_s = time.perf_counter()
        with database.write() as tx:
            ended = recovery.expire_open_holds(tx, now_ms=self._clock.now_ms())
        took_s = time.perf_counter() - began_s
        with database.read() as tx:
            report = ledger_check.verify(tx)
        database.close()
        if ended != OPEN_HOLDS or not report.is_ok:
            raise SystemExit(f"the books are wrong: {ended} ended, {report.problems[:3]}")
        return {"open_holds": ended, "recovery_s": round(took_s, 3)}


def measure(seconds: float, shows: Callable[[str], object]) -> Row:
    """Run all of it in a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="llmproxy-ledger-") as folder:
        bench = Bench(Path(folder) / "data" / "llmproxy.db")
        rows = []
        for clients in CLIENTS:
            shows(f"{clients} clients")
            rows.append(bench.pairs(clients, seconds))
        shows("recovery")
        return {"pairs": rows, **bench.recover()}


def main() -> int:
    """Measure, and print a table or JSON."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ledger", description=__doc__)
    parser.add_argument("--seconds", type=float, default=3.0, help="for each load (default: 3)")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    result = measure(options.seconds, partial(print, file=sys.stderr))
    if options.json:
        print(json.dumps(result, indent=2))
        return 0
    table = Table(box=SIMPLE)
    for column in ("clients", "hold + settle pairs/s", "CPU µs a pair"):
        table.add_column(column, justify="right")
    for row in result["pairs"]:
        table.add_row(*(f"{value:,}" for value in row.values()))
    Console().print(table)
    print(f"{result['open_holds']:,} open holds ended in {result['recovery_s']} s; verified")
    return 0


if __name__ == "__main__":
    sys.exit(main())
