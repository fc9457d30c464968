"""Owns how often an address may try to sign in with what signs nobody in."""

FAILURES_MAX = 10
SPAN_S = 60
ADDRESSES_MAX = 10_000


class SignInAttempts:
    """Failures of each address within the last minute, in bounded memory."""

    def __init__(self) -> None:
        """Begin without any."""
        self._failures: dict[str, list[float]] = {}

    def may_try(self, peer: str, now_s: float) -> bool:
        """Say whether an address has failed seldom enough to try again."""
        recent = [at_s for at_s in self._failures.get(peer, ()) if at_s > now_s - SPAN_S]
        if recent:
            self._failures[peer] = recent
        else:
            self._failures.pop(peer, None)
        return len(recent) < FAILURES_MAX

    def note_failure(self, peer: str, now_s: float) -> None:
        """Count a failure; of too many addresses the one that came first is forgotten."""
        if peer not in self._failures and len(self._failures) >= ADDRESSES_MAX:
            del self._failures[next(iter(self._failures))]
        self._failures.setdefault(peer, []).append(now_s)
