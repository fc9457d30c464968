"""llmproxy while it is measured: whatever it is asked, the books are kept along with it."""

import contextlib
from collections.abc import Iterator

from benchmarks import books
from benchmarks.measure import Row, measure, order
from benchmarks.processes import Rig, rss_mb, tree
from benchmarks.scenarios import Scenario, Shape
from benchmarks.site import Home, Server


class Measured:
    """A running server, and what its ledger must have at the end."""

    def __init__(self, server: Server, rig: Rig) -> None:
        """Begin with what the ledger has; it is read before anything is asked."""
        self._server, self._rig = server, rig
        self._stood = books.read_totals(server.home.database)
        self._wanted = self._stood
        self._received = self._stood.settled
        self._problems: list[str] = []

    def measure(self, scenario: Scenario, seconds: float, *, warm_up: bool = True) -> Row:
        """Measure a scenario; what the provider gave meanwhile must be in the ledger."""
        before = self._rig.provider.counts()
        target = self._server.target(scenario.key)
        row = measure(scenario, target, self._rig, seconds, warm_up=warm_up)
        self._wanted += books.given_between(before, self._rig.provider.counts())
        if scenario.reaches_provider:
            self._received += row["requests_seen"]
        if row["failed"] or not row["requests"]:
            self._problems.append(f"{scenario.name}: {row['failed']} failed: {row['example']}")
        return row

    def ask(self, shape: Shape, requests: int) -> None:
        """Send so many requests without measuring them."""
        before = self._rig.provider.counts()
        target = self._server.target()
        result, _ = self._rig.loads.run(order(target, shape, 0, requests), target.pid)
        self._wanted += books.given_between(before, self._rig.provider.counts())
        self._received += result.answers
        if result.failures:
            self._problems.append(f"{result.failures}: {result.example}")

    def memory_mb(self) -> float:
        """Return what the server has in memory now."""
        return rss_mb(tree(self._server.process.pid))

    @property
    def start_s(self) -> float:
        """How long it took to start."""
        return round(self._server.start_s, 3)

    def close_books(self) -> Row:
        """Return what the ledger has gained, and what is wrong; the server has stopped."""
        found = books.problems(self._server.home, self._wanted, self._received)
        return {
            "answers": self._wanted.settled - self._stood.settled,
            "charged_nanousd": self._wanted.charged_nanousd - self._stood.charged_nanousd,
            "stop_s": round(self._server.stop_s, 3),
            "problems": self._problems + found,
        }


@contextlib.contextmanager
def measured(home: Home, rig: Rig, ledgers: list[Row]) -> Iterator[Measured]:
    """Run the server for a block; its books, once it has stopped, are added to `ledgers`."""
    with Server(home).running() as server:
        found = Measured(server, rig)
        yield found
    ledgers.append(found.close_books())
