"""Tells how long the write-ahead log is: how much of it no checkpoint has copied yet.

The file's size does not say: a log that was copied is written again from its beginning, and never
shrinks. Each time it begins anew it gets another salt, which every frame repeats; so one look at
the salt of one frame tells whether the log now reaches that far. (Reading the log drops none of
SQLite's locks; they are on the database and on the shared memory.)
https://www.sqlite.org/fileformat2.html#the_write_ahead_log
"""

from pathlib import Path

_HEADER_BYTES = 32
_FRAME_HEADER_BYTES = 24
_PAGE_SIZE = slice(8, 12)
_SALT = slice(16, 24)
_FRAME_SALT_OFFSET = 8


class WalGauge:
    """Measures one write-ahead log."""

    def __init__(self, path: Path) -> None:
        """Take the path of the log; it need not exist."""
        self._path = path
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

    def note_checkpoint(self, copied_frames: int) -> None:
        """Note what a checkpoint has copied; nobody may write to the log meanwhile."""
        try:
            with self._path.open("rb", buffering=0) as file:
                self._salt = file.read(_HEADER_BYTES)[_SALT]
        except FileNotFoundError:
            self._salt = b""
        self._copied_frames = max(0, copied_frames)
