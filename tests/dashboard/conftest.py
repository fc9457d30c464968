"""Running proxies with their dashboards: behind a reverse proxy that is trusted, and alone."""

from collections.abc import Iterator
from pathlib import Path

import pytest
from playwright.sync_api import Browser

from tests.dashboard.browsing import Watched, chromium
from tests.dashboard.helpers import Desk
from tests.dashboard.rooms import Rooms
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.service.helpers import either
from tests.support.books import Book
from tests.support.limits import make_seen
from tests.support.stub_provider import closed_port


@pytest.fixture(scope="session")
def shared_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    environ = {"LLMPROXY_TRUSTED_PROXIES": "127.0.0.1"}
    with running_site(tmp_path_factory.mktemp("dashboard"), environ) as site:
        yield site


@pytest.fixture
def desk(shared_site: Site) -> Iterator[Desk]:
    """The dashboard of a proxy whose providers answer in either dialect.

    This machine is its trusted reverse proxy: visitors have addresses of their own.
    """
    shared_site.stub.handle = either
    with Desk(shared_site) as desk:
        yield desk


@pytest.fixture
def plain_desk(tmp_path: Path) -> Iterator[Desk]:
    """A dashboard with the settings that it has by default."""
    with running_site(tmp_path, {}) as site, Desk(site) as desk:
        site.stub.handle = either
        yield desk


@pytest.fixture(scope="module")
def module_desk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    """A dashboard of a file of tests: what is done to its providers concerns no other file."""
    with running_site(tmp_path_factory.mktemp("own"), {}) as site, Desk(site) as desk:
        site.stub.handle = either
        yield desk


RESTORED = ("providers", "provider_keys", "provider_funds", "catalog_overrides")
"""What tests of the operator's pages change; users are made anew by each."""


@pytest.fixture
def own_desk(module_desk: Desk) -> Iterator[Desk]:
    """The dashboard of a file of tests, with providers, keys and prices as they were at first.

    Its users, their requests and the audit log stay: there may be more than a test has made.
    """
    books = module_desk.books
    with books.database.read() as tx:
        kept = {name: [tuple(row) for row in tx.execute(f"SELECT * FROM {name}")]
                for name in RESTORED}  # fmt: skip
    yield module_desk
    module_desk.site.stub.handle = either
    with books.write() as tx:
        for name in reversed(RESTORED):
            tx.execute(f"DELETE FROM {name}")
        for name, rows in kept.items():
            for row in rows:
                tx.execute(f"INSERT INTO {name} VALUES({', '.join('?' * len(row))})", row)
    make_seen(module_desk.site)


@pytest.fixture
def book(tmp_path: Path) -> Iterator[Book]:
    """A database without a server."""
    book = Book(tmp_path / "data" / "llmproxy.db")
    yield book
    book.close()


@pytest.fixture
def rooms(book: Book) -> Iterator[Rooms]:
    """The dashboard's reading and writing of that database, without a server."""
    rooms = Rooms(book)
    yield rooms
    rooms.reader.close()


@pytest.fixture
def site_without_dashboard(tmp_path: Path) -> Iterator[Site]:
    with running_site(tmp_path, {"LLMPROXY_DASHBOARD": "false"}) as site:
        site.stub.handle = either
        yield site


@pytest.fixture
def site_with_two_ports(tmp_path: Path) -> Iterator[Site]:
    """A proxy whose dashboard has a port of its own."""
    with running_site(tmp_path, {"LLMPROXY_DASHBOARD_PORT": str(closed_port())}) as site:
        site.stub.handle = either
        yield site


@pytest.fixture
def site_at_public_address(tmp_path: Path) -> Iterator[Site]:
    environ = {"LLMPROXY_PUBLIC_URL": "https://llm.example.org/proxy"}
    with running_site(tmp_path, environ) as site:
        yield site


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    with chromium() as browser:
        yield browser


@pytest.fixture
def watched(browser: Browser, desk: Desk) -> Iterator[Watched]:
    """A window that may use the clipboard; nothing in it may have gone wrong in the end."""
    with browser.new_context(permissions=["clipboard-read", "clipboard-write"]) as context:
        watched = Watched(context, desk)
        yield watched
        assert watched.complaints == []
