"""Owns when what fails again and again is left alone, and when it is tried again.

A circuit breaker: so many failures with nothing good between them, and nothing is sent for a
while; then one request goes as a trial, and decides. Pure: the caller tells the time. Must not know
what a failure is.
"""

PAUSE_MS_FIRST = 5_000
TRIAL_MS = 1_000
"""What others are told to wait for while a trial is under way."""


class Breaker:
    """One thing that may fail, such as a provider."""

    __slots__ = (
        *("_failures", "_failures_max", "_is_trying", "_pause_ms_max"),
        *("is_stored", "pause_ms", "reason", "until_ms"),
    )

    def __init__(self, failures_max: int, pause_ms_max: int) -> None:
        """Take how many failures in a row are too many, and how long a pause may grow."""
        self._failures_max = failures_max
        self._pause_ms_max = pause_ms_max
        self._failures = 0
        self._is_trying = False
        self.pause_ms = 0
        """How long the last pause is or was; 0 while all is well."""
        self.until_ms = 0
        self.reason = ""
        """Why it is paused, as users are told."""
        self.is_stored = False
        """Its pause has reached the database; for whoever keeps it there."""

    @property
    def is_open(self) -> bool:
        """Say whether it is paused, or waits for its trial."""
        return self.pause_ms > 0

    def wait_ms(self, now_ms: int) -> int:
        """Return how long nothing may be sent; 0 when something may."""
        if now_ms < self.until_ms:
            return self.until_ms - now_ms
        return TRIAL_MS if self._is_trying else 0

    def begin(self) -> bool:
        """Say whether what is sent now, as it may be, is the trial; `end_trial` must follow."""
        self._is_trying = self.is_open
        return self._is_trying

    def end_trial(self) -> None:
        """Take note that the trial is over, whatever came of it."""
        self._is_trying = False

    def count(self, now_ms: int) -> bool:
        """Count a failure; say whether it is time to pause.

        What was sent before a pause and fails during it is not counted.
        """
        if now_ms < self.until_ms:
            return False
        self._failures += 1
        return self.is_open or self._failures >= self._failures_max

    def pause(self, now_ms: int, reason: str, told_ms: int = 0) -> None:
        """Pause: each time in a row for twice as long, or for as long as told if that is more."""
        grown_ms = max(self.pause_ms * 2, PAUSE_MS_FIRST, told_ms)
        self.pause_ms = min(grown_ms, self._pause_ms_max)
        self.until_ms = now_ms + self.pause_ms
        self.reason = reason

    def go_on(self, since_ms: int, until_ms: int, reason: str) -> None:
        """Take over a pause that an earlier process has begun."""
        self.pause_ms = min(max(until_ms - since_ms, PAUSE_MS_FIRST), self._pause_ms_max)
        self.until_ms = until_ms
        self.reason = reason
        self.is_stored = True
