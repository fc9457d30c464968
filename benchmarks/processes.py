"""Processes that are measured: started, read out of /proc with all their children, ended."""

import contextlib
import json
import os
import resource
import select
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import IO, NamedTuple

from benchmarks.load import HOST, Order, Result
from tests.support.certificates import HERE, issue

SAMPLE_PAUSE_S = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


class Target(NamedTuple):
    """Where a load goes, and the root of the processes that serve it."""

    name: str
    port: int
    prefix: str
    headers: dict[str, str]
    pid: int


def free_port() -> int:
    """Return a port that nobody listens on now."""
    with socket.socket() as free:
        free.bind((HOST, 0))
        return int(free.getsockname()[1])


def allow_many_files() -> int:
    """Raise the limit of open files as far as may be, for all children too; return it."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))
    return hard


def _stat(pid: int) -> list[str]:
    # The name in brackets may hold spaces; what follows it begins with field 3, the state.
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()


def tree(root: int) -> list[int]:
    """Return the ids of a process and of all that descend from it."""
    children: dict[int, list[int]] = {}
    for path in Path("/proc").iterdir():
        if path.name.isdigit():
            with contextlib.suppress(OSError):  # it has just ended
                children.setdefault(int(_stat(int(path.name))[1]), []).append(int(path.name))
    found = [root]
    for pid in found:
        found += children.get(pid, [])
    return found


def cpu_s(root: int) -> float:
    """Return user and system time in seconds of a process tree, children that ended included."""
    used = 0.0
    for pid in tree(root):
        with contextlib.suppress(OSError):
            used += time.clock_gettime(_cpu_clock(pid))
            used += sum(int(ticks) for ticks in _stat(pid)[13:15]) / _TICKS
    return used


def _cpu_clock(pid: int) -> int:
    """Return the clock of a process's user and system time, as clock_getcpuclockid(3) does.

    It is the counter behind /proc/PID/stat, in nanoseconds and not in ticks of 10 ms.
    """
    return (~pid << 3) | 2


def rss_mb(pids: list[int]) -> float:
    """Return the resident memory of processes together, in 10^6 bytes."""
    pages = 0
    for pid in pids:
        with contextlib.suppress(OSError):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
    return round(pages * _PAGE_BYTES / 1e6, 1)


class Provider:
    """The fake provider as a process."""

    def __init__(self, port: int, tls_port: int, certificate: Path, pid: int) -> None:
        """Take where it listens, and the certificate by which it is trusted under TLS."""
        self.port = port
        self.base_url = f"http://{HOST}:{port}/v1"
        self.tls_url = f"https://{HOST}:{tls_port}/v1"
        self.certificate = certificate
        self.target = Target("direct", port, "/v1", {"authorization": "Bearer sk-bench"}, pid)

    def counts(self) -> dict[str, list[int]]:
        """Return how many answers of each variant it has given, by kind."""
        with urllib.request.urlopen(f"http://{HOST}:{self.port}/control/counts") as answer:
            return dict(json.load(answer))


@contextlib.contextmanager
def fake_provider() -> Iterator[Provider]:
    """Run the fake provider."""
    with tempfile.TemporaryDirectory(prefix="llmproxy-provider-") as folder:
        certificate = Path(folder) / "provider.pem"
        issue("benchmarks", HERE, None, is_authority=True).write(certificate)
        command = [sys.executable, "-m", "benchmarks.provider", str(certificate)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
            try:
                line = process.stdout.readline() if process.stdout else ""
                if not line:
                    raise SystemExit("the fake provider did not start; its errors are above")
                port, tls_port = map(int, line.split())
                yield Provider(port, tls_port, certificate, process.pid)
            finally:
                process.kill()


class Watched(NamedTuple):
    """What a process tree took while it was watched.

    Its highest memory in MB, and its CPU time in seconds so far, at moments of the clock
    `time.perf_counter`, which all processes share.
    """

    peak_mb: float
    used: list[tuple[float, float]]


class LoadGenerator:
    """The load generator as a process, which has started when it is needed."""

    def __init__(self, orders: IO[str], results: IO[str]) -> None:
        """Take its input and its output."""
        self._orders, self._results = orders, results

    def run(self, order: Order, watched_pid: int) -> tuple[Result, "Watched"]:
        """Carry out an order; return its result, and what a process tree took meanwhile.

        Raises:
            SystemExit: it failed; its errors are on stderr.
        """
        watched = tree(watched_pid)
        peak_mb, used = rss_mb(watched), [(time.perf_counter(), cpu_s(watched_pid))]
        self._orders.write(json.dumps(order._asdict()) + "\n")
        self._orders.flush()
        while not select.select([self._results], [], [], SAMPLE_PAUSE_S)[0]:
            peak_mb = max(peak_mb, rss_mb(watched))
            used.append((time.perf_counter(), cpu_s(watched_pid)))
        line = self._results.readline()
        if not line:
            raise SystemExit(f"the load generator failed at {order.path}; its errors are above")
        return Result(**json.loads(line)), Watched(peak_mb, used)


@contextlib.contextmanager
def load_generator() -> Iterator[LoadGenerator]:
    """Run the load generator."""
    command, pipe = [sys.executable, "-m", "benchmarks.load"], subprocess.PIPE
    with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as process:
        try:
            assert process.stdin is not None
            assert process.stdout is not None
            yield LoadGenerator(process.stdin, process.stdout)
        finally:
            process.kill()


class Rig(NamedTuple):
    """What a server is measured between: requests come from one side and go to the other."""

    provider: Provider
    loads: LoadGenerator


@contextlib.contextmanager
def running_rig() -> Iterator[Rig]:
    """Run both."""
    with fake_provider() as provider, load_generator() as loads:
        yield Rig(provider, loads)
