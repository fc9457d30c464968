"""Two running proxies that the tests of the request path share."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.proxy.helpers import Site
from tests.service.helpers import Books
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider


@contextmanager
def running_site(home: Path, environ: Mapping[str, str]) -> Iterator[Site]:
    """A proxy with a provider of its own; its books must be right at the end."""
    with StubProvider() as stub, RunningProxy(home, environ) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.use_provider("anthropic", stub.url)
        proxy.start()
        books = Books(home)
        try:
            yield Site(proxy, stub, books)
        finally:
            books.close()
        proxy.verify_ledger()
        assert "internal error" not in proxy.log.read_text()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy with the settings that it has by default."""
    with running_site(tmp_path_factory.mktemp("site"), {}) as site:
        yield site


@pytest.fixture(scope="session")
def hasty_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that waits one second at most, for whatever it is."""
    names = ("DRAIN", "STALL", "IDLE", "FIRST_BYTE")
    environ = {f"LLMPROXY_{name}_TIMEOUT_S": "1" for name in names}
    with running_site(tmp_path_factory.mktemp("hasty"), environ) as site:
        yield site
