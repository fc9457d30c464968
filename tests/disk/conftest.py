"""A server of its own for each test: they break it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk.helpers import Disk
from tests.support.stub_provider import StubProvider


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    with StubProvider() as stub:
        disk = Disk(tmp_path, stub)
        with disk.proxy:
            disk.set_up()
            yield disk
