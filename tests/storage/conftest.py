"""The writer on a file of its own."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.storage.helpers import Site


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    site = Site(tmp_path / "data" / "llmproxy.db")
    yield site
    site.connection.close()
    site.writer._disk.join() if site.writer._disk._thread.is_alive() else None
