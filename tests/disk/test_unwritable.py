"""Files without rights, a directory that goes away, a writer that does not let go."""

import sqlite3
import subprocess
import sys
import time
from contextlib import closing
from pathlib import Path

import pytest

from llmproxy.storage.database import AdminDatabase
from tests.disk.helpers import Disk
from tests.support.faults import without_root_rights
from tests.support.proxy import RunningProxy

pytestmark = pytest.mark.timeout(180)  # several starts and stops of a real server

BUSY_TIMEOUT_S = 5.0


@pytest.mark.parametrize(
    ("made_read_only", "says"),
    [
        ("data/llmproxy.db", "attempt to write a readonly database"),
        ("data", "data"),
        (".", "cannot be made: Permission denied"),
    ],
)
def test_a_server_that_may_not_write_does_not_start_and_says_so(
    made_read_only: str, says: str, tmp_path: Path
) -> None:
    home = tmp_path / "home"
    home.mkdir(mode=0o700)
    if made_read_only != ".":
        AdminDatabase(home / "data" / "llmproxy.db").close()
    read_only = home / made_read_only
    read_only.chmod(read_only.stat().st_mode & ~0o222)
    try:
        refused = subprocess.run(
            [*without_root_rights(), sys.executable, "-m", "llmproxy", "serve", "--port", "0"],
            env=RunningProxy(home).environ,
            capture_output=True,
            text=True,
            timeout=50,
            check=False,
        )
    finally:
        read_only.chmod(0o700)
    assert refused.returncode == 5, refused.stderr
    assert says in refused.stderr
    assert str(home / "data") in refused.stderr
    assert refused.stderr.splitlines()[-1].startswith("Error: ")
    assert "Traceback" not in refused.stderr


def test_while_the_directory_is_gone_nothing_is_sent_and_settlements_wait(disk: Disk) -> None:
    (ann, ann_key), (_, bob_key) = disk.user(), disk.user()
    data, elsewhere = disk.path.parent, disk.path.parent.with_name("elsewhere")
    with disk.running_stream(ann_key) as client:
        data.rename(elsewhere)
        disk.assert_refuses(bob_key, "is gone, or another file is there now")
        disk.finish(client)
        disk.assert_refuses(bob_key)
        elsewhere.rename(data)
        disk.assert_settled(ann)
    disk.assert_serves(bob_key)
    assert disk.proxy.stop() == 0
    assert disk.kept() == ([], 0)


def test_a_stop_while_the_file_is_gone_keeps_settlements_for_when_it_is_back(disk: Disk) -> None:
    ann, key = disk.user()
    elsewhere = disk.path.with_name("elsewhere.db")
    with disk.running_stream(key) as client:
        disk.path.rename(elsewhere)
        disk.finish(client)
        assert disk.proxy.stop() == 0
    assert len(disk.kept().records) == 1
    elsewhere.rename(disk.path)
    disk.proxy.start()
    disk.assert_settled(ann)
    assert disk.kept() == ([], 0)


def test_a_stop_while_the_directory_is_gone_keeps_settlements_and_is_clean(disk: Disk) -> None:
    ann, key = disk.user()
    data, elsewhere = disk.path.parent, disk.path.parent.with_name("elsewhere")
    with disk.running_stream(key) as client:
        data.rename(elsewhere)
        disk.finish(client)
        assert disk.proxy.stop() == 0
    assert "1 settlements could not be written before the stop; they are kept" in disk.logged()
    assert "Traceback" not in disk.logged()
    elsewhere.rename(data)
    assert len(disk.kept().records) == 1
    disk.proxy.start()
    disk.assert_settled(ann)
    assert disk.kept() == ([], 0)


def test_a_foreign_writer_that_does_not_let_go_delays_no_stream(disk: Disk) -> None:
    (ann, ann_key), (_, bob_key) = disk.user(), disk.user()
    with (
        closing(sqlite3.connect(disk.path, isolation_level=None)) as foreign,
        disk.running_stream(ann_key) as client,
    ):
        held = disk.wallet(ann)
        foreign.execute("BEGIN IMMEDIATE")
        disk.finish(client)
        began = time.monotonic()
        disk.assert_refuses(bob_key, "The ledger is busy")
        assert time.monotonic() - began >= BUSY_TIMEOUT_S
        assert disk.wallet(ann) == held
        foreign.execute("ROLLBACK")
        disk.assert_settled(ann)
        disk.assert_serves(bob_key)
    assert disk.proxy.stop() == 0


def test_a_stop_while_a_foreign_writer_stays_keeps_settlements(disk: Disk) -> None:
    ann, key = disk.user()
    with closing(sqlite3.connect(disk.path, isolation_level=None)) as foreign:
        with disk.running_stream(key) as client:
            foreign.execute("BEGIN IMMEDIATE")
            disk.finish(client)
            assert disk.proxy.stop() == 0
        assert len(disk.kept().records) == 1
        foreign.execute("ROLLBACK")
    disk.proxy.start()
    disk.assert_settled(ann)
    assert disk.kept() == ([], 0)
