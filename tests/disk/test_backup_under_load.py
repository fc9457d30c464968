"""Copies of the database while the server is busy: whole, right, and without the master key."""

import shutil
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from pathlib import Path

import pytest

from tests.disk.helpers import Disk, wait_for
from tests.service.helpers import CHAT, ask, bearer, chat_body
from tests.support.answers import openai_chat_stream, stream
from tests.support.proxy import PROVIDER_KEY, RunningProxy

pytestmark = pytest.mark.timeout(180)  # several starts and stops of a real server

COPIES = 3


def test_copies_made_under_load_are_right_and_can_be_put_back(disk: Disk, tmp_path: Path) -> None:
    disk.stub.handle = stream(openai_chat_stream())
    users = [disk.user() for _ in range(4)]
    is_over = threading.Event()
    statuses: list[int] = []

    def load(key: str) -> None:
        while not is_over.is_set():
            body = chat_body(stream=True)
            statuses.append(ask(disk.proxy.port, "POST", CHAT, body, bearer(key)).status)

    threads = [threading.Thread(target=load, args=(key,)) for _, key in users]
    for thread in threads:
        thread.start()
    try:
        counts, files = [], []
        for number in range(COPIES):
            before = len(statuses)
            wait_for(lambda before=before: len(statuses) > before + 20)  # type: ignore[misc]
            file = tmp_path / f"copy-{number}.db"
            made = disk.proxy.json("db", "backup", str(file))
            assert (made["verified"], made["problems_found"]) == (True, 0)
            counts.append(len(statuses))
            files.append(file)
        refused = disk.proxy.try_run("db", "restore", str(files[0]), "--yes")
        assert refused.returncode == 4
        assert f"already running on this database (pid {disk.proxy.pid}" in refused.stderr
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert set(statuses) == {200}

    master_key = (disk.proxy.home / "config" / "master.key").read_text().strip()
    secrets = (master_key.encode(), bytes.fromhex(master_key), PROVIDER_KEY.encode())
    rows = []
    for file in files:
        content = file.read_bytes()
        assert [secret for secret in secrets if secret in content] == []
        with closing(sqlite3.connect(file)) as copy:
            rows.append(copy.execute("SELECT count(*) FROM requests").fetchone()[0])
    assert rows == sorted(rows)
    assert rows[0] < rows[-1]
    assert all(row <= count + len(users) for row, count in zip(rows, counts, strict=True))

    assert disk.proxy.stop() == 0
    disk.proxy.run("db", "restore", str(files[-1]), "--yes")
    disk.proxy.start()  # holds of requests that ran at that moment end
    with disk.books() as books:
        assert books.count("SELECT count(*) FROM holds WHERE state = 'open'") == 0
        assert books.count("SELECT count(*) FROM requests WHERE state = 'settled'") == rows[-1]
    disk.assert_serves(users[0][1])
    disk.proxy.verify_ledger()
    assert disk.proxy.stop() == 0


def test_a_copy_is_on_disk_when_it_has_its_name(tmp_path: Path) -> None:
    strace = shutil.which("strace")
    if strace is None:
        pytest.skip("strace is not installed")
    proxy = RunningProxy(tmp_path / "home")
    proxy.home.mkdir()
    proxy.new_user("ann")
    calls, file = tmp_path / "calls", tmp_path / "copies" / "copy.db"
    file.parent.mkdir()
    done = subprocess.run(
        [
            *(strace, "-f", "-y", "-e", "trace=fsync,fdatasync,rename", "-o", str(calls)),
            *(sys.executable, "-m", "llmproxy", "db", "backup", str(file)),
        ],
        env=proxy.environ,
        capture_output=True,
        text=True,
        check=False,
    )
    if "ptrace" in done.stderr:
        pytest.skip("strace may not trace here")
    assert done.returncode == 0, done.stderr
    before, _, after = calls.read_text().partition(f'rename("{file}.partial", "{file}")')
    last_before = before.splitlines()[-2]
    assert "sync(" in last_before
    assert f"<{file}.partial>) " in last_before
    assert f"<{file.parent}>) " in after
