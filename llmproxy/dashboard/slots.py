"""Owns how much of something goes on at once: for all together, and for each who asks for it."""

from collections.abc import Hashable

from llmproxy.dashboard.errors import BusyError


class Slots:
    """Counts what is under way."""

    def __init__(self, what: str, *, of_all: int, of_one: int) -> None:
        """Begin with none; `what` is counted, so many at most of all and of each."""
        self._what = what
        self._of_all = of_all
        self._of_one = of_one
        self._taken: dict[Hashable, int] = {}
        self._sum = 0

    def take(self, who: Hashable) -> None:
        """Count one more.

        Raises:
            BusyError: there are too many.
        """
        own = self._taken.get(who, 0)
        if self._sum >= self._of_all or own >= self._of_one:
            msg = f"too many {self._what} at once"
            raise BusyError(msg)
        self._taken[who] = own + 1
        self._sum += 1

    def give_back(self, who: Hashable) -> None:
        """Count one less."""
        self._sum -= 1
        self._taken[who] -= 1
        if not self._taken[who]:
            del self._taken[who]
