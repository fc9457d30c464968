"""Owns the write-ahead log of the serving process: its checkpoints, and how much waits for one.

The file's size does not say: a log that was copied is written again from its beginning, and never
shrinks. Each time it begins anew it gets another salt, which every frame repeats; so one look at
the salt of one frame tells whether the log now reaches that far. (Reading the log drops none of
SQLite's locks; they are on the database and on the shared memory.)
https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

import sqlite3

from llmproxy.storage.database import DatabaseFiles

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_PAGE_SIZE = slice(8, 12)
_SALT = slice(16, 24)
_FRAME_SALT_OFFSET = 8


class WriteAheadLog:
    """Measures and copies one write-ahead log."""

    def __init__(self, files: DatabaseFiles) -> None:
        """Take the database whose log it is; it need not exist."""
        self._files = files
        self._path = files.wal
        self._salt = b""
        self._copied_frames = 0

    def exceeds(self, limit_bytes: int) -> bool:
        """Say whether more than so many bytes of the log wait for a checkpoint."""
        try:
            with self._path.open("rb", buffering=0) as file:
                header = file.read(_HEADER_BYTES)
                if len(header) < _HEADER_BYTES:
                    return False
                frame_bytes = int.from_bytes(header[_PAGE_SIZE]) + _FRAME_HEADER_BYTES
                copied = self._copied_frames if header[_SALT] == self._salt else 0
                frame = copied + limit_bytes // frame_bytes
                file.seek(_HEADER_BYTES + frame * frame_bytes + _FRAME_SALT_OFFSET)
                return file.read(8) == header[_SALT]
        except OSError:  # there is none yet
            return False

    def copy_passively(self, connection: sqlite3.Connection) -> None:
        """Copy what can be copied without waiting for anybody.

        Raises:
            sqlite3.Error: the log or the database cannot be used.
        """
        self._checkpoint(connection, "PRAGMA wal_checkpoint(PASSIVE)")

    def copy_all(self, connection: sqlite3.Connection, *, wait_s: float = 0.0) -> bool:
        """Copy everything and empty the log, unless somebody else reads or writes; say if it was.

        Waits up to `wait_s` seconds for a foreign writer.

        Raises:
            sqlite3.Error: the log or the database cannot be used.
        """
        return self._checkpoint(connection, "PRAGMA wal_checkpoint(TRUNCATE)", wait_s)

    def _checkpoint(
        self, connection: sqlite3.Connection, statement: str, wait_s: float = 0.0
    ) -> bool:
        """Checkpoint unless a foreign writer is at work (the WAL-reset bug, locks.py)."""
        gate = self._files.gate()
        if not gate.acquire_within(wait_s):
            return False
        try:
            is_blocked, _, copied_frames = connection.execute(statement).fetchone()
            self._note(copied_frames)
        finally:
            gate.release()
        return not is_blocked

    def _note(self, copied_frames: int) -> None:
        """Note what a checkpoint has copied; nobody may write to the log meanwhile."""
        try:
            with self._path.open("rb", buffering=0) as file:
                self._salt = file.read(_HEADER_BYTES)[_SALT]
        except FileNotFoundError:
            self._salt = b""
        self._copied_frames = max(0, copied_frames)
