"""Every bad request, byte for byte, against one server: refused, and nothing comes of it."""

import json
import socket
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import pytest

from llmproxy import vault
from tests.bad_inputs.generate import FOLDER, all_inputs
from tests.bad_inputs.raw import CHAT, GOOD_BODY, KEY, request
from tests.service.helpers import Books, either
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import StubProvider

FILES = sorted(FOLDER.glob("*.http"))
AT_ONCE = 8
TAKES_S = 5.0
"""Finds what hangs; most are answered within a millisecond, those that wait for more in two."""
PROBE = b"GET /healthz HTTP/1.1\r\nHost: x\r\n\r\n"


@pytest.fixture(scope="module")
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        stub.handle = either
        yield stub


@pytest.fixture(scope="module")
def stopped(tmp_path_factory: pytest.TempPathFactory, stub: StubProvider) -> Iterator[RunningProxy]:
    """A server to be started: it waits a second for a head and for a body."""
    environ = {"LLMPROXY_HEADER_TIMEOUT_S": "1", "LLMPROXY_BODY_TIMEOUT_S": "1"}
    with RunningProxy(tmp_path_factory.mktemp("bad"), environ) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.use_provider("anthropic", stub.url)
        yield proxy


@pytest.fixture(scope="module")
def books(stopped: RunningProxy) -> Iterator[Books]:
    with closing(Books(stopped.home)) as books:
        yield books


@pytest.fixture(scope="module")
def user(books: Books) -> str:
    """A user with credit, whose key is the one in the files."""
    name, made = books.user()
    with books.write() as tx:
        tx.execute(
            "UPDATE api_keys SET hash = :new WHERE hash = :made",
            {"new": vault.hash_api_key(KEY.decode()), "made": vault.hash_api_key(made)},
        )
    return name


@pytest.fixture(scope="module")
def proxy(stopped: RunningProxy, user: str) -> RunningProxy:
    """The server, with the user's key in its memory."""
    del user
    return stopped.start()


def test_the_files_are_what_their_generator_makes() -> None:
    made = {bad.file_name: bad.raw for bad in all_inputs()}
    assert len(made) == len(all_inputs()) >= 500
    assert {path.name: path.read_bytes() for path in FILES} == made


def complaints(port: int, path: Path) -> list[str]:
    """Send a file's bytes; say what is wrong with what comes back."""
    *_, wanted, _ = path.name.split(".")
    raw, began = path.read_bytes(), time.monotonic()
    found = []
    with RawClient(port, timeout_s=TAKES_S) as client:
        try:
            client.send(raw)
            for status in wanted.split("-"):
                found += _wrong_answer(client, int(status), is_head=raw.startswith(b"HEAD "))
            found += _wrong_end(client)
        except (ConnectionError, TimeoutError) as error:
            found.append(f"{type(error).__name__}: {error}")
    if time.monotonic() - began > TAKES_S:
        found.append("it took too long")
    return [f"{path.name}: {what}" for what in found]


def _wrong_answer(client: RawClient, wanted: int, *, is_head: bool) -> list[str]:
    head = client.recv_head()
    while head.status == 100:
        head = client.recv_head()
    wrong = [] if head.status == wanted else [f"status {head.status}"]
    if is_head:
        return wrong
    body = client.body()
    if PROVIDER_KEY.encode() in body or KEY in body:
        wrong.append("a key in the answer")
    if set(json.loads(body)) != {"type", "error", "message", "request_id"}:
        wrong.append("not our envelope")
    if (head.header("connection") or b"").lower() == b"close":
        wrong += ["bytes behind the last answer"] * bool(b"".join(x for _, x in client.recv_raw()))
    return wrong


def _wrong_end(client: RawClient) -> list[str]:
    """Look whether the connection is closed, or else answers exactly the next request."""
    try:
        client.send(PROBE)
        head = client.recv_head()
    except OSError:
        return []  # closed: nothing can follow
    is_probe = head.status == 200 and client.body() == b'{"status":"ok"}'
    return [] if is_probe else ["an answer that nobody asked for"]


def test_bad_requests_are_refused_and_nothing_comes_of_them(
    proxy: RunningProxy, stub: StubProvider, books: Books, user: str
) -> None:
    before = books.wallet(user)
    with ThreadPoolExecutor(AT_ONCE) as pool:
        found = pool.map(lambda path: complaints(proxy.port, path), FILES)
        wrong = [complaint for complaints in found for complaint in complaints]
    assert not wrong, "\n".join(wrong)
    assert stub.requests == []
    assert books.wallet(user) == before
    assert books.count("SELECT count(*) FROM holds") == 0
    assert books.count("SELECT count(*) FROM requests WHERE cost_nanousd > 0") == 0
    log = proxy.log.read_text()
    assert "Traceback" not in log
    assert "internal error" not in log
    assert KEY.decode() not in log


def test_a_good_request_is_served_afterwards_and_the_books_are_right(
    proxy: RunningProxy, stub: StubProvider
) -> None:
    with RawClient(proxy.port) as client:
        client.send(request())
        assert client.recv_head().status == 200
        assert b"choices" in client.body()
    (seen,) = stub.requests
    assert (seen.target, seen.body) == (CHAT.replace(b"/openai", b""), GOOD_BODY)
    proxy.verify_ledger()


def test_a_wrong_status_would_be_seen(proxy: RunningProxy, tmp_path: Path) -> None:
    """The good request under the name of a bad one."""
    disguised = tmp_path / "good.400.http"
    disguised.write_bytes(request())
    assert any("status 200" in what for what in complaints(proxy.port, disguised))


def test_no_key_of_the_files_could_be_one_of_ours() -> None:
    words = {word for path in FILES for word in path.read_bytes().split()}
    assert not any(vault.is_well_formed(word.decode("latin-1")) for word in words)


def test_a_client_that_only_connects_is_no_request(proxy: RunningProxy, stub: StubProvider) -> None:
    seen = len(stub.requests)
    for _ in range(20):
        socket.create_connection(("127.0.0.1", proxy.port)).close()
    with RawClient(proxy.port) as client:
        client.send(PROBE)
        assert client.recv_head().status == 200
    assert len(stub.requests) == seen
