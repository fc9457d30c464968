"""One running proxy that the tests of the service share."""

from collections.abc import Iterator

import pytest

from tests.service.helpers import BODY_BYTES_MAX, Books, either
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider


@pytest.fixture(scope="session")
def shared_stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture
def stub(shared_stub: StubProvider) -> StubProvider:
    """The upstream of `proxy`; answers in either dialect unless told otherwise."""
    shared_stub.handle = either
    return shared_stub


@pytest.fixture(scope="session")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, shared_stub: StubProvider
) -> Iterator[RunningProxy]:
    """A server with `openai` and `anthropic`, each with one key, and a small body limit."""
    home = tmp_path_factory.mktemp("service")
    environ = {"LLMPROXY_BODY_BYTES_MAX": str(BODY_BYTES_MAX)}
    with RunningProxy(home, environ) as proxy:
        proxy.use_provider("openai", f"{shared_stub.url}/v1")
        proxy.use_provider("anthropic", shared_stub.url)
        proxy.start()
        yield proxy
        proxy.verify_ledger()


@pytest.fixture(scope="session")
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()
