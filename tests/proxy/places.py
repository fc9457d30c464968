"""Providers of the operator's own, for tests of how one that fails is left alone."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from llmproxy import key_pool, provider_setup
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from llmproxy.key_pool import Provider
from llmproxy.presets import Preset
from llmproxy.provider_events import ProviderEvent, list_events
from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Got, Site, chat
from tests.support.answers import CannedError, failing
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Handler, Out, SeenRequest
from tests.support.waiting import wait_until

FAILURES = 3
PLACES_MAX = 80
PROVIDERS = iter([f"own-{number}" for number in range(PLACES_MAX)])


@contextmanager
def pausing_site(home: Path, environ: Mapping[str, str] | None = None) -> Iterator[Site]:
    """A proxy that leaves a provider alone after three failures, and waits 1 s for an answer."""
    catalog = json.loads(CATALOG.read_bytes())
    entry = {**catalog["models"]["openai/gpt-4o"], "aliases": []}
    for number in range(PLACES_MAX):
        for model in ("gpt-4o", "gpt-4.1"):
            catalog["models"][f"own-{number}/{model}"] = entry
    (home / "catalog.json").write_text(json.dumps(catalog))
    settings = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_PAUSE_AFTER_FAILURES": str(FAILURES),
        "LLMPROXY_FIRST_BYTE_TIMEOUT_S": "1",
        **(environ or {}),
    }
    with running_site(home, settings) as site:
        yield site


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
            provider_setup.add_provider(tx, self.name, Preset("openai", f"{url}/v1"), now_ms=now_ms)
            for number in range(keys):
                secret = f"{PROVIDER_KEY}-{number}" if number else PROVIDER_KEY
                key_pool.add_provider_key(
                    tx, self.name, secret, name=None, vault=vault, actor="test", now_ms=now_ms
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


def errors_but_lists_models(status: int) -> Handler:
    """A provider that fails at what is asked of it, and is well."""
    canned = failing(CannedError(status, [], b'{"error":{"message":"boom"}}'))

    async def handle(request: SeenRequest, out: Out) -> None:
        if request.method == "GET":
            await out.json(200, {"data": []})
        else:
            await canned(request, out)

    return handle
