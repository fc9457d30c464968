"""Kill the server again and again, and prove that nothing was lost: `python -m benchmarks.crash`.

`llmproxy serve` runs on a temporary home before a fake provider, under many clients that mostly
stream, while an operator adds credit (`crash_load`). Each cycle ends with SIGKILL at a moment
drawn from the seed; then the server is started again and the books are compared with all that had
been acknowledged (`crash_books`). The seed gives the same moments again, not the same races.
"""

import argparse
import contextlib
import itertools
import json
import random
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

from benchmarks.crash_books import Books
from benchmarks.crash_load import STREAM_TOKENS_HELD, catalog, user_name
from llmproxy import accounts, crediting
from llmproxy.cli.progress import progress
from llmproxy.clock import Clock
from llmproxy.errors import LlmproxyError
from llmproxy.storage.database import AdminDatabase
from tests.support.older import turn_back_to_first_schema
from tests.support.proxy import RunningProxy

FIRST_CREDIT_NANOUSD = 3_000
LOOK_PAUSE_S = 0.05
CHANGE_WITHIN_S = 5.0
STARTS_KILLED = 3
ROUND_CYCLES = 48
PROBLEMS_SHOWN_MAX = 20


class Site:
    """The server that is killed, and the processes around it."""

    def __init__(self, home: Path, clients: int, seed: int) -> None:
        environ = {
            "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
            "LLMPROXY_LOG_REQUESTS": "false",
            "LLMPROXY_HOLD_STREAM_OUTPUT_TOKENS": str(STREAM_TOKENS_HELD),
        }
        self.proxy = RunningProxy(home, environ)
        self.database = home / "data" / "llmproxy.db"
        self.wal = home / "data" / "llmproxy.db-wal"
        self.books = Books(home, self.database, users=clients, seed=seed)
        self.start_s = 0.0
        self._clients, self._seed = clients, seed
        self._running: dict[str, subprocess.Popen[str]] = {}
        (home / "catalog.json").write_text(catalog())

    def set_up(self) -> None:
        """Start everything."""
        provider = self._spawn("provider", f"--journal={self.books.provider.path}")
        assert provider.stdout is not None
        url = f"http://127.0.0.1:{int(provider.stdout.readline())}"
        self.proxy.use_provider("openai", f"{url}/v1")
        self.proxy.use_provider("anthropic", url)
        keys = self._make_users()
        self.proxy.port = _free_port(random.Random(self._seed))
        started = time.monotonic()
        self.proxy.start()
        self.start_s = time.monotonic() - started
        port, journal = f"--port={self.proxy.port}", f"--journal={self.books.clients.path}"
        clients = self._spawn("clients", port, journal, f"--seed={self._seed}")
        assert clients.stdin is not None
        clients.stdin.write(" ".join(keys) + "\n")
        clients.stdin.close()
        self.start_operator()

    def _make_users(self) -> list[str]:
        keys, now_ms = [], Clock().now_ms()
        with contextlib.closing(AdminDatabase(self.database)) as database, database.write() as tx:
            for number in range(self._clients):
                user = accounts.create_user(tx, user_name(number), now_ms=now_ms)
                keys.append(accounts.create_api_key(tx, user, "crash", now_ms=now_ms))
                amount = FIRST_CREDIT_NANOUSD
                crediting.credit(
                    tx, user.wallet_id, amount, actor="crash", reason=None, now_ms=now_ms
                )
        return keys

    def _spawn(self, role: str, *options: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "benchmarks.crash_load", role, *options]
        pipe = subprocess.PIPE
        self._running[role] = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)
        return self._running[role]

    def _kill(self, role: str) -> int | None:
        """Kill a process; return the code with which it had ended by itself, if it had."""
        with self._running.pop(role) as process:
            code = process.poll()
            process.kill()
        return code

    def start_operator(self) -> None:
        """Let the operator go on with the first top-up that is not known to be done."""
        if "operator" not in self._running:
            self._spawn(
                "operator",
                *(f"--journal={self.books.operator.path}", f"--database={self.database}"),
                *(f"--users={self._clients}", f"--seed={self._seed}"),
                f"--first={len(self.books.top_ups)}",
            )

    def kill_operator(self) -> None:
        """Kill the operator, in the middle of a top-up as may be."""
        if "operator" in self._running:
            code = self._kill("operator")
            assert code is None, f"the operator ended with {code}"
        self.books.read_journals()

    @contextlib.contextmanager
    def clients_paused(self) -> Iterator[None]:
        """Let the clients stand still, so that the books do not grow while they are checked."""
        clients = self._running["clients"]
        clients.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            clients.send_signal(signal.SIGCONT)

    def stop(self) -> None:
        """End everything; the server gets the time to settle what runs."""
        self.kill_operator()
        code = self._kill("clients")
        assert code is None, f"the clients ended with {code}"
        code = self.proxy.stop()
        assert code == 0, f"the server ended with {code}"
        self._kill("provider")

    def __enter__(self) -> "Site":
        return self

    def __exit__(self, *exc_info: object) -> None:
        for role in [*self._running]:
            self._kill(role)
        self.proxy.__exit__(*exc_info)


def _free_port(rng: random.Random) -> int:
    """A free port below those that the system gives to outgoing connections.

    One of those could be taken, by a client that tries to connect, while the server is dead.
    """
    while True:
        with contextlib.suppress(OSError), socket.socket() as free:
            port = rng.randrange(20_000, 32_000)
            free.bind(("127.0.0.1", port))
            return port


class Killer:
    """The ways to kill a server. `seen` counts what a kill has hit."""

    def __init__(self, site: Site, rng: random.Random) -> None:
        self._site, self._rng = site, rng
        self.kinds: dict[str, Callable[[], None]] = {
            "under_load": self._under_load,
            "as_a_request_is_sent": self._as_a_request_is_sent,
            "at_a_checkpoint": self._at_a_checkpoint,
            "while_it_starts": self._while_it_starts,
            "in_a_migration": self._in_a_migration,
            "in_a_backup": self._in_a_backup,
        }
        self.seen: Counter[str] = Counter()

    def cycle(self, kind: str) -> None:
        """Let it work, kill it, start it again, check."""
        self._work(self._rng.uniform(0.3, 1.2))
        self.kinds[kind]()
        self._site.proxy.start()
        self._site.start_operator()
        with self._site.clients_paused():
            self._site.books.check()

    def _work(self, seconds: float) -> None:
        """Let the load run on; meanwhile note what can be seen in the database."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._site.books.look()
            time.sleep(min(left, LOOK_PAUSE_S))

    def _kill(self, *, operator: bool | None = None) -> None:
        """Kill the server, and the operator too: always, never, or every other time."""
        code = self._site.proxy.exit_code
        assert code is None, f"the server ended with {code} by itself"
        self._site.proxy.kill()
        self.seen["server_kills"] += 1
        if self._rng.random() < 0.5 if operator is None else operator:
            self._site.kill_operator()

    def _under_load(self) -> None:
        self._kill()

    def _as_a_request_is_sent(self) -> None:
        """At once when the provider has received one: its hold must be on disk by then."""
        self._until_changed(self._site.books.provider.path)
        self._kill()

    def _at_a_checkpoint(self) -> None:
        """Only checkpoints write to the database file: the rest is in the write-ahead log."""
        self.seen["checkpoints_hit"] += self._until_changed(self._site.database)
        time.sleep(self._rng.uniform(0, 0.005))
        self._kill()

    def _while_it_starts(self) -> None:
        """Several times in a row: anywhere, or about where it ends the holds of the dead."""
        self._kill()
        for _ in range(STARTS_KILLED):
            boots = self._ask("SELECT max(id) FROM boots")
            self._site.proxy.launch()
            if self._rng.random() < 0.5:
                time.sleep(self._rng.uniform(0, 1.2 * self._site.start_s))
            else:
                self._until_changed(self._site.wal)
                time.sleep(self._rng.uniform(0, 0.004))
            self._kill(operator=False)
            self.seen["starts_cut_short"] += self._ask("SELECT max(id) FROM boots") == boots

    def _in_a_migration(self) -> None:
        """On what the database would be if an older program had written it."""
        self._kill(operator=True)
        for _ in range(STARTS_KILLED):
            if self._ask("PRAGMA user_version") > 1:
                turn_back_to_first_schema(self._site.database)
            self._site.proxy.launch()
            self._until_changed(self._site.wal)
            time.sleep(self._rng.uniform(0, 0.004))
            self._kill(operator=False)
            self.seen["migrations_cut_short"] += self._ask("PRAGMA user_version") == 1

    def _in_a_backup(self) -> None:
        """Kill `db backup` and the server; a copy that has got its name is a good one."""
        self._site.books.read_journals()
        top_ups = [*self._site.books.top_ups]
        with tempfile.TemporaryDirectory(dir=self._site.proxy.home) as directory:
            copy = Path(directory) / "copy.db"
            command = [sys.executable, "-m", "llmproxy", "db", "backup", str(copy)]
            backup = subprocess.Popen(
                command,
                env=self._site.proxy.environ,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            self._until_changed(Path(directory))
            with contextlib.suppress(subprocess.TimeoutExpired):
                code = backup.wait(self._rng.choice([0.02, 0.2, 20]) * self._rng.random())
                assert code == 0, f"db backup ended with {code}"
            backup.kill()
            self._kill(operator=True)
            backup.wait()
            self.seen["backups_cut_short"] += not copy.exists()
            if copy.exists():
                self._site.books.check_backup(copy, top_ups)

    def _ask(self, question: str) -> int:
        """The answer of a dead server's database to a question with one number."""
        uri = f"file:{self._site.database}?mode=ro"
        with contextlib.closing(sqlite3.connect(uri, uri=True)) as connection:
            return int(connection.execute(question).fetchone()[0])

    def _until_changed(self, path: Path) -> bool:
        """Wait until a file is written to; False if it is not within some seconds."""
        before, ends = _written(path), time.monotonic() + CHANGE_WITHIN_S
        while time.monotonic() < ends:
            if _written(path) != before:
                return True
            time.sleep(0.0002)
        return False


def _written(path: Path) -> tuple[int, int] | None:
    """What changes with every write; None for a file that is empty or not there."""
    try:
        found = path.stat()
    except FileNotFoundError:
        return None
    return (found.st_mtime_ns, found.st_size) if found.st_size else None


def run(cycles: int, clients: int, seed: int) -> dict[str, Any]:
    """Run so many cycles; gives the report. It ends early where the server cannot go on.

    Every ROUND_CYCLES begin with an empty ledger: all of it is proved after every kill.
    """
    started, reports = time.monotonic(), list[dict[str, Any]]()
    with progress("Killing") as report:
        for first in range(0, cycles, ROUND_CYCLES):
            count = min(ROUND_CYCLES, cycles - first)
            done = partial(_report_done, report, first, cycles)
            reports.append(_round(count, clients, seed + first, done))
            if reports[-1]["problems"]:
                break
    return {
        "seed": seed,
        "clients": clients,
        "seconds": round(time.monotonic() - started),
        **_summed(reports),
    }


def _report_done(report: Callable[[int, int], object], first: int, all_: int, done: int) -> None:
    report(first + done, all_)


def _summed(reports: list[dict[str, Any]]) -> dict[str, Any]:
    """Add up the reports of all rounds: numbers, counts by name, and lists."""
    summed: dict[str, Any] = {}
    for name, first in reports[0].items():
        values = [report[name] for report in reports]
        if isinstance(first, dict):
            summed[name] = dict(sum(map(Counter, values), Counter()))
        elif isinstance(first, list):
            summed[name] = list(itertools.chain(*values))
        else:
            summed[name] = sum(values)
    return summed


def _round(
    cycles: int, clients: int, seed: int, report_done: Callable[[int], object]
) -> dict[str, Any]:
    rng = random.Random(seed)
    done: Counter[str] = Counter()
    with tempfile.TemporaryDirectory() as home, Site(Path(home), clients, seed) as site:
        killer, books = Killer(site, rng), site.books
        try:
            site.set_up()
            for kind in _shuffled(list(killer.kinds), cycles, rng):
                killer.cycle(kind)
                done[kind] += 1
                report_done(done.total())
            site.stop()
            books.check()
        except (AssertionError, LlmproxyError, sqlite3.Error) as error:
            books.violations.add(f"{type(error).__name__}: {error}")
    return {
        "cycles": dict(done),
        "killed": dict(killer.seen),
        "acknowledged": {
            "top_ups": len(books.top_ups),
            "holds": len(books.heads.keys() | books.forwarded),
            "ends": len(books.ended),
        },
        "holds": dict(Counter(hold.state for hold in books.ended.values())),
        "grown": books.grown,
        "sent_again": books.sent_again,
        "complete_but_expired": books.expired_complete,
        "other_answers": books.other_answers,
        "lost": len(books.lost),
        "violations": len(books.violations),
        "problems": [*sorted(books.lost), *sorted(books.violations)][:PROBLEMS_SHOWN_MAX],
    }


def _shuffled(kinds: list[str], count: int, rng: random.Random) -> Iterator[str]:
    """So many kinds, each about as often as the others, in any order."""
    for number in range(count):
        if number % len(kinds) == 0:
            rng.shuffle(kinds)
        yield kinds[number % len(kinds)]


def show(report: dict[str, Any]) -> None:
    """Print the report for people."""
    console = Console(width=max(Console().width, 104))
    table = Table("killed", box=SIMPLE)
    table.add_column("cycles", justify="right")
    for kind, count in report["cycles"].items():
        table.add_row(_words(kind), f"{count:,}")
    console.print(table)
    for name in ("killed", "acknowledged", "holds", "other_answers"):
        counts = (f"{_words(what)} {count:,}" for what, count in report[name].items())
        console.print(f"{_words(name)}: {', '.join(counts)}")
    console.print(
        f"holds grown: {report['grown']:,}, requests sent again: {report['sent_again']:,}"
    )
    console.print(
        f"answers complete, but not settled when killed: {report['complete_but_expired']}"
    )
    console.print(f"seed {report['seed']}, {report['clients']} clients, {report['seconds']} s")
    console.print(f"lost {report['lost']}, violations {report['violations']}")


def _words(name: str) -> str:
    return name.replace("_", " ")


def main() -> None:
    """Parse the arguments, run, print; exit 1 when anything was lost or is wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks.crash", description=__doc__)
    parser.add_argument("--cycles", type=int, default=25)
    parser.add_argument("--seed", type=int, help="of the moments; drawn when not given")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    seed = random.randrange(2**31) if options.seed is None else options.seed
    print(f"seed {seed}", file=sys.stderr)
    report = run(options.cycles, options.clients, seed)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    for problem in report["problems"]:
        print(problem, file=sys.stderr)
    sys.exit(1 if report["lost"] or report["violations"] else 0)


if __name__ == "__main__":
    main()
