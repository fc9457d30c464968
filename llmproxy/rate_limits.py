"""Owns the limits that are looked at when a request comes: per minute, and how many run at once.

What is counted is in meters.py; whom it is counted for is known to gate.py. The headers are those
of the IETF's draft RateLimit header fields for HTTP.
"""

from collections.abc import Iterator

from llmproxy.clock import Clock
from llmproxy.errors import ApiError
from llmproxy.headers import Headers
from llmproxy.limits import Limits
from llmproxy.meters import MINUTE_S, Meter

CONCURRENT_RETRY_AFTER_S = 2
"""Nobody knows when a running request will end."""


class Scope:
    """Limits, whose they are, and what is counted for them."""

    __slots__ = ("limits", "meter", "prefix", "who")

    def __init__(self, who: str, prefix: str, limits: Limits, meter: Meter) -> None:
        """Take whose they are, as refusals say it and as the names of policies begin."""
        self.who = who
        self.prefix = prefix
        self.limits = limits
        self.meter = meter

    def refusal(self, now_s: float) -> tuple[str, float] | None:
        """Say which limit is reached and in how many seconds it is not; None when none is."""
        limits, meter = self.limits, self.meter
        most = limits.requests_per_minute
        if most is not None and meter.requests.total(now_s) >= most:
            wait_s = meter.requests.wait_s(most - 1, now_s)
            return f"{self.who} may make {most:,} requests per minute", wait_s
        most = limits.tokens_per_minute
        if most is not None and meter.tokens.total(now_s) >= most:
            wait_s = meter.tokens.wait_s(most - 1, now_s)
            return f"{self.who} may use {most:,} tokens per minute", wait_s
        most = limits.concurrent_max
        if most is not None and meter.running >= most:
            what = f"{self.who} may have {most:,} requests running at once"
            return what, CONCURRENT_RETRY_AFTER_S
        return None

    def policies(self, now_s: float) -> Iterator[tuple[bytes, bytes]]:
        """Yield the items of `ratelimit-policy` and of `ratelimit` for each limit."""
        limits, meter = self.limits, self.meter
        if (most := limits.requests_per_minute) is not None:
            left = max(0, most - meter.requests.total(now_s))
            name = f'"{self.prefix}requests"'
            yield _items(name, f"q={most};w={MINUTE_S}", left, meter.requests.next_s(now_s))
        if (most := limits.tokens_per_minute) is not None:
            left = max(0, most - meter.tokens.total(now_s))
            policy = f'q={most};qu="tokens";w={MINUTE_S}'
            yield _items(f'"{self.prefix}tokens"', policy, left, meter.tokens.next_s(now_s))
        if (most := limits.concurrent_max) is not None:
            policy = f'q={most};qu="concurrent-requests"'
            yield _items(f'"{self.prefix}concurrent"', policy, max(0, most - meter.running))


class Entry:
    """One request's place within the limits: what it counts for, until it leaves."""

    __slots__ = ("_clock", "_entered_s", "_scopes")

    def __init__(self, scopes: list[Scope], clock: Clock) -> None:
        """Count one more request, and one that runs."""
        self._scopes = scopes
        self._clock = clock
        self._entered_s = clock.monotonic_s()
        for scope in scopes:
            scope.meter.running += 1
            scope.meter.requests.add(1, self._entered_s)

    def leave(self) -> None:
        """Count it as running no more."""
        for scope in self._scopes:
            scope.meter.running -= 1

    def uncount(self) -> None:
        """Let it not have been one of the minute's requests: it will be counted again."""
        for scope in self._scopes:
            scope.meter.requests.take_back(1, self._entered_s)

    def headers(self) -> Headers:
        """Return the headers that tell what is left at this moment; none without such limits."""
        return headers_of(self._scopes, self._clock.monotonic_s())


def _items(
    name: str, policy: str, left: int, more_in_s: float | None = None
) -> tuple[bytes, bytes]:
    state = f"{name};r={left}"
    if more_in_s is not None:
        state += f";t={_whole_s(more_in_s)}"
    return f"{name};{policy}".encode(), state.encode()


def _whole_s(seconds: float) -> int:
    """Return seconds as clients are told them: whole ones, 1 to 60."""
    return min(MINUTE_S, max(1, -int(-seconds // 1)))


def headers_of(scopes: list[Scope], now_s: float) -> Headers:
    """Return `ratelimit-policy` and `ratelimit` for all limits of scopes; none without limits."""
    pairs = [pair for scope in scopes for pair in scope.policies(now_s)]
    if not pairs:
        return []
    policies, states = zip(*pairs, strict=True)
    return [(b"ratelimit-policy", b", ".join(policies)), (b"ratelimit", b", ".join(states))]


def too_many(what: str, wait_s: float, headers: Headers) -> ApiError:
    """Return the 429 that says which limit is reached, and when to come again."""
    seconds = _whole_s(wait_s)
    error = ApiError(
        429,
        "rate_limit_exceeded",
        f"{what}. Try again in {seconds} s.",
        should_retry=None,
        retry_after_s=seconds,
    )
    error.extra_headers = tuple(headers)
    return error
