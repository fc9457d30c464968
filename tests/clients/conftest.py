"""Real clients before the real server, with the demo provider behind it.

A client runs once, as a process of its own, through every situation; the tests look at what it
printed, at what the proxy wrote down, and at how often each request was sent.
"""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from llmproxy.demo.provider import DemoProvider
from tests.clients.environments import node_project, python_of, why_no_node
from tests.clients.front import Front
from tests.service.helpers import Books
from tests.support.demo import RunningDemo
from tests.support.proxy import RunningProxy

HERE = Path(__file__).parent
CREDIT_NANOUSD = 5_000_000_000
WITHIN_S = 120
PROVIDERS = ("openai", "anthropic", "gemini")
DEV = "dev"
"""The environment that runs the tests: it has the newest openai and anthropic."""


@dataclass
class Place:
    """A proxy in one state, the door before it, and its books."""

    proxy: RunningProxy
    front: Front
    books: Books


@dataclass
class Ran:
    """What a client did: its results by step, its user's books, its requests by situation."""

    results: dict[str, Any]
    user: str
    books: Books
    attempts: dict[str, int]

    def got(self, step: str) -> Any:  # noqa: ANN401 - any JSON value
        """What a step returned."""
        result = self.results[step]
        assert not (isinstance(result, dict) and "raised" in result), result["trace"]
        return result

    def raised(self, step: str) -> dict[str, Any]:
        """The error that a step raised: `text` is what the user sees of it."""
        result = self.results[step]
        assert isinstance(result, dict), result
        assert "raised" in result, result
        raised: dict[str, Any] = result["raised"]
        return raised


@pytest.fixture(scope="session")
def clients_demo() -> Iterator[DemoProvider]:
    with RunningDemo() as running:
        yield running.provider


@pytest.fixture(scope="session")
def places(
    tmp_path_factory: pytest.TempPathFactory, clients_demo: DemoProvider
) -> Iterator[dict[str, Place]]:
    """One proxy that serves, one whose providers are paused, one without provider keys."""
    made: dict[str, Place] = {}
    with ExitStack() as stack:
        for state in ("serving", "paused", "keyless"):
            home = tmp_path_factory.mktemp(state)
            proxy = stack.enter_context(RunningProxy(home))
            keys = () if state == "keyless" else ("sk-demo-0001",)
            proxy.use_provider("openai", clients_demo.openai_base_url, keys)
            proxy.use_provider("anthropic", clients_demo.anthropic_base_url, keys)
            proxy.use_provider("gemini", clients_demo.gemini_base_url, keys)
            books = Books(home)
            stack.callback(books.close)
            for name in PROVIDERS if state == "paused" else ():
                books.pause(name, "invoice unpaid")
            proxy.start()
            front = stack.enter_context(Front(proxy.port))
            made[state] = Place(proxy, front, books)
        yield made
        for place in made.values():
            place.proxy.verify_ledger()


class Runner:
    """Runs clients: `python("legacy", "openai_steps")`, `node("openai")`."""

    def __init__(self, places: dict[str, Place], homes: pytest.TempPathFactory) -> None:
        self._places = places
        self._homes = homes

    def python(self, environment: str, script: str) -> Ran:
        python = sys.executable if environment == DEV else python_of(environment)
        return self._run([python, str(HERE / "python" / f"{script}.py")])

    def node(self, script: str) -> Ran:
        # Node looks for packages beside the script.
        project = node_project()
        for source in (HERE / "node").glob("*.mjs"):
            (project / source.name).write_bytes(source.read_bytes())
        return self._run(["node", str(project / f"{script}.mjs")])

    def _run(self, command: list[str]) -> Ran:
        serving = self._places["serving"]
        user, key = serving.books.user("5")
        keys = {
            "ok": key,
            "poor": serving.books.user("0.00001")[1],
            "unknown": serving.books.user("5")[1],
            "wrong": f"llmp_wrong_{user}",
            "failing": serving.books.user("5")[1],
            "paused": self._places["paused"].books.user("5")[1],
            "keyless": self._places["keyless"].books.user("5")[1],
        }
        fronts = {name: self._places.get(name, serving).front for name in keys}
        situations = {
            name: {"url": fronts[name].url, "key": key, "model": "gpt-4o"}
            for name, key in keys.items()
        }
        environ = clean_environ(self._homes.mktemp("home"))
        done = subprocess.run(
            command,
            env=environ | {"SITUATIONS": json.dumps(situations)},
            capture_output=True,
            text=True,
            timeout=WITHIN_S,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        attempts = {name: fronts[name].attempts[key] for name, key in keys.items()}
        return Ran(json.loads(done.stdout), user, serving.books, attempts)


def clean_environ(home: Path) -> dict[str, str]:
    """An environment without the settings of this machine's own clients, and an empty home."""
    kept = {name: value for name, value in os.environ.items() if name in {"PATH", "LANG", "TMPDIR"}}
    return kept | {"HOME": str(home), "NO_PROXY": "127.0.0.1", "LANGSMITH_TRACING": "false"}


@pytest.fixture(scope="session")
def runner(places: dict[str, Place], tmp_path_factory: pytest.TempPathFactory) -> Runner:
    return Runner(places, tmp_path_factory)


@pytest.fixture(scope="session")
def node_runner(runner: Runner) -> Runner:
    if why := why_no_node():
        pytest.skip(why)
    return runner


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """All that is here needs packages of its own, and the first test of a set waits for them."""
    for item in items:
        if HERE in item.path.parents:
            item.add_marker(pytest.mark.clients)
            item.add_marker(pytest.mark.timeout(300))
