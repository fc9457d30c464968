"""Owns the timer of running exchanges, for deadlines and notes: one for all, none per chunk.

An exchange only notes times as it goes; the watchdog looks at them a few times a second and cuts
what has waited too long. Must not touch money: a cut exchange settles itself.
"""

import asyncio
from collections.abc import Awaitable
from typing import NamedTuple, Protocol

from llmproxy.clock import Clock

TICK_S = 0.25
NOTE_INTERVAL_S = 3.0
"""How often what has been seen of a running answer is noted, for the case that we are killed."""


class Limits(NamedTuple):
    """How long things may take, in seconds, and how many drains may run at once."""

    first_byte_timeout_s: float
    idle_timeout_s: float
    total_timeout_s: float
    drain_timeout_s: float
    drains_max: int
    stall_timeout_s: float


class Times:
    """What an exchange notes as it goes: seconds of `Clock.monotonic_s`, 0 for not now."""

    def __init__(self, clock: Clock) -> None:
        """Start now."""
        self._clock = clock
        self.started_s = clock.monotonic_s()
        self.waiting_since_s = 0.0
        """Since when nothing has come from the provider."""
        self.sending_since_s = 0.0
        """Since when the client has not taken what was sent to it."""
        self.gone_since_s = 0.0
        """Since when the client is known to have left."""
        self.is_noted = False
        """What has been seen of the answer is noted: it is passed on as it comes."""
        self.noted_s = 0.0
        """When that was done last."""
        self.has_answer = False
        """Something of the answer's body has come: silence now means another limit."""

    def elapsed_ms(self) -> int:
        """Return how long the exchange has taken so far, in milliseconds."""
        return round((self._clock.monotonic_s() - self.started_s) * 1000)

    def begin_waiting(self) -> None:
        """Note that a new attempt is sent: the provider is to say something now."""
        self.has_answer = False
        self.waiting_since_s = self._clock.monotonic_s()

    def end_waiting(self) -> None:
        """Note that the provider has said something."""
        self.waiting_since_s = 0.0

    def begin_sending(self) -> None:
        """Note that the client is to take something now."""
        self.sending_since_s = self._clock.monotonic_s()

    def end_sending(self) -> None:
        """Note that the client has taken it."""
        self.sending_since_s = 0.0

    async def next_chunk(self, reading: Awaitable[bytes | None]) -> bytes | None:
        """Wait for the next piece of the answer and note how long that takes."""
        self.waiting_since_s = self._clock.monotonic_s()
        chunk = await reading
        self.waiting_since_s = 0.0
        self.has_answer = True
        return chunk


class Exchange(Protocol):
    """What the watchdog needs of an exchange."""

    @property
    def times(self) -> Times:
        """What it has noted."""

    def is_client_gone(self) -> bool:
        """Say whether the client has left."""

    def give_up_client(self) -> None:
        """Hang up on a client that does not read."""

    def cut(self, reason: str, *, is_providers: bool = False) -> None:
        """Stop waiting for the provider, whose doing it may be; the exchange ends itself."""

    def abandon(self, reason: str) -> None:
        """Stop waiting for the end of an answer whose client has left."""

    def note_seen(self) -> None:
        """Let what has been seen of the answer reach the database."""


class Watchdog:
    """Looks after all running exchanges."""

    def __init__(self, limits: Limits, clock: Clock) -> None:
        """Take the limits; `run` does the work."""
        self._limits = limits
        self._clock = clock
        self.exchanges: set[Exchange] = set()

    async def run(self) -> None:
        """Look at every exchange a few times a second, until cancelled."""
        while True:
            await asyncio.sleep(TICK_S)
            self.look()

    def look(self) -> None:
        """Look at every exchange once."""
        now = self._clock.monotonic_s()
        drains = 0
        for exchange in sorted(self.exchanges, key=lambda one: one.times.gone_since_s or now):
            if not exchange.times.gone_since_s and exchange.is_client_gone():
                exchange.times.gone_since_s = now
            if exchange.times.gone_since_s:
                drains += 1
            if (reason := self._reason_to_abandon(exchange, now, drains)) is not None:
                exchange.abandon(reason)
            elif (reason := self._silence(exchange, now)) is not None:
                exchange.cut(reason, is_providers=True)
            elif now - exchange.times.started_s > self._limits.total_timeout_s:
                # One that has begun may have taken so long since its client reads slowly.
                exchange.cut(
                    f"the answer took longer than {self._limits.total_timeout_s} s",
                    is_providers=not exchange.times.has_answer,
                )
            times = exchange.times
            if times.is_noted and now - times.noted_s > NOTE_INTERVAL_S:
                exchange.note_seen()
            # A cut exchange may still be telling its client so.
            if self._is_over(exchange.times.sending_since_s, now, self._limits.stall_timeout_s):
                exchange.give_up_client()

    def cut_all(self, reason: str) -> None:
        """Cut every exchange: the process has to end."""
        for exchange in tuple(self.exchanges):
            exchange.cut(reason)

    def _reason_to_abandon(self, exchange: Exchange, now: float, drains: int) -> str | None:
        limits = self._limits
        if exchange.times.gone_since_s and drains > limits.drains_max:
            return f"the client left and {limits.drains_max} other answers were being drained"
        if self._is_over(exchange.times.gone_since_s, now, limits.drain_timeout_s):
            return f"the client left and the answer did not end within {limits.drain_timeout_s} s"
        return None

    def _silence(self, exchange: Exchange, now: float) -> str | None:
        limits = self._limits
        silence_max_s = (
            limits.idle_timeout_s if exchange.times.has_answer else limits.first_byte_timeout_s
        )
        if self._is_over(exchange.times.waiting_since_s, now, silence_max_s):
            return f"the provider was silent for {silence_max_s} s"
        return None

    @staticmethod
    def _is_over(since_s: float, now: float, limit_s: float) -> bool:
        return since_s > 0 and now - since_s > limit_s
