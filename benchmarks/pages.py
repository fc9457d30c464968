"""What the dashboard's pages cost, and what looking at them costs: `python -m benchmarks.pages`.

A ledger of a million requests of one user, who is an operator too; each page that links lead to is
asked for again and again. Then requests are proxied while ten browsers have the Overview open, and
without them, in turn. CPU time is that of the server's process, all its threads.
"""

import argparse
import contextlib
import json
import statistics
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

from benchmarks.load import HOST
from benchmarks.measure import order
from benchmarks.processes import Rig, cpu_s, running_rig
from benchmarks.rows import fill
from benchmarks.scenarios import Shape
from benchmarks.site import Home, Server
from tests.dashboard.crawler import crawl
from tests.dashboard.helpers import Visitor

OWN = {"sec-fetch-site": "same-origin"}
LIVE = "/dashboard/live"
ASKED = 10
BROWSERS = 10
POLL_S = 2.0
"""How often the Overview looks while a request of its user runs: the most that it ever does."""
ROUNDS = 7
LOAD_S = 4.0
PAGE_MS_MAX, PAGE_BYTES_MAX = 50.0, 50_000


class Page(NamedTuple):
    """A page's cost: the median of the CPU time in milliseconds, and its size."""

    path: str
    cpu_ms: float
    bytes: int


class Proxied(NamedTuple):
    """Proxied requests without and with browsers: CPU of the server a request, and its latency."""

    cpu_us: float
    p50_us: float
    p99_us: float
    requests_per_s: float


def visitor(server: Server, name: str) -> Visitor:
    """Return a browser in which a user is signed in."""
    link = server.home.run("users", "login-link", name).strip()
    browser = Visitor(f"http://{HOST}:{server.home.port}", name, {})
    if browser.post(link, headers=OWN).status_code != 303:
        raise SystemExit("the link does not sign in")
    return browser


def measure_pages(server: Server, browser: Visitor) -> list[Page]:
    """Ask for each page some times, after a first time that warms it up."""
    found = []
    for path in [*crawl(browser, "/dashboard", "/dashboard/admin/users/1"), LIVE]:
        answer, spent = browser.get(path), []
        for _ in range(ASKED):
            before = cpu_s(server.process.pid)
            answer = browser.get(path)
            spent.append((cpu_s(server.process.pid) - before) * 1e3)
        found.append(Page(path, round(statistics.median(spent), 1), len(answer.content)))
    return found


@contextlib.contextmanager
def watching(server: Server, name: str) -> Iterator[None]:
    """Have ten browsers look at the Overview's live part meanwhile."""
    done = threading.Event()

    def look() -> None:
        with contextlib.closing(visitor(server, name)) as browser:
            while not done.is_set():
                browser.get(LIVE)
                done.wait(POLL_S)

    threads = [threading.Thread(target=look) for _ in range(BROWSERS)]
    for thread in threads:
        thread.start()
    try:
        time.sleep(POLL_S)  # all have signed in
        yield
    finally:
        done.set()
        for thread in threads:
            thread.join()


def measure_load(rig: Rig, server: Server) -> Proxied:
    """Proxy requests for a while."""
    target, before = server.target(), cpu_s(server.process.pid)
    result, _ = rig.loads.run(order(target, Shape(), LOAD_S), target.pid)
    if result.failures:
        raise SystemExit(f"{result.failures}: {result.example}")
    latency = result.latency_us
    return Proxied(
        (cpu_s(server.process.pid) - before) / result.answers * 1e6,
        latency["p50"] or 0,
        latency["p99"] or 0,
        result.answers / result.seconds,
    )


def typical(runs: list[Proxied]) -> dict[str, int]:
    """Return the medians over some runs."""
    return {
        name: round(statistics.median(getattr(run, name) for run in runs))
        for name in Proxied._fields
    }


def measure(rows: int, rounds: int) -> dict[str, Any]:
    """Measure all of it."""
    with running_rig() as rig, tempfile.TemporaryDirectory(prefix="llmproxy-pages-") as temp:
        home = Home(Path(temp))
        home.set_up(rig.provider.base_url)
        with Server(home).running() as server:
            target = server.target()
            rig.loads.run(order(target, Shape(connections=1), 0, 1), target.pid)
        fill(home.database, rows, lambda done, of: say(f"{done:,} of {of:,} rows"))
        home.run("users", "set", "rich", "--admin")
        with Server(home).running() as server:
            with contextlib.closing(visitor(server, "rich")) as browser:
                pages = measure_pages(server, browser)
            say("pages measured")
            alone, watched = [], []
            for each in range(rounds):
                alone.append(measure_load(rig, server))
                with watching(server, "rich"):
                    watched.append(measure_load(rig, server))
                say(f"round {each + 1} of {rounds}")
    return {
        "rows": rows,
        "pages": [page._asdict() for page in pages],
        "alone": typical(alone),
        "with_browsers": typical(watched),
    }


def say(text: str) -> None:
    """Tell how far it is."""
    print(text, file=sys.stderr)


def show(told: dict[str, Any]) -> None:
    """Print the figures for people."""
    print(f"{'page':58} {'CPU ms':>7} {'bytes':>7}")
    for page in told["pages"]:
        is_too_much = page["cpu_ms"] > PAGE_MS_MAX or page["bytes"] > PAGE_BYTES_MAX
        note = "  TOO MUCH" if is_too_much else ""
        print(f"{page['path'][:58]:58} {page['cpu_ms']:7.1f} {page['bytes']:7,}{note}")
    print(f"\n{'proxied requests':20} {'CPU µs':>7} {'p50 µs':>7} {'p99 µs':>7} {'a second':>9}")
    for name, title in (("alone", "alone"), ("with_browsers", f"{BROWSERS} browsers")):
        row = told[name]
        figures = f"{row['cpu_us']:7,} {row['p50_us']:7,} {row['p99_us']:7,}"
        print(f"{title:20} {figures} {row['requests_per_s']:9,}")


def main() -> int:
    """Measure and print; return the exit code, 1 when a page takes or is too much."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.pages", description=__doc__)
    parser.add_argument("--rows", type=int, default=1_000_000, help="requests in the ledger")
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="loads of each kind")
    parser.add_argument("--json", action="store_true", help="print one JSON document")
    options = parser.parse_args()
    told = measure(options.rows, options.rounds)
    print(json.dumps(told, indent=2)) if options.json else show(told)
    worst = max(told["pages"], key=lambda page: page["cpu_ms"])
    largest = max(told["pages"], key=lambda page: page["bytes"])
    return int(worst["cpu_ms"] > PAGE_MS_MAX or largest["bytes"] > PAGE_BYTES_MAX)


if __name__ == "__main__":
    sys.exit(main())
