"""`/metrics`: what Prometheus reads agrees with the ledger, and its labels are ours alone."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from llmproxy import reports
from llmproxy.trace import TOKEN_CLASSES
from tests.service.helpers import CHAT, ask, bearer, chat_body
from tests.service.test_lifecycle import Site, serving, until_released
from tests.support.answers import openai_chat, openai_usage, plain
from tests.support.proxy import RunningProxy
from tests.support.raw_client import RawClient
from tests.support.waiting import wait_until

Labels = frozenset[tuple[str, str]]
Samples = dict[tuple[str, Labels], float]


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as server:
        return int(server.getsockname()[1])


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def site(tmp_path: Path, port: int) -> Iterator[Site]:
    with serving(tmp_path, {"LLMPROXY_METRICS_PORT": str(port)}) as site:
        yield site


def scrape(port: int) -> Samples:
    answered = ask(port, "GET", "/metrics")
    assert answered.status == 200
    assert answered.headers["content-type"].startswith("text/plain; version=0.0.4")
    found: Samples = {}
    for family in text_string_to_metric_families(answered.body.decode()):
        assert family.type != "unknown"
        assert family.documentation
        for sample in family.samples:
            name = (sample.name, frozenset(sample.labels.items()))
            assert name not in found
            found[name] = sample.value
    return found


def value(samples: Samples, metric: str, **labels: str) -> float:
    return samples[metric, frozenset(labels.items())]


def test_who_watches_the_server_gets_through_any_flood(tmp_path: Path, port: int) -> None:
    environ = {"LLMPROXY_METRICS_PORT": str(port), "LLMPROXY_CONNECTIONS_MAX": "3"}
    with serving(tmp_path, environ) as site, ExitStack() as stack:
        flood = [stack.enter_context(RawClient(site.proxy.port, timeout_s=5)) for _ in range(250)]
        assert flood[-1]._read() == b""  # dropped
        for path in ("/metrics", "/healthz", "/readyz"):
            assert ask(port, "GET", path).status == 200
        assert ask(port, "GET", "/").status == 404
        assert ask(port, "POST", CHAT).status == 404


def test_who_watches_the_server_takes_no_client_its_place(tmp_path: Path, port: int) -> None:
    environ = {"LLMPROXY_METRICS_PORT": str(port), "LLMPROXY_CONNECTIONS_MAX": "3"}
    with serving(tmp_path, environ) as site, ExitStack() as stack:
        _, key = site.books.user()
        site.stub.handle = plain(openai_chat())
        flood = [stack.enter_context(RawClient(port, timeout_s=5)) for _ in range(150)]
        assert flood[-1]._read() == b""  # there is an end of them too
        for _ in range(2):
            assert ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200


def test_the_figures_are_those_of_the_ledger(site: Site, port: int) -> None:
    name, key = site.books.user()
    usage = openai_usage(1000, 200, cached=400)
    site.stub.handle = plain(openai_chat(usage=usage))
    for _ in range(3):
        assert ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
    site.stub.handle = plain(b"{}", status=400)
    ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key))
    ask(site.proxy.port, "POST", CHAT, chat_body(model='evil"}\n{'), bearer(key))
    ask(site.proxy.port, "POST", CHAT, chat_body(), bearer("llmp_wrong"))
    site.books.settled_wallet(name)

    samples = scrape(port)
    route = {"provider": "openai", "endpoint": "chat/completions"}
    counted = "llmproxy_requests_total"
    assert value(samples, counted, **route, status="2xx", state="settled") == 3
    assert value(samples, counted, **route, status="4xx", state="released") == 1
    assert value(samples, counted, **route, status="4xx", state="refused") == 2
    with site.books.database.read() as tx:
        rows = reports.list_requests(tx, reports.RequestFilter(), limit=-1)
        standing = reports.standing(tx)
    for each in ("input", "cache_read", "output"):
        expected = sum((row.usage_totals() or {}).get(each, 0) for row in rows)
        tokens = value(samples, "llmproxy_tokens_total", provider="openai", **{"class": each})
        assert tokens == expected > 0
    cost = sum(row.cost_nanousd for row in rows)
    assert round(value(samples, "llmproxy_cost_usd_total", provider="openai") * 1e9) == cost
    assert round(value(samples, "llmproxy_balance_usd") * 1e9) == standing.balance_nanousd
    for histogram in ("time_to_first_byte_seconds", "request_duration_seconds"):
        of_all = value(samples, f"llmproxy_{histogram}_count", provider="openai")
        assert of_all == 4  # those that were sent
        assert value(samples, f"llmproxy_{histogram}_bucket", provider="openai", le="+Inf") == 4
        assert 0 < value(samples, f"llmproxy_{histogram}_sum", provider="openai") < 20
    assert value(samples, "llmproxy_provider_keys", provider="openai", state="active") == 1
    assert value(samples, "llmproxy_writer_commits_total") >= 4
    assert value(samples, "llmproxy_ledger_readable") == 1
    assert value(samples, "llmproxy_shortfall_usd_total") == 0
    assert value(samples, "process_resident_memory_bytes") > 10_000_000
    assert value(samples, "process_open_fds") > 5


def test_what_is_running_is_seen_while_it_runs(site: Site, port: int) -> None:
    _, key = site.books.user()
    event = threading.Event()
    site.stub.handle = until_released(event)  # type: ignore[assignment]
    try:
        with site.running_stream(key):
            samples = scrape(port)
            assert value(samples, "llmproxy_inflight_requests") == 1
            assert value(samples, "llmproxy_open_holds") == 1
            assert value(samples, "llmproxy_held_usd") > 0
            assert value(samples, "llmproxy_drains") == 0
        wait_until(lambda: value(scrape(port), "llmproxy_drains") == 1)
    finally:
        event.set()
    wait_until(lambda: value(scrape(port), "llmproxy_inflight_requests") == 0)
    samples = scrape(port)
    assert value(samples, "llmproxy_drains") == 0


def test_states_of_providers_and_keys_are_shown(site: Site, port: int) -> None:
    site.books.pause("openai", "test")
    site.books.set_key_states("openai", "dead")
    wait_until(lambda: value(scrape(port), "llmproxy_provider_paused", provider="openai") == 1)
    dead = {"provider": "openai", "state": "dead"}  # which was written after that
    wait_until(lambda: value(scrape(port), "llmproxy_provider_keys", **dead) == 1)
    samples = scrape(port)
    assert value(samples, "llmproxy_provider_keys", provider="openai", state="active") == 0


def test_a_shortfall_is_counted(site: Site, port: int) -> None:
    site.stub.handle = plain(openai_chat(usage=openai_usage(1_000_000, 1_000_000)))
    name, key = site.books.user("0.01")
    assert ask(site.proxy.port, "POST", CHAT, chat_body(), bearer(key)).status == 200
    site.books.settled_wallet(name)
    with site.books.database.read() as tx:
        owed = reports.standing(tx).shortfall_nanousd
        plan = " ".join(
            str(row["detail"])
            for row in tx.execute(
                "EXPLAIN QUERY PLAN SELECT count(*), sum(shortfall_nanousd) FROM holds "
                "WHERE shortfall_nanousd > 0"
            )
        )
    assert round(value(scrape(port), "llmproxy_shortfall_usd_total") * 1e9) == owed > 0
    assert "holds_shortfall" in plan  # a look every few seconds must not read all holds


def test_no_label_is_a_clients_text(site: Site, port: int) -> None:
    name, key = site.books.user()
    for number in range(30):
        ask(site.proxy.port, "POST", CHAT, chat_body(model=f"model-{number}"), bearer(key))
        ask(site.proxy.port, "POST", f"/v1/provider-{number}/x", b"", bearer(key))
        ask(site.proxy.port, "POST", f"/v1/openai/path-{number}", b"", bearer(key))
    samples = scrape(port)
    allowed = {"", "openai", "chat/completions", "2xx", "4xx", "settled", "refused", *TOKEN_CLASSES}
    used = {
        text
        for metric, labels in samples
        if metric in {"llmproxy_requests_total", "llmproxy_tokens_total"}
        for _, text in labels
    }
    assert used <= allowed
    page = ask(port, "GET", "/metrics").body.decode()
    assert name not in page
    assert key not in page


def test_the_port_of_the_page_serves_no_user_and_the_other_one_not_the_page(
    site: Site, port: int
) -> None:
    _, key = site.books.user()
    assert ask(port, "GET", "/v1/key", b"", bearer(key)).status == 404
    assert ask(site.proxy.port, "GET", "/metrics").status == 404


def test_a_port_that_cannot_be_had_is_named(tmp_path: Path, port: int) -> None:
    proxy = RunningProxy(tmp_path, {"LLMPROXY_METRICS_PORT": str(port)})
    same = proxy.try_run("serve", "--port", str(port))
    assert same.returncode == 4
    assert "metrics_port must be a port that nothing else here has" in same.stderr
    with socket.create_server(("127.0.0.1", port)):
        taken = proxy.try_run("serve", "--port", "0")
    assert taken.returncode == 4
    assert "Choose another metrics_port." in taken.stderr
