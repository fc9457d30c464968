"""What docs/operating.md and packaging/ promise: unit, reverse proxies, a lost master key."""

import configparser
import http.client
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

import pytest
from cryptography import x509

from llmproxy.config import CREDENTIAL_NAME
from llmproxy.server.run import CUT_PATIENCE_S
from llmproxy.server.stopping import FORCED_STEP_S
from llmproxy.settings import Settings
from llmproxy.storage.writer import STOP_PATIENCE_S
from tests.service.helpers import CHAT, ask, bearer, chat_body
from tests.service.test_lifecycle import Site, serving, until_released
from tests.service.test_metrics import free_port
from tests.support.answers import openai_chat, plain
from tests.support.certificates import issue

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "operating.md").read_text()
UNIT = ROOT / "packaging" / "llmproxy.service"
ADMIN = ROOT / "packaging" / "llmproxy-admin"
NAME = "llm.example.org"
WITHIN_S = 20.0


def unit_options() -> dict[str, list[str]]:
    options: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, _, value = line.partition("=")
            options.setdefault(name, []).append(value)
    return options


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd is not here")
def test_the_unit_is_one_and_all_its_options_are_real(tmp_path: Path) -> None:
    unit = tmp_path / UNIT.name

    def complaints(text: str) -> str:
        unit.write_text(text.replace("/usr/local/bin/llmproxy", "/bin/true"))
        done = subprocess.run(
            ["systemd-analyze", "verify", str(unit)], capture_output=True, text=True, check=False
        )
        return done.stderr + ("" if done.returncode == 0 else f"exit {done.returncode}")

    text = UNIT.read_text()
    assert complaints(text) == ""
    for option in unit_options():
        if option != "ExecStart":  # without which systemd says something else
            assert option + "x" in complaints(text.replace(f"\n{option}=", f"\n{option}x=", 1))


def test_the_unit_gives_what_the_program_looks_for_and_time_to_stop() -> None:
    parser = configparser.ConfigParser(strict=False, interpolation=None)
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    parser.read(UNIT)
    service = parser["Service"]
    assert service["Type"] == "notify"
    assert service["LoadCredential"].partition(":")[0] == CREDENTIAL_NAME
    longest_s = Settings().shutdown_timeout_s + CUT_PATIENCE_S + 2 * FORCED_STEP_S
    assert int(service["TimeoutStopSec"]) > longest_s + STOP_PATIENCE_S
    assert "LLMPROXY_HOME=%S/llmproxy" in unit_options()["Environment"]


def test_the_wrapper_for_commands_runs_them_as_the_unit_runs_the_server() -> None:
    text = ADMIN.read_text()
    assert subprocess.run(["sh", "-n", str(ADMIN)], check=False).returncode == 0
    assert os.access(ADMIN, os.X_OK)
    given = dict(re.findall(r"--property=(\w+)=(\S+)", text))
    options = unit_options()
    assert given == {name: options[name][0] for name in given}
    for name in ("DynamicUser", "User", "StateDirectory", "LoadCredential", "EnvironmentFile"):
        assert name in given
    environment = dict(re.findall(r"--setenv=(\w+)=(/\S+)", text))
    for variable in options["Environment"]:
        name, _, value = variable.partition("=")
        assert environment[name] == value.replace("%S", "/var/lib").replace("%C", "/var/cache")


def test_a_lost_master_key_costs_the_provider_keys_and_nothing_else(tmp_path: Path) -> None:
    with serving(tmp_path) as site:
        site.stub.handle = plain(openai_chat())
        _, key = site.books.user()
        assert ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
        assert site.proxy.stop() == 0
        lost = tmp_path / "config" / "master.key"
        before = lost.read_text()
        lost.unlink()
        site.proxy.start()
        assert "provider key key-1 of openai is not used" in site.proxy.log.read_text()
        refused = ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key))
        assert refused.json()["error"]["code"] == "no_active_provider_keys"
        assert ask(site.proxy.port, "GET", "/v1/key", b"", bearer(key)).status == 200

        site.proxy.run("provider-keys", "remove", "openai", "key-1", "--yes")
        site.proxy.run("provider-keys", "add", "openai", stdin="sk-provider-secret-0002")
        assert lost.read_text() != before
        assert site.proxy.stop() == 0
        site.proxy.start()
        assert ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200


# --- reverse proxies ------------------------------------------------------------------------------


def block(language: str) -> str:
    (found,) = re.findall(rf"^```{language}\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
    return str(found)


@contextmanager
def nginx(directory: Path, upstream_port: int) -> Iterator[int]:
    """Run nginx with the page's block, on a port of its own and a certificate of the test's."""
    port = free_port()
    certificate = directory / "certificate.pem"
    issue(NAME, x509.DNSName(NAME), None).write(certificate)
    text = block("nginx")
    for old, new in (
        ("listen 443 ssl;", f"listen 127.0.0.1:{port} ssl;"),
        (f"/etc/letsencrypt/live/{NAME}/fullchain.pem", str(certificate)),
        (f"/etc/letsencrypt/live/{NAME}/privkey.pem", str(certificate)),
        ("http://127.0.0.1:8000", f"http://127.0.0.1:{upstream_port}"),
    ):
        assert text.count(old) == 1, old
        text = text.replace(old, new)
    folders = "".join(
        f"{name}_temp_path {directory / name};\n"
        for name in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    config = directory / "nginx.conf"
    config.write_text(
        f"daemon off;\nmaster_process off;\npid {directory / 'pid'};\nerror_log stderr warn;\n"
        f"events {{}}\nhttp {{\naccess_log off;\n{folders}{text}}}\n"
    )
    command = ["nginx", "-p", str(directory), "-c", str(config)]
    with (directory / "nginx.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log)
    try:
        yield wait_for_port(process, port)
    finally:
        process.terminate()
        process.wait(WITHIN_S)


@contextmanager
def caddy(directory: Path, upstream_port: int) -> Iterator[int]:
    """Run Caddy with the page's block, with a certificate of its own making."""
    port = free_port()
    text = block("caddy").replace("127.0.0.1:8000", f"127.0.0.1:{upstream_port}")
    text = text.replace(f"{NAME} {{", f"https://{NAME}:{port} {{\n    tls internal", 1)
    config = directory / "Caddyfile"
    config.write_text(
        "{\n    admin off\n    auto_https disable_redirects\n    skip_install_trust\n}\n" + text
    )
    environ = os.environ | {"HOME": str(directory), "XDG_DATA_HOME": str(directory)}
    environ["XDG_CONFIG_HOME"] = str(directory)
    command = ["caddy", "run", "--adapter", "caddyfile", "--config", str(config)]
    with (directory / "caddy.log").open("wb") as log:
        process = subprocess.Popen(command, stderr=log, stdout=log, env=environ)
    try:
        yield wait_for_port(process, port)
    finally:
        process.terminate()
        process.wait(WITHIN_S)


def wait_for_port(process: subprocess.Popen[bytes], port: int) -> int:
    """Return the port when TLS is spoken there; Caddy makes its certificate first."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline and process.poll() is None:
        try:
            with socket.create_connection(("127.0.0.1", port), timeout=1) as plain_socket:
                unverified().wrap_socket(plain_socket, server_hostname=NAME).close()
                return port
        except OSError:
            time.sleep(0.05)
    raise AssertionError(f"{process.args!r} does not listen")


def unverified() -> ssl.SSLContext:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


def connection(port: int) -> http.client.HTTPSConnection:
    class ByName(http.client.HTTPSConnection):
        def connect(self) -> None:  # type: ignore[explicit-override]
            plain_socket = socket.create_connection(("127.0.0.1", port), timeout=WITHIN_S)
            self.sock = unverified().wrap_socket(plain_socket, server_hostname=NAME)

    return ByName(NAME)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "front"), [("nginx", nginx), ("caddy", caddy)])
@pytest.mark.skipif(sys.platform != "linux", reason="tried on Linux")
def test_behind_the_pages_reverse_proxy_streams_pass_at_once(
    tmp_path: Path, name: str, front: Callable[[Path, int], AbstractContextManager[int]]
) -> None:
    if shutil.which(name) is None:
        pytest.skip(f"{name} is not installed: apt-get install {name}")
    directory = tmp_path / "front"
    directory.mkdir()
    with serving(tmp_path / "home") as site, front(directory, site.proxy.port) as port:
        check_stream(site, port)
        check_large_body_and_upgrade(site, port)


def check_stream(site: Site, port: int) -> None:
    _, key = site.books.user()
    event = threading.Event()
    site.stub.handle = until_released(event)  # type: ignore[assignment]
    client = connection(port)
    try:
        client.request("POST", CHAT, '{"model":"gpt-4o","stream":true,"messages":[]}', bearer(key))
        response = client.getresponse()
        assert response.status == 200
        assert response.getheader("x-llmproxy-request-id", "").startswith("req_")
        first = response.read1()
        assert first.startswith(b"data: ")  # while the provider still holds back the rest
        assert not event.is_set()
        event.set()
        assert response.read().rstrip().endswith(b"data: [DONE]")
    finally:
        event.set()
        client.close()


def check_large_body_and_upgrade(site: Site, port: int) -> None:
    _, key = site.books.user()
    site.stub.handle = plain(openai_chat())
    client = connection(port)
    body = chat_body(max_tokens=10, messages=[{"role": "user", "content": "x" * 200_000}])
    client.request("POST", CHAT, json.dumps(body), bearer(key))
    assert client.getresponse().read() == openai_chat()
    client.request(
        "GET", "/v1/openai/responses", headers={"connection": "Upgrade", "upgrade": "websocket"}
    )
    assert client.getresponse().status == 426
    client.close()
