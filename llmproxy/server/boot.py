"""Owns what the serving process does to the ledger before it takes requests.

What the last process kept is written, then the holds that it left open end, then this start is
recorded. Killed at any step, the next start does them all again and nothing happens twice.
"""

import asyncio
import logging
import os
import sqlite3
from collections import Counter
from contextlib import closing
from functools import partial

from llmproxy import __version__, ledger, ledger_check, recovery
from llmproxy.clock import Clock, request_id_text, rfc3339
from llmproxy.errors import DatabaseError
from llmproxy.recovery import Fate, Kept, KeptEnd
from llmproxy.relay import Snapshot
from llmproxy.storage.database import AdminDatabase, DatabaseFiles
from llmproxy.storage.spill import Spill
from llmproxy.storage.writer import Writer

ENDS_AT_ONCE = 1000

_log = logging.getLogger("llmproxy.server")


def advice(files: DatabaseFiles, why: str, kept: int) -> str:
    """Return what to tell the operator of a database that has failed while it was served."""
    waiting = f"{kept} settlements are kept in {files.spill}. " if kept else ""
    return (
        f"The database {files.path} has failed: {why}. The server has stopped. {waiting}"
        "Look at the disk and its log first. Then check the ledger: llmproxy ledger verify. If it "
        "is right, start the server again; if not, put a backup in its place: llmproxy db restore "
        f"FILE. The next start writes what {files.spill.name} keeps, where it fits."
    )


async def begin_boot(
    writer: Writer[Snapshot], files: DatabaseFiles, spill: Spill, clock: Clock
) -> int:
    """Bring the ledger in order after the last process, and record this start; return its id.

    Raises:
        DatabaseError: the ledger cannot be written, or is wrong since the database had failed.
    """
    kept = _read(spill)
    if kept.failures:
        if not writer.has_copied_log:
            msg = (
                f"The database {files.path} had failed ({kept.failures[-1]}), and what it has "
                "written last cannot be made safe while another program uses it. End that program."
            )
            raise DatabaseError(msg)
        _prove(files, kept.failures[-1])
    now_ms = clock.now_ms()
    expire = partial(recovery.expire_open_holds, now_ms=now_ms)
    begin = partial(ledger.start_boot, pid=os.getpid(), version=__version__, now_ms=now_ms)
    try:
        fates = await _write(writer, kept.ends)
        expired = await writer.submit(expire)
        boot_id = await writer.submit(begin)
    except DatabaseError as error:
        msg = (
            f"The server cannot start, since it cannot write to {files.path}. {error} It must be "
            "the server's own file, in its own directory, on a disk with room."
        )
        raise DatabaseError(msg) from error
    if expired:
        _log.warning("%d holds of a process that died have been ended", expired)
    # Only now, when all of it is committed.
    _empty(spill, kept, fates, now_ms)
    return boot_id


def _read(spill: Spill) -> Kept:
    try:
        return recovery.read_kept(spill)
    except OSError as error:
        msg = f"{spill.path} cannot be read: {error.strerror}."
        raise DatabaseError(msg) from error


def _prove(files: DatabaseFiles, why: str) -> None:
    """Check the whole ledger: nothing is built on one that has failed before.

    Raises:
        DatabaseError: it is wrong.
    """
    _log.warning("the database had failed (%s): the whole ledger is checked", why)
    try:
        with closing(AdminDatabase(files.path)) as database, database.read() as tx:
            report = ledger_check.verify(tx)
        problem = report.problems[0].message if report.problems else ""
    except sqlite3.Error as error:
        problem = str(error)
    if problem:
        msg = (
            f"The database {files.path} had failed ({why}), and its ledger is wrong: {problem}. "
            "See: llmproxy ledger verify. Put a backup in its place: llmproxy db restore FILE. "
            f"What {files.spill.name} keeps is written then, where it fits."
        )
        raise DatabaseError(msg)
    _log.warning("the ledger is right")


async def _write(writer: Writer[Snapshot], ends: list[KeptEnd]) -> Counter[Fate]:
    """Write what was kept; what belongs to no hold here is named in the log.

    Raises:
        DatabaseError: the ledger cannot be written.
    """
    answers: list[Fate | BaseException] = []
    for start in range(0, len(ends), ENDS_AT_ONCE):  # the writer's queue has an end
        jobs = (
            writer.submit(recovery.write_kept, kept) for kept in ends[start : start + ENDS_AT_ONCE]
        )
        answers += await asyncio.gather(*jobs, return_exceptions=True)
    fates: Counter[Fate] = Counter()
    for kept, answer in zip(ends, answers, strict=True):
        if isinstance(answer, DatabaseError):
            raise answer
        fate = answer if isinstance(answer, Fate) else Fate.UNKNOWN
        if fate is Fate.UNKNOWN:
            why = fate.value if fate is answer else answer
            _log.error("%s: its settlement does not fit: %s", request_id_text(kept.hold.id), why)
        fates[fate] += 1
    return fates


def _empty(spill: Spill, kept: Kept, fates: Counter[Fate], now_ms: int) -> None:
    """Empty the spill, or set it aside where not all of it could be used."""
    if not any((kept.ends, kept.failures, kept.damaged)):
        return
    _log.warning(
        "of what the last process had kept, %d settlements have been written, %d had been before, "
        "%d fit no hold of this database, %d lines are damaged",
        *(fates[Fate.WRITTEN], fates[Fate.HAD_ENDED], fates[Fate.UNKNOWN], kept.damaged),
    )
    try:
        if fates[Fate.UNKNOWN] or kept.damaged:
            stamp = (rfc3339(now_ms) or "").replace("-", "").replace(":", "")
            aside = spill.path.with_name(f"{spill.path.name}.{stamp}")
            spill.set_aside(aside)
            _log.warning("the file itself is kept as %s", aside)
        else:
            spill.clear()
    except OSError as error:
        # It is read again by the next start, which finds that all of it has been written.
        _log.error("%s could not be emptied: %s", spill.path, error.strerror)
