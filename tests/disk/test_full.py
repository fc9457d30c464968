"""A full disk: nothing new is sent, what runs ends well, and its settlement is not lost.

Full in two ways: a small file system in memory that really is (root may mount it), and a real
server whose writes to the log the system refuses (strace may attach to it).
"""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest

from llmproxy.storage.spill import ROOM_BYTES
from tests.disk.helpers import CREDIT, Disk
from tests.support.faults import failing_syscalls, filled, small_disk
from tests.support.stub_provider import StubProvider

pytestmark = pytest.mark.timeout(180)  # several starts and stops of a real server


class FullDisk(NamedTuple):
    """A running server, and how to take all room from it."""

    disk: Disk
    full: Callable[[], AbstractContextManager[None]]


@pytest.fixture(params=["tmpfs", "strace"])
def site(
    request: pytest.FixtureRequest, tmp_path: Path, stub: StubProvider, template: Path
) -> Iterator[FullDisk]:
    with ExitStack() as stack:
        home = tmp_path / "home"
        if request.param == "tmpfs":
            home = stack.enter_context(small_disk(home, megabytes=8))
        disk = Disk(home, stub, log=tmp_path / "serve.log")
        stack.enter_context(disk.proxy)
        disk.start(template)
        if request.param == "tmpfs":
            yield FullDisk(disk, partial(filled, home))
        else:
            no_room = ("pwrite64", "error=ENOSPC:when=1+")
            yield FullDisk(disk, partial(failing_syscalls, disk.proxy.pid, disk.wal, *no_room))


def test_requests_are_refused_streams_finish_and_settlements_are_written_when_there_is_room(
    site: FullDisk,
) -> None:
    disk = site.disk
    (ann, ann_key), (_, bob_key) = disk.user(), disk.user()
    with disk.running_stream(ann_key) as client:
        held = disk.wallet(ann)
        assert held[1] > 0
        with site.full():
            disk.assert_refuses(bob_key, "cannot be written now: database or disk is full")
            disk.finish(client)
            disk.assert_refuses(bob_key)
            assert disk.wallet(ann) == held
            assert "the database cannot be written, " in disk.logged()
            assert "can be written again" not in disk.logged()
        disk.assert_settled(ann)
    disk.assert_serves(bob_key)
    assert "the database can be written again" in disk.logged()
    assert disk.proxy.stop() == 0
    assert disk.kept() == ([], 0)
    disk.proxy.verify_ledger()


def test_a_stop_while_it_is_full_keeps_settlements_and_the_next_start_writes_them_once(
    site: FullDisk,
) -> None:
    disk = site.disk
    (ann, ann_key), (bob, bob_key) = disk.user(), disk.user()
    with disk.running_stream(ann_key) as one, disk.running_stream(bob_key) as two, site.full():
        disk.assert_refuses(bob_key)
        disk.finish(one)
        disk.finish(two)
        assert disk.proxy.stop() == 0
        assert "2 settlements could not be written before the stop" in disk.logged()
        assert (len(disk.kept().records), disk.kept().damaged) == (2, 0)
        assert [disk.wallet(name)[0] for name in (ann, bob)] == [CREDIT] * 2
        assert all(disk.wallet(name)[1] for name in (ann, bob))
    spilled = disk.spill.read_bytes()

    disk.proxy.start()
    assert "2 settlements have been written, 0 had been before" in disk.logged()
    assert "holds of a process that died" not in disk.logged()
    assert disk.kept() == ([], 0)
    assert disk.spill.stat().st_size == ROOM_BYTES
    for name in (ann, bob):
        disk.assert_settled(name)

    # As if it had been killed after the COMMIT and before the spill was emptied.
    disk.proxy.kill()
    disk.spill.write_bytes(spilled)
    disk.proxy.start()
    assert "0 settlements have been written, 2 had been before" in disk.logged()
    for name in (ann, bob):
        disk.assert_settled(name)
    assert disk.proxy.stop() == 0


def test_a_server_does_not_start_on_a_full_disk_and_loses_nothing_that_was_kept(
    tmp_path: Path, stub: StubProvider, template: Path
) -> None:
    with small_disk(tmp_path / "home", megabytes=8) as home:
        disk = Disk(home, stub, log=tmp_path / "serve.log")
        with disk.proxy:
            disk.start(template)
            ann, key = disk.user()
            with disk.running_stream(key) as client, filled(home):
                disk.assert_refuses(key)
                disk.finish(client)
                assert disk.proxy.stop() == 0
                with filled(home):  # with what the stop has freed
                    refused = disk.proxy.try_run("serve", "--port", "0")
                assert refused.returncode == 5
                assert f"{disk.path} cannot be used: no room on its disk." in refused.stderr
                assert "Traceback" not in refused.stderr
                assert len(disk.kept().records) == 1
            disk.proxy.start()
            disk.assert_settled(ann)


def test_without_room_for_the_spill_a_server_does_not_start(
    tmp_path: Path, stub: StubProvider
) -> None:
    with small_disk(tmp_path / "home", megabytes=8) as home:
        disk = Disk(home, stub, log=tmp_path / "serve.log")
        disk.proxy.new_user("ann")
        with filled(home):
            refused = disk.proxy.try_run("serve", "--port", "0")
        assert refused.returncode == 5
        assert f"{disk.spill}, where settlements are kept" in refused.stderr
        assert "No space left on device. It takes 4 MB." in refused.stderr
        assert disk.proxy.json("users", "show", "ann")["balance_usd"] == "5.00"


def test_the_room_of_the_spill_is_really_taken_at_the_start(disk: Disk) -> None:
    found = disk.spill.stat()
    assert found.st_blocks * 512 >= ROOM_BYTES == found.st_size
    assert found.st_mode & 0o777 == 0o600
