"""What counts as a failure of a provider, and what does not, whatever happens at the same time."""

import asyncio
import json
import resource
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from llmproxy import key_pool, provider_setup
from llmproxy.clock import Clock
from llmproxy.config import find_paths, load_vault
from llmproxy.presets import Preset
from tests.proxy.helpers import Got, Site, chat
from tests.proxy.places import FAILURES, Place, pausing_site
from tests.support.answers import (
    CannedError,
    broken_stream,
    data_event,
    failing,
    openai_chat,
    openai_chat_stream,
    plain,
    stream,
)
from tests.support.proxy import PROVIDER_KEY
from tests.support.raw_client import RawClient
from tests.support.stub_provider import Handler, Out, SeenRequest, closed_port
from tests.support.waiting import wait_until

GOOD = plain(openai_chat())
BROKEN = failing(CannedError(500, [], b'{"error":{"message":"boom"}}'))


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy in a hurry that leaves a provider alone after three failures."""
    environ = {"LLMPROXY_FIRST_BYTE_TIMEOUT_S": "10", "LLMPROXY_IDLE_TIMEOUT_S": "1"}
    with pausing_site(tmp_path_factory.mktemp("meanwhile"), environ) as site:
        yield site


@pytest.fixture
def there(site: Site) -> Place:
    """A provider that is the stub."""
    return Place(site, site.stub.url)


def asked(site: Site, since: int) -> int:
    """How often the proxy has asked the provider for its models."""
    return sum(seen.method == "GET" for seen in site.stub.requests[since:])


class Later:
    """Answers all that is asked before `go_on` with an error, but only then."""

    def __init__(self) -> None:
        self.may_answer = threading.Event()

    async def __call__(self, request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(self.may_answer.wait, 20)
        await BROKEN(request, out)


def fail_across(place: Place, word: Callable[[], object]) -> None:
    """Let the operator have a word while as many requests run as pause a provider, all to fail."""
    site, later = place.site, Later()
    site.stub.handle = later
    seen = len(site.stub.requests)
    visitor = site.visitor()
    with ExitStack() as clients:
        running = [
            clients.enter_context(site.send(visitor, place.path, chat())) for _ in range(FAILURES)
        ]
        site.stub.wait_for_requests(seen + FAILURES)
        word()
        # Before it says that there is no such model, the server looks at the database again.
        assert site.ask(visitor, place.path, chat(model="nobody's")).status == 400
        later.may_answer.set()
        assert [site.take(client).status for client in running] == [500] * FAILURES


def move(place: Place, url: str) -> None:
    site = place.site
    vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)
    with site.books.write() as tx:
        key_pool.set_base_url(tx, place.name, f"{url}/v1", vault=vault, now_ms=Clock().now_ms())


def test_what_was_sent_before_the_operator_resumed_a_provider_says_nothing_of_it(
    there: Place,
) -> None:
    seen = len(there.site.stub.requests)
    fail_across(there, lambda: there.site.books.resume(there.name))
    there.site.stub.handle = GOOD
    assert there.ask().status == 200
    assert asked(there.site, seen) == 0


def test_what_fails_at_an_address_that_a_provider_has_left_says_nothing_of_the_new_one(
    there: Place,
) -> None:
    site = there.site
    seen = len(site.stub.requests)
    fail_across(there, lambda: move(there, site.stub.url.replace("127.0.0.1", "localhost")))
    site.stub.handle = GOOD
    assert there.ask().status == 200
    assert asked(site, seen) == 0


def test_a_key_that_is_refused_at_an_address_that_was_left_stays_in_use(there: Place) -> None:
    site = there.site
    may_answer = threading.Event()

    async def refuse(request: SeenRequest, out: Out) -> None:
        await asyncio.to_thread(may_answer.wait, 20)
        await out.json(401, {"error": {"code": "invalid_api_key", "message": "no"}})

    site.stub.handle = refuse
    seen = len(site.stub.requests)
    visitor = site.visitor()
    with site.send(visitor, there.path, chat()) as client:
        site.stub.wait_for_requests(seen + 1)
        move(there, site.stub.url.replace("127.0.0.1", "localhost"))
        assert site.ask(visitor, there.path, chat(model="nobody's")).status == 400
        may_answer.set()
        assert site.take(client).status == 503
    site.stub.handle = GOOD
    assert there.ask().status == 200
    assert site.books.key_states(there.name)["key-1"][0] == "active"


def test_a_provider_that_is_removed_and_set_up_again_is_another_one(site: Site) -> None:
    gone = Place(site, f"http://127.0.0.1:{closed_port()}")
    gone.fail(502)
    gone.assert_paused()
    gone.wait_for_pause()
    vault = load_vault(find_paths(site.proxy.environ), site.proxy.environ)
    assert vault is not None
    now_ms = Clock().now_ms()
    with site.books.write() as tx:
        provider_setup.remove_provider(tx, gone.name, actor="test", now_ms=now_ms)
        described = Preset("openai", f"{site.stub.url}/v1")
        provider_setup.add_provider(tx, gone.name, described, now_ms=now_ms)
        key_pool.add_provider_key(
            tx, gone.name, PROVIDER_KEY, name=None, vault=vault, actor="test", now_ms=now_ms
        )
    site.stub.handle = GOOD
    assert gone.ask().status == 200


def test_nobody_keeps_a_provider_paused_by_requests_that_it_refuses(there: Place) -> None:
    """Each of them may be the trial, and says nothing: the proxy asks for itself then."""
    stub = there.site.stub
    stub.handle = BROKEN
    there.fail(500)
    there.wait_for_pause()
    there.site.proxy.stop()
    there.site.proxy.start()  # it has asked nobody for the last half minute
    there.wait_for_its_end()
    refuse = failing(CannedError(400, [], b'{"error":{"message":"bad tools"}}'))

    async def refuse_and_list(request: SeenRequest, out: Out) -> None:
        if request.method == "GET":
            await out.json(200, {"data": []})
        else:
            await refuse(request, out)

    stub.handle = refuse_and_list
    seen = len(stub.requests)
    assert there.ask().status == 400
    wait_until(lambda: there.row.paused_at_ms is None)
    assert there.ask().status == 400
    assert [request.method for request in stub.requests[seen:]] == ["POST", "GET", "POST"]


# --- answers that have begun ---


async def silent(request: SeenRequest, out: Out) -> None:
    """Begin a stream and say no more; be broken for whoever asks."""
    if request.method == "GET":
        await out.json(503, {})
        return
    await out.head(200, [("content-type", "text/event-stream")])
    for event in openai_chat_stream()[:2]:
        await out.chunk(event)
    await out.client_gone.wait()


async def silent_and_large(request: SeenRequest, out: Out) -> None:
    """Do the same within an answer in one piece that is passed on as it comes."""
    if request.method == "GET":
        await out.json(503, {})
        return
    await out.head(200, [("content-type", "application/json")], length=20_000_000)
    await out.send(b"x" * 10_000_000)
    await out.client_gone.wait()


@pytest.mark.parametrize("handle", [silent, silent_and_large])
def test_silence_in_the_middle_of_an_answer_counts(there: Place, handle: Handler) -> None:
    there.site.stub.handle = handle
    for _ in range(FAILURES):
        assert there.ask(chat(stream=handle is silent)).status == 200
    there.wait_for_pause()
    assert "the provider was silent for 1 s" in (there.row.paused_reason or "")


@pytest.mark.parametrize("is_reset", [False, True], ids=["FIN", "RST"])
def test_a_stream_that_breaks_off_or_ends_early_counts(there: Place, is_reset: bool) -> None:
    events = openai_chat_stream()[:2]
    cut = broken_stream(events, reset=True) if is_reset else stream(events)

    async def handle(request: SeenRequest, out: Out) -> None:
        await (BROKEN if request.method == "GET" else cut)(request, out)

    there.site.stub.handle = handle
    for _ in range(FAILURES):
        assert there.ask(chat(stream=True)).status == 200
    there.wait_for_pause()


ERROR = {"error": {"message": "The server had an error", "type": "server_error"}}
FAILED_STREAM = stream([*openai_chat_stream()[:2], data_event(ERROR)])


@pytest.mark.parametrize("is_stream", [False, True])
def test_an_answer_that_ends_with_the_providers_error_is_no_good_one(
    there: Place, is_stream: bool
) -> None:
    stub = there.site.stub
    stub.handle = BROKEN
    there.fail(500, times=FAILURES - 1)
    stub.handle = FAILED_STREAM if is_stream else plain(b'{"error":{"message":"no"}}')
    assert there.ask(chat(stream=is_stream)).status == 200
    stub.handle = BROKEN
    there.fail(500, times=1)
    there.wait_for_pause()


def test_what_is_cut_by_the_servers_stop_is_no_failure(tmp_path: Path) -> None:
    environ = {"LLMPROXY_FIRST_BYTE_TIMEOUT_S": "60", "LLMPROXY_SHUTDOWN_TIMEOUT_S": "1"}
    with pausing_site(tmp_path, environ) as site:
        there = Place(site, site.stub.url)

        async def never(request: SeenRequest, out: Out) -> None:
            await out.client_gone.wait()

        site.stub.handle = never
        seen = len(site.stub.requests)
        visitor = site.visitor()
        with ExitStack() as clients:
            running = [
                clients.enter_context(site.send(visitor, there.path, chat()))
                for _ in range(FAILURES)
            ]
            site.stub.wait_for_requests(seen + FAILURES)
            assert site.proxy.stop() == 0
            assert [site.take(client).status for client in running] == [504] * FAILURES
        assert "could not be asked" not in site.proxy.log.read_text()
        assert asked(site, seen) == 0
        site.proxy.start()


def test_an_answer_that_takes_too_long_counts_unless_it_has_begun(tmp_path: Path) -> None:
    """How long it takes once it has begun, is up to its client too, who may read slowly."""
    with pausing_site(tmp_path, {"LLMPROXY_TOTAL_TIMEOUT_S": "1"}) as site:
        there = Place(site, site.stub.url)

        async def endless(request: SeenRequest, out: Out) -> None:
            if request.method == "GET":
                await out.json(503, {})
                return
            await out.head(200, [("content-type", "text/event-stream")])
            while not out.client_gone.is_set():
                await out.chunk(openai_chat_stream()[1])
                await asyncio.sleep(0.1)

        async def never(request: SeenRequest, out: Out) -> None:
            if request.method == "GET":
                await BROKEN(request, out)
            await out.client_gone.wait()

        def ask_all(body: bytes) -> list[int]:
            visitor = site.visitor()
            with ExitStack() as clients:
                running = [
                    clients.enter_context(site.send(visitor, there.path, body))
                    for _ in range(FAILURES)
                ]
                return [site.take(client).status for client in running]

        seen = len(site.stub.requests)
        site.stub.handle = endless
        assert ask_all(chat(stream=True)) == [200] * FAILURES
        site.stub.handle = GOOD
        assert there.ask().status == 200
        assert asked(site, seen) == 0
        site.stub.handle = never
        assert ask_all(chat()) == [504] * FAILURES
        there.wait_for_pause()


def test_that_the_proxy_has_no_file_left_to_ask_a_provider_with_does_not_pause_it(
    tmp_path: Path,
) -> None:
    with pausing_site(tmp_path) as site:
        there = Place(site, site.stub.url)
        site.stub.handle = BROKEN
        visitor = site.visitor()
        headers = {"authorization": f"Bearer {visitor.key}"}
        with RawClient(site.proxy.port) as client:

            def ask() -> int:
                client.post(there.path, chat(), headers)
                status = client.recv_head().status
                client.body()
                return status

            assert ask() == 500  # from now on there is a connection to the provider
            pid = site.proxy.pid
            taken = {int(path.name) for path in Path(f"/proc/{pid}/fd").iterdir()}
            first_free = next(number for number in range(len(taken) + 1) if number not in taken)
            limits = resource.prlimit(pid, resource.RLIMIT_NOFILE)
            resource.prlimit(pid, resource.RLIMIT_NOFILE, (first_free, limits[1]))
            assert [ask() for _ in range(FAILURES - 1)] == [500] * (FAILURES - 1)
            wait_until(lambda: "could not be asked" in site.proxy.log.read_text())
            assert ask() == 500
            resource.prlimit(pid, resource.RLIMIT_NOFILE, limits)
        assert there.history() == []


# --- what costs nothing ---


def count(place: Place, model: str) -> Got:
    """Count the tokens of a request, which is free."""
    body = json.dumps({"model": model, "input": "hi"}).encode()
    path = f"/v1/{place.name}/responses/input_tokens"
    return place.site.ask(place.site.visitor(), path, body)


def test_what_is_free_counts_for_no_overload(there: Place) -> None:
    site = there.site
    site.stub.handle = failing(CannedError(503, [], b"{}"))
    assert [count(there, "gpt-4o").status for _ in range(2 * FAILURES)] == [503] * 2 * FAILURES
    assert there.history() == []
    site.stub.handle = GOOD
    assert there.ask().status == 200


def test_models_that_nobody_knows_share_one_rest_of_a_free_endpoint(there: Place) -> None:
    """Who makes up names must not fill the memory with rests."""
    site = there.site
    site.stub.handle = failing(CannedError(429, [("retry-after", "60")], b"{}"))
    assert count(there, "made-up-1").status == 429
    seen = len(site.stub.requests)
    got = count(there, "made-up-2")
    assert (got.status, got.error()["code"]) == (429, "rate_limit_exceeded")
    assert len(site.stub.requests) == seen
    site.stub.handle = GOOD
    assert count(there, "gpt-4o").status == 200


def test_a_pause_of_before_ends_where_nothing_is_paused_any_more(tmp_path: Path) -> None:
    with pausing_site(tmp_path) as site:
        gone = Place(site, f"http://127.0.0.1:{closed_port()}")
        gone.fail(502)
        gone.wait_for_pause()
        site.proxy.stop()
        site.proxy.environ["LLMPROXY_PAUSE_AFTER_FAILURES"] = "0"
        site.proxy.start()
        wait_until(lambda: gone.row.paused_at_ms is None)
        assert gone.history() == [("paused", "proxy"), ("active", "proxy")]
