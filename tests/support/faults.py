"""Real trouble for real processes: full disks, failing syncs, missing rights, damaged files.

Each tool says in a word why it cannot be used where it cannot; a test then skips with that word.
"""

import os
import random
import shutil
import signal
import subprocess
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

PAGE_BYTES = 4096
ATTACHED_WITHIN_S = 10.0


@contextmanager
def failing_syscalls(pid: int, path: Path, calls: str, fault: str) -> Iterator[None]:
    """Make a running process's system calls on one file fail while the block runs.

    `calls` and `fault` are strace's words, such as `pwrite64` and `error=ENOSPC`.
    """
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    said = path.with_name(f"{path.name}.strace")
    process = subprocess.Popen(
        [
            *(strace, "-f", "-p", str(pid), "-P", str(path), "-o", str(said)),
            *("-e", f"trace={calls}", "-e", f"inject={calls}:{fault}"),
        ],
        stderr=subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        # Each thread is named when it is attached to; the first line means that all are soon.
        told = process.stderr.readline().decode()
        if "attached" not in told:
            pytest.skip(f"strace may not attach here: {told.strip()}")
        _wait_for_tracer(pid)
        yield
    finally:
        process.send_signal(signal.SIGINT)  # it detaches, and the process goes on
        process.wait()
        process.stderr.close()
        said.unlink(missing_ok=True)


def _wait_for_tracer(pid: int) -> None:
    deadline = time.monotonic() + ATTACHED_WITHIN_S
    for thread in Path(f"/proc/{pid}/task").iterdir():
        while "TracerPid:\t0\n" in (thread / "status").read_text():
            assert time.monotonic() < deadline
            time.sleep(0.005)


@contextmanager
def small_disk(place: Path, megabytes: int) -> Iterator[Path]:
    """Mount a file system of its own, in memory, with so much room."""
    place.mkdir(mode=0o700)
    options = f"size={megabytes}m,mode=0700"
    mount = shutil.which("mount")
    if mount is None:
        pytest.skip("there is no mount here")
    done = subprocess.run(
        [mount, "-t", "tmpfs", "-o", options, "tmpfs", str(place)],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode != 0:
        pytest.skip(f"a tmpfs may not be mounted here: {done.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", "--lazy", str(place)], check=True)


@contextmanager
def filled(disk: Path) -> Iterator[None]:
    """Take all the room that a disk still has while the block runs."""
    filler = disk / f"filler-{uuid.uuid4()}"
    with filler.open("wb", buffering=0) as file:
        try:
            while True:
                file.write(b"\xff" * PAGE_BYTES)
        except OSError:
            pass
    try:
        yield
    finally:
        filler.unlink()


def without_root_rights() -> list[str]:
    """Return what to put before a command so that files' modes count for it, for root too."""
    if os.geteuid() != 0:
        return []
    setpriv = shutil.which("setpriv")
    if setpriv is None:
        pytest.skip("root passes by every file's mode, and setpriv is not installed")
    return [setpriv, "--bounding-set", "-dac_override,-dac_read_search"]


def flip_bytes(path: Path) -> None:
    """Flip bits all over every page of a file."""
    dice = random.Random(7)
    damaged = bytearray(path.read_bytes())
    for place in range(0, len(damaged), 16):
        damaged[place] ^= dice.randrange(1, 256)
    _write_over(path, bytes(damaged))


def truncate(path: Path) -> None:
    """Leave only the first page of a database."""
    with path.open("r+b") as file:
        file.truncate(PAGE_BYTES)


def make_text(path: Path) -> None:
    """Make a file something else."""
    _write_over(path, b"this is no database " * (path.stat().st_size // 20))


def _write_over(path: Path, content: bytes) -> None:
    with path.open("r+b") as file:
        file.write(content)
