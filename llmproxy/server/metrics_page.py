"""Owns what `/metrics` answers: the counters, and what is current at this moment.

What stands in the ledger is read from it at each look, in a thread; the rest is in memory.
"""

import os
import platform
import sys
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

from llmproxy import __version__, reports
from llmproxy.errors import DatabaseError
from llmproxy.live_keys import Pool
from llmproxy.metrics import Metrics, Sample, family
from llmproxy.money import format_usd
from llmproxy.order import Services
from llmproxy.relay import Snapshot
from llmproxy.reports import Standing
from llmproxy.storage.reader import Reader
from llmproxy.storage.writer import Writer

_PROCESS = Path("/proc/self")


class MetricsPage(NamedTuple):
    """Everything that the page tells of."""

    metrics: Metrics
    writer: Writer[Snapshot]
    reader: Reader
    pool: Pool
    services: Services
    started_at_ms: int

    async def text(self) -> bytes:
        """Return the page; without the ledger's figures when it cannot be read now."""
        standing: Standing | None
        try:
            standing = await self.reader.read(reports.standing)
        except DatabaseError:
            standing = None
        lines = [
            *self.metrics.families(),
            *self._server(),
            *self._keys(),
            *_ledger(standing),
            *_process(self.started_at_ms),
        ]
        return "\n".join(lines).encode() + b"\n"

    def _server(self) -> Iterator[str]:
        drains = sum(1 for one in self.services.watchdog.exchanges if one.times.gone_since_s)
        yield from _gauge("llmproxy_drains", "Answers read on after their clients left.", drains)
        yield from _gauge(
            "llmproxy_writer_queue_length",
            "Writes that wait for their transaction.",
            self.writer.queued,
        )
        yield from family(
            "llmproxy_writer_commits_total",
            "counter",
            "Transactions committed.",
            [((), self.writer.commits)],
        )
        version = (("version", __version__), ("python", platform.python_version()))
        yield from family(
            "llmproxy_build_info", "gauge", "1; which version this is.", [(version, 1)]
        )

    def _keys(self) -> Iterator[str]:
        now_ms = self.services.clock.now_ms()
        samples: list[Sample] = []
        paused: list[Sample] = []
        for name, provider in sorted(self.pool.providers.items()):
            label = ("provider", name)
            paused.append(((label,), int(self.services.health.is_paused(provider))))
            for state, count in self.pool.count_states(name, now_ms).items():
                samples.append(((label, ("state", state)), count))
        yield from family(
            "llmproxy_provider_keys", "gauge", "Provider keys, by their state.", samples
        )
        yield from family(
            "llmproxy_provider_paused", "gauge", "1 while a provider is paused.", paused
        )


def _ledger(standing: Standing | None) -> Iterator[str]:
    yield from _gauge(
        "llmproxy_ledger_readable", "1 when the database could be read.", int(standing is not None)
    )
    if standing is None:
        return
    for name, text, value in (
        ("balance_usd", "Credit of all users, in USD.", standing.balance_nanousd),
        ("held_usd", "Credit held for running requests, in USD.", standing.held_nanousd),
    ):
        yield from _gauge(f"llmproxy_{name}", text, format_usd(value))
    yield from _gauge("llmproxy_open_holds", "Holds that have not ended.", standing.open_holds)
    yield from family(
        "llmproxy_shortfall_usd_total",
        "counter",
        "What requests cost above what their users had, in USD, since the database was made.",
        [((), format_usd(standing.shortfall_nanousd))],
    )


def _process(started_at_ms: int) -> Iterator[str]:
    """Yield the figures of the process under the names that Prometheus clients give them."""
    yield from family(
        "process_cpu_seconds_total",
        "counter",
        "CPU time of the process, in seconds.",
        [((), f"{time.process_time():.2f}")],
    )
    yield from _gauge(
        "process_start_time_seconds",
        "Start of the process, in seconds since 1970.",
        f"{started_at_ms // 1000}.{started_at_ms % 1000:03d}",
    )
    if sys.platform != "linux":
        return
    pages = int((_PROCESS / "statm").read_text().split()[1])
    resident_bytes = pages * os.sysconf("SC_PAGE_SIZE")
    yield from _gauge("process_resident_memory_bytes", "Memory in use, in bytes.", resident_bytes)
    open_fds = sum(1 for _ in (_PROCESS / "fd").iterdir())
    yield from _gauge("process_open_fds", "Open files and connections.", open_fds)


def _gauge(name: str, text: str, value: int | str) -> Iterable[str]:
    return family(name, "gauge", text, [((), value)])
