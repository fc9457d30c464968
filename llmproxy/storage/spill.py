"""Owns the spill: a file beside the database for writes that the database did not take.

Its room is allocated while there is some, so that it can be written when the disk is full. A
record is one line with a checksum of its own, so that a torn or damaged line costs no other. Only
the serving process writes it, and empties it at its next start. Must not know what is in a record.
"""

import os
import zlib
from pathlib import Path
from typing import NamedTuple

from llmproxy.errors import DatabaseError
from llmproxy.files import sync_directory

ROOM_BYTES = 4 * 1024 * 1024
"""A settlement takes 1 to 2 KB, so this keeps those of thousands of running requests."""


class Contents(NamedTuple):
    """What is in a spill: the whole records, and how many lines are damaged."""

    records: list[bytes]
    damaged: int


def read_spill(path: Path) -> Contents:
    """Return what is in a spill that need not exist, leaving out what does not match its checksum.

    Raises:
        OSError: it cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except FileNotFoundError:
        return Contents([], 0)
    records, damaged = [], 0
    for line in filter(None, (line.strip(b"\0") for line in lines)):
        checksum, _, record = line.partition(b" ")
        if checksum == _checksum(record):
            records.append(record)
        else:
            damaged += 1
    return Contents(records, damaged)


class Spill:
    """The spill of one database; the caller holds the serving lock."""

    def __init__(self, path: Path) -> None:
        """Open the file, mode 0600, and allocate its room.

        Raises:
            DatabaseError: it cannot be made, or there is no room for it.
        """
        self.path = path
        self._file = -1
        self._end = 0
        self._open()

    def _open(self) -> None:
        try:
            self._file = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            content = self.path.read_bytes()
            self._end = len(content.rstrip(b"\0"))
            # Written, not merely reserved: what is written over later needs no new block.
            self._write(b"\0" * (ROOM_BYTES - len(content)), len(content))
            os.fsync(self._file)
            sync_directory(self.path.parent)
        except OSError as error:
            self.close()
            msg = (
                f"{self.path}, where settlements are kept when the database cannot be written, "
                f"cannot be made: {error.strerror}. It takes {ROOM_BYTES // 1024**2} MB."
            )
            raise DatabaseError(msg) from error

    def read(self) -> Contents:
        """Return what an earlier process has left, and this one has added.

        Raises:
            OSError: it cannot be read.
        """
        return read_spill(self.path)

    def append(self, record: bytes) -> None:
        r"""Add a record without `\n`; it is safe only after `sync`.

        Raises:
            OSError: it cannot be written.
        """
        # A newline before it too: what stands there may be the torn line of one that was killed.
        line = b"\n%b %b\n" % (_checksum(record), record)
        self._write(line, self._end)
        self._end += len(line)

    def sync(self) -> None:
        """Return when all that was added is on disk.

        Raises:
            OSError: it may not be.
        """
        os.fsync(self._file)

    def clear(self) -> None:
        """Empty the file, in place so that its room stays; half emptied, it can be read as well.

        Raises:
            OSError: it may not be empty.
        """
        self._write(b"\0" * self._end, 0)
        os.ftruncate(self._file, ROOM_BYTES)
        os.fsync(self._file)
        self._end = 0

    def set_aside(self, aside: Path) -> None:
        """Keep the file under another name, and begin a new one.

        Raises:
            OSError, DatabaseError: it could not be moved, or a new one not be made.
        """
        os.ftruncate(self._file, self._end)
        self.path.rename(aside)
        self.close()
        self._open()

    def close(self) -> None:
        """Close the file; does nothing when it is closed."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1

    def _write(self, data: bytes, offset: int) -> None:
        while data:
            written = os.pwrite(self._file, data, offset)
            data, offset = data[written:], offset + written


def _checksum(record: bytes) -> bytes:
    return b"%08x" % zlib.crc32(record)
