"""One running proxy with its provider, and a server that nothing may ever connect to."""

from collections.abc import Iterator

import pytest

from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.support.answers import openai_chat, plain
from tests.support.stub_provider import StubProvider


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("security"), {}) as site:
        yield site


@pytest.fixture
def site(shared_site: Site) -> Site:
    """The proxy; its provider answers a chat unless told otherwise."""
    shared_site.stub.handle = plain(openai_chat())
    return shared_site


@pytest.fixture(scope="session")
def shared_canary() -> Iterator[StubProvider]:
    with StubProvider() as canary:
        yield canary


@pytest.fixture
def canary(shared_canary: StubProvider) -> Iterator[StubProvider]:
    """Another server: whoever is led to it has been led astray."""
    yield shared_canary
    assert shared_canary.connections_opened == 0
