"""One run of the benchmarks: every chosen scenario on every server, and the books after it."""

import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

from benchmarks import machine, peers
from benchmarks.figures import added_us
from benchmarks.measure import Row, measure
from benchmarks.measured import measured
from benchmarks.moments import help_times, start_times
from benchmarks.processes import Rig, Target, allow_many_files, running_rig
from benchmarks.rows import fill
from benchmarks.scenarios import LEDGERS, PLAIN, SCENARIOS, TLS_SCENARIOS, Scenario, Shape
from benchmarks.site import Home

MEMORY_SLICES = 20
SETTLE_S = 1.0

Shows = Callable[[str], object]


class Choice(NamedTuple):
    """What is to be measured, and for how long."""

    names: tuple[str, ...]
    seconds: float
    requests: int
    peers: frozenset[str]
    programs: peers.Programs
    llmproxy: str


class Session:
    """A run: a rig, a folder for databases, and the report that grows."""

    def __init__(self, choice: Choice, rig: Rig, folder: Path, shows: Shows) -> None:
        """Take what is to be measured; `shows` is told what is being measured now."""
        self._choice, self._rig, self._folder = choice, rig, folder
        self._shows = shows
        self._ledgers: list[Row] = []
        self._rows: list[Row] = []
        self._homes = 0
        self.report: Row = {"rows": self._rows, "ledgers": self._ledgers, "added": []}

    def run(self) -> None:
        """Measure everything that was chosen."""
        names = self._choice.names
        scenarios = [each for each in SCENARIOS if each.name in names]
        if scenarios:
            self._loads(scenarios)
            self._peers([each for each in scenarios if each.for_peers])
        if secured := [each for each in TLS_SCENARIOS if each.name in names]:
            self._behind_tls(secured)
        if sizes := {name: rows for name, rows in LEDGERS.items() if name in names}:
            self.report["by_ledger_rows"] = [
                self._on_ledger(name, rows) for name, rows in sizes.items()
            ]
        if "memory" in names:
            self.report["memory"] = self._memory()
        for name, moment in (("start", start_times), ("help", help_times)):
            if name in names:
                self._shows(name)
                self.report[name] = moment(self._new_home())

    def _new_home(self) -> Home:
        self._homes += 1
        home = Home(self._folder / f"home-{self._homes}", self._choice.llmproxy)
        home.set_up(self._rig.provider.base_url)
        return home

    def _loads(self, scenarios: list[Scenario]) -> None:
        """Measure each scenario directly and through llmproxy, one after the other."""
        added = self.report["added"]
        with measured(self._new_home(), self._rig, self._ledgers) as server:
            start_mb = server.memory_mb()
            for scenario in scenarios:
                self._shows(f"{scenario.name} ({scenario.about})")
                direct = None
                if scenario.reaches_provider:
                    direct = self._measure(scenario, self._rig.provider.target)
                row = server.measure(scenario, self._choice.seconds)
                self._rows.append(row)
                if direct:
                    added.append(_added(direct, row))
            time.sleep(SETTLE_S)
            self.report["server"] = {
                "start_s": server.start_s,
                "rss_start_mb": start_mb,
                "rss_peak_mb": max(
                    row["rss_mb"] for row in self._rows if row["target"] == "llmproxy"
                ),
                "rss_after_mb": server.memory_mb(),
            }

    def _behind_tls(self, scenarios: list[Scenario]) -> None:
        """Measure with a provider that speaks TLS, as those on the internet do."""
        home, provider = self._new_home(), self._rig.provider
        home.environ["SSL_CERT_FILE"] = str(provider.certificate)
        home.run("providers", "set", "openai", "--base-url", provider.tls_url, "--yes")
        with measured(home, self._rig, self._ledgers) as server:
            for scenario in scenarios:
                self._shows(f"{scenario.name} ({scenario.about})")
                self._rows.append(server.measure(scenario, self._choice.seconds))

    def _measure(self, scenario: Scenario, target: Target) -> Row:
        row = measure(scenario, target, self._rig, self._choice.seconds)
        self._rows.append(row)
        return row

    def _peers(self, scenarios: list[Scenario]) -> None:
        found = peers.find(self._choice.programs, self._choice.peers)
        self.report["peers_skipped"] = found.missing
        for name, start in found.starts.items():
            folder = self._folder / name
            folder.mkdir()
            try:
                with start(folder, self._rig.provider.port) as target:
                    for scenario in scenarios:
                        self._shows(f"{name}: {scenario.name} ({scenario.about})")
                        self._measure(scenario, target)
            except peers.PeerError as error:
                found.missing[name] = str(error)

    def _on_ledger(self, name: str, rows: int) -> Row:
        """Measure 32 connections on a ledger of so many rows, and delete it."""
        home = self._new_home()
        filled_s = 0.0
        if rows:
            self._shows(f"{name}: filling the ledger")
            with measured(home, self._rig, self._ledgers) as server:
                server.ask(Shape(connections=1), 1)
            began = time.monotonic()
            fill(home.database, rows, lambda done, of: self._shows(f"{name}: {done:,} of {of:,}"))
            filled_s = time.monotonic() - began
        self._shows(f"{name}: 32 connections")
        database_mb = home.database.stat().st_size / 1e6
        with measured(home, self._rig, self._ledgers) as server:
            row = server.measure(PLAIN, self._choice.seconds)
            start_s = server.start_s
        self._shows(f"{name}: checking the books")
        home.delete()
        return {
            "rows": rows,
            **{key: row[key] for key in ("requests_per_s", "cpu_us", "latency_us", "rss_mb")},
            "start_s": start_s,
            "database_mb": round(database_mb, 1),
            "filled_s": round(filled_s, 1),
        }

    def _memory(self) -> list[tuple[int, float]]:
        """Return the curve of memory over requests: (requests so far, MB)."""
        each = -(-self._choice.requests // MEMORY_SLICES)
        with measured(self._new_home(), self._rig, self._ledgers) as server:
            curve = [(0, server.memory_mb())]
            for number in range(1, MEMORY_SLICES + 1):
                self._shows(f"memory: {(number - 1) * each:,} of {self._choice.requests:,}")
                server.ask(PLAIN.shape, each)
                curve.append((number * each, server.memory_mb()))
        return curve


def _added(direct: Row, through: Row) -> Row:
    return {
        "scenario": through["scenario"],
        "latency_us": added_us(through["latency_us"], direct["latency_us"]),
        "first_us": added_us(through["first_us"], direct["first_us"]),
        "delay_us": added_us(through["delay_us"], direct["delay_us"]),
    }


def run(choice: Choice, shows: Shows) -> Row:
    """Measure everything; return the report, with what is wrong in `problems`."""
    files_max = allow_many_files()
    with running_rig() as rig, tempfile.TemporaryDirectory(prefix="llmproxy-bench-") as temp:
        description = machine.describe(Path(temp), files_max)
        session = Session(choice, rig, Path(temp), shows)
        session.run()
    return {"machine": description, **session.report, "problems": problems(session.report)}


def problems(report: Row) -> list[str]:
    """Return what is wrong with a run, in words: a peer that fails is its own affair."""
    found = [problem for ledger in report["ledgers"] for problem in ledger["problems"]]
    found += [
        f"{row['scenario']}: {row['failed']} direct requests failed: {row['example']}"
        for row in report["rows"]
        if row["target"] == "direct" and (row["failed"] or not row["requests"])
    ]
    return found
