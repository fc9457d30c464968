"""Measure one scenario against one target: a row of the report."""

import time
from typing import Any

from benchmarks.answers import STREAM_EVENTS
from benchmarks.figures import calm_us
from benchmarks.load import Order
from benchmarks.processes import Rig, Target, cpu_s
from benchmarks.scenarios import Scenario, Shape

WARM_UP_S = 0.5
PATHS = {"chat": "/chat/completions", "embeddings": "/embeddings"}

Row = dict[str, Any]


def order(target: Target, shape: Shape, seconds: float, requests: int = 0) -> Order:
    """Return the order for a load of that shape on a target."""
    path = target.prefix + PATHS[shape.kind]
    return Order(target.port, path, target.headers, shape, seconds, requests)


def measure(
    scenario: Scenario, target: Target, rig: Rig, seconds: float, *, warm_up: bool = True
) -> Row:
    """Warm up, run the load, and return what it cost.

    `requests_seen` counts the answers of the warm-up too. CPU time is user + system of the target's
    process tree, `cpu_us_calm` that of the calmer part of the run. `provider_busy` and `load_busy`
    are the shares of one core that the provider and the load generator used, to show that neither
    was what was measured.
    """
    shape, provider_pid = scenario.shape, rig.provider.target.pid
    warm = None
    if warm_up:
        warm, _ = rig.loads.run(order(target, shape, WARM_UP_S), target.pid)
    cpu, provider_cpu, began = cpu_s(target.pid), cpu_s(provider_pid), time.monotonic()
    result, watched = rig.loads.run(order(target, shape, seconds), target.pid)
    cpu = cpu_s(target.pid) - cpu
    provider_busy = (cpu_s(provider_pid) - provider_cpu) / (time.monotonic() - began)
    answers = result.answers
    failures = sum(result.failures.values()) + (sum(warm.failures.values()) if warm else 0)
    return {
        "scenario": scenario.name,
        "target": target.name,
        "requests": answers,
        "requests_seen": answers + (warm.answers if warm else 0),
        "requests_per_s": round(answers / result.seconds),
        "cpu_us": round(cpu / answers * 1e6, 1) if answers else None,
        "cpu_us_calm": calm_us(watched.used, result.progress),
        "cpu_us_per_chunk": (
            round(cpu / answers / STREAM_EVENTS * 1e6, 1) if answers and shape.is_stream else None
        ),
        "latency_us": result.latency_us,
        "first_us": result.first_us,
        "delay_us": result.delay_us,
        "rss_mb": watched.peak_mb,
        "provider_busy": round(provider_busy, 2),
        "load_busy": round(result.load_cpu_s / result.seconds, 2),
        "failed": failures,
        "example": result.example or (warm.example if warm else ""),
    }
