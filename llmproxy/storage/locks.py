"""Owns the advisory locks beside the database file.

Two files, never the database itself (closing any descriptor of it would drop SQLite's own locks):
`llmproxy.db.lock` is held for life by the one serving process; `llmproxy.db.gate` is taken shared
by every foreign writer for its transaction and exclusively by the checkpointer, so that no
checkpoint ever runs beside a foreign writer (the WAL-reset bug, reference money.md 1.2).
"""

import fcntl
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from llmproxy.errors import DatabaseError, RefusedError

_POLL_S = 0.01


class FileLock:
    """An flock on a file of its own; released by `release` or by the end of the process."""

    def __init__(self, path: Path) -> None:
        """Name the lock file; it is made on first use, mode 0600, and never removed."""
        self.path = path
        self._descriptor: int | None = None

    def try_acquire(self, *, shared: bool = False) -> bool:
        """Take the lock without waiting; False when somebody else holds it.

        Raises:
            DatabaseError: the file of the lock cannot be made or opened.
        """
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            msg = f"{self.path} cannot be opened for writing: {error.strerror}."
            raise DatabaseError(msg) from error
        kind = fcntl.LOCK_SH if shared else fcntl.LOCK_EX
        try:
            fcntl.flock(descriptor, kind | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            return False
        self._descriptor = descriptor
        return True

    def acquire_within(self, timeout_s: float, *, shared: bool = False) -> bool:
        """Take the lock, waiting up to `timeout_s` seconds; False when somebody else kept it."""
        deadline = time.monotonic() + timeout_s
        while not self.try_acquire(shared=shared):
            if time.monotonic() >= deadline:
                return False
            time.sleep(_POLL_S)
        return True

    def release(self) -> None:
        """Give the lock back; does nothing when it is not held."""
        if self._descriptor is not None:
            os.close(self._descriptor)
            self._descriptor = None

    @contextmanager
    def held(self, *, shared: bool, timeout_s: float) -> Iterator[None]:
        """Hold the lock for a block, waiting up to `timeout_s` seconds for it.

        Raises:
            DatabaseError: somebody else held it for all that time.
        """
        if not self.acquire_within(timeout_s, shared=shared):
            msg = f"The database is busy ({self.path.name} is held). Try again."
            raise DatabaseError(msg)
        try:
            yield
        finally:
            self.release()


class ServingLock(FileLock):
    """The lock that makes one process the server of a database file; names its holder."""

    def acquire(self, holder: str) -> None:
        """Take the lock for life and write who holds it.

        Raises:
            RefusedError: another process is serving this file.
        """
        if not self.try_acquire():
            msg = f"Another llmproxy is already running on this database ({self.holder()})."
            raise RefusedError(msg)
        self.tell(holder)

    def tell(self, holder: str) -> None:
        """Write who holds the lock, once it is held; or more of it, as it becomes known."""
        assert self._descriptor is not None
        os.ftruncate(self._descriptor, 0)
        with suppress(OSError):  # on a full disk the lock holds all the same, without a name
            os.pwrite(self._descriptor, holder.encode(), 0)

    def holder(self) -> str:
        """Return what the present holder wrote, such as `pid 41, since 2026-11-23T09:00:00Z`."""
        try:
            return self.path.read_text(encoding="utf-8") or "holder unknown"
        except OSError:
            return "holder unknown"

    def is_held(self) -> bool:
        """Say whether some process serves this file now."""
        if not self.path.exists():
            return False
        if self.try_acquire():
            self.release()
            return False
        return True
