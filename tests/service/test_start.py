"""What the server says when it starts and stops: to a person, to a log, to the service manager."""

import json
import os
import pty
import re
import select
import shlex
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.support.proxy import RunningProxy

WITHIN_S = 20.0
COLUMNS = 80


def on_a_terminal(proxy: RunningProxy, *arguments: str) -> str:
    """Serve with stderr on a terminal until it falls silent; return all that was said."""
    reading, writing = pty.openpty()
    process = subprocess.Popen(
        [sys.executable, "-m", "llmproxy", "serve", "--port", "0", *arguments],
        env=proxy.environ,
        stderr=writing,
        stdout=subprocess.DEVNULL,
    )
    os.close(writing)
    said = b""
    deadline = time.monotonic() + WITHIN_S
    try:
        while time.monotonic() < deadline:
            if select.select([reading], [], [], 0.3)[0]:
                said += os.read(reading, 10_000)
            elif b"Ctrl-C stops it" in said:
                break
    finally:
        process.terminate()
        process.wait(WITHIN_S)
        os.close(reading)
    return said.decode().replace("\r\n", "\n")


def test_a_person_is_told_where_it_is_and_what_to_type_next(tmp_path: Path) -> None:
    proxy = RunningProxy(tmp_path)
    said = on_a_terminal(proxy)
    assert re.search(r"^  address    http://127\.0\.0\.1:\d+$", said, re.MULTILINE)
    assert re.search(r"^  dashboard  http://127\.0\.0\.1:\d+/dashboard$", said, re.MULTILINE)
    assert f"  database   {tmp_path}/data/llmproxy.db\n" in said
    assert re.search(r"^  catalog    \d+ models, built in$", said, re.MULTILINE)
    assert "no key that can be used. Next: llmproxy provider-keys add openai\n" in said
    assert "no API key. Next: llmproxy users create ann --credit 5 --key laptop\n" in said
    assert "WARNING" not in said
    assert max(map(len, said.replace(str(tmp_path), "").splitlines())) <= COLUMNS

    # What it says to type works.
    proxy.run("provider-keys", "add", "openai", stdin="sk-provider-secret-0001")
    proxy.run(*shlex.split("users create ann --credit 5 --key laptop"))
    proxy.run("provider-keys", "add", "groq", stdin="sk-provider-secret-0002")
    proxy.run("providers", "pause", "groq", "--reason", "too dear")
    said = on_a_terminal(proxy)
    assert "  providers  groq: 1 active; paused: too dear\n             openai: 1 active\n" in said
    assert "Next:" not in said


def test_a_public_address_without_tls_is_warned_of_once(tmp_path: Path) -> None:
    proxy = RunningProxy(tmp_path)
    said = on_a_terminal(proxy, "--host", "0.0.0.0")
    assert said.count("nothing here encrypts") == 1
    assert "or listen on 127.0.0.1." in said
    behind = RunningProxy(tmp_path, {"LLMPROXY_PUBLIC_URL": "https://llm.example.org/"})
    said = on_a_terminal(behind, "--host", "0.0.0.0")
    assert "  public     https://llm.example.org\n" in said
    assert "  strict" not in said
    assert "encrypts" not in said


def test_a_strict_server_says_so(tmp_path: Path) -> None:
    said = on_a_terminal(RunningProxy(tmp_path), "--strict")
    assert "  strict     only requests whose cost has an upper bound are taken\n" in said


def test_a_log_gets_one_json_line(tmp_path: Path) -> None:
    with RunningProxy(tmp_path, {"LLMPROXY_LOG_LEVEL": "error"}) as proxy:
        proxy.start()
        (line,) = [json.loads(line) for line in proxy.log.read_text().splitlines()]
        assert line["message"].startswith("llmproxy ")
        assert line["message"].endswith(
            f" serves {proxy.url} from {tmp_path / 'data' / 'llmproxy.db'}"
        )
        assert proxy.stop() == 0


@pytest.mark.parametrize("is_abstract", [False, True])
def test_the_service_manager_hears_of_the_start_and_the_stop(
    tmp_path: Path, is_abstract: bool
) -> None:
    if is_abstract and sys.platform != "linux":
        pytest.skip("only Linux has abstract sockets")
    name = f"@llmproxy-test-{os.getpid()}" if is_abstract else str(tmp_path / "notify")
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind("\0" + name[1:] if is_abstract else name)
        manager.settimeout(WITHIN_S)
        with RunningProxy(tmp_path, {"NOTIFY_SOCKET": name}) as proxy:
            proxy.start()
            assert manager.recv(100) == b"READY=1"
            with socket.create_connection(("127.0.0.1", proxy.port)):
                pass  # ready means that it accepts
            assert proxy.stop() == 0
            assert manager.recv(100) == b"STOPPING=1"


def test_a_service_manager_that_is_not_there_stops_nothing(tmp_path: Path) -> None:
    nowhere = str(tmp_path / "nobody")
    with RunningProxy(tmp_path, {"NOTIFY_SOCKET": nowhere}) as proxy:
        proxy.start()
        assert proxy.stop() == 0
        assert "could not be told READY=1" in proxy.log.read_text()
