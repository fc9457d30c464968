"""Owns how a small file comes to be on disk for good. Imports nothing of ours."""

import os
from pathlib import Path


def sync_directory(directory: Path) -> None:
    """Return when the names in a directory are on disk."""
    descriptor = os.open(directory, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_private(path: Path, text: str) -> None:
    """Return when a file with this text is on disk, for its owner alone (0600).

    Killed meanwhile, it leaves a part of it: to be written beside the name that it is meant for.

    Raises:
        OSError: it cannot be written.
    """
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_TRUNC
    descriptor = os.open(path, flags, 0o600)
    with os.fdopen(descriptor, "w", encoding="ascii") as file:
        os.fchmod(descriptor, 0o600)  # one that was there may have been looser
        file.write(text)
        file.flush()
        os.fsync(descriptor)
    sync_directory(path.parent)
