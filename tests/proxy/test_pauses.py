"""A provider that fails again and again: it is left alone, tried, and let through again."""

import asyncio
import json
import resource
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from llmproxy import key_pool
from llmproxy.breaker import PAUSE_MS_FIRST
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from tests.fixtures import CATALOG
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.proxy.places import FAILURES, NAMES_MAX, Place, listening
from tests.support.answers import (
    CannedError,
    broken_stream,
    failing,
    openai_chat,
    openai_chat_stream,
    plain,
)
from tests.support.stub_provider import Handler, Out, SeenRequest, closed_port
from tests.support.waiting import wait_until

GOOD = plain(openai_chat())
BROKEN = failing(CannedError(500, [], b"{}"))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy that leaves a provider alone after three failures, and waits 1 s for an answer."""
    home = tmp_path_factory.mktemp("pauses")
    catalog = json.loads(CATALOG.read_bytes())
    entry = {**catalog["models"]["openai/gpt-4o"], "aliases": []}
    for number in range(NAMES_MAX):
        for model in ("gpt-4o", "gpt-4.1"):
            catalog["models"][f"own-{number}/{model}"] = entry
    (home / "catalog.json").write_text(json.dumps(catalog))
    environ = {
        "LLMPROXY_CATALOG_FILE": str(home / "catalog.json"),
        "LLMPROXY_PAUSE_AFTER_FAILURES": str(FAILURES),
        "LLMPROXY_FIRST_BYTE_TIMEOUT_S": "1",
    }
    with running_site(home, environ) as site:
        yield site


@pytest.fixture
def gone(site: Site) -> Place:
    """A provider where nobody listens yet."""
    return Place(site, f"http://127.0.0.1:{closed_port()}")


@pytest.fixture
def there(site: Site) -> Place:
    """A provider that is the stub."""
    return Place(site, site.stub.url)


def test_one_that_cannot_be_reached_is_left_alone_and_serves_again_after_a_trial(
    gone: Place,
) -> None:
    gone.fail(502)
    got = gone.assert_paused()
    assert "cannot be reached" in got.error()["message"]
    assert "It is tried again in" in got.error()["message"]
    assert "127.0.0.1" not in got.error()["message"]  # where it is, is the operator's business
    gone.wait_for_pause()
    row = gone.row
    assert row.paused_by == "proxy"
    assert "cannot be reached" in (row.paused_reason or "")
    assert (row.paused_at_ms or 0) < (row.paused_until_ms or 0)
    gone.wait_for_its_end()
    with listening(gone.url):
        assert gone.ask().status == 200
    wait_until(lambda: gone.row.paused_at_ms is None)
    assert gone.history() == [("paused", "proxy"), ("active", "proxy")]


def test_a_trial_that_fails_pauses_for_twice_as_long(gone: Place) -> None:
    gone.rest(502)
    gone.fail(502, times=1)
    gone.assert_paused()
    wait_until(lambda: len(gone.events()) == 2)
    first, second = gone.pauses_ms()
    assert second == 2 * first


def test_the_operator_ends_a_pause_at_once(gone: Place) -> None:
    gone.fail(502)
    gone.assert_paused()
    gone.wait_for_pause()
    gone.site.books.resume(gone.name)
    gone.fail(502)  # as many as at the beginning
    gone.assert_paused()
    assert gone.history()[:2] == [("paused", "proxy"), ("active", "test")]


def test_an_operators_pause_stands_whatever_the_provider_does(gone: Place) -> None:
    gone.pause(502)
    gone.site.books.pause(gone.name, "unpaid")
    wait_until(lambda: "unpaid" in gone.ask().error()["message"])
    got = gone.ask()
    assert (got.status, got.error()["code"]) == (429, "provider_paused")
    assert got.header("retry-after") is None


def test_a_pause_outlives_the_server(gone: Place) -> None:
    gone.pause(502)
    gone.site.proxy.stop()
    gone.site.proxy.start()
    gone.wait_for_its_end()
    gone.fail(502, times=1)
    gone.assert_paused()  # one failure was enough: it was the trial


def test_only_one_of_many_requests_is_the_trial(there: Place) -> None:
    stub = there.site.stub
    stub.handle = BROKEN
    there.rest(500)
    may_answer = threading.Event()

    async def slow(request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(may_answer.wait, 0.9)
        await out.json(200, openai_chat())

    stub.handle = slow
    seen = len(stub.requests)
    visitors = [there.site.visitor() for _ in range(8)]
    with ThreadPoolExecutor(8) as threads:
        asked = [
            threads.submit(there.site.ask, visitor, there.path, chat()) for visitor in visitors
        ]
        stub.wait_for_requests(seen + 1)
        wait_until(lambda: sum(each.done() for each in asked) == 7)
        may_answer.set()
        statuses = sorted(each.result().status for each in asked)
    assert statuses == [200] + [429] * 7
    assert len(stub.requests) == seen + 1
    stub.handle = GOOD
    assert there.ask().status == 200


def test_a_trial_that_comes_to_nothing_gives_way_to_the_next(there: Place) -> None:
    stub = there.site.stub
    stub.handle = BROKEN
    there.rest(500)
    stub.handle = failing(CannedError(429, [("retry-after", "1")], b"{}"))
    assert there.ask().error()["code"] == "rate_limit_exceeded"
    stub.handle = GOOD
    assert there.ask(chat(model="gpt-4.1")).status == 200


def errors_but_lists_models(status: int) -> Handler:
    """A provider that fails at what is asked of it, and is well."""
    canned = failing(CannedError(status, [], b'{"error":{"message":"boom"}}'))

    async def handle(request: SeenRequest, out: Out) -> None:
        if request.method == "GET":
            await out.json(200, {"data": []})
        else:
            await canned(request, out)

    return handle


@pytest.mark.parametrize("status", [500, 502, 504])
def test_no_user_can_get_a_provider_paused_by_requests_that_make_it_fail(
    there: Place, status: int
) -> None:
    stub = there.site.stub
    before = len(stub.requests)
    stub.handle = errors_but_lists_models(status)
    there.fail(status, times=FAILURES)
    wait_until(lambda: any(seen.method == "GET" for seen in stub.requests[before:]))
    there.fail(status, times=2 * FAILURES)
    assert there.history() == []
    asked = [seen for seen in stub.requests[before:] if seen.method == "GET"]
    assert [seen.target for seen in asked] == [b"/v1/models"]  # once, however many fail


async def never(request: SeenRequest, out: Out) -> None:
    await out.client_gone.wait()


@pytest.mark.parametrize(("handle", "status"), [(BROKEN, 500), (never, 504)])
def test_one_that_is_broken_altogether_is_paused_once_it_has_been_asked(
    there: Place, handle: Handler, status: int
) -> None:
    there.site.stub.handle = handle
    there.pause(status)
    there.assert_paused()


def test_a_trial_that_is_answered_badly_pauses_for_longer_at_once(there: Place) -> None:
    stub = there.site.stub
    stub.handle = BROKEN
    there.rest(500)
    seen = len(stub.requests)
    there.fail(500, times=1)
    there.assert_refused_unsent()  # also while we ask
    wait_until(lambda: len(there.events()) == 2)
    assert [seen.method for seen in stub.requests[seen:]] == ["POST", "GET"]
    first, second = there.pauses_ms()
    assert second == 2 * first


def test_an_outage_of_many_keys_and_requests_is_one_pause_and_a_short_one(site: Site) -> None:
    there = Place(site, site.stub.url, keys=6)
    stub = site.stub
    stub.handle = BROKEN
    seen = len(stub.requests)
    visitors = [site.visitor() for _ in range(24)]
    with ThreadPoolExecutor(24) as threads:
        asked = [threads.submit(site.ask, visitor, there.path, chat()) for visitor in visitors]
        assert {each.result().status for each in asked} <= {500, 429}
    there.wait_for_pause()
    assert [request.method for request in stub.requests[seen:]].count("GET") == 1
    assert there.pauses_ms() == [PAUSE_MS_FIRST]


def test_answers_that_break_off_count_too(there: Place) -> None:
    stub = there.site.stub
    broken = broken_stream(openai_chat_stream()[:2])

    async def handle(request: SeenRequest, out: Out) -> None:
        if request.method == "GET":
            await out.json(503, {})
        else:
            await broken(request, out)

    stub.handle = handle
    for _ in range(FAILURES):
        assert there.ask(chat(stream=True)).status == 200
    there.wait_for_pause()
    assert "broke off" in (there.row.paused_reason or "")


def test_another_address_ends_a_pause(gone: Place) -> None:
    gone.pause(502)
    site = gone.site
    vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)
    with site.books.write() as tx:
        now_ms = Clock().now_ms()
        key_pool.set_base_url(tx, gone.name, f"{site.stub.url}/v1", vault=vault, now_ms=now_ms)
    site.stub.handle = GOOD
    wait_until(lambda: gone.ask().status == 200)
    assert gone.row.paused_at_ms is None


def test_what_the_proxy_lacks_itself_is_nobodys_failure(tmp_path: Path) -> None:
    with running_site(tmp_path, {"LLMPROXY_PAUSE_AFTER_FAILURES": "2"}) as site:
        site.stub.handle = GOOD
        visitor = site.visitor()
        assert site.ask(visitor, CHAT, chat()).status == 200
        limits = resource.prlimit(site.proxy.pid, resource.RLIMIT_NOFILE)
        files = len(list(Path(f"/proc/{site.proxy.pid}/fd").iterdir()))
        waiting = []
        # Room for the clients, not for a connection of each to the provider.
        resource.prlimit(site.proxy.pid, resource.RLIMIT_NOFILE, (files + 4, limits[1]))
        may_answer = threading.Event()

        async def slow(request: SeenRequest, out: Out) -> None:
            await asyncio.to_thread(may_answer.wait, 10)
            await out.json(200, openai_chat())

        site.stub.handle = slow
        for _ in range(4):
            waiting.append(site.send(visitor, CHAT, chat()))
        wait_until(lambda: "Too many open files" in site.proxy.log.read_text())
        resource.prlimit(site.proxy.pid, resource.RLIMIT_NOFILE, limits)
        may_answer.set()
        for client in waiting:
            with client:
                client.recv_head()
        site.stub.handle = GOOD
        assert site.ask(visitor, CHAT, chat()).status == 200
        with site.books.database.read() as tx:
            provider = key_pool.find_provider(tx, "openai")
        assert provider is not None
        assert provider.paused_at_ms is None


def test_good_answers_between_failures_keep_it_in_use(there: Place) -> None:
    stub = there.site.stub
    for _ in range(FAILURES):
        stub.handle = BROKEN
        there.fail(500, times=FAILURES - 1)
        stub.handle = GOOD
        assert there.ask().status == 200
    assert there.history() == []


@pytest.mark.parametrize("status", [503, 529, 498])
def test_an_overloaded_model_is_left_alone_for_as_long_as_told_and_others_are_not(
    there: Place, status: int
) -> None:
    stub = there.site.stub
    stub.handle = failing(CannedError(status, [("retry-after", "30")], b"{}"))
    there.fail(status)
    got = there.assert_paused()
    assert 10 < int(got.header("retry-after") or b"0") <= 30
    assert "gpt-4o" in got.error()["message"]
    stub.handle = GOOD
    assert there.ask(chat(model="gpt-4.1")).status == 200
    there.assert_paused()  # that another model serves says nothing of this one
    (event,) = there.events()
    assert (event.state, event.upstream_status, event.actor) == ("overloaded", status, "proxy")
    there.site.books.resume(there.name)
    wait_until(lambda: there.ask().status == 200)


def test_by_0_nothing_is_ever_paused(tmp_path: Path) -> None:
    with running_site(tmp_path, {"LLMPROXY_PAUSE_AFTER_FAILURES": "0"}) as site:
        for status in (503, 500):
            site.stub.handle = failing(CannedError(status, [], b"{}"))
            for _ in range(12):
                assert site.ask(site.visitor(), CHAT, chat()).status == status
        assert not any(seen.method == "GET" for seen in site.stub.requests)
