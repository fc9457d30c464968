"""Setting limits as the command line does it, and an upstream that answers when it may."""

import asyncio
import re
import threading
import time
from typing import TYPE_CHECKING, Any

from llmproxy import accounts, limit_store
from llmproxy.clock import Clock
from tests.proxy.helpers import CHAT, chat
from tests.support.answers import openai_chat
from tests.support.waiting import wait_until

if TYPE_CHECKING:
    from tests.proxy.helpers import Site, Visitor
    from tests.service.helpers import Books
    from tests.support.stub_provider import Out, SeenRequest


SEEN_WITHIN_S = 0.5
"""A server looks for changes four times a second. A request that meets one by itself is admitted
anew, and leaves two rows."""


def limit_key(books: "Books", name: str, key: str = "test", **changes: object) -> int:
    """Set limits of a user's key; return their id."""
    with books.write() as tx:
        owner = accounts.find_user(tx, name)
        keys = accounts.find_live_keys(tx, owner, key, now_ms=Clock().now_ms())
        limits_id = limit_store.set_key_limits(tx, [each.id for each in keys], changes).id
    time.sleep(SEEN_WITHIN_S)
    return limits_id


def make_seen(site: "Site") -> None:
    """Return when the server has seen every change: it looks again for a model it does not know.

    Requests that hold nothing see a change within a moment, not at once.
    """
    assert site.ask(site.visitor(), CHAT, chat(model="no-such-model")).status == 400


def limit_user(books: "Books", name: str, **changes: object) -> None:
    """Set limits of a user with all their keys."""
    with books.write() as tx:
        limit_store.set_user_limits(tx, accounts.find_user(tx, name).id, changes)
    time.sleep(SEEN_WITHIN_S)


def another_key(books: "Books", name: str) -> str:
    """Make a second key of a user."""
    with books.write() as tx:
        owner = accounts.find_user(tx, name)
        return accounts.create_api_key(tx, owner, "second", now_ms=Clock().now_ms())


class Held:
    """An upstream that answers each request only when it is let go."""

    def __init__(self, answer: bytes | None = None) -> None:
        self._answer = answer or openai_chat()
        self._go = threading.Event()
        self._lock = threading.Lock()
        self.begun = 0

    async def __call__(self, request: "SeenRequest", out: "Out") -> None:
        with self._lock:
            self.begun += 1
        await asyncio.to_thread(self._go.wait, 20)
        if not out.closed:
            await out.json(200, self._answer)

    def let_go(self) -> None:
        self._go.set()


def refused_row(site: "Site", visitor: "Visitor", path: str, body: bytes) -> dict[str, Any]:
    """Ask until a refusal has left its row, and return that: only so many of a second leave one."""
    found: list[dict[str, Any]] = []

    def has_left_one() -> bool:
        assert site.ask(visitor, path, body).status >= 400
        rows = site.books.rows(visitor.name)
        found.extend(row for row in rows if row["state"] == "refused")
        return bool(found)

    wait_until(has_left_one)
    return found[-1]


def rate_limits(header: bytes | None) -> dict[str, dict[str, str]]:
    """Read `ratelimit` or `ratelimit-policy`: parameters by the names of the policies."""
    assert header is not None
    found = {}
    for item in header.decode().split(", "):
        name, *parameters = item.split(";")
        assert re.fullmatch(r'"[a-z-]+"', name)
        found[name.strip('"')] = dict(each.split("=", 1) for each in parameters)
    return found
