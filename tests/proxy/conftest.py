"""Two running proxies that the tests of the request path share."""

import json
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import pytest

from llmproxy import key_pool, provider_setup
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from llmproxy.presets import PRESETS, Preset
from tests.fixtures import CATALOG, EVERY
from tests.proxy.families import BODY_BYTES_MAX, PAID
from tests.proxy.helpers import Site
from tests.proxy.idempotent import Gate
from tests.service.helpers import Books
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.stub_provider import StubProvider

STEP = 256
INPUT, OUTPUT = 10_000, 100_000
"""Nano-USD per token of the model `dear`: 10 and 100 USD per million."""


@contextmanager
def running_site(home: Path, environ: Mapping[str, str]) -> Iterator[Site]:
    """A proxy with a provider of its own; its books must be right at the end.

    The provider is made to fail all the time: it is never left alone unless the test says so.
    """
    environ = {"LLMPROXY_PAUSE_AFTER_FAILURES": "0", **environ}
    with StubProvider() as stub, RunningProxy(home, environ) as proxy:
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.use_provider("anthropic", stub.url)
        proxy.start()
        books = Books(home)
        try:
            yield Site(proxy, stub, books)
        finally:
            books.close()
        proxy.verify_ledger()
        assert "internal error" not in proxy.log.read_text()


@pytest.fixture(scope="session")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy with the settings that it has by default."""
    with running_site(tmp_path_factory.mktemp("site"), {}) as site:
        yield site


@pytest.fixture(scope="session")
def hasty_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that waits one second at most, for whatever it is."""
    names = ("DRAIN", "STALL", "IDLE", "FIRST_BYTE")
    environ = {f"LLMPROXY_{name}_TIMEOUT_S": "1" for name in names}
    with running_site(tmp_path_factory.mktemp("hasty"), environ) as site:
        yield site


@pytest.fixture(scope="module")
def strict_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that takes only requests whose cost has an upper bound."""
    with running_site(tmp_path_factory.mktemp("strict"), {"LLMPROXY_STRICT": "true"}) as site:
        yield site


@pytest.fixture(scope="session")
def recorded_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy with every provider of the recorded fixtures, at the prices of their catalog."""
    environ = {"LLMPROXY_CATALOG_FILE": str(CATALOG)}
    with running_site(tmp_path_factory.mktemp("recorded"), environ) as site:
        set_up = {"openai", "anthropic"}
        for name in {case.provider for case in EVERY.values()} - set_up:
            add_provider(site, name)
        yield site


def add_provider(site: Site, name: str) -> None:
    """Set up another provider of the OpenAI family: the same stub."""
    vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)
    assert vault is not None
    url, now_ms = f"{site.stub.url}/v1", Clock().now_ms()
    with site.books.write() as tx:
        if name in PRESETS:
            key_pool.set_base_url(tx, name, url, vault=vault, now_ms=now_ms)
        else:
            provider_setup.add_provider(tx, name, Preset("openai", url), now_ms=now_ms)
        key_pool.add_provider_key(
            tx, name, PROVIDER_KEY, name=None, vault=vault, actor="test", now_ms=now_ms
        )


@pytest.fixture(scope="session")
def error_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy in a hurry; its catalog has each model a second time, for keys that must rest."""
    home = tmp_path_factory.mktemp("errors")
    catalog = json.loads(CATALOG.read_bytes())
    for name, family in PAID.items():
        model = catalog["models"][f"{family.provider}/{family.body['model']}"]
        catalog["models"][f"{family.provider}/resting-{name}"] = {**model, "aliases": []}
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_BODY_BYTES_MAX": str(BODY_BYTES_MAX),
        "LLMPROXY_FIRST_BYTE_TIMEOUT_S": "1",
        "LLMPROXY_IDLE_TIMEOUT_S": "1",
    }
    with running_site(home, environ) as site:
        yield site


@pytest.fixture(scope="module")
def dear(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy whose holds grow in steps of 256 tokens, with a dear model that does not think."""
    home = tmp_path_factory.mktemp("dear")
    catalog = json.loads(CATALOG.read_bytes())
    entry = catalog["models"]["openai/gpt-4o"]
    prices = {"in_price": "10", "out_price": "100", "prices": {"cache_read": "1"}}
    for name in ("openai/dear", "anthropic/dear"):
        catalog["models"][name] = {
            **entry,
            "aliases": [],
            "variants": [],
            "max_output_tokens": 128_000,
            **prices,
        }
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_HOLD_STREAM_OUTPUT_TOKENS": str(STEP),
    }
    with running_site(home, environ) as site:
        yield site


@pytest.fixture
def gate() -> Iterator[Gate]:
    """A provider that answers when it is let; at the end it is."""
    gate = Gate()
    yield gate
    gate.go.set()
