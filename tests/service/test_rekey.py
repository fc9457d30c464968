"""A server goes on while its master key is changed, whoever keeps that key."""

from collections.abc import Iterator
from pathlib import Path
from threading import Event, Thread

import pytest

from llmproxy.vault import new_master_key
from tests.service.helpers import CHAT, Books, chat_body
from tests.support.answers import openai_chat, plain
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.stub_provider import StubProvider
from tests.support.waiting import wait_until


@pytest.fixture
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        stub.handle = plain(openai_chat())
        yield stub


def asks(proxy: RunningProxy, key: str, stub: StubProvider) -> int:
    """The status of one request; a good one came with the provider's key."""
    status = proxy.post(CHAT, chat_body(), key).status
    if status == 200:
        assert stub.requests[-1].header("authorization") == f"Bearer {PROVIDER_KEY}".encode()
    return status


def test_requests_go_on_while_the_master_key_is_changed_and_after_a_restart(
    tmp_path: Path, stub: StubProvider
) -> None:
    with RunningProxy(tmp_path) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.start()
        books = Books(tmp_path)
        _, key = books.user()
        statuses, is_over = [], Event()

        def ask_on() -> None:
            while not is_over.is_set():
                statuses.append(asks(proxy, key, stub))

        asking = Thread(target=ask_on)
        asking.start()
        try:
            for _ in range(3):
                proxy.run("provider-keys", "rekey", "--yes")
            done = len(statuses)
            wait_until(lambda: len(statuses) > done + 20)
        finally:
            is_over.set()
            asking.join()
            books.close()
        assert set(statuses) == {200}
        # The server has read the new key: what is sealed now is used, not merely remembered.
        proxy.run("provider-keys", "disable", "openai", "key-1")
        proxy.run("provider-keys", "add", "openai", stdin="sk-provider-secret-0003")
        assert proxy.post(CHAT, chat_body(), key).status == 200
        assert stub.requests[-1].header("authorization") == b"Bearer sk-provider-secret-0003"
        said = proxy.log.read_text()
        assert "is not used" not in said
        assert "as it was opened before" not in said
        assert proxy.stop() == 0
        proxy.start()
        assert proxy.post(CHAT, chat_body(), key).status == 200
        assert proxy.json("doctor")["ok"]
        proxy.verify_ledger()


def test_a_key_from_the_environment_is_changed_with_one_restart(
    tmp_path: Path, stub: StubProvider
) -> None:
    old, new = new_master_key(), new_master_key()
    with RunningProxy(tmp_path, {"LLMPROXY_MASTER_KEY": old}) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.start()
        books = Books(tmp_path)
        _, key = books.user()
        proxy.run("provider-keys", "rekey", "--new-key-file", "-", "--yes", stdin=new)
        wait_until(lambda: "is used as it was opened before" in proxy.log.read_text())
        assert asks(proxy, key, stub) == 200
        # Moved elsewhere it is not sent: that takes the master key, which this server lacks.
        proxy.environ["LLMPROXY_MASTER_KEY"] = new
        proxy.run("providers", "set", "openai", "--base-url", f"{stub.url}/other/v1", "--yes")
        seen = len(stub.requests)
        wait_until(lambda: asks(proxy, key, stub) == 503)
        assert len(stub.requests) == seen
        assert proxy.stop() == 0
        proxy.start()
        assert asks(proxy, key, stub) == 200
        books.close()
        assert not (tmp_path / "config" / "master.key").exists()
        for secret in (old, new, PROVIDER_KEY):
            assert secret not in proxy.log.read_text()


def test_a_server_killed_in_the_midst_of_it_starts_with_the_key_that_opens(
    tmp_path: Path, stub: StubProvider
) -> None:
    """As if the power had failed after the commit: both files are there."""
    with RunningProxy(tmp_path) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        file = tmp_path / "config" / "master.key"
        old = file.read_text()
        proxy.run("provider-keys", "rekey", "--yes")
        file.rename(file.with_name("master.key.new"))
        file.write_text(old)
        file.chmod(0o600)
        proxy.start()
        books = Books(tmp_path)
        _, key = books.user()
        books.close()
        assert asks(proxy, key, stub) == 200
