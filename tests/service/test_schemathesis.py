"""Our own endpoints answer as `/openapi.json` says, whatever schemathesis asks of the real server.

It makes requests from the description, right and wrong ones, and compares each answer with it. Run
as the program that it is, without randomness: the same requests each time.
"""

import json
import subprocess
import sys
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple
from urllib.parse import urlsplit

import pytest

from tests.service.helpers import CHAT, Books, ask, bearer, chat_body, either
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import StubProvider, closed_port

PROGRAM = Path(sys.executable).with_name("schemathesis")
EXAMPLES_MAX = 60
CHECKS = (
    *("not_a_server_error", "status_code_conformance", "content_type_conformance"),
    *("response_headers_conformance", "response_schema_conformance", "negative_data_rejection"),
    *("unsupported_method", "allow_header_conformance", "ignored_auth"),
)
"""Not positive_data_acceptance: no schema can say that `from` is before `to`, or a day exists."""


class Seen(NamedTuple):
    """What schemathesis was answered: statuses, and of good answers the types."""

    statuses: set[int]
    types: set[str]


class Site(NamedTuple):
    """A server with a page of metrics, and a user with a few requests to be told of."""

    proxy: RunningProxy
    metrics_port: int
    key: str


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory, shared_stub: StubProvider) -> Iterator[Site]:
    shared_stub.handle = either
    metrics_port = closed_port()
    home = tmp_path_factory.mktemp("described")
    with RunningProxy(home, {"LLMPROXY_METRICS_PORT": str(metrics_port)}) as proxy:
        proxy.use_provider("openai", f"{shared_stub.url}/v1")
        proxy.start()
        books = Books(home)
        name, key = books.user()
        for model in ("gpt-4o", "=1+1", "no\u202ename"):
            ask(proxy.port, "POST", CHAT, chat_body(model=model), bearer(key))
        books.settled_wallet(name)
        books.close()
        yield Site(proxy, metrics_port, key)


def compare(site: Site, folder: Path, port: int, *options: str) -> dict[str, Seen]:
    """Have answers of the server at a port compared; return what was seen by path."""
    config = folder / "schemathesis.toml"
    config.write_text(f'[auth.openapi.bearer]\nbearer = "{site.key}"\n')
    done = subprocess.run(
        [
            *(str(PROGRAM), "--config-file", str(config), "run", f"{site.proxy.url}/openapi.json"),
            *("--url", f"http://127.0.0.1:{port}", "--phases", "examples,coverage,fuzzing"),
            *("--checks", ",".join(CHECKS), "--max-examples", str(EXAMPLES_MAX)),
            *("--generation-deterministic", "--continue-on-failure", "--no-color"),
            *("--report", "har", "--report-har-path", str(folder / "seen.har"), *options),
        ],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=50,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return seen_in(folder / "seen.har")


def seen_in(report: Path) -> dict[str, Seen]:
    seen: dict[str, Seen] = defaultdict(lambda: Seen(set(), set()))
    for entry in json.loads(report.read_bytes())["log"]["entries"]:
        response = entry["response"]
        found = seen[urlsplit(entry["request"]["url"]).path]
        found.statuses.add(response["status"])
        if response["status"] == 200:
            found.types.add(response["content"]["mimeType"].partition(";")[0])
    return seen


def test_the_answers_are_as_described(site: Site, tmp_path: Path) -> None:
    seen = compare(site, tmp_path, site.proxy.port, "--exclude-path", "/metrics")
    # The description's own path is left out by the program: test_openapi.py asks there.
    assert set(seen) == {"/", "/healthz", "/readyz", "/v1/key", "/v1/usage"}
    for path in ("/", "/healthz", "/readyz"):
        assert {200, 405} <= seen[path].statuses
    assert {200, 401, 405} <= seen["/v1/key"].statuses
    assert {200, 400, 401, 405} <= seen["/v1/usage"].statuses
    assert seen["/v1/usage"].types == {"application/json", "text/csv"}


def test_the_metrics_are_as_described_on_their_own_port(site: Site, tmp_path: Path) -> None:
    seen = compare(site, tmp_path, site.metrics_port, "--include-path", "/metrics")
    assert seen == {"/metrics": Seen({200, 405}, {"text/plain"})}
