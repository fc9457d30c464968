"""Measure llmproxy against a fake provider: `python -m benchmarks [--seconds 5] [--json]`.

Fake provider, server and load generator are processes of their own on one machine; the server
gets a temporary LLMPROXY_HOME and is set up through its command line, as an operator would.
CPU per request is user + system time of the server's process, all threads, from /proc (Linux).
At the end the ledger must be right, with one settled row for each answer received.
"""

import argparse
import contextlib
import json
import os
import signal
import socket
import sqlite3
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from rich.box import SIMPLE
from rich.console import Console
from rich.table import Table

WARM_UP_S = 0.5
READY_S = 20.0
STOP_S = 30.0
PROXY_PATH = "/v1/openai/chat/completions"
DIRECT_PATH = "/v1/chat/completions"
COLUMNS = {
    "requests/s": "requests_per_s",
    "CPU µs": "cpu_us",
    "p50 µs": "p50_us",
    "p99 µs": "p99_us",
    "first µs": "first_p50_us",
    "RSS MB": "rss_mb",
    "failed": "failed",
}

Row = dict[str, Any]


class Target(NamedTuple):
    """Where a load goes: CPU time is that of the process `pid`."""

    port: int
    path: str
    key: str
    pid: int


class Home:
    """A temporary LLMPROXY_HOME and the command line over it."""

    def __init__(self, path: Path, port: int) -> None:
        kept = {k: v for k, v in os.environ.items() if not k.startswith("LLMPROXY_")}
        self.env = {**kept, "LLMPROXY_HOME": str(path), "LLMPROXY_PORT": str(port)}
        self.path = path

    def run(self, *arguments: str, given: str = "") -> str:
        """Run one llmproxy command and give what it prints.

        Raises:
            SystemExit: the command failed; the message has its errors.
        """
        command = [sys.executable, "-m", "llmproxy", *arguments]
        done = subprocess.run(
            command, env=self.env, input=given, capture_output=True, text=True, check=False
        )
        if done.returncode:
            shown = f"llmproxy {' '.join(arguments)} failed with {done.returncode}"
            raise SystemExit(f"{shown}:\n{done.stderr or done.stdout}")
        return done.stdout

    def set_up(self, provider_port: int) -> str:
        """Make a user with credit and an openai provider; gives the user's key."""
        name = ("users", "create", "bench")
        key = self.run(*name, "--credit", "1000000", "--key", "bench", "--quiet").strip()
        self.run("providers", "set", "openai", "--base-url", f"http://127.0.0.1:{provider_port}/v1")
        self.run("provider-keys", "add", "openai", given="sk-benchmark-0123456789\n")
        return key

    def holds_by_state(self) -> dict[str, int]:
        """Count the rows of the ledger, from the database file itself."""
        [file] = self.path.glob("data/*.db")
        with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as db:
            return dict(db.execute("SELECT state, count(*) FROM holds GROUP BY state"))


@contextlib.contextmanager
def fake_provider() -> Iterator[tuple[int, int]]:
    """Run the fake provider; gives its port and its pid."""
    command = [sys.executable, "-m", "benchmarks.fake_provider"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit("the fake provider did not start; its errors are above")
            yield int(line), process.pid
        finally:
            process.kill()


class Server:
    """The server as a process, with its output in a file."""

    def __init__(self, home: Home, port: int) -> None:
        self._log = home.path / "serve.log"
        self.port = port
        started = time.monotonic()
        with self._log.open("wb") as log:
            command = [sys.executable, "-m", "llmproxy", "serve"]
            self.process = subprocess.Popen(command, env=home.env, stdout=log, stderr=log)
        while not self._ready():
            code = self.process.poll()
            if code is not None:
                raise SystemExit(f"the server ended with {code} at its start:\n{self._tail()}")
            if time.monotonic() - started > READY_S:
                self.process.kill()
                raise SystemExit(f"the server is not ready after {READY_S} s:\n{self._tail()}")
            time.sleep(0.01)
        self.start_s = time.monotonic() - started

    def _ready(self) -> bool:
        try:
            with urllib.request.urlopen(
                f"http://127.0.0.1:{self.port}/readyz", timeout=2
            ) as answer:
                return bool(answer.status == 200)
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            return False

    def _tail(self) -> str:
        return self._log.read_text(errors="replace")[-4000:]

    def stop(self) -> float:
        """Stop it as a service manager does; gives the seconds that it took.

        Raises:
            SystemExit: it did not end, or not with 0.
        """
        started = time.monotonic()
        self.process.send_signal(signal.SIGTERM)
        try:
            code = self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.process.kill()
            raise SystemExit(f"the server did not stop in {STOP_S} s:\n{self._tail()}") from None
        if code:
            raise SystemExit(f"the server ended with {code}:\n{self._tail()}")
        return time.monotonic() - started


def cpu_s(pid: int) -> float:
    """User and system time of a process, all threads, in seconds."""
    # The name in brackets may hold spaces; after it, utime and stime are fields 11 and 12.
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def rss_mb(pid: int) -> float:
    """Resident memory of a process in 10^6 bytes."""
    pages = int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def load(target: Target, connections: int, seconds: float, *, stream: bool) -> Row:
    """Run the load generator once."""
    command = [sys.executable, "-m", "benchmarks.load", f"--port={target.port}"]
    command += [f"--path={target.path}", f"--connections={connections}", f"--seconds={seconds}"]
    command += ["--stream"] if stream else []
    done = subprocess.run(command, input=target.key, stdout=subprocess.PIPE, text=True, check=False)
    if done.returncode:
        raise SystemExit(f"the load generator failed; its errors are above ({target})")
    return dict(json.loads(done.stdout))


def measure(name: str, target: Target, connections: int, seconds: float, *, stream: bool) -> Row:
    """Warm up, then run one scenario."""
    warm = load(target, connections, WARM_UP_S, stream=stream)
    before = cpu_s(target.pid)
    row = load(target, connections, seconds, stream=stream)
    cpu = cpu_s(target.pid) - before
    answers = row["answers"]
    return {
        "scenario": name,
        **row,
        "requests_per_s": round(answers / row["seconds"]),
        "cpu_us": round(cpu / answers * 1e6) if answers else 0,
        "rss_mb": round(rss_mb(target.pid), 1),
        "failed": sum(row["failures"].values()) + sum(warm["failures"].values()),
        "example": row["example"] or warm["example"],
        "answers_with_warm_up": answers + warm["answers"],
    }


def measure_all(prefix: str, target: Target, connections: int, seconds: float) -> list[Row]:
    """Run the three scenarios against one target."""
    scenarios = [("plain", 1, False), ("plain", connections, False), ("stream", connections, True)]
    return [
        measure(f"{prefix}, {what}, {n} conn", target, n, seconds, stream=stream)
        for what, n, stream in scenarios
    ]


def run(seconds: float, connections: int, *, direct_only: bool) -> Row:
    """Measure everything; gives the report."""
    with fake_provider() as (provider_port, provider_pid), tempfile.TemporaryDirectory() as temp:
        direct = Target(provider_port, DIRECT_PATH, "sk-benchmark", provider_pid)
        report: Row = {"scenarios": measure_all("direct", direct, connections, seconds)}
        if direct_only:
            return report
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        home = Home(Path(temp), port)
        key = home.set_up(provider_port)
        server = Server(home, port)
        try:
            target = Target(port, PROXY_PATH, key, server.process.pid)
            rows = measure_all("llmproxy", target, connections, seconds)
            stop_s = server.stop()
        finally:
            server.process.kill()
        received = sum(row["answers_with_warm_up"] for row in rows)
        holds = home.holds_by_state()
        report["scenarios"] += rows
        report |= {"start_s": round(server.start_s, 2), "stop_s": round(stop_s, 2)}
        report |= {"answers_received": received, "holds": holds}
        report["ledger_verify"] = json.loads(home.run("ledger", "verify", "--json"))
    return report


def problems(report: Row) -> list[str]:
    """What is wrong with a report, in words."""
    found = [
        f"{row['scenario']}: {row['failed']} failed, the first: {row['example'][:500]}"
        for row in report["scenarios"]
        if row["failed"] or not row["answers"]
    ]
    holds = report.get("holds")
    if holds is not None and holds != {"settled": report["answers_received"]}:
        found.append(f"{report['answers_received']} answers received, but holds are {holds}")
    return found


def show(report: Row) -> None:
    """Print the report for people."""
    console = Console(width=max(Console().width, 104))
    table = Table(box=SIMPLE)
    table.add_column("scenario", no_wrap=True)
    for heading in COLUMNS:
        table.add_column(heading, justify="right", no_wrap=True)
    for row in report["scenarios"]:
        table.add_row(row["scenario"], *(f"{row[name]:,}" for name in COLUMNS.values()))
    console.print(table)
    if "holds" in report:
        console.print(f"start {report['start_s']} s, stop {report['stop_s']} s")
        console.print(f"answers {report['answers_received']:,}, holds {report['holds']}, verified")


def main() -> None:
    """Parse the arguments, measure, print; exit 1 when something is wrong."""
    parser = argparse.ArgumentParser(prog="benchmarks", description=__doc__)
    parser.add_argument("--seconds", type=float, default=5.0, help="length of each scenario")
    parser.add_argument("--connections", type=int, default=32)
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--direct-only", action="store_true", help="only the fake provider")
    options = parser.parse_args()
    if not Path("/proc/self/stat").exists():
        raise SystemExit("the benchmarks read /proc: they run on Linux only")
    report = run(options.seconds, options.connections, direct_only=options.direct_only)
    report["problems"] = problems(report)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    for problem in report["problems"]:
        print(problem, file=sys.stderr)
    sys.exit(1 if report["problems"] else 0)


if __name__ == "__main__":
    main()
