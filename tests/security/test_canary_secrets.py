"""Nothing secret leaks: marked secrets, ordinary work, errors, and a look at what came out of it.

What is looked at: what commands and the server print, every answer to a client, every byte of the
files beside the database and of a backup, the process list and what child processes get.
"""

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from llmproxy.vault import new_master_key
from tests.service.helpers import Books
from tests.support.answers import (
    anthropic_message,
    data_event,
    named_event,
    openai_chat,
    openai_chat_stream,
    plain,
    stream,
)
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Handler, Out, SeenRequest, StubProvider
from tests.support.waiting import wait_until

CHAT = "/v1/openai/chat/completions"
OPENAI_SECRET = "sk-proj-CANARY0openai0CANARY0pK7"
ANTHROPIC_SECRET = "sk-ant-CANARY0anthropic0CANARY0tR2"
STATUSES = (300, 308, 400, 401, 402, 403, 404, 429, 500, 502, 503, 529)
PASSED_ON = (400, 403, 404, 500, 502, 503, 529)
BODY = {"model": "gpt-4o", "max_tokens": 20, "messages": [{"role": "user", "content": "hi"}]}


class Seen:
    """All that came out of the program, each piece with a word on where."""

    def __init__(self) -> None:
        self.pieces: list[tuple[str, bytes]] = []

    def note(self, where: str, text: str | bytes) -> None:
        self.pieces.append((where, text.encode() if isinstance(text, str) else text))

    def leaks(self, secrets: dict[str, bytes]) -> list[str]:
        return [
            f"{name} in {where}"
            for where, text in self.pieces
            for name, secret in secrets.items()
            if secret in text
        ]


class World:
    """A server with a provider that echoes secrets, and commands whose output is kept."""

    def __init__(self, proxy: RunningProxy, stub: StubProvider) -> None:
        self.proxy = proxy
        self.stub = stub
        self.seen = Seen()
        self.books = Books(proxy.home)
        self.api_key = ""

    def run(self, *words: str, stdin: str = "", **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command, whatever comes of it; what it prints must hold no secret."""
        kept = self.proxy.environ
        self.proxy.environ = kept | environ
        try:
            done = self.proxy.try_run(*words, stdin=stdin)
        finally:
            self.proxy.environ = kept
        self.seen.note(f"llmproxy {' '.join(words)}", done.stdout + done.stderr)
        return done

    def ask(self, handler: Handler, body: dict[str, Any] | None = None, path: str = CHAT) -> bytes:
        """Send a request to a provider that answers so; all of the answer comes back."""
        self.stub.handle = handler
        sent = json.dumps(body or BODY).encode()
        with RawClient(self.proxy.port, timeout_s=20) as client:
            client.post(path, sent, {"authorization": f"Bearer {self.api_key}"})
            head = client.recv_head()
            lines = b"".join(b"%b: %b\n" % header for header in head.headers)
            return b"%d\n%b\n%b" % (head.status, lines, client.body())

    def all_keys_active(self) -> None:
        """Put back into service what an error took out of it."""
        for provider in ("openai", "anthropic"):
            self.books.set_key_states(provider, "active")


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    home = tmp_path_factory.mktemp("canary")
    # The provider fails all the time, and is to be asked all the same.
    environ = {"LLMPROXY_LOG_LEVEL": "debug", "LLMPROXY_PAUSE_AFTER_FAILURES": "0"}
    with StubProvider() as stub, RunningProxy(home, environ) as proxy:
        world = World(proxy, stub)
        for provider, url, secret in (
            ("openai", f"{stub.url}/v1", OPENAI_SECRET),
            ("anthropic", stub.url, ANTHROPIC_SECRET),
        ):
            world.run("providers", "set", provider, "--base-url", url)
            world.run("provider-keys", "add", provider, stdin=secret)
        # The one output that shows an API key, once: not kept.
        world.api_key = proxy.new_user("ann")
        proxy.start()
        yield world
        world.books.close()


@pytest.fixture(scope="module")
def master_key(world: World) -> str:
    return (world.proxy.home / "config" / "master.key").read_text().strip()


@pytest.fixture(scope="module")
def secrets(world: World, master_key: str) -> dict[str, bytes]:
    return {
        "the OpenAI key": OPENAI_SECRET.encode(),
        "the Anthropic key": ANTHROPIC_SECRET.encode(),
        "the API key": world.api_key.encode(),
        "the master key": master_key.encode(),
        "the master key's bytes": bytes.fromhex(master_key),
    }


def sent_key(request: SeenRequest) -> str:
    """The provider key as it came, in either dialect."""
    given = request.header("authorization") or request.header("x-api-key") or b""
    return given.decode().removeprefix("Bearer ")


def echoing(status: int) -> Handler:
    """Send the key back in the status line, in headers and in the body."""

    async def handle(request: SeenRequest, out: Out) -> None:
        key = sent_key(request)
        error = {"message": f"Incorrect API key provided: {key}.", "param": key, "code": "bad_key"}
        body = json.dumps({"error": error, "request": {"authorization": f"Bearer {key}"}}).encode()
        head = [
            f"HTTP/1.1 {status} Not for {key}",
            *("content-type: application/json", f"x-echo: {key}", f"www-authenticate: {key}"),
            *(f"location: https://example.com/{key}", f"x-key-{key}: 1"),
            f"content-length: {len(body)}",
        ]
        await out.send("\r\n".join(head).encode() + b"\r\n\r\n" + body)

    return handle


def broken(answer: str) -> Handler:
    """Send what is no answer, with the key in it."""

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.send(answer.format(key=sent_key(request)).encode())
        out.close()

    return handle


BROKEN = {
    "no HTTP at all": "{key}\r\n\r\n",
    "a status that is none": "HTTP/1.1 {key}\r\n\r\n",
    "a header that is none": "HTTP/1.1 200 OK\r\n{key}\x00\r\n\r\n",
    "a length that is none": "HTTP/1.1 200 OK\r\ncontent-length: {key}\r\n\r\n",
    "a chunk that is none": "HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{key}\r\n",
    "compressed": "HTTP/1.1 200 OK\r\ncontent-encoding: {key}\r\ncontent-length: 0\r\n\r\n",
}


def test_ordinary_work_shows_no_secret(world: World, secrets: dict[str, bytes]) -> None:
    seen = world.seen
    seen.note("a plain answer", world.ask(plain(openai_chat())))
    seen.note("a stream", world.ask(stream(openai_chat_stream(["a"])), BODY | {"stream": True}))
    seen.note(
        "a message",
        world.ask(
            plain(anthropic_message()),
            BODY | {"model": "claude-sonnet-4-6"},
            path="/v1/anthropic/messages",
        ),
    )
    rows = world.proxy.json("usage", "requests")
    for words in (
        ("users", "show", "ann"),
        ("keys", "list"),
        ("providers", "list"),
        ("providers", "show", "openai"),
        ("provider-keys", "list"),
        ("provider-keys", "list", "--json"),
        ("config", "show"),
        ("config", "show", "--json"),
        ("doctor",),
        ("doctor", "--json"),
        ("usage", "export"),
        ("explain", rows[0]["id"]),
    ):
        assert world.run(*words).returncode == 0
    assert seen.leaks(secrets) == []


def test_errors_that_send_the_key_back_show_none(world: World, secrets: dict[str, bytes]) -> None:
    for status in STATUSES:
        # A rate limit lets the key rest for the one model.
        model = "gpt-4o-mini" if status == 429 else "gpt-4o"
        for is_stream in (False, True):
            answer = world.ask(echoing(status), BODY | {"stream": is_stream, "model": model})
            assert not answer.startswith(b"2")
            assert (b"***" in answer) is (status in PASSED_ON)
            world.seen.note(f"the answer to {status}", answer)
        world.all_keys_active()
    message = BODY | {"model": "claude-sonnet-4-6"}
    answer = world.ask(echoing(400), message, path="/v1/anthropic/messages")
    world.seen.note("an error of Anthropic's", answer)
    assert b"***" in answer
    for name, text in BROKEN.items():
        world.seen.note(name, world.ask(broken(text)))
        world.all_keys_active()
    assert world.seen.leaks(secrets) == []


def test_of_a_good_answer_the_headers_show_none_and_no_log_does(
    world: World, secrets: dict[str, bytes]
) -> None:
    """Its body passes unchanged (docs/errors.md), an error event in a stream too."""

    async def handle(request: SeenRequest, out: Out) -> None:
        key = sent_key(request)
        error = named_event("error", error={"message": f"no: {key}"})
        await out.sse([data_event({"choices": []}), error], headers=[("x-echo", key)])

    answer = world.ask(handle, BODY | {"stream": True})
    head, _, body = answer.partition(b"\n\n")
    assert OPENAI_SECRET.encode() in body
    world.seen.note("the head of a stream", head)
    assert world.seen.leaks(secrets) == []


def test_a_wrong_api_key_is_not_repeated(world: World) -> None:
    wrong = world.api_key[:-1] + ("A" if world.api_key[-1] != "A" else "B")
    for headers in ({"authorization": f"Bearer {wrong}"}, {"x-api-key": wrong}):
        with RawClient(world.proxy.port) as client:
            client.post(CHAT, json.dumps(BODY).encode(), headers)
            assert client.recv_head().status == 401
            assert wrong.encode() not in client.body()
    with RawClient(world.proxy.port) as client:
        client.post(f"{CHAT}?key={wrong}", json.dumps(BODY).encode(), {})
        assert client.recv_head().status == 401
        assert wrong.encode() not in client.body()
    assert wrong not in world.proxy.log.read_text()


def test_commands_that_fail_show_none(
    world: World, secrets: dict[str, bytes], master_key: str, tmp_path: Path
) -> None:
    """A wrong, broken or open master key, a provider that refuses, a second server."""
    other, odd = new_master_key(), "CANARY0no0hex" * 4
    named = tmp_path / "named.key"
    named.write_text(odd)
    commands = (("doctor",), ("providers", "check"), ("provider-keys", "rekey", "--yes"))
    for words in commands:
        assert world.run(*words, LLMPROXY_MASTER_KEY=other).returncode != 0
    assert world.run("doctor", LLMPROXY_MASTER_KEY=odd).returncode != 0
    for path in (named, tmp_path):
        assert world.run("doctor", LLMPROXY_MASTER_KEY_FILE=str(path)).returncode != 0
    world.run("serve", "--port", "0", LLMPROXY_MASTER_KEY=odd)
    assert world.run("serve", "--port", "0").returncode == 4
    world.run("provider-keys", "add", "openai", "--name", "key-1", stdin=OPENAI_SECRET)
    world.run("provider-keys", "add", "openai", stdin=f"{OPENAI_SECRET} and more")
    world.run("provider-keys", "add", "nobody", stdin=OPENAI_SECRET)
    named.write_text(master_key)
    world.run("provider-keys", "rekey", "--yes", "--new-key-file", str(named))
    world.stub.handle = echoing(401)
    assert world.run("providers", "check").returncode == 1
    world.run("doctor", "--online")
    world.stub.handle = echoing(200)
    world.run("providers", "check", "--json")
    assert world.seen.leaks({**secrets, "another": other.encode(), "odd": odd.encode()}) == []


def test_help_shows_no_secret_of_the_environment(world: World, secrets: dict[str, bytes]) -> None:
    given = {"LLMPROXY_MASTER_KEY": secrets["the master key"].decode()}
    for words in (("serve",), ("provider-keys", "add"), ("provider-keys", "rekey"), ("doctor",)):
        assert world.run(*words, "--help", **given).returncode == 0
    assert world.run("config", "show", **given).returncode == 0
    assert world.run("config", "show", "--json", **given).returncode == 0
    assert world.seen.leaks(secrets) == []


@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="needs Linux's /proc")
def test_the_process_list_shows_no_secret(world: World, secrets: dict[str, bytes]) -> None:
    """Neither a server nor a command that waits for a key, nor what they would start."""
    adding = subprocess.Popen(
        [sys.executable, "-m", "llmproxy", "provider-keys", "add", "xai"],
        env=world.proxy.environ,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    asking = Path(f"/proc/{adding.pid}/cmdline")
    wait_until(lambda: b"provider-keys" in asking.read_bytes())
    for pid in (world.proxy.pid, adding.pid):
        for name in ("cmdline", "environ", "comm"):
            world.seen.note(f"/proc/{pid}/{name}", Path(f"/proc/{pid}/{name}").read_bytes())
        children = [
            child
            for task in Path(f"/proc/{pid}/task").iterdir()
            for child in (task / "children").read_text().split()
        ]
        assert children == []  # else look at them too
    out, err = adding.communicate(OPENAI_SECRET.encode())
    world.seen.note("adding a key", out + err)
    assert world.run("provider-keys", "remove", "xai", "key-1", "--yes").returncode == 0
    assert world.seen.leaks(secrets) == []


def test_the_database_its_log_and_a_backup_hold_no_secret(
    world: World, secrets: dict[str, bytes], tmp_path: Path
) -> None:
    """Byte for byte, deleted rows included: whatever was ever written to the pages."""
    backup = tmp_path / "backup.db"
    assert world.run("db", "backup", str(backup)).returncode == 0
    files = [*(world.proxy.home / "data").iterdir(), backup]
    assert {"llmproxy.db", "llmproxy.db-wal"} <= {file.name for file in files}
    for file in files:
        world.seen.note(file.name, file.read_bytes())
    for file in (world.proxy.home / "config").iterdir():
        if file.name != "master.key":
            world.seen.note(file.name, file.read_bytes())
    assert world.seen.leaks(secrets) == []


def test_a_traceback_in_the_log_shows_none(world: World, secrets: dict[str, bytes]) -> None:
    """An internal error right where a key is in hand, in a server of its own."""
    program = (
        "import llmproxy.attempts as attempts\n"
        "def to_provider(headers, dialect, secret, content_type):\n"
        "    raise RuntimeError('a fault of the test')\n"
        "attempts.to_provider = to_provider\n"
        "from llmproxy.cli.app import main\n"
        "main()\n"
    )
    assert world.proxy.stop() == 0
    log = world.proxy.home / "faulty.log"
    with log.open("wb") as file:
        process = subprocess.Popen(
            [sys.executable, "-c", program, "serve", "--port", "0"],
            env=world.proxy.environ,
            stderr=file,
        )
    try:
        wait_until(lambda: bool(re.search(r"serves http://127\.0\.0\.1:\d+", log.read_text())))
        found = re.search(r"serves http://127\.0\.0\.1:(\d+)", log.read_text())
        assert found is not None
        world.proxy.port, port = int(found[1]), world.proxy.port
        answer = world.ask(plain(openai_chat()))
        world.proxy.port = port
        world.seen.note("an internal error", answer)
        assert answer.startswith(b"500")
    finally:
        process.terminate()
        process.wait(20)
    world.seen.note("its log", log.read_bytes())
    assert "a fault of the test" in log.read_text()
    assert world.seen.leaks(secrets) == []


def test_the_servers_log_holds_no_secret(world: World, secrets: dict[str, bytes]) -> None:
    """Last: whatever the tests before have made the server say."""
    world.seen.note("the server's log", world.proxy.log.read_bytes())
    assert world.seen.leaks(secrets) == []
    assert "is now dead" in world.proxy.log.read_text()
    world.proxy.verify_ledger()


def test_a_leak_would_be_seen(secrets: dict[str, bytes]) -> None:
    seen = Seen()
    seen.note("a log", f"…{OPENAI_SECRET}…")
    assert seen.leaks(secrets) == ["the OpenAI key in a log"]
