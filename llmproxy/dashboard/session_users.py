"""Owns whose sessions are, as far as it was looked up: what one user asks for is counted by that.

It lets nobody in. A session is never another user's later, so what is known of one that has ended
does no harm.
"""

SESSIONS_MAX = 10_000


class SessionUsers:
    """Remembers the users of sessions, of the newest that were looked up."""

    def __init__(self, sessions_max: int = SESSIONS_MAX) -> None:
        """Know nothing yet."""
        self._sessions_max = sessions_max
        self._users: dict[str, int] = {}

    def find(self, secret: str) -> int | None:
        """Return the id of the user whose session it is, or was; None when it is not known."""
        return self._users.get(secret)

    def keep(self, secret: str, user_id: int) -> None:
        """Remember whose session it is, and forget the oldest where they are too many."""
        self._users[secret] = user_id
        if len(self._users) > self._sessions_max:
            del self._users[next(iter(self._users))]
