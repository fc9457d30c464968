"""Old requests are pruned beside a running server, which goes on as if nothing were."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from llmproxy import accounts, ledger
from llmproxy.clock import Clock, RequestIds
from llmproxy.rollups import DAY_MS
from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider

OLD_ROWS = 3000


@pytest.fixture
def alone(tmp_path: Path, stub: StubProvider) -> Iterator[RunningProxy]:
    """A proxy of its own: what is pruned is pruned for all of its users."""
    with RunningProxy(tmp_path / "home") as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        yield proxy.start()


def record_old_requests(books: Books, name: str) -> None:
    """Refused requests of ten days ago."""
    ids, at_ms = RequestIds(), Clock().now_ms() - 10 * DAY_MS
    with books.write() as tx:
        user = accounts.find_user(tx, name)
        outcome = ledger.Outcome(
            user_id=user.id,
            provider="openai",
            model="x",
            is_stream=False,
            status=400,
            duration_ms=1,
            reason="because " * 50,
        )
        for number in range(OLD_ROWS):
            ledger.record_unheld(
                tx,
                ids.new(at_ms + number),
                api_key_id=1,
                endpoint="chat/completions",
                outcome=outcome,
                now_ms=at_ms + number,
            )


def test_requests_are_answered_while_old_ones_are_pruned(alone: RunningProxy) -> None:
    books = Books(alone.home)
    name, key = books.user()
    record_old_requests(books, name)
    statuses: list[int] = []
    is_pruned = threading.Event()

    def ask_on() -> None:
        while not is_pruned.is_set():
            statuses.append(ask(alone.port, "POST", CHAT, chat_body(), bearer(key)).status)

    client = threading.Thread(target=ask_on)
    client.start()
    pruned = alone.json("usage", "prune", "--before", "2d", "--yes")
    is_pruned.set()
    client.join()
    assert (pruned["requests"], pruned["deleted"]) == (OLD_ROWS, OLD_ROWS)
    assert set(statuses) == {200}
    books.settled_wallet(name)
    rows = books.rows(name)
    assert len(rows) == len(statuses)
    total = alone.json("usage", "summary")["total"]
    assert (total["requests"], total["refused"]) == (len(statuses), OLD_ROWS)
    books.close()
    alone.verify_ledger()


def test_users_are_told_what_was_pruned_of_what_they_ask_for(alone: RunningProxy) -> None:
    books = Books(alone.home)
    name, key = books.user()
    assert ask(alone.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
    books.settled_wallet(name)

    def pruned_before(query: str) -> object:
        return ask(alone.port, "GET", f"/v1/usage?{query}", b"", bearer(key)).json()[
            "pruned_before"
        ]

    assert pruned_before("group=none") is None
    record_old_requests(books, name)
    before = alone.json("usage", "prune", "--before", "2d", "--yes")["before"]
    assert pruned_before("group=none") == before
    assert pruned_before(f"group=none&from={before}") is None
    assert pruned_before("group=day") is None
    assert pruned_before("group=day&from=2020-01-01T00:00:01Z") == before
    path = "/v1/usage?group=none&format=csv"
    csv = ask(alone.port, "GET", path, b"", bearer(key))
    assert csv.headers["x-llmproxy-pruned-before"] == before
    books.close()
