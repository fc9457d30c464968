"""What an operator does on the command line acts on the running server."""

import json
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.service.test_lifecycle import until_released
from tests.support.answers import openai_chat, plain
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import StubProvider


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        stub.handle = plain(openai_chat())
        yield stub


@pytest.fixture(scope="module")
def proxy(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[RunningProxy]:
    """A server that was started on an empty home: everything comes while it runs."""
    with RunningProxy(tmp_path_factory.mktemp("operators")) as proxy:
        proxy.run("users", "create", "first")
        proxy.start()
        proxy.use_provider("openai", f"{stub.url}/v1")
        yield proxy
        proxy.verify_ledger()


@pytest.fixture
def books(proxy: RunningProxy) -> Iterator[Books]:
    books = Books(proxy.home)
    yield books
    books.close()


def status(proxy: RunningProxy, key: str) -> int:
    return ask(proxy.port, "POST", CHAT, chat_body(), bearer(key)).status


def test_a_new_user_a_new_key_and_new_credit_work_at_once(proxy: RunningProxy) -> None:
    key = proxy.run("users", "create", "ann", "--key", "laptop", "--quiet").strip()
    assert status(proxy, key) == 402
    proxy.run("credits", "add", "ann", "5")
    assert status(proxy, key) == 200
    second = proxy.run("keys", "create", "ann", "--name", "desk", "--quiet").strip()
    assert status(proxy, second) == 200
    proxy.run("keys", "revoke", "ann", "laptop")
    assert [status(proxy, key), status(proxy, second)] == [401, 200]
    proxy.run("users", "disable", "ann")
    assert status(proxy, second) == 403
    proxy.run("users", "enable", "ann")
    assert status(proxy, second) == 200
    proxy.run("credits", "adjust", "ann", "--by", "-4.99", "--reason", "test")
    proxy.run("users", "set", "ann", "--rate-multiplier", "50")
    assert status(proxy, second) == 402


def test_a_user_who_is_disabled_meanwhile_gets_and_pays_the_running_answer(
    proxy: RunningProxy, stub: StubProvider, books: Books
) -> None:
    go_on = threading.Event()
    stub.handle = until_released(go_on)  # type: ignore[assignment]
    name, key = books.user()
    body = json.dumps(chat_body(stream=True)).encode()
    try:
        with RawClient(proxy.port) as client:
            client.post(CHAT, body, {"authorization": f"Bearer {key}"})
            assert client.recv_head().status == 200
            proxy.run("users", "disable", name)
            assert status(proxy, key) == 403
            # What is held stays held: only the rest can be paid back.
            assert books.wallet(name)[1] > 0
            too_much = ("credits", "adjust", name, "--by", "-5", "--reason", "closed")
            assert "are available to be taken" in proxy.try_run(*too_much).stderr
            go_on.set()
            assert client.body().endswith(b"data: [DONE]\n\n")
    finally:
        go_on.set()
        stub.handle = plain(openai_chat())
    assert books.settled_wallet(name) == 5_000_000_000 - (1000 * 2500 + 200 * 10_000)
    # The refused request may have had a hold before the change was seen: that was released.
    settled = [row["basis"] for row in books.rows(name) if row["state"] != "released"]
    assert settled == ["usage"]
    assert proxy.json("users", "show", name)["disabled"] is True
    assert status(proxy, key) == 403


def test_a_providers_keys_and_pauses_work_at_once(proxy: RunningProxy) -> None:
    key = proxy.new_user("bob")
    proxy.run("providers", "pause", "openai", "--reason", "invoice unpaid")
    refused = ask(proxy.port, "POST", CHAT, chat_body(), bearer(key))
    assert refused.json()["message"].startswith("Provider openai is paused: invoice unpaid.")
    proxy.run("providers", "resume", "openai")
    assert status(proxy, key) == 200
    proxy.run("provider-keys", "disable", "openai", "key-1")
    assert status(proxy, key) == 503
    proxy.run("provider-keys", "enable", "openai", "key-1")
    assert status(proxy, key) == 200
    proxy.run("provider-keys", "remove", "openai", "key-1", "--yes")
    assert status(proxy, key) == 503
    proxy.run("provider-keys", "add", "openai", stdin="sk-another-secret-0002")
    assert status(proxy, key) == 200


def test_a_rotated_key_and_one_with_an_end_stop_by_themselves(proxy: RunningProxy) -> None:
    """Nothing is committed when they end: the server must look at the time, not at the file."""
    old = proxy.new_user("carla")
    made_at = time.monotonic()
    brief = proxy.run("keys", "create", "carla", "--name", "b", "--expires", "4s", "-q").strip()
    new = proxy.run("keys", "rotate", "carla", "test", "--overlap", "4s", "--quiet").strip()
    assert [status(proxy, key) for key in (old, brief, new)] == [200, 200, 200]
    assert time.monotonic() - made_at < 4, "the machine was too slow for this test"
    time.sleep(4.5)
    assert [status(proxy, key) for key in (old, brief, new)] == [401, 401, 200]
    latest = proxy.run("keys", "rotate", "carla", "test", "--quiet").strip()
    assert [status(proxy, key) for key in (new, latest)] == [401, 200]


def test_a_backup_under_traffic_is_whole_and_a_restore_is_refused(
    proxy: RunningProxy, tmp_path: Path
) -> None:
    key = proxy.new_user("dora")
    is_done = threading.Event()
    answers: list[int] = []

    def keep_asking() -> None:
        while not is_done.is_set():
            answers.append(status(proxy, key))

    asking = threading.Thread(target=keep_asking)
    asking.start()
    try:
        for number in range(3):
            made = proxy.json("db", "backup", str(tmp_path / f"{number}.db"))
            assert made["verified"] is True
    finally:
        is_done.set()
        asking.join()
    assert set(answers) == {200}
    refused = proxy.try_run("db", "restore", str(tmp_path / "0.db"), "--yes")
    assert (refused.returncode, "already running" in refused.stderr) == (4, True)
    assert status(proxy, key) == 200
