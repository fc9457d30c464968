"""How much more CPU a request takes than bare forwarding: `python -m benchmarks.ratio`.

The server and a bare forwarder (`benchmarks.forwarder`) are measured in turn, in short runs: a
machine that grows slower or faster does so for both. The ratio of their CPU time is much the same
on any machine; for a stream too it is that to a forwarded plain request, since what a forwarded
stream costs is chance (how many of its events come together). It is compared with the one in
`stored.json`, and more than 25 % above it, twice in a row, is a regression: exit code 1. `--store`
writes the present one there.
"""

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.measure import order
from benchmarks.processes import Rig, Target, cpu_s, running_rig
from benchmarks.scenarios import Shape
from benchmarks.site import Home, Server

STORED = Path(__file__).with_name("stored.json")
ALLOWED = 0.25
SHAPES = {"plain": Shape(), "stream": Shape(is_stream=True)}
ROUNDS = 31
REQUESTS = {"plain": 300, "stream": 150}


class Pair(NamedTuple):
    """CPU time in microseconds of one of our requests or streams, and of a forwarded request.

    They come from runs that followed each other.
    """

    llmproxy_us: float
    forwarder_us: float


def ratio(pairs: list[Pair]) -> float:
    """Return the ratio that is typical of some pairs: their median, which single bad runs leave."""
    return statistics.median(pair.llmproxy_us / pair.forwarder_us for pair in pairs)


def regressions(found: dict[str, float], stored: dict[str, float]) -> list[str]:
    """Return, in words, which ratios are too far above the stored ones."""
    told = []
    for name, value in found.items():
        if name not in stored:
            told.append(f"{name}: no stored ratio; write one with --store")
        elif value > stored[name] * (1 + ALLOWED):
            told.append(
                f"{name}: {value:.2f} times the CPU of bare forwarding, stored is "
                f"{stored[name]:.2f}: {value / stored[name] - 1:+.0%}, allowed is {ALLOWED:+.0%}"
            )
    return told


@contextlib.contextmanager
def forwarder(provider_port: int) -> Iterator[Target]:
    """Run the bare forwarder."""
    command = [sys.executable, "-m", "benchmarks.forwarder", str(provider_port)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            line = process.stdout.readline() if process.stdout else ""
            if not line:
                raise SystemExit("the forwarder did not start; its errors are above")
            headers = {"authorization": "Bearer sk-bench"}
            yield Target("forwarder", int(line), "/v1", headers, process.pid)
        finally:
            process.kill()


def measure(rounds: int) -> dict[str, list[Pair]]:
    """Measure the pairs of each kind of request."""
    with (
        running_rig() as rig,
        forwarder(rig.provider.port) as bare,
        tempfile.TemporaryDirectory(prefix="llmproxy-ratio-") as temp,
    ):
        home = Home(Path(temp))
        home.set_up(rig.provider.base_url)
        with Server(home).running() as server:
            return {name: _pairs(rig, server.target(), bare, name, rounds) for name in SHAPES}


def _pairs(rig: Rig, server: Target, bare: Target, name: str, rounds: int) -> list[Pair]:
    """Measure both in turn, after a round that only warms them up."""
    pairs = [
        Pair(_cpu_us(rig, server, name), _cpu_us(rig, bare, "plain")) for _ in range(rounds + 1)
    ]
    return pairs[1:]


def _cpu_us(rig: Rig, target: Target, name: str) -> float:
    """Return the CPU time of a request in one short run.

    Raises:
        SystemExit: a request failed.
    """
    before = cpu_s(target.pid)
    # A number of requests, not of seconds: as many on a slow machine as on a fast one.
    result, _ = rig.loads.run(order(target, SHAPES[name], 0, REQUESTS[name]), target.pid)
    if result.failures:
        raise SystemExit(f"{target.name}: {result.failures}: {result.example}")
    return (cpu_s(target.pid) - before) / result.answers * 1e6


def report(pairs: dict[str, list[Pair]], stored: dict[str, float]) -> dict[str, Any]:
    """Return the figures of a run beside the stored ones, and what is too much."""
    found = {name: round(ratio(each), 2) for name, each in pairs.items()}
    return {
        "ratio": found,
        "stored": stored,
        "cpu_us": {
            name: {
                "llmproxy": round(statistics.median(pair.llmproxy_us for pair in each)),
                "forwarder": round(statistics.median(pair.forwarder_us for pair in each)),
            }
            for name, each in pairs.items()
        },
        "problems": regressions(found, stored),
    }


def show(told: dict[str, Any]) -> None:
    """Print the figures for people."""
    for name, value in told["ratio"].items():
        cpu, stored = told["cpu_us"][name], told["stored"].get(name)
        print(
            f"{name:7} {cpu['llmproxy']:,} µs, bare forwarding {cpu['forwarder']:,} µs: "
            f"{value:.2f} times (stored: {stored or 'none'})"
        )
        if stored and value < stored * (1 - ALLOWED):
            print(f"{name:7} is much better than stored: --store keeps it from being lost again")
    for problem in told["problems"]:
        print(problem, file=sys.stderr)


def main() -> int:
    """Measure and compare; return the exit code."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.ratio", description=__doc__)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="short runs of each")
    parser.add_argument("--store", action="store_true", help="keep the ratios as the stored ones")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument("--stored", type=Path, default=STORED, help="the file of stored ratios")
    options = parser.parse_args()
    stored = json.loads(options.stored.read_text()) if options.stored.exists() else {}
    told = report(measure(options.rounds), stored)
    if told["problems"] and not options.store:
        # What a busy machine did to one measurement it rarely does to the next.
        told = report(measure(options.rounds), stored)
    if options.store:
        options.stored.write_text(json.dumps(told["ratio"], indent=2) + "\n")
        told = {**told, "stored": told["ratio"], "problems": []}
    if options.json:
        print(json.dumps(told, indent=2))
    else:
        show(told)
    return 1 if told["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
