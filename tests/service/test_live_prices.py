"""Prices that change while the server runs: each request has one price, the newest, for good."""

import asyncio
import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy.live_catalog import WATCH_INTERVAL_S
from tests.service.helpers import CHAT, MESSAGES, Books, ask, bearer, chat_body
from tests.support.answers import anthropic_message, anthropic_usage, openai_chat
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import Handler, Out, SeenRequest, StubProvider
from tests.support.waiting import wait_until

SHIPPED = json.loads((Path(__file__).parents[2] / "model_catalog.json").read_bytes())
SEEN_WITHIN_S = 5.0


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        yield stub


@pytest.fixture
def proxy(tmp_path: Path, stub: StubProvider) -> Iterator[RunningProxy]:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(200, openai_chat(prompt_tokens=1000, completion_tokens=0))

    stub.handle = handle
    with RunningProxy(tmp_path) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.use_provider("anthropic", stub.url)
        proxy.start()
        yield proxy
        proxy.verify_ledger()
        assert "internal error" not in proxy.log.read_text()


@pytest.fixture
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


def cost(proxy: RunningProxy, key: str) -> str:
    """What a thousand tokens of input cost now."""
    got = ask(proxy.port, "POST", CHAT, chat_body(), bearer(key))
    assert got.status == 200, got.body
    return got.headers["x-llmproxy-cost-usd"]


def eventually(proxy: RunningProxy, key: str, expected: str) -> None:
    deadline = time.monotonic() + SEEN_WITHIN_S
    while (found := cost(proxy, key)) != expected:
        assert time.monotonic() < deadline, found
        time.sleep(0.02)


def written(path: Path, in_price: str, **head: Any) -> Path:  # noqa: ANN401
    """Write the shipped catalog with another price of gpt-4o."""
    models = {**SHIPPED["models"]}
    models["openai/gpt-4o"] = {**models["openai/gpt-4o"], "in_price": in_price}
    path.write_text(json.dumps({**SHIPPED, "updated": "2027-01-02", "models": models, **head}))
    return path


def test_each_request_pins_the_price_that_it_was_made_at(proxy: RunningProxy, books: Books) -> None:
    name, key = books.user()
    set_price = ("catalog", "set", "openai", "gpt-4o", "--in-price")
    costs = [cost(proxy, key)]
    for price in ("3", "4", "3"):
        proxy.run(*set_price, price)
        costs.append(cost(proxy, key))
    proxy.run("catalog", "set", "openai", "gpt-4o", "--remove")
    costs.append(cost(proxy, key))
    assert costs == ["0.0025", "0.003", "0.004", "0.003", "0.0025"]
    books.settled_wallet(name)
    # A price that comes again is the same version again.
    assert books.count("SELECT count(*) FROM price_versions") == 3
    assert books.count("SELECT count(DISTINCT price_version_id) FROM holds") == 3
    proxy.verify_ledger()


def test_a_request_on_its_way_keeps_its_price(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        proxy.run("catalog", "set", "openai", "gpt-4o", "--in-price", "20")
        await out.json(200, openai_chat(prompt_tokens=1000, completion_tokens=0))

    stub.handle = handle
    _, key = books.user()
    got = ask(proxy.port, "POST", CHAT, chat_body(), bearer(key))
    assert got.headers["x-llmproxy-cost-usd"] == "0.0025"
    assert "2.50" in proxy.run("explain", got.request_id)


def answer_after(
    proxy: RunningProxy, key: str, change: tuple[str, ...], leg: dict[str, Any], model: str
) -> Handler:
    """Answer a message, which another model has done all of, when a change is in force."""
    usage = anthropic_usage(0, 0, iterations=[{"type": "message", **leg}])

    def make() -> None:
        proxy.run("catalog", "set", "anthropic", *change)
        # For a model that it does not know the server looks for changes at once.
        asked = ask(proxy.port, "POST", CHAT, chat_body(model="no-such-model"), bearer(key))
        assert asked.status == 400

    async def handle(request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(make)
        await out.json(200, anthropic_message(usage=usage, model=model))

    return handle


def message_body(model: str) -> dict[str, Any]:
    return {"model": model, "max_tokens": 100, "messages": [{"role": "user", "content": "hi"}]}


def test_a_part_that_is_told_by_an_alias_of_the_asked_model_keeps_the_requests_price(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    _, key = books.user()
    leg = {"model": "claude-opus-4-7-20260416", "input_tokens": 1000, "output_tokens": 0}
    dearer = ("claude-opus-4-7", "--in-price", "50")
    stub.handle = answer_after(proxy, key, dearer, leg, "claude-opus-4-7")
    got = ask(proxy.port, "POST", MESSAGES, message_body("claude-opus-4-7"), bearer(key))
    # 5 USD per million.
    assert got.headers["x-llmproxy-cost-usd"] == "0.005"
    receipt = json.loads(proxy.run("explain", got.request_id, "--json"))
    assert receipt["lines"][0]["price_version"] == receipt["price_version"]


def test_a_part_by_a_model_nobody_knows_costs_as_the_asked_one_though_that_has_lost_its_entry(
    proxy: RunningProxy, books: Books, stub: StubProvider
) -> None:
    """The dearest of the provider counts, and that was the asked one."""
    proxy.run(
        *("catalog", "set", "anthropic", "dearest", "--in-price", "1000", "--out-price", "2000")
    )
    _, key = books.user()
    leg = {"model": "unheard-of", "input_tokens": 10, "output_tokens": 20}
    stub.handle = answer_after(proxy, key, ("dearest", "--remove"), leg, "dearest")
    got = ask(proxy.port, "POST", MESSAGES, message_body("dearest"), bearer(key))
    # 10 × 0.001 + 20 × 0.002
    assert got.headers["x-llmproxy-cost-usd"] == "0.05"
    again = ask(proxy.port, "POST", MESSAGES, message_body("dearest"), bearer(key))
    assert again.json()["error"]["code"] == "unknown_model_pricing"


def test_an_update_between_hold_and_settlement_changes_neither_and_old_charges_stay(
    proxy: RunningProxy, books: Books, stub: StubProvider, tmp_path: Path
) -> None:
    """The update is in force before the provider answers: what was held for pays for it."""
    new = written(tmp_path / "new.json", "20")

    async def handle(request: SeenRequest, out: Out) -> None:
        if not (tmp_path / "config" / "model_catalog.json").exists():
            proxy.run("catalog", "update", "--from", str(new), "--yes")
            wait_until(lambda: "of 2027-01-02 now" in proxy.log.read_text())
        await out.json(200, openai_chat(prompt_tokens=1000, completion_tokens=0))

    stub.handle = handle
    name, key = books.user()
    got = ask(proxy.port, "POST", CHAT, chat_body(), bearer(key))
    assert got.headers["x-llmproxy-cost-usd"] == "0.0025"
    assert cost(proxy, key) == "0.02"
    books.settled_wallet(name)
    receipt = json.loads(proxy.run("explain", got.request_id, "--json"))
    assert [line["rate_usd"] for line in receipt["lines"]] == ["2.50"]
    assert receipt["lines"][0]["price_version"] == receipt["price_version"]
    # Both requests by a third catalog: 1000 tokens each at 4 USD per million. No charge changes.
    third = written(tmp_path / "third.json", "4", updated="2027-01-03")
    shown = json.loads(proxy.run("catalog", "update", "--from", str(third), "--dry-run", "--json"))
    sums = {"requests": 2, "old_usd": "0.0225", "new_usd": "0.008", "difference_usd": "-0.0145"}
    assert shown["last_days"]["users"] == [{"user": name, **sums}]
    assert json.loads(proxy.run("explain", got.request_id, "--json")) == receipt
    assert cost(proxy, key) == "0.02"


def test_an_updated_catalog_counts_without_a_restart(
    proxy: RunningProxy, books: Books, tmp_path: Path
) -> None:
    _, key = books.user()
    assert cost(proxy, key) == "0.0025"
    new = written(tmp_path / "new.json", "3")
    proxy.run("catalog", "update", "--from", str(new), "--yes")
    eventually(proxy, key, "0.003")
    assert "the model catalog is of 2027-01-02 now" in proxy.log.read_text()
    # One's own price is above that of any file, and stays through the next update.
    proxy.run("catalog", "set", "openai", "gpt-4o", "--in-price", "5")
    assert cost(proxy, key) == "0.005"
    new = written(tmp_path / "new.json", "4", updated="2027-01-03")
    proxy.run("catalog", "update", "--from", str(new), "--yes")
    time.sleep(3 * WATCH_INTERVAL_S)
    assert cost(proxy, key) == "0.005"
    proxy.run("catalog", "set", "openai", "gpt-4o", "--remove")
    assert cost(proxy, key) == "0.004"
    # Without the file the packaged one counts again.
    (tmp_path / "config" / "model_catalog.json").unlink()
    eventually(proxy, key, "0.0025")


@pytest.mark.parametrize("broken", [b"", b"{", b"half", b'{"schema": 1}'])
def test_a_file_that_cannot_be_read_changes_nothing_and_is_logged(
    proxy: RunningProxy, books: Books, tmp_path: Path, broken: bytes
) -> None:
    _, key = books.user()
    file = tmp_path / "config" / "model_catalog.json"
    written(file, "3")
    eventually(proxy, key, "0.003")
    whole = file.read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if broken == b"half" else broken)
    deadline = time.monotonic() + SEEN_WITHIN_S
    while "the catalog of 2027-01-02 stays in force" not in proxy.log.read_text():
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert cost(proxy, key) == "0.003"
    time.sleep(3 * WATCH_INTERVAL_S)
    assert proxy.log.read_text().count("stays in force") == 1  # once, not five times a second
    written(file, "4")
    eventually(proxy, key, "0.004")


def test_a_file_of_a_setting_is_watched_too(tmp_path: Path, stub: StubProvider) -> None:
    file = written(tmp_path / "mine.json", "3")
    with RunningProxy(tmp_path / "home", {"LLMPROXY_CATALOG_FILE": str(file)}) as proxy:
        proxy.home.mkdir()
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.start()
        books = Books(proxy.home)
        _, key = books.user()
        assert cost(proxy, key) == "0.003"
        written(file, "4")
        eventually(proxy, key, "0.004")
        file.unlink()
        time.sleep(3 * WATCH_INTERVAL_S)
        assert cost(proxy, key) == "0.004"
        books.close()


def test_an_own_entry_that_cannot_be_read_has_no_price(proxy: RunningProxy, books: Books) -> None:
    _, key = books.user()
    proxy.run("catalog", "set", "openai", "gpt-4o", "--in-price", "3")
    assert cost(proxy, key) == "0.003"
    with books.write() as tx:
        tx.execute('UPDATE catalog_overrides SET entry = \'{"in_price": "3"}\'')
    got = ask(proxy.port, "POST", CHAT, chat_body(), bearer(key))
    assert (got.status, got.json()["error"]["code"]) == (400, "unknown_model_pricing")
    assert "openai/gpt-4o has no price: your own entry" in proxy.log.read_text()
    # Nothing else is in the way of what an operator changes.
    other = books.user()[1]
    assert ask(proxy.port, "GET", "/v1/openai/models", b"", bearer(other)).status == 200
    proxy.run("catalog", "set", "openai", "gpt-4o", "--in-price", "3", "--out-price", "10")
    assert cost(proxy, key) == "0.003"
