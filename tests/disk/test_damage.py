"""A database that has failed: the server stops by itself, and nothing is lost or built on it."""

import json
import re
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import ExitStack, closing, contextmanager
from pathlib import Path

import pytest

from tests.disk.helpers import BODY, COST, CREDIT, Disk, wait_for
from tests.service.helpers import CHAT, ask, bearer, chat_body
from tests.service.test_lifecycle import refuses_connections
from tests.support.faults import failing_syscalls, flip_bytes, make_text, truncate
from tests.support.waiting import wait_until

pytestmark = pytest.mark.timeout(180)  # several starts and stops of a real server

EXIT_DATABASE = 5


@contextmanager
def damaged(disk: Disk, damage: Callable[[Path], None]) -> Iterator[None]:
    """Damage the file under the running server, and make it read the file again."""
    with closing(sqlite3.connect(disk.path, isolation_level=None)) as foreign:
        foreign.execute("BEGIN IMMEDIATE")
        foreign.execute("INSERT INTO boots(pid, version, started_at_ms) VALUES(1, 'x', 1)")
        damage(disk.path)
        foreign.execute("COMMIT")
        yield


def nothing_more_is_sent(disk: Disk, key: str) -> None:
    """Whatever a request hears now, it does not go to the provider."""
    sent = len(disk.stub.requests)
    if not refuses_connections(disk.proxy.port):
        try:
            answered = ask(disk.proxy.port, "POST", CHAT, chat_body(), bearer(key))
        except OSError:  # the port has closed meanwhile
            pass
        else:
            assert answered.status == 503
            assert answered.json()["error"]["code"] in {"ledger_busy", "shutting_down"}
    assert len(disk.stub.requests) == sent


@pytest.mark.parametrize("damage", [flip_bytes, truncate, make_text])
def test_a_damaged_file_stops_the_server_and_a_backup_gets_what_was_kept(
    disk: Disk, damage: Callable[[Path], None], tmp_path: Path
) -> None:
    backup = tmp_path / "backup.db"
    (ann, ann_key), (bob, bob_key) = disk.user(), disk.user()
    with disk.running_stream(ann_key) as one:
        disk.proxy.run("db", "backup", str(backup))  # ann's hold is in it, bob's is not
        with disk.running_stream(bob_key) as two:
            with damaged(disk, damage):
                wait_for(lambda: "the database has failed" in disk.logged())
                nothing_more_is_sent(disk, ann_key)
                disk.finish(one)
                disk.finish(two)
            assert disk.proxy.wait_for_exit() == EXIT_DATABASE
    log = disk.logged()
    assert f"Error: The database {disk.path} has failed: " in log
    assert f"2 settlements are kept in {disk.spill}." in log
    assert "llmproxy ledger verify" in log
    assert "llmproxy db restore FILE" in log
    assert "Traceback" not in log
    assert len(disk.kept().records) == 3  # and that it had failed

    # Nothing is built on it: not even what was kept is written into it.
    refused = disk.proxy.try_run("serve", "--port", "0")
    assert refused.returncode == EXIT_DATABASE, refused.stderr
    assert "Traceback" not in refused.stderr
    assert len(disk.kept().records) == 3

    disk.proxy.run("db", "restore", str(backup), "--yes")
    disk.proxy.start()
    log = disk.logged()
    assert "the whole ledger is checked" in log
    assert "1 settlements have been written, 0 had been before, 1 fit no hold" in log
    assert len(re.findall("its settlement does not fit", log)) == 1
    disk.assert_settled(ann)
    assert disk.wallet(bob) == (CREDIT, 0)  # as it was when the backup was made
    assert disk.kept() == ([], 0)
    (aside,) = disk.path.parent.glob("llmproxy.db.spill.*")
    assert aside.stat().st_mode & 0o777 == 0o600
    assert aside.stat().st_size < 10_000
    disk.assert_serves(bob_key)
    assert disk.proxy.stop() == 0


SYNCS = "fdatasync,fsync"


def test_a_failed_sync_of_a_settlement_stops_the_server_and_it_is_paid_once(disk: Disk) -> None:
    ann, key = disk.user()
    with (
        disk.running_stream(key) as client,
        failing_syscalls(disk.proxy.pid, disk.wal, SYNCS, "error=EIO:when=1"),
    ):
        disk.finish(client)
        assert disk.proxy.wait_for_exit() == EXIT_DATABASE
    assert "has failed: disk I/O error" in disk.logged()
    assert f"1 settlements are kept in {disk.spill}" in disk.logged()
    assert len(disk.kept().records) == 2

    disk.proxy.start()
    assert "the ledger is right" in disk.logged()
    # The system may have kept what it said it had not: then it had ended.
    assert re.search(r"(1 settlements have been written, 0|0 .* written, 1) had", disk.logged())
    disk.assert_settled(ann)
    assert disk.kept() == ([], 0)
    assert disk.proxy.stop() == 0


def test_a_failed_sync_of_a_hold_sends_nothing_and_running_streams_are_paid(disk: Disk) -> None:
    (ann, ann_key), (bob, bob_key) = disk.user(), disk.user()
    with disk.running_stream(ann_key) as client:
        sent = len(disk.stub.requests)
        with failing_syscalls(disk.proxy.pid, disk.wal, SYNCS, "error=EIO:when=1"):
            answered = ask(disk.proxy.port, "POST", CHAT, BODY, bearer(bob_key))
            assert answered.status == 503
            assert len(disk.stub.requests) == sent
            # Be it this hold's sync, or that of a note of the running stream a moment before.
            said = "no more requests are taken: disk I/O error"
            wait_until(lambda: said in disk.proxy.log.read_text())
            nothing_more_is_sent(disk, bob_key)
        disk.finish(client)  # begun before: it has all the time of a stop
        assert disk.proxy.wait_for_exit() == EXIT_DATABASE

    disk.proxy.start()
    disk.assert_settled(ann)
    assert disk.wallet(bob) == (CREDIT, 0)
    assert disk.kept() == ([], 0)
    assert disk.proxy.stop() == 0


def test_what_is_kept_is_safe_as_soon_as_a_stream_has_ended(disk: Disk) -> None:
    """Killed while other streams still run: the kept ones are on disk already."""
    (ann, ann_key), (_, bob_key) = disk.user(), disk.user()
    with ExitStack() as stack:
        client = stack.enter_context(disk.running_stream(ann_key))
        with failing_syscalls(disk.proxy.pid, disk.wal, SYNCS, "error=EIO:when=1"):
            ask(disk.proxy.port, "POST", CHAT, BODY, bearer(bob_key))
        disk.finish(client)
        wait_for(lambda: len(disk.kept().records) == 2)
        disk.proxy.kill()
    disk.proxy.start()
    assert disk.wallet(ann) == (CREDIT - COST, 0)
    disk.assert_settled(ann)


def test_a_damaged_line_of_the_spill_costs_no_other(disk: Disk) -> None:
    users = [disk.user(), disk.user()]
    with disk.running_stream(users[0][1]) as one, disk.running_stream(users[1][1]) as two:
        with failing_syscalls(disk.proxy.pid, disk.wal, SYNCS, "error=EIO:when=1"):
            answered = ask(disk.proxy.port, "POST", CHAT, BODY, bearer(users[0][1]))
            assert answered.status == 503
        disk.finish(one)
        disk.finish(two)
        assert disk.proxy.wait_for_exit() == EXIT_DATABASE
    content = disk.spill.read_bytes()
    first, last = (json.loads(record) for record in disk.kept().records[1:])
    beginning = content.rstrip(b"\0").rindex(b"\n", 0, -1)
    torn = content[: beginning + 200]  # as if killed while the last one was written
    disk.spill.write_bytes(torn + b"\0" * 1000 + b"\n\xffgarbage\x00\n")

    disk.proxy.start()
    assert "1 settlements have been written" in disk.logged()
    assert "2 lines are damaged" in disk.logged()
    assert "1 holds of a process that died have been ended" in disk.logged()
    disk.assert_settled(users[first["hold"]["wallet_id"] - 1][0])
    assert disk.wallet(users[last["hold"]["wallet_id"] - 1][0])[1] == 0
    (aside,) = disk.path.parent.glob("llmproxy.db.spill.*")
    assert aside.read_bytes().startswith(torn)
    assert disk.proxy.stop() == 0
