"""The writer on a file of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy.storage.disk_thread import DiskThread
from tests.storage.helpers import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data" / "llmproxy.db")
    yield site
    disk = site.writer._disk
    assert isinstance(disk, DiskThread)
    if disk._thread.is_alive():
        disk.join()
    site.connection.close()  # not before: a COMMIT under way would end the process
