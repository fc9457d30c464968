"""Waiting for what another process does, without a guess at how long it takes."""

import time
from collections.abc import Callable


def wait_until(is_so: Callable[[], bool], within_s: float = 10.0) -> None:
    """Return as soon as something is so; fail when it does not come to be."""
    deadline = time.monotonic() + within_s
    while not is_so():
        assert time.monotonic() < deadline, f"it was not so within {within_s} s"
        time.sleep(0.01)
