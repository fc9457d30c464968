"""A provider for each test of the connections to providers."""

from collections.abc import Iterator

import pytest

from tests.support.stub_provider import StubProvider


@pytest.fixture
def stub() -> Iterator[StubProvider]:
    with StubProvider() as provider:
        yield provider
