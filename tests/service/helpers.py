"""A quick look at a running proxy's books, and requests to it exactly as they are given.

Users, credit and keys are made by the program's own functions on its own file, as the command line
does it but without half a second a time; tests of the command line itself use `RunningProxy.run`.
"""

import http.client
import itertools
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from llmproxy import accounts, crediting, key_pool
from llmproxy.accounts import User
from llmproxy.clock import Clock
from llmproxy.money import parse_usd
from llmproxy.storage.database import AdminDatabase, Tx
from tests.support.answers import anthropic_message, openai_chat
from tests.support.proxy import PROVIDER_KEY, Answered, RunningProxy
from tests.support.stub_provider import Out, SeenRequest, closed_port

BODY_BYTES_MAX = 100_000
CHAT = "/v1/openai/chat/completions"
MESSAGES = "/v1/anthropic/messages"
_numbers = itertools.count(1)


class Books:
    """A second process's view of a proxy's database: makes users, reads what became of them."""

    def __init__(self, home: Path) -> None:
        self.database = AdminDatabase(home / "data" / "llmproxy.db")

    @contextmanager
    def write(self) -> Iterator[Tx]:
        with self.database.write() as tx:
            yield tx

    def user(self, credit: str = "5", multiplier_micro: int = 1_000_000) -> tuple[str, str]:
        """Make a user of a new name; return the name and an API key."""
        name, now_ms = f"user-{next(_numbers)}", Clock().now_ms()
        with self.write() as tx:
            user = accounts.create_user(
                tx, name, now_ms=now_ms, rate_multiplier_micro=multiplier_micro
            )
            if parse_usd(credit):
                self._credit(tx, user, credit)
            return name, accounts.create_api_key(tx, user, "test", now_ms=now_ms)

    def credit(self, name: str, amount: str) -> None:
        with self.write() as tx:
            self._credit(tx, accounts.find_user(tx, name), amount)

    @staticmethod
    def _credit(tx: Tx, user: User, amount: str) -> None:
        amount_nanousd = parse_usd(amount)
        now_ms = Clock().now_ms()
        crediting.credit(
            tx, user.wallet_id, amount_nanousd, actor="test", reason=None, now_ms=now_ms
        )

    def wallet(self, name: str) -> tuple[int, int]:
        """Balance and held of a user, in nano-USD."""
        with self.database.read() as tx:
            user = accounts.find_user(tx, name)
        return user.balance_nanousd, user.held_nanousd

    def settled_wallet(self, name: str, within_s: float = 10.0) -> int:
        """The balance once nothing is held any more."""
        deadline = time.monotonic() + within_s
        while (wallet := self.wallet(name))[1] and time.monotonic() < deadline:
            time.sleep(0.01)
        assert wallet[1] == 0, wallet
        return wallet[0]

    def rows(self, name: str) -> list[dict[str, Any]]:
        """The reporting rows of a user, oldest first."""
        with self.database.read() as tx:
            found = tx.execute(
                "SELECT requests.* FROM requests JOIN users ON users.id = user_id "
                "WHERE name = ? ORDER BY requests.id",
                (name,),
            ).fetchall()
        return [dict(row) for row in found]

    def count(self, sql: str) -> int:
        with self.database.read() as tx:
            return int(tx.execute(sql).fetchone()[0])

    def pause(self, provider: str, reason: str) -> None:
        with self.write() as tx:
            key_pool.pause_provider(
                tx, provider, reason=reason, actor="test", now_ms=Clock().now_ms()
            )

    def resume(self, provider: str) -> None:
        with self.write() as tx:
            key_pool.resume_provider(tx, provider, actor="test", now_ms=Clock().now_ms())

    def set_key_states(self, provider: str, state: str, until_ms: int | None = None) -> None:
        """Give every key of a provider a state."""
        with self.write() as tx:
            for key in key_pool.list_provider_keys(tx, provider):
                key_pool.set_key_state(
                    tx,
                    key.id,
                    state,
                    reason=None,
                    actor="test",
                    now_ms=Clock().now_ms(),
                    until_ms=until_ms,
                )

    def key_states(self, provider: str) -> dict[str, tuple[str, str | None]]:
        """State and reason of each key of a provider, by its name."""
        with self.database.read() as tx:
            keys = key_pool.list_provider_keys(tx, provider)
        return {key.name: (key.state, key.state_reason) for key in keys}

    def close(self) -> None:
        self.database.close()


async def either(request: SeenRequest, out: Out) -> None:
    """Answer in the dialect of the path."""
    is_chat = request.target.endswith(b"/chat/completions")
    await out.json(200, openai_chat() if is_chat else anthropic_message())


def chat_body(max_tokens: int | None = 100, **fields: Any) -> dict[str, Any]:  # noqa: ANN401
    body: dict[str, Any] = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
    if max_tokens is not None:
        body["max_tokens"] = max_tokens
    return body | fields


def ask(
    port: int,
    method: str,
    path: str,
    body: bytes | dict[str, Any] = b"",
    headers: Mapping[str, str] | None = None,
    *,
    is_chunked: bool = False,
) -> Answered:
    """Send any request, with its path exactly as given; return the whole answer."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=20)
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    content: Any = iter([data[:10], data[10:]]) if is_chunked else data
    try:
        connection.request(method, path, content, dict(headers or {}), encode_chunked=is_chunked)
        response = connection.getresponse()
        return Answered(response.status, dict(response.getheaders()), response.read())
    finally:
        connection.close()


def bearer(key: str) -> dict[str, str]:
    return {"authorization": f"Bearer {key}", "content-type": "application/json"}


def closed_provider(proxy: RunningProxy, name: str) -> None:
    """Set up a provider where nothing listens."""
    proxy.run(
        "providers", "set", name, "--base-url", f"http://127.0.0.1:{closed_port()}/v1", "--yes"
    )
    if not proxy.json("provider-keys", "list", name):
        proxy.run("provider-keys", "add", name, stdin=PROVIDER_KEY)
