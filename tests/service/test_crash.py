"""The server killed in each way once; `python -m benchmarks.crash` does it for long."""

import json
import subprocess
import sys

import pytest


@pytest.mark.slow
@pytest.mark.timeout(240)
def test_nothing_acknowledged_is_lost_when_the_server_is_killed() -> None:
    command = [sys.executable, "-m", "benchmarks.crash", "--cycles=6", "--clients=16", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    report = json.loads(done.stdout)
    assert (report["lost"], report["violations"]) == (0, 0)
    assert set(report["cycles"].values()) == {1}
    assert min(report["acknowledged"].values()) > 0
