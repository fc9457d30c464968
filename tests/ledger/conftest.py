"""A real ledger on a real file, which is proven after each test."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy import ledger_check
from tests.support.books import Book


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A user with 10 USD. After each test the whole ledger is proven."""
    book = Book(tmp_path / "data" / "llmproxy.db")
    yield book
    with book.read() as tx:
        assert ledger_check.verify(tx).problems == []
    book.close()
