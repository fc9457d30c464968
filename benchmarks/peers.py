"""Other people's proxies, measured in the same run where they are installed.

None of them meters durably: they are the price of plain forwarding. Each is a context manager that
gives its target; `find` says which are there, and in a word why the others are not.
"""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from pathlib import Path
from typing import NamedTuple

from benchmarks.load import HOST
from benchmarks.processes import Target, free_port

READY_WITHIN_S = 60.0
POLL_S = 0.05
KEY = {"authorization": "Bearer sk-bench"}

_NGINX = """
daemon off;
worker_processes 1;
pid {folder}/nginx.pid;
error_log {folder}/error.log;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}/body;
  proxy_temp_path {folder}/proxy;
  fastcgi_temp_path {folder}/fastcgi;
  uwsgi_temp_path {folder}/uwsgi;
  scgi_temp_path {folder}/scgi;
  client_max_body_size 32m;
  client_body_buffer_size 2m;
  keepalive_requests 1000000000;
  upstream provider {{
    server {host}:{provider_port};
    keepalive 1024;
    keepalive_requests 1000000000;
  }}
  server {{
    listen {host}:{port} backlog=2048;
    location / {{
      proxy_pass http://provider;
      proxy_http_version 1.1;
      proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

_LITELLM = """
model_list:
  - model_name: gpt-4o-mini
    litellm_params:
      model: openai/gpt-4o-mini
      api_base: http://{host}:{provider_port}/v1
      api_key: sk-bench
"""

Start = Callable[[Path, int], AbstractContextManager[Target]]


class PeerError(Exception):
    """A peer did not start."""


class Programs(NamedTuple):
    """Where the peers are, as given by options; empty: look for them."""

    nginx: str = ""
    litellm: str = ""
    portkey: str = ""


class Found(NamedTuple):
    """The peers that can be started, and why the others cannot."""

    starts: dict[str, Start]
    missing: dict[str, str]


_HINTS = {
    "nginx": "not installed (the Debian package nginx-light will do)",
    "litellm": "not installed (pip install 'litellm[proxy]' in a venv, --litellm PATH)",
    "portkey": "not installed (npm install @portkey-ai/gateway, --portkey FOLDER)",
}
NAMES = tuple(_HINTS)


def find(programs: Programs, wanted: frozenset[str]) -> Found:
    """Look for the wanted peers."""
    found = Found({}, {})
    for name in NAMES:
        if name not in wanted:
            continue
        given = getattr(programs, name)
        path = _look_for(name, given)
        if path is None:
            found.missing[name] = f"not found at {given}" if given else _HINTS[name]
        else:
            found.starts[name] = _bound(name, path)
    return found


def _look_for(name: str, given: str) -> str | None:
    if name == "portkey":
        folder = Path(given or ".").resolve()
        script = "build/start-server.js"
        candidates = [folder / "node_modules/@portkey-ai/gateway" / script, folder / script]
        return next((str(each) for each in candidates if each.exists()), None)
    # Debian keeps nginx where only root's PATH looks.
    return shutil.which(given or name) or (
        None if given else shutil.which(name, path="/usr/sbin:/usr/local/sbin")
    )


def _bound(name: str, path: str) -> Start:
    starts = {"nginx": _nginx, "litellm": _litellm, "portkey": _portkey}
    return lambda folder, provider_port: starts[name](path, folder, provider_port)


@contextlib.contextmanager
def _nginx(path: str, folder: Path, provider_port: int) -> Iterator[Target]:
    port, file = free_port(), folder / "nginx.conf"
    names = {"folder": folder, "host": HOST, "port": port, "provider_port": provider_port}
    # Its workers must be able to write there when it is started by root.
    folder.chmod(0o755)
    file.write_text(_NGINX.format(**names))
    command = [path, "-c", str(file), "-e", str(folder / "start.log")]
    with _running(command, folder, port) as pid:
        yield Target("nginx", port, "/v1", KEY, pid)


@contextlib.contextmanager
def _litellm(path: str, folder: Path, provider_port: int) -> Iterator[Target]:
    port, file = free_port(), folder / "litellm.yaml"
    file.write_text(_LITELLM.format(host=HOST, provider_port=provider_port))
    command = [path, "--config", str(file), "--host", HOST, "--port", str(port)]
    quiet = {
        # Without keys of users: they would want a database, and nothing else here checks any.
        "LITELLM_DANGEROUSLY_PERMIT_WEAK_OR_UNSET_MASTER_KEY": "true",
        "LITELLM_LOCAL_MODEL_COST_MAP": "True",
        "LITELLM_LOG": "ERROR",
        "LITELLM_TELEMETRY": "False",
    }
    with _running([*command, "--telemetry", "False"], folder, port, quiet) as pid:
        yield Target("litellm", port, "/v1", KEY, pid)


@contextlib.contextmanager
def _portkey(path: str, folder: Path, provider_port: int) -> Iterator[Target]:
    port = free_port()
    config = {"provider": "openai", "custom_host": f"http://{HOST}:{provider_port}/v1"}
    headers = {**KEY, "x-portkey-config": json.dumps({**config, "api_key": "sk-bench"})}
    command = ["node", path, f"--port={port}", "--headless"]
    with _running(command, folder, port, {"TRUSTED_CUSTOM_HOSTS": HOST}) as pid:
        yield Target("portkey", port, "/v1", headers, pid)


@contextlib.contextmanager
def _running(
    command: list[str], folder: Path, port: int, environ: dict[str, str] | None = None
) -> Iterator[int]:
    """Run a peer until the block ends; gives its process id once it listens.

    Raises:
        PeerError: it ended, or does not listen within a minute.
    """
    log_file = folder / "peer.log"
    with (
        log_file.open("wb") as log,
        subprocess.Popen(
            command, cwd=folder, env={**os.environ, **(environ or {})}, stdout=log, stderr=log
        ) as process,
    ):
        try:
            deadline = time.monotonic() + READY_WITHIN_S
            while not _listens(port):
                if process.poll() is not None or time.monotonic() > deadline:
                    said = log_file.read_text(errors="replace")[-2000:]
                    raise PeerError(f"{command[0]} did not start:\n{said}")
                time.sleep(POLL_S)
            yield process.pid
        finally:
            process.terminate()


def _listens(port: int) -> bool:
    try:
        socket.create_connection((HOST, port), timeout=1).close()
    except OSError:
        return False
    return True
