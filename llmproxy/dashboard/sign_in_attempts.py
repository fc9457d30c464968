"""Owns how often one may try to sign in with what signs nobody in."""

FAILURES_MAX = 10
AT_USER_MAX = 60
"""At one user's password, from wherever: more, so that one address alone shuts nobody out."""
SPAN_S = 60
COUNTED_MAX = 10_000


class SignInAttempts:
    """Failures within the last minute, of each address and at each user, in bounded memory."""

    def __init__(self) -> None:
        """Begin without any."""
        self._failures: dict[str, list[float]] = {}

    def may_try(self, who: str, now_s: float, most: int = FAILURES_MAX) -> bool:
        """Say whether there were fewer failures than `most` within the last minute."""
        recent = [at_s for at_s in self._failures.get(who, ()) if at_s > now_s - SPAN_S]
        if recent:
            self._failures[who] = recent
        else:
            self._failures.pop(who, None)
        return len(recent) < most

    def note_failure(self, who: str, now_s: float) -> None:
        """Count a failure; of too many the one that came first is forgotten."""
        if who not in self._failures and len(self._failures) >= COUNTED_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(who, []).append(now_s)

    def take_back(self, who: str, at_s: float) -> None:
        """Count the failure noted at `at_s` no more, if it still is: that attempt signed in."""
        failures = self._failures.get(who, [])
        if at_s in failures:
            failures.remove(at_s)
            if not failures:
                del self._failures[who]
