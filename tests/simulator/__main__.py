"""Run many worlds: `python -m tests.simulator --seeds 2000 [--first-seed N] [--verbose]`."""

import argparse
import sys
import time
from collections import Counter

from tests.simulator.world import Result, run_seed, simulated_home


def main() -> int:
    """Run the seeds; 1 when one of them has gone wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulator", description=__doc__)
    parser.add_argument("--seeds", type=int, default=2000, help="how many (default: 2000)")
    parser.add_argument("--first-seed", type=int, default=0, help="the first one (default: 0)")
    parser.add_argument("--verbose", action="store_true", help="show what happens in each")
    parser.add_argument(
        "--keep-going", action="store_true", help="do not stop at the first failure"
    )
    options = parser.parse_args()
    failed: list[int] = []
    totals: Counter[str] = Counter()
    began_s, began_cpu_s = time.monotonic(), time.process_time()
    with simulated_home() as home:
        for seed in range(options.first_seed, options.first_seed + options.seeds):
            result = run_seed(home, seed)
            totals["seeds"] += 1
            totals["steps"] += result.steps
            totals["requests"] += result.requests
            totals.update(result.tally)
            if options.verbose or (result.violations and not failed):
                _show(result)
            if result.violations:
                failed.append(seed)
                if not options.keep_going:
                    break
    took_s, cpu_s = time.monotonic() - began_s, time.process_time() - began_cpu_s
    seeds = totals["seeds"]
    print(f"{seeds} seeds in {took_s:.1f} s: {seeds / took_s * 60:.0f} a minute")
    print(f"{cpu_s:.1f} s of CPU time: {seeds / cpu_s * 60:.0f} seeds a minute of it")
    print(", ".join(f"{count} {name}" for name, count in totals.most_common() if name != "seeds"))
    if failed:
        print(f"FAILED: {len(failed)} seeds: {' '.join(map(str, failed[:50]))}")
    return 1 if failed else 0


def _show(result: Result) -> None:
    print(f"--- seed {result.seed}")
    for line in result.trace:
        print(line)
    for violation in result.violations:
        print(f"    WRONG: {violation}")


if __name__ == "__main__":
    sys.exit(main())
