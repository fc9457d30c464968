"""Owns what the database does not take in the end: given to the keeper, or lost and counted.

Must not touch the database, nor decide that it does not take something.
"""

import logging
from collections.abc import Iterable

from llmproxy.errors import LlmproxyError
from llmproxy.storage.jobs import Job, Keeper

_log = logging.getLogger("llmproxy.storage")


class Leftovers:
    """The jobs of one writer that it could not write, and that nobody waits for."""

    def __init__(self, keeper: Keeper) -> None:
        """Take the keeper, who knows what must not be lost."""
        self._keeper = keeper
        self.kept = 0
        """How many the keeper has taken."""
        self.lost = 0
        """How many were to be written, and nobody has."""

    def keep(self, jobs: Iterable[Job]) -> None:
        """Take jobs that the database could not take."""
        jobs = [job for job in jobs if not job.may_be_lost]
        self.lost += len(jobs) - self._give(jobs)

    def keep_crashed(self, jobs: Iterable[Job]) -> None:
        """Take those of some failed jobs that an error of their own has kept from a transaction.

        What was refused, such as a hold's second end, is no loss: only an error that nobody
        foresaw might be mended by the next start. The log has each of them.
        """
        self._give(
            [job for job in jobs if job.future is None and not isinstance(job.error, LlmproxyError)]
        )

    def note_failure(self, why: str) -> None:
        """Note for the next start that the database has failed."""
        self._keeper.note_failure(why)

    def report(self) -> None:
        """Say loudly, at the stop, what was not written."""
        if self.kept:
            _log.critical(
                "%d settlements could not be written before the stop; they are kept, and the next "
                "start writes them",
                self.kept,
            )
        if self.lost:
            _log.critical("%d records could NOT be written before the stop", self.lost)

    def _give(self, jobs: list[Job]) -> int:
        """Give jobs to the keeper, which syncs: not without need."""
        if not jobs:
            return 0
        kept = self._keeper.keep([(job.function, job.args) for job in jobs])
        self.kept += kept
        return kept
