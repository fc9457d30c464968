"""A provider of the operator's own, made for one test: failing, paused, tried and let through."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

from typing_extensions import override

from llmproxy import key_pool
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from llmproxy.key_pool import Provider
from llmproxy.presets import Preset
from llmproxy.provider_events import ProviderEvent, list_events
from tests.proxy.helpers import Got, Site, chat
from tests.support.answers import openai_chat
from tests.support.proxy import PROVIDER_KEY
from tests.support.waiting import wait_until

FAILURES = 3
NAMES_MAX = 40
PROVIDERS = iter([f"own-{number}" for number in range(NAMES_MAX)])


class Place:
    """One provider of the operator's own, which no other test has to do with."""

    def __init__(self, site: Site, url: str, keys: int = 1) -> None:
        self.site = site
        self.name = next(PROVIDERS)
        self.url = url
        self.path = f"/v1/{self.name}/chat/completions"
        vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)
        assert vault is not None
        now_ms = Clock().now_ms()
        with site.books.write() as tx:
            key_pool.add_provider(tx, self.name, Preset("openai", f"{url}/v1"), now_ms=now_ms)
            for _ in range(keys):
                key_pool.add_provider_key(
                    tx, self.name, PROVIDER_KEY, name=None, vault=vault, actor="test", now_ms=now_ms
                )
        visitor = site.visitor()  # the server looks for new providers four times a second
        wait_until(lambda: site.ask(visitor, self.path, b"{}").status == 400)

    def ask(self, body: bytes = chat()) -> Got:
        return self.site.ask(self.site.visitor(), self.path, body)

    def fail(self, status: int, times: int = FAILURES) -> None:
        for _ in range(times):
            got = self.ask()
            assert got.status == status, got

    @property
    def row(self) -> Provider:
        with self.site.books.database.read() as tx:
            found = key_pool.find_provider(tx, self.name)
        assert found is not None
        return found

    def pause(self, status: int) -> None:
        """Fail so often that it is left alone."""
        self.fail(status)
        self.wait_for_pause()

    def rest(self, status: int) -> None:
        """Fail so often that it is left alone, until the next request is the trial."""
        self.pause(status)
        self.wait_for_its_end()

    def wait_for_pause(self) -> None:
        wait_until(lambda: self.row.paused_until_ms is not None, 20)

    def wait_for_its_end(self) -> None:
        until_ms = self.row.paused_until_ms or 0
        wait_until(lambda: Clock().now_ms() > until_ms, 30)

    def events(self) -> list[ProviderEvent]:
        """What became of it, not of its key; the oldest first."""
        with self.site.books.database.read() as tx:
            events = list_events(tx, self.name, 100)
        return [event for event in events if event.provider_key is None][::-1]

    def pauses_ms(self) -> list[int]:
        """How long each pause was to last, the first one first."""
        return [(event.until_ms or 0) - event.created_at_ms for event in self.events()]

    def history(self) -> list[tuple[str, str]]:
        return [(event.state, event.actor) for event in self.events()]

    def assert_paused(self, body: bytes = chat()) -> Got:
        seen = len(self.site.stub.requests)
        visitor = self.site.visitor()
        got = self.site.ask(visitor, self.path, body)
        assert (got.status, got.error()["code"]) == (429, "provider_paused")
        assert 1 <= int(got.header("retry-after") or b"0") <= 60
        assert got.header("x-should-retry") is None
        assert len(self.site.stub.requests) == seen
        assert self.site.books.wallet(visitor.name)[1] == 0
        return got

    def assert_refused_unsent(self) -> None:
        posted = sum(seen.method == "POST" for seen in self.site.stub.requests)
        assert self.ask().error()["code"] == "provider_paused"
        assert sum(seen.method == "POST" for seen in self.site.stub.requests) == posted


class Answering(BaseHTTPRequestHandler):
    """Answers everything well."""

    @override
    def log_message(self, *args: object) -> None:
        pass

    def do_POST(self) -> None:
        body = openai_chat()
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def listening(url: str) -> Iterator[None]:
    """Let a provider answer at an address where there was none."""
    with HTTPServer(("127.0.0.1", int(url.rsplit(":", 1)[1])), Answering) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
