"""Measure llmproxy against a fake provider: `python -m benchmarks`.

A fast fake provider, the real server as `llmproxy serve` runs it (database on disk, every commit
synced, all checks on) and a load generator, each a process of its own on this machine. CPU time is
user + system of the server's process tree. At the end the ledger must agree with the provider's own
count to the nano-dollar. Peers are measured in the same run where they are installed. Linux only.
"""

import argparse
import json
import sys
from pathlib import Path

from rich.console import Console

from benchmarks import peers, scenarios
from benchmarks.report import show
from benchmarks.session import Choice, run
from benchmarks.site import THIS_PROGRAM


def _names(text: str) -> frozenset[str]:
    names = frozenset(text.split(",")) - {"none", ""}
    if unknown := names - frozenset(peers.NAMES):
        message = f"no such peer: {', '.join(sorted(unknown))} (there are {', '.join(peers.NAMES)})"
        raise argparse.ArgumentTypeError(message)
    return names


def _seconds(text: str) -> float:
    value = float(text)
    if not 0 < value < float("inf"):
        raise argparse.ArgumentTypeError("must be above zero")
    return value


def _requests(text: str) -> int:
    value = int(text)
    if value < 1:
        raise argparse.ArgumentTypeError("must be above zero")
    return value


def parse(arguments: list[str]) -> argparse.Namespace:
    """Return the options, or end with what is wrong with them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("--list", action="store_true", help="say what can be measured")
    parser.add_argument(
        "--only", nargs="+", metavar="NAME", choices=scenarios.NAMES, help="what to measure"
    )
    parser.add_argument("--seconds", type=_seconds, default=3.0, help="of each load (default: 3)")
    parser.add_argument("--requests", type=_requests, default=50_000, help="of `memory`")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    parser.add_argument(
        "--peers", type=_names, default=frozenset(peers.NAMES), help="nginx,litellm,portkey or none"
    )
    parser.add_argument("--llmproxy", default=THIS_PROGRAM, help="how llmproxy is called")
    for name, what in (("nginx", "program"), ("litellm", "program"), ("portkey", "folder")):
        parser.add_argument(f"--{name}", default="", metavar="PATH", help=f"its {what}")
    return parser.parse_args(arguments)


def _list() -> None:
    for name in scenarios.NAMES:
        rest = " (only when named)" if name in scenarios.BY_NAME_ONLY else ""
        print(f"{name:16} {scenarios.about(name)}{rest}")


def main() -> int:
    """Measure and print; return the exit code, 1 when something is wrong."""
    options = parse(sys.argv[1:])
    if options.list:
        _list()
        return 0
    if not Path("/proc/self/stat").exists():
        raise SystemExit("the benchmarks read /proc: they run on Linux only")
    choice = Choice(
        names=tuple(options.only or scenarios.DEFAULT),
        seconds=options.seconds,
        requests=options.requests,
        peers=options.peers,
        programs=peers.Programs(options.nginx, options.litellm, options.portkey),
        llmproxy=options.llmproxy,
    )
    with Console(stderr=True).status("starting") as status:
        report = run(choice, status.update)
    if options.json:
        print(json.dumps(report, indent=2))
    else:
        show(report)
    for problem in report["problems"]:
        print(problem, file=sys.stderr)
    return 1 if report["problems"] else 0


if __name__ == "__main__":
    sys.exit(main())
