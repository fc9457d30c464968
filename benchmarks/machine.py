"""What the figures were measured on: without that they mean nothing."""

import os
import platform
import sqlite3
import subprocess
import time
from pathlib import Path
from typing import Any

import llmproxy

CALIBRATION_RUNS = 20
CALIBRATION_STEPS = 200_000


def describe(folder: Path, files_max: int) -> dict[str, Any]:
    """Return the machine, the programs and how busy it is; `folder` is where databases are."""
    filesystem = subprocess.run(
        ["stat", "-f", "-c", "%T", str(folder)], capture_output=True, text=True, check=False
    )
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "sqlite": sqlite3.sqlite_version,
        "llmproxy": llmproxy.__version__,
        "filesystem": filesystem.stdout.strip(),
        "open_files_max": files_max,
        "load_average": round(os.getloadavg()[0], 2),
        "calibration_ms": round(calibration_s() * 1000, 2),
    }


def calibration_s() -> float:
    """Return the best time of a fixed loop of Python: how fast this machine is at the moment."""
    best = float("inf")
    for _ in range(CALIBRATION_RUNS):
        began, total = time.perf_counter(), 0
        for number in range(CALIBRATION_STEPS):
            total += number & 7
        best = min(best, time.perf_counter() - began)
    return best


def _cpu_model() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()
