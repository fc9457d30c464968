"""A dashboard's site without a server around it."""

from typing import Any, cast

from litestar import Request

from llmproxy import accounts, sessions
from llmproxy.clock import Clock
from llmproxy.dashboard.site import Site
from llmproxy.dashboard.visit import ReachedAt
from llmproxy.storage.reader import Reader
from tests.support.books import Book

NONE = cast("Any", None)
"""What nothing in a test needs."""


class Rooms:
    """The dashboard's reading and writing, over a real database."""

    def __init__(self, book: Book) -> None:
        self.book = book
        self.reader = Reader(book.path)
        self.site = Site(ReachedAt("", (), 0), self.reader, NONE, Clock(), NONE)

    def signed_in(self, name: str = "ann", address: str = "127.0.0.1") -> Request[Any, Any, Any]:
        """A request of a new session of ann's, or of another user who exists; an operator."""
        now_ms = Clock().now_ms()
        with self.book.write() as tx:
            user = accounts.set_user(tx, name, now_ms=now_ms, is_admin=True)
            session = sessions.begin_session(tx, user, now_ms=now_ms)
        return self.with_session(session.secret, address)

    def with_session(self, secret: str, address: str) -> Request[Any, Any, Any]:
        """A request with a session's secret, which may be made up."""
        cookie = f"llmproxy-session={secret}".encode()
        scope = {"type": "http", "client": (address, 1), "headers": [(b"cookie", cookie)]}
        scope["query_string"] = b""
        return Request(cast("Any", scope))
