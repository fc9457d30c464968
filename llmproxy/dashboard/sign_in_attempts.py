"""Owns how often one may try to sign in with what signs nobody in."""

FAILURES_MAX = 10
SPAN_S = 60
COUNTED_MAX = 10_000


class SignInAttempts:
    """Failures within the last minute, of each address and at each user, in bounded memory."""

    def __init__(self) -> None:
        """Begin without any."""
        self._failures: dict[str, list[float]] = {}

    def may_try(self, who: str, now_s: float) -> bool:
        """Say whether somebody has failed seldom enough to try again."""
        recent = [at_s for at_s in self._failures.get(who, ()) if at_s > now_s - SPAN_S]
        if recent:
            self._failures[who] = recent
        else:
            self._failures.pop(who, None)
        return len(recent) < FAILURES_MAX

    def forget(self, who: str) -> None:
        """Begin anew: they have signed in."""
        self._failures.pop(who, None)

    def note_failure(self, who: str, now_s: float) -> None:
        """Count a failure; of too many the one that came first is forgotten."""
        if who not in self._failures and len(self._failures) >= COUNTED_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(who, []).append(now_s)
