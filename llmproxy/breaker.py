"""Owns when what fails again and again is left alone, and when it is tried again.

A circuit breaker: so many failures with nothing good between them, and nothing is sent for a
while; then one request goes as a trial, and decides. Pure: the caller tells the time, in
milliseconds of a clock that is never set. Must not know what a failure is.
"""

PAUSE_MS_FIRST = 5_000
TRIAL_MS = 1_000
"""What others are told to wait for while a trial is under way."""
TRIAL_MS_MAX = 10_000
"""A trial that takes longer, as good answers may, keeps the others from trying no more."""


class Breaker:
    """One thing that may fail, such as a provider."""

    __slots__ = (
        *("_failures", "_failures_max", "_pause_ms_max", "_pauses", "_trial_until_ms"),
        *("is_asked_about", "is_stored", "pause_ms", "reason", "until_ms"),
    )

    def __init__(self, failures_max: int, pause_ms_max: int) -> None:
        """Take how many failures in a row are too many, and how long a pause may grow."""
        self._failures_max = failures_max
        self._pause_ms_max = pause_ms_max
        self._failures = 0
        self._pauses = 0
        self._trial_until_ms = 0
        self.pause_ms = 0
        """How long the last pause is or was; 0 while all is well."""
        self.until_ms = 0
        self.reason = ""
        """Why it is paused, as users are told."""
        self.is_stored = False
        """Its pause has reached the database; for whoever keeps it there."""
        self.is_asked_about = False
        """Somebody is finding out whether it fails; for whoever does."""

    @property
    def is_open(self) -> bool:
        """Say whether it is paused, or waits for its trial."""
        return self.pause_ms > 0

    def is_paused(self, now_ms: int) -> bool:
        """Say whether its pause is not over yet."""
        return now_ms < self.until_ms

    def wait_ms(self, now_ms: int) -> int:
        """Return how long nothing may be sent; 0 when something may."""
        if now_ms < self.until_ms:
            return self.until_ms - now_ms
        is_tried = now_ms < self._trial_until_ms or (self.is_open and self.is_asked_about)
        return TRIAL_MS if is_tried else 0

    def begin(self, now_ms: int) -> int:
        """Say whether what is sent now, as it may be, is a trial: of the how-manieth pause, or 0.

        `end_trial` must follow if it is one.
        """
        if not self.is_open:
            return 0
        self._trial_until_ms = now_ms + TRIAL_MS_MAX
        return self._pauses

    def end_trial(self, pause: int) -> None:
        """Take note that a trial of a pause is over, whatever came of it."""
        if pause == self._pauses:
            self._trial_until_ms = 0

    def count(self, trial_of: int = 0) -> bool:
        """Count a failure; say whether it is time to pause.

        While it is paused only a trial of this very pause counts: all else was sent before.
        """
        if self.is_open:
            return trial_of == self._pauses
        self._failures += 1
        return self._failures >= self._failures_max

    def pause(self, now_ms: int, reason: str, told_ms: int = 0) -> None:
        """Pause: each time in a row for twice as long, or for as long as told if that is more."""
        grown_ms = max(self.pause_ms * 2, PAUSE_MS_FIRST, told_ms)
        self.pause_ms = min(grown_ms, self._pause_ms_max)
        self.until_ms = now_ms + self.pause_ms
        self._begin_pause(reason)

    def _begin_pause(self, reason: str) -> None:
        self._pauses += 1
        self._trial_until_ms = 0
        self.reason = reason

    def go_on(self, now_ms: int, left_ms: int, reason: str) -> None:
        """Take over what is left of a pause that an earlier process has begun."""
        self.pause_ms = PAUSE_MS_FIRST
        self.until_ms = now_ms + min(left_ms, self._pause_ms_max)
        self._begin_pause(reason)
        self.is_stored = True
