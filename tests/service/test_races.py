"""Many requests at once: nobody overdraws, and every nano-dollar is where it belongs."""

import asyncio
import json
import random
import time
from collections import Counter
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from tests.service.helpers import CHAT, MESSAGES, Books, ask, bearer, chat_body
from tests.support.answers import (
    anthropic_message,
    anthropic_stream,
    anthropic_usage,
    openai_chat,
    openai_chat_stream,
    openai_usage,
)
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import Out, SeenRequest, StubProvider

NANO = 10**9


class Call(NamedTuple):
    """One request of a load."""

    key: str
    path: str
    body: bytes


async def send_one(port: int, call: Call) -> int:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST {call.path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {call.key}\r\n"
        f"content-length: {len(call.body)}\r\nconnection: close\r\n\r\n"
    )
    writer.write(head.encode() + call.body)
    answer = await reader.read()
    writer.close()
    await writer.wait_closed()
    return int(answer.split(b" ", 2)[1])


async def send_all(port: int, calls: list[Call]) -> list[int]:
    """Send all of them at once; return the statuses."""
    return list(await asyncio.gather(*(send_one(port, call) for call in calls)))


def burst(port: int, calls: list[Call]) -> list[int]:
    return asyncio.run(send_all(port, calls))


class Metered:
    """An upstream that reports random usage, and keeps what each request's was by its `user`."""

    def __init__(self) -> None:
        self._random = random.Random(1)
        self.costs: Counter[str] = Counter()
        self.requests = 0

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        body = request.json()
        self.requests += 1
        count, output = self._random.randint(1, 300), self._random.randint(0, 90)
        is_stream = body.get("stream", False)
        await asyncio.sleep(self._random.random() / 20)
        if request.target.endswith(b"/messages"):
            # claude-sonnet-5-5: 2.00 and 10.00 dollars per million
            self.costs[body["metadata"]["user_id"]] += count * 2000 + output * 10_000
            usage = anthropic_usage(count, output)
            if is_stream:
                await out.sse(anthropic_stream(usage=usage), gap_s=0.002)
            else:
                await out.json(200, anthropic_message(usage=usage))
            return
        cached = count // 2
        # gpt-4o: 2.50, 1.25 cached, 10.00
        self.costs[body["user"]] += (count - cached) * 2500 + cached * 1250 + output * 10_000
        usage = openai_usage(count, output, cached=cached)
        if is_stream:
            await out.sse(openai_chat_stream(usage=usage), gap_s=0.002)
        else:
            await out.json(200, openai_chat(usage=usage))


@pytest.fixture(scope="module")
def upstream() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture(scope="module")
def proxy(
    tmp_path_factory: pytest.TempPathFactory, upstream: StubProvider
) -> Iterator[RunningProxy]:
    with RunningProxy(tmp_path_factory.mktemp("races")) as proxy:
        proxy.use_provider("openai", f"{upstream.url}/v1")
        proxy.use_provider("anthropic", upstream.url)
        proxy.start()
        yield proxy


@pytest.fixture(scope="module")
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


def needed_nanousd(proxy: RunningProxy, key: str, body: bytes) -> int:
    """The hold of a request, as the 402 tells it."""
    refused = ask(proxy.port, "POST", CHAT, body, bearer(key))
    assert refused.status == 402
    dollars, _, rest = refused.json()["error"]["needed_usd"].partition(".")
    return int(dollars) * NANO + int(rest.ljust(9, "0"))


def usd(nanousd: int) -> str:
    return f"{nanousd // NANO}.{nanousd % NANO:09d}"


def race(proxy: RunningProxy, books: Books, stub: StubProvider, senders: int) -> None:
    """Send many requests on a balance that holds exactly ten, which all take a while."""
    name, key = books.user("0")
    body = json.dumps(chat_body(1000)).encode()
    needed = needed_nanousd(proxy, key, body)
    books.credit(name, usd(10 * needed + needed - 1))

    async def handle(request: SeenRequest, out: Out) -> None:
        # Nobody is answered before everybody has been admitted or refused.
        while len(refused) < senders - 10 and time.monotonic() < deadline:
            await asyncio.sleep(0.01)
        await out.json(200, openai_chat())

    refused: list[int] = []
    deadline = time.monotonic() + 30
    before = len(stub.requests)
    stub.handle = handle

    async def send(call: Call) -> int:
        status = await send_one(proxy.port, call)
        if status != 200:
            refused.append(status)
        return status

    async def send_them() -> list[int]:
        return list(await asyncio.gather(*(send(Call(key, CHAT, body)) for _ in range(senders))))

    assert Counter(asyncio.run(send_them())) == {200: 10, 402: senders - 10}
    assert len(stub.requests) - before == 10
    # 12 × 2.50 / 1e6 + 3 × 10.00 / 1e6, ten times
    assert books.settled_wallet(name) == 11 * needed - 1 - 600_000
    states = Counter(row["state"] for row in books.rows(name))
    assert states["settled"] == 10
    assert states["refused"] <= senders - 9
    proxy.verify_ledger()


def test_fifty_requests_on_a_balance_for_ten_send_exactly_ten(
    proxy: RunningProxy, books: Books, upstream: StubProvider
) -> None:
    race(proxy, books, upstream, 50)


@pytest.mark.slow
def test_a_thousand_requests_on_a_balance_for_ten_send_exactly_ten(
    proxy: RunningProxy, books: Books, upstream: StubProvider
) -> None:
    for _ in range(3):
        race(proxy, books, upstream, 1000)


def mixed_calls(users: list[tuple[str, str]], count: int) -> list[Call]:
    calls = []
    for number in range(count):
        name, key = users[number % len(users)]
        is_stream = number % 3 == 0
        if number % 4 == 0:
            fields: dict[str, Any] = {"model": "claude-sonnet-5-5", "metadata": {"user_id": name}}
            calls.append(
                Call(key, MESSAGES, json.dumps(chat_body(**fields, stream=is_stream)).encode())
            )
        else:
            body = chat_body(user=name, stream=is_stream)
            calls.append(Call(key, CHAT, json.dumps(body).encode()))
    return calls


def mixed_load(proxy: RunningProxy, books: Books, stub: StubProvider, count: int) -> None:
    """Plain and streamed requests of several users, credit added meanwhile: all exact."""
    stub.handle = metered = Metered()
    users = [books.user("20") for _ in range(5)]
    top_ups: Counter[str] = Counter()

    async def top_up() -> None:
        for number in range(20):
            name = users[number % len(users)][0]
            top_ups[name] += 10_000_001
            await asyncio.to_thread(books_of_thread, name)
            await asyncio.sleep(0.01)

    def books_of_thread(name: str) -> None:
        books.credit(name, "0.010000001")

    async def everything() -> list[int]:
        statuses, _ = await asyncio.gather(
            send_all(proxy.port, mixed_calls(users, count)), top_up()
        )
        return statuses

    assert Counter(asyncio.run(everything())) == {200: count}
    assert metered.requests == count
    for name, _ in users:
        expected = 20 * NANO + top_ups[name] - metered.costs[name]
        assert books.settled_wallet(name) == expected
        rows = books.rows(name)
        assert {(row["state"], row["basis"]) for row in rows} == {("settled", "usage")}
        assert sum(row["charged_nanousd"] for row in rows) == metered.costs[name]
    proxy.verify_ledger()


def test_two_hundred_mixed_requests_are_charged_to_the_nano_dollar(
    proxy: RunningProxy, books: Books, upstream: StubProvider
) -> None:
    mixed_load(proxy, books, upstream, 200)


@pytest.mark.slow
def test_two_thousand_mixed_requests_are_charged_to_the_nano_dollar(
    proxy: RunningProxy, books: Books, upstream: StubProvider
) -> None:
    for _ in range(4):
        mixed_load(proxy, books, upstream, 500)


def test_a_balance_that_is_spent_by_many_at_once_never_goes_below_zero(
    proxy: RunningProxy, books: Books, upstream: StubProvider
) -> None:
    """Answers cost more than their holds: what is missing is the operator's, and told."""
    name, key = books.user("0.05")
    body = json.dumps(chat_body(10)).encode()

    async def dear(request: SeenRequest, out: Out) -> None:
        await asyncio.sleep(0.05)
        await out.json(200, openai_chat(usage=openai_usage(5000, 10)))

    upstream.handle = dear
    statuses = Counter(burst(proxy.port, [Call(key, CHAT, body)] * 40))
    assert set(statuses) == {200, 402}
    balance = books.settled_wallet(name)
    settled = [row for row in books.rows(name) if row["state"] == "settled"]
    assert len(settled) == statuses[200]
    assert {row["cost_nanousd"] for row in settled} == {5000 * 2500 + 10 * 10_000}
    charged = sum(row["charged_nanousd"] for row in settled)
    owed = sum(row["shortfall_nanousd"] for row in settled)
    assert balance == 50_000_000 - charged >= 0
    assert charged + owed == statuses[200] * 12_600_000
    assert owed > 0
    proxy.verify_ledger()
