"""A server of its own for each test: they break it. What it begins with is made once."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.disk.helpers import Disk
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider


@pytest.fixture(scope="session")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture(scope="session")
def template(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Path:
    """A home in which the provider `openai` is set up."""
    home = tmp_path_factory.mktemp("template") / "home"
    home.mkdir()
    RunningProxy(home).use_provider("openai", f"{stub.url}/v1")
    return home


@pytest.fixture
def disk(tmp_path: Path, stub: StubProvider, template: Path) -> Iterator[Disk]:
    disk = Disk(tmp_path / "home", stub)
    with disk.proxy:
        disk.start(template)
        yield disk
