"""Owns time: wall-clock labels, monotonic durations and time-ordered ids.

Nothing else in the package reads a clock; tests pass their own. Wall time only labels rows,
no decision about money depends on it (reference: money.md 2.1, row 15).
"""

import random
import secrets
import time
from datetime import UTC, datetime


class Clock:
    """The machine's clocks."""

    def now_ms(self) -> int:
        """Return wall time in milliseconds since 1970 (UTC)."""
        return time.time_ns() // 1_000_000

    monotonic_s = staticmethod(time.monotonic)
    """Returns a clock in seconds that never goes back; only differences mean something."""


_UUID_MARKS = (0x7 << 76) | (0x2 << 62)
_RANDOM_A_BITS, _RANDOM_B_BITS = 12, 62


class RequestIds:
    """Makes request ids. They are unique, not secret: one seed, no system call for each."""

    def __init__(self) -> None:
        """Seed from the system's randomness."""
        self._random = random.Random(secrets.randbits(256))  # noqa: S311 - not a secret

    def new(self, now_ms: int) -> bytes:
        """Return a UUIDv7 (RFC 9562): 16 bytes that sort by their millisecond."""
        low = self._random.getrandbits(_RANDOM_A_BITS) << 64
        low |= self._random.getrandbits(_RANDOM_B_BITS)
        return ((now_ms << 80) | _UUID_MARKS | low).to_bytes(16, "big")


def arrival_ms(request_id: bytes) -> int:
    """Return when a request came, in milliseconds since 1970: its id begins with it."""
    return int.from_bytes(request_id[:6])


def request_id_text(request_id: bytes) -> str:
    """Return the id as people see it: `req_` and 32 hex digits."""
    return "req_" + request_id.hex()


def parse_request_id(text: str) -> bytes | None:
    """Return the 16 bytes behind `req_…` (the prefix may be left out), or None if it is none."""
    digits = text.removeprefix("req_").replace("-", "")
    if len(digits) != 32:
        return None
    try:
        return bytes.fromhex(digits)
    except ValueError:
        return None


def rfc3339(at_ms: int | None) -> str | None:
    """Return a time in milliseconds as RFC 3339 in UTC with milliseconds; None stays None."""
    return None if at_ms is None else time_text(at_ms)


def time_text(at_ms: int) -> str:
    """Return a time in milliseconds since 1970 as RFC 3339 in UTC with milliseconds."""
    moment = datetime.fromtimestamp(at_ms // 1000, tz=UTC)
    return f"{moment:%Y-%m-%dT%H:%M:%S}.{at_ms % 1000:03d}Z"
