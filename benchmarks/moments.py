"""How long single moments take: the start of the server, and `--help`."""

import resource
import statistics
import subprocess
import time

from benchmarks.measure import Row
from benchmarks.processes import cpu_s
from benchmarks.site import Home, Server

RUNS = 5


def start_times(home: Home) -> Row:
    """Start the server some times; return the median until it is ready, and what it used."""
    clock, cpu = [], []
    for _ in range(RUNS):
        with Server(home).running() as server:
            clock.append(server.start_s)
            cpu.append(cpu_s(server.process.pid))
    return _medians(clock, cpu)


def help_times(home: Home) -> Row:
    """Ask for help some times; return the median time and what it used."""
    clock, cpu = [], []
    for _ in range(RUNS):
        before, began = _children_cpu_s(), time.monotonic()
        command = [*home.command, "--help"]
        subprocess.run(command, env=home.environ, check=True, stdout=subprocess.DEVNULL)
        clock.append(time.monotonic() - began)
        cpu.append(_children_cpu_s() - before)
    return _medians(clock, cpu)


def _children_cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def _medians(clock_s: list[float], cpu_s_: list[float]) -> Row:
    return {
        "clock_ms": round(statistics.median(clock_s) * 1000),
        "cpu_ms": round(statistics.median(cpu_s_) * 1000),
        "runs": RUNS,
    }
