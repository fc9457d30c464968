"""The serving process from its start to its end, however that comes."""

import asyncio
import signal
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from stat import S_IMODE

import pytest

from llmproxy.storage.locks import FileLock
from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.support.answers import openai_chat, openai_chat_stream, openai_usage, plain, stream
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Out, SeenRequest, StubProvider
from tests.support.waiting import wait_until

WAL_LIMIT = 4 * 1024 * 1024
CREDIT = 5_000_000_000


@contextmanager
def serving(home: Path, environ: dict[str, str] | None = None) -> Iterator["Site"]:
    with StubProvider() as stub, RunningProxy(home, environ) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.start()
        books = Books(home)
        try:
            yield Site(proxy, stub, books)
        finally:
            books.close()
        proxy.verify_ledger()


class Site:
    """A proxy, its upstream and its books."""

    def __init__(self, proxy: RunningProxy, stub: StubProvider, books: Books) -> None:
        self.proxy, self.stub, self.books = proxy, stub, books

    def open_holds(self) -> int:
        return self.books.count("SELECT count(*) FROM holds WHERE state = 'open'")

    @contextmanager
    def running_stream(self, key: str) -> Iterator[RawClient]:
        """A client in the middle of a stream."""
        with RawClient(self.proxy.port) as client:
            body = b'{"model":"gpt-4o","stream":true,"messages":[{"role":"user","content":"hi"}]}'
            client.post(CHAT, body, {"authorization": f"Bearer {key}"})
            assert client.recv_head().status == 200
            next(client.recv_chunks())
            yield client


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with serving(tmp_path) as site:
        yield site


def refuses_connections(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except (ConnectionRefusedError, ConnectionResetError):  # or just closed its door
        return True
    return False


def until_released(event: threading.Event) -> Callable[[SeenRequest, Out], object]:
    """Answer with three events, wait for the test, then the rest with usage."""
    events = openai_chat_stream(["one"] * 6, usage=openai_usage(1000, 200))

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(200, [("content-type", "text/event-stream")])
        for part in events[:3]:
            await out.chunk(part)
        await asyncio.to_thread(event.wait, 30)
        for part in events[3:]:
            await out.chunk(part)
        await out.end()

    return handle


def test_nobody_else_can_read_any_file_and_a_second_server_is_refused(site: Site) -> None:
    proxy = site.proxy
    key = site.books.user()[1]
    site.stub.handle = plain(openai_chat())
    assert ask(proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
    for directory in (proxy.home / "data", proxy.home / "config"):
        assert S_IMODE(directory.stat().st_mode) == 0o700
        names = {path.name for path in directory.iterdir()}
        assert names
        for path in directory.iterdir():
            assert S_IMODE(path.stat().st_mode) == 0o600, path
    assert (proxy.home / "data" / "llmproxy.db-wal").exists()
    assert (proxy.home / "config" / "master.key").exists()

    second = proxy.try_run("serve", "--port", "0")
    assert second.returncode == 4
    assert f"already running on this database (pid {proxy.pid}, since 20" in second.stderr
    assert "Traceback" not in second.stderr

    elsewhere = RunningProxy(proxy.home / "elsewhere")
    taken = elsewhere.try_run("serve", "--port", str(proxy.port))
    assert taken.returncode == 4
    assert f"Cannot listen on 127.0.0.1 port {proxy.port}" in taken.stderr
    assert "Choose another --port." in taken.stderr
    assert "Traceback" not in taken.stderr


def test_sigterm_lets_running_streams_finish_and_refuses_new_ones(site: Site) -> None:
    proxy, books = site.proxy, site.books
    go_on = threading.Event()
    site.stub.handle = until_released(go_on)  # type: ignore[assignment]
    users = [books.user() for _ in range(2)]
    try:
        with (
            site.running_stream(users[0][1]) as one,
            site.running_stream(users[1][1]) as two,
            RawClient(proxy.port) as idle,
        ):
            proxy.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(proxy.port))
            with pytest.raises(ConnectionError):
                idle.recv_head()
            go_on.set()
            for client in (one, two):
                rest = client.body()
                assert rest.endswith(b"data: [DONE]\n\n")
                assert client.clean_end
        assert proxy.wait_for_exit() == 0
    finally:
        go_on.set()
    # 1000 × 2.50 / 1e6 + 200 × 10.00 / 1e6
    assert [books.wallet(name) for name, _ in users] == [(CREDIT - 4_500_000, 0)] * 2
    wal = proxy.home / "data" / "llmproxy.db-wal"
    assert not wal.exists() or wal.stat().st_size == 0


def test_a_second_sigterm_ends_at_once_and_charges_the_estimate(site: Site) -> None:
    proxy, books = site.proxy, site.books
    never = threading.Event()
    site.stub.handle = until_released(never)  # type: ignore[assignment]
    name, key = books.user()
    try:
        with site.running_stream(key) as client:
            proxy.send_signal(signal.SIGTERM)
            wait_until(lambda: refuses_connections(proxy.port))
            began = time.monotonic()
            proxy.send_signal(signal.SIGTERM)
            assert b"[DONE]" not in client.body()
            assert proxy.wait_for_exit() == 0
            assert time.monotonic() - began < 5
    finally:
        never.set()
    assert site.open_holds() == 0
    (row,) = books.rows(name)
    assert (row["state"], row["basis"]) == ("settled", "estimate")
    # The body's 76 bytes and the two words' 6 bytes, three bytes a token.
    cost = (-(-76 // 3)) * 2500 + (-(-6 // 3)) * 10_000
    assert books.wallet(name) == (CREDIT - cost, 0)


def test_the_drain_of_a_stop_is_bounded(tmp_path: Path) -> None:
    with serving(tmp_path, {"LLMPROXY_SHUTDOWN_TIMEOUT_S": "1"}) as site:
        never = threading.Event()
        site.stub.handle = until_released(never)  # type: ignore[assignment]
        name, key = site.books.user()
        try:
            with site.running_stream(key) as client:
                began = time.monotonic()
                site.proxy.send_signal(signal.SIGTERM)
                assert b'"code": "upstream_interrupted"' in client.body()
                assert site.proxy.wait_for_exit() == 0
                assert 0.9 < time.monotonic() - began < 5
        finally:
            never.set()
        assert [row["basis"] for row in site.books.rows(name)] == ["estimate"]


def test_after_sigkill_every_hold_ends_and_nothing_is_lost(site: Site) -> None:
    proxy, books = site.proxy, site.books
    site.stub.handle = plain(openai_chat(usage=openai_usage(1000, 200)))
    name, key = books.user()
    answered = ask(proxy.port, "POST", CHAT, chat_body(), bearer(key))
    assert books.settled_wallet(name) == CREDIT - 4_500_000
    never = threading.Event()
    site.stub.handle = until_released(never)  # type: ignore[assignment]
    others = [books.user() for _ in range(4)]
    try:
        for _, other in others:
            with site.running_stream(other):
                pass
        assert site.open_holds() == 4
        unnoted = "SELECT count(*) FROM holds WHERE state = 'open' AND seen_cost_nanousd = 0"
        wait_until(lambda: books.count(unnoted) == 0)
        proxy.kill()
    finally:
        never.set()
    assert site.open_holds() == 4
    held = [books.wallet(other)[1] for other, _ in others]
    assert all(held)

    proxy.start()
    assert "4 holds of a process that died have been ended" in proxy.log.read_text()
    assert site.open_holds() == 0
    for other, _ in others:
        (row,) = books.rows(other)
        assert (row["state"], row["basis"]) == ("expired", "estimate")
        # The 76 bytes of the prompt, and "Hello" if that was seen when it was noted.
        assert row["charged_nanousd"] in {26 * 2500, 26 * 2500 + 2 * 10_000}
        assert books.wallet(other) == (CREDIT - row["charged_nanousd"], 0)
    assert proxy.request_row(answered.request_id)["cost_usd"] == "0.0045"
    site.stub.handle = plain(openai_chat())
    assert ask(proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
    assert proxy.stop() == 0


def test_the_wal_is_bounded_and_never_checkpointed_beside_a_foreign_writer(site: Site) -> None:
    proxy, books = site.proxy, site.books
    database = proxy.home / "data" / "llmproxy.db"
    wal = proxy.home / "data" / "llmproxy.db-wal"
    site.stub.handle = plain(openai_chat())
    name, key = books.user("50")
    gate = FileLock(proxy.home / "data" / "llmproxy.db.gate")
    assert gate.try_acquire(shared=True)
    sent = 0
    try:
        before = database.read_bytes()
        while wal.stat().st_size < WAL_LIMIT + 100_000:
            assert ask(proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
            sent += 1
        time.sleep(0.5)
        assert database.read_bytes() == before
    finally:
        gate.release()
    wait_until(lambda: database.read_bytes() != before)
    time.sleep(0.3)
    size = wal.stat().st_size
    for _ in range(20):
        assert ask(proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
        sent += 1
    assert wal.stat().st_size == size
    assert books.settled_wallet(name) == 10 * CREDIT - sent * 60_000


def test_commands_that_write_beside_a_busy_server_lose_nothing(site: Site) -> None:
    proxy, books = site.proxy, site.books
    site.stub.handle = stream(openai_chat_stream())
    name, key = books.user("5")
    is_over = threading.Event()
    statuses: list[int] = []

    def load() -> None:
        while not is_over.is_set():
            body = chat_body(stream=True)
            statuses.append(ask(proxy.port, "POST", CHAT, body, bearer(key)).status)

    threads = [threading.Thread(target=load) for _ in range(4)]
    for thread in threads:
        thread.start()
    try:
        for number in range(4):
            proxy.run("credits", "add", name, "0.000000001")
            proxy.run("users", "create", f"made-{number}", "--credit", "1")
    finally:
        is_over.set()
        for thread in threads:
            thread.join()
    assert len(statuses) > 50
    assert set(statuses) == {200}
    assert books.settled_wallet(name) == CREDIT + 4 - 60_000 * len(statuses)
    assert [books.wallet(f"made-{number}")[0] for number in range(4)] == [10**9] * 4


@pytest.mark.parametrize(
    ("file", "content", "environ", "code", "says"),
    [
        ("bad.json", "{", {"LLMPROXY_CATALOG_FILE": "bad.json"}, 1, "bad.json"),
        ("", "", {"LLMPROXY_CATALOG_FILE": "absent.json"}, 1, "absent.json"),
        ("config/config.toml", "port = ", {}, 2, "config.toml cannot be read"),
        ("config/config.toml", "prot = 1", {}, 2, "unknown settings: prot"),
        ("", "", {"LLMPROXY_BODY_BYTES_MAX": "many"}, 2, "must be a whole number"),
        ("", "", {"LLMPROXY_MASTER_KEY": "zz"}, 1, "It comes from LLMPROXY_MASTER_KEY."),
        ("", "", {"LLMPROXY_MASTER_KEY_FILE": "absent.key"}, 1, "absent.key cannot be read"),
        ("config/master.key", "0" * 64, {}, 1, "can be read by others"),
        ("data/llmproxy.db", "this is no database" * 100, {}, 5, "cannot be used"),
    ],
)
def test_a_server_that_cannot_start_says_why(
    file: str, content: str, environ: dict[str, str], code: int, says: str, tmp_path: Path
) -> None:
    for directory in ("data", "config"):
        (tmp_path / directory).mkdir(mode=0o700)
    if file:
        (tmp_path / file).write_text(content)
        is_open_key = file.endswith(".key")
        (tmp_path / file).chmod(0o644 if is_open_key else 0o600)
    environ = {
        name: str(tmp_path / value) if value.startswith(("bad", "absent")) else value
        for name, value in environ.items()
    }
    refused = RunningProxy(tmp_path, environ).try_run("serve", "--port", "0")
    assert refused.returncode == code, refused.stderr
    assert says in refused.stderr
    assert "Traceback" not in refused.stderr
    assert refused.stdout == ""
