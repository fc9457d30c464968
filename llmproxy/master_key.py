"""Owns the file of the master key: who may read it, and how a new one takes its place.

A change of the master key goes in three steps, each on disk before the next one begins:

    1. one transaction seals all provider keys anew, and before it is committed
       the new key is written beside the old one, as `master.key.new`
    2. it is committed
    3. the new file takes the old one's name

Killed between them, both files are there, and one of the two keys opens all that is sealed. Who
only opens tries both (`Vault`). Whoever is about to seal looks which one it is and does step 3
where it is due (`sealing.py`). Files are changed only by who holds the database's write
transaction, so no two of them meet.

Before the first step the file is replaced by a copy of itself: one that is mounted into a
container by itself cannot be, and after step 2 it would be too late to find out.
"""

import errno
import os
from contextlib import suppress
from pathlib import Path
from stat import S_IMODE

from llmproxy.errors import VaultError
from llmproxy.files import sync_directory, write_private
from llmproxy.vault import new_master_key

NEW_SUFFIX = ".new"
FILE_BYTES_MAX = 4096
LOOSE_MODE = 0o077
_FIXED = frozenset({errno.EBUSY, errno.EROFS, errno.EACCES, errno.EPERM})
"""What a file answers that is a mount of its own, or is in a directory closed to us."""


def path_of_new(path: Path) -> Path:
    """Return where a new master key waits to take the place of the one at `path`."""
    return path.with_name(path.name + NEW_SUFFIX)


def is_there(path: Path) -> bool:
    """Say whether there is a file, whoever may read it.

    Raises:
        VaultError: its directory is closed to us, which must not look like "none yet".
    """
    try:
        path.stat()
    except PermissionError as error:
        msg = f"The master key {path} cannot be looked for: {error.strerror}."
        raise VaultError(msg) from error
    except OSError:
        return False
    return True


def how_to_restore(path: Path) -> str:
    """Return what to do where the key at `path` is gone: a new one may wait for its place."""
    new = path_of_new(path)
    restore = f"Restore {path} from your backup"
    return f"{restore}, or try the one that waits: mv {new} {path}" if is_there(new) else restore


def read(path: Path, *, is_handed_over: bool = False) -> str:
    """Return the master key in a file.

    Args:
        path: the file.
        is_handed_over: by the service manager, which sees to who may read it in its own ways.

    Raises:
        VaultError: it cannot be read, or others can read or own it.
    """
    try:
        with path.open(encoding="ascii") as file:
            status = os.fstat(file.fileno())
            text = file.read(FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        why = error.strerror if isinstance(error, OSError) else "it is not ASCII text"
        msg = f"The master key {path} cannot be read: {why}."
        raise VaultError(msg) from error
    if is_handed_over:
        return text
    # Root can read and change everything anyway; containers mount secrets as its files.
    if status.st_uid not in {os.geteuid(), 0}:
        msg = (
            f"The master key {path} belongs to another user (uid {status.st_uid}), who could "
            f"change it. Make it your own: chown {os.geteuid()} {path}"
        )
        raise VaultError(msg)
    if status.st_mode & LOOSE_MODE:
        msg = (
            f"The master key {path} can be read by others (mode {S_IMODE(status.st_mode):04o}). "
            f"Run: chmod 600 {path}. A secret of a container is mounted so with mode 0400."
        )
        raise VaultError(msg)
    return text


def read_new(path: Path) -> str | None:
    """Return the key that waits to take the place of the one at `path`, None without one.

    To be asked before `path` is read: should it take its place meanwhile, it is read there.

    Raises:
        VaultError: it is there, and cannot be read, or others can read or own it.
    """
    try:
        return read(path_of_new(path))
    except VaultError as error:
        if isinstance(error.__cause__, FileNotFoundError):
            return None
        raise


def make(path: Path) -> str:
    """Return a master key that is made now, on disk at `path`, for its owner alone.

    Killed meanwhile, it leaves no part of one at `path`, which nobody would replace any more.

    Raises:
        VaultError: it cannot be written, or something is there, a link that leads nowhere too.
    """
    text, new = new_master_key(), path_of_new(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
        if os.path.lexists(path):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST))
        write_private(new, text + "\n")
        new.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        raise _unwritable(path, error) from error
    return text


def write_new(path: Path, text: str) -> None:
    """Step 1: put a new key on disk beside the one at `path`, over one that was never used.

    Raises:
        VaultError: it cannot be written.
    """
    new = path_of_new(path)
    try:
        write_private(new, text.strip() + "\n")
    except OSError as error:
        raise _unwritable(new, error) from error


def can_be_replaced(path: Path, text: str) -> bool:
    """Say whether step 3 will be possible, by letting a copy of a file take its place.

    Args:
        path: the master key's file.
        text: what is in it.

    Raises:
        VaultError: the copy cannot be written for another reason, such as a full disk.
    """
    new = path_of_new(path)
    try:
        write_private(new, text.strip() + "\n")
        new.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        with suppress(OSError):
            new.unlink(missing_ok=True)
        if error.errno in _FIXED:
            return False
        raise _unwritable(path, error) from error
    return True


def put_in_place(path: Path) -> None:
    """Step 3: let the new key take the place of the one at `path`.

    Raises:
        VaultError: it cannot; both stay where they are.
    """
    new = path_of_new(path)
    try:
        new.replace(path)
        sync_directory(path.parent)
    except OSError as error:
        msg = (
            f"The master key {new} cannot take the place of {path}: {error.strerror}. The "
            f"provider keys are sealed under {new} already: keep that file, and put it in the "
            f"place of {path} yourself."
        )
        raise VaultError(msg) from error


def _unwritable(path: Path, error: OSError) -> VaultError:
    return VaultError(f"The master key {path} cannot be written: {error.strerror}.")
