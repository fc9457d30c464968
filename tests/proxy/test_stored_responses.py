"""`previous_response_id`: served by the key that made it, for the user that made it, and held for.

The stub keeps responses by key as OpenAI does, so a request that comes to another key fails there.
"""

import json
from collections.abc import Iterator
from typing import Any

import pytest

from llmproxy.stored_responses import KEPT_MS, hash_response_id
from tests.proxy.conftest import running_site
from tests.proxy.helpers import Got, Site, Visitor
from tests.proxy.keeping import OUTPUT_TOKENS, RESPONSES, KeepingProvider, body, key_of
from tests.support.answers import named_event, plain, stream
from tests.support.proxy import PROVIDER_KEY
from tests.support.waiting import wait_until

SECOND_KEY = "sk-provider-secret-0002"
INPUT_RATE, OUTPUT_RATE = 2_500, 10_000
NAMES = {PROVIDER_KEY: "key-1", SECOND_KEY: "key-2"}


@pytest.fixture(scope="module")
def two_keys(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy with two keys of one provider."""
    with running_site(tmp_path_factory.mktemp("stored"), {}) as site:
        site.proxy.run("provider-keys", "add", "openai", stdin=SECOND_KEY)
        yield site


@pytest.fixture
def keeping(two_keys: Site) -> KeepingProvider:
    """What the stub is; both keys are in service again."""
    provider = KeepingProvider()
    two_keys.stub.handle = provider.handle
    two_keys.books.set_key_states("openai", "active")
    return provider


def response_of(got: Got) -> dict[str, Any]:
    """The response in a plain answer or at the end of a stream."""
    assert got.status == 200, got.body
    if got.body.startswith(b"event: "):
        name, data = got.last_event()
        assert name == b"response.completed"
        response: dict[str, Any] = data["response"]
        return response
    whole: dict[str, Any] = json.loads(got.body)
    return whole


class Teller:
    """A user who makes responses and goes on from them."""

    def __init__(self, site: Site, credit: str = "5") -> None:
        self.site = site
        self.who = Visitor(*site.books.user(credit))

    def ask(self, **fields: object) -> Got:
        return self.site.ask(self.who, RESPONSES, body(**fields))

    def tell(self, **fields: object) -> dict[str, Any]:
        """Make a response."""
        return response_of(self.ask(**fields))

    def made(self, **fields: object) -> tuple[str, str]:
        """Make a response; return its id and the key that made it."""
        response_id = self.tell(**fields)["id"]
        return response_id, key_of(self.site.last_request())

    def sent_with(self) -> str:
        """The key that a fresh request goes to."""
        return self.made()[1]

    def refusal(self, **fields: object) -> dict[str, Any]:
        """The error of a request that never reached the provider."""
        seen = len(self.site.stub.requests)
        got = self.ask(**fields)
        assert got.status == 400, got.body
        assert got.header("x-should-retry") == b"false"
        assert len(self.site.stub.requests) == seen
        error = got.error()
        assert error["param"] == "previous_response_id"
        return error

    def rows(self, count: int) -> list[dict[str, Any]]:
        """The rows of the requests, once so many have ended."""
        wait_until(lambda: len(self.site.books.rows(self.who.name)) == count)
        return self.site.books.rows(self.who.name)


@pytest.fixture
def ann(two_keys: Site, keeping: KeepingProvider) -> Teller:
    del keeping
    return Teller(two_keys)


@pytest.fixture
def bob(two_keys: Site, keeping: KeepingProvider) -> Teller:
    del keeping
    return Teller(two_keys)


def set_key(site: Site, key: str, command: str) -> None:
    site.proxy.run("provider-keys", command, "openai", NAMES[key])


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_chain_of_three_stays_with_its_key_and_each_link_holds_what_is_read_again(
    two_keys: Site, ann: Teller, is_stream: bool
) -> None:
    seen = len(two_keys.stub.requests)
    previous, context = None, 0
    for number in range(1, 4):
        fields = {"stream": is_stream, "previous_response_id": previous}
        response = ann.tell(**fields)
        row = ann.rows(number)[-1]
        own = len(body(**fields)) // 3 + 600
        assert row["hold_nanousd"] == (own + context) * INPUT_RATE + 50 * OUTPUT_RATE
        assert row["cost_nanousd"] == (25 + context) * INPUT_RATE + OUTPUT_TOKENS * OUTPUT_RATE
        previous, context = response["id"], response["usage"]["total_tokens"]
    assert context == 3 * (25 + OUTPUT_TOKENS)
    requests = two_keys.stub.requests[seen:]
    assert len({key_of(request) for request in requests}) == 1
    assert json.loads(requests[1].body)["previous_response_id"].startswith("resp_")


def test_the_first_key_of_a_user_does_not_matter_any_more(two_keys: Site, ann: Teller) -> None:
    """What was made with the second key stays with it when the first one is back."""
    first = ann.sent_with()
    set_key(two_keys, first, "disable")
    made, second = ann.made()
    assert second != first
    set_key(two_keys, first, "enable")
    wait_until(lambda: ann.sent_with() == first)
    ann.tell(previous_response_id=made)
    assert key_of(two_keys.last_request()) == second


def test_what_another_user_made_is_as_unknown_as_what_nobody_made(
    two_keys: Site, ann: Teller, bob: Teller
) -> None:
    made = ann.tell()["id"]
    foreign = bob.refusal(previous_response_id=made)
    unknown = bob.refusal(previous_response_id="resp_never_made")
    assert foreign == unknown
    assert foreign["code"] == "previous_response_not_found"
    # Nobody is charged for it, and its maker may still go on.
    assert two_keys.books.settled_wallet(bob.who.name) == 5_000_000_000
    ann.tell(previous_response_id=made)


@pytest.mark.parametrize(
    ("store", "is_silent"), [(False, False), (False, True), (True, False), (None, False)]
)
def test_what_is_not_kept_cannot_be_gone_on_from(
    keeping: KeepingProvider, ann: Teller, store: bool | None, is_silent: bool
) -> None:
    """Neither what the request nor what the account says is not to be kept."""
    keeping.keeps_nothing, keeping.is_silent = store is not False, is_silent
    made = ann.tell(store=store)["id"]
    error = ann.refusal(previous_response_id=made)
    assert error["code"] == "previous_response_not_found"


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_response_that_has_failed_cannot_be_gone_on_from(
    two_keys: Site, ann: Teller, is_stream: bool
) -> None:
    """It is paid by its usage; but the provider keeps nothing of it that could be read again."""
    usage = {"input_tokens": 25, "output_tokens": OUTPUT_TOKENS, "total_tokens": 65}
    error = {"code": "server_error", "message": "The model failed"}
    failed = {"id": "resp_failed", "object": "response", "model": "gpt-4o", "store": True}
    failed |= {"status": "failed", "error": error, "output": [], "usage": usage}
    answers = stream([named_event("response.failed", response=failed)])
    two_keys.stub.handle = answers if is_stream else plain(json.dumps(failed).encode())
    assert ann.ask(stream=is_stream, store=True).status == 200
    (row,) = ann.rows(1)
    assert row["cost_nanousd"] == 25 * INPUT_RATE + OUTPUT_TOKENS * OUTPUT_RATE
    refused = ann.refusal(previous_response_id="resp_failed")
    assert refused["code"] == "previous_response_not_found"


def test_a_disabled_key_refuses_what_only_it_could_serve_and_nothing_else(
    two_keys: Site, ann: Teller
) -> None:
    made, key = ann.made()
    set_key(two_keys, key, "disable")
    wait_until(lambda: ann.sent_with() != key)
    error = ann.refusal(previous_response_id=made)
    assert error["code"] == "previous_response_unavailable"
    assert "The provider key that made the response" in error["message"]
    set_key(two_keys, key, "enable")
    ann.tell(previous_response_id=made)  # a key that is enabled serves at once


def test_a_key_that_the_provider_refuses_is_not_followed_by_another(
    two_keys: Site, keeping: KeepingProvider, ann: Teller
) -> None:
    made, key = ann.made()
    keeping.refuses.add(key)
    seen = len(two_keys.stub.requests)
    got = ann.ask(previous_response_id=made)
    assert (got.status, got.error()["code"]) == (400, "previous_response_unavailable")
    assert [key_of(request) for request in two_keys.stub.requests[seen:]] == [key]
    wait_until(lambda: two_keys.books.key_states("openai")[NAMES[key]][0] == "dead")
    ann.tell()  # by the other key


def test_a_removed_keys_responses_are_not_available(two_keys: Site, ann: Teller) -> None:
    made, key = ann.made()
    two_keys.proxy.run("provider-keys", "remove", "openai", NAMES[key], "--yes")
    try:
        error = ann.refusal(previous_response_id=made)
        assert error["code"] == "previous_response_unavailable"
    finally:
        two_keys.proxy.run("provider-keys", "add", "openai", "--name", NAMES[key], stdin=key)


def test_a_response_is_known_after_a_restart(two_keys: Site, ann: Teller) -> None:
    made, key = ann.made(stream=True)
    assert two_keys.proxy.stop() == 0
    two_keys.proxy.start()
    ann.tell(previous_response_id=made)
    assert key_of(two_keys.last_request()) == key


def test_the_counting_of_tokens_may_go_on_from_a_response_too(
    two_keys: Site, ann: Teller, bob: Teller
) -> None:
    made = ann.tell()["id"]
    asked = json.dumps({"model": "gpt-4o", "input": "hi", "previous_response_id": made}).encode()
    got = two_keys.ask(ann.who, f"{RESPONSES}/input_tokens", asked)
    assert json.loads(got.body) == {"input_tokens": 25 + OUTPUT_TOKENS + 25}
    got = two_keys.ask(bob.who, f"{RESPONSES}/input_tokens", asked)
    assert (got.status, got.error()["code"]) == (400, "previous_response_not_found")


def test_a_context_that_the_credit_does_not_cover_is_refused(
    two_keys: Site, keeping: KeepingProvider
) -> None:
    keeping.fresh_tokens = 1000  # more than was held for: the context is what was reported
    ann = Teller(two_keys, "0.006")
    made = ann.tell()
    seen = len(two_keys.stub.requests)
    got = ann.ask(previous_response_id=made["id"])
    assert (got.status, got.error()["code"]) == (402, "insufficient_credit")
    assert len(two_keys.stub.requests) == seen


def test_what_the_provider_keeps_no_more_is_unknown(two_keys: Site, ann: Teller) -> None:
    old = ann.tell()["id"]
    ann.rows(1)
    with two_keys.books.write() as tx:
        tx.execute("UPDATE stored_responses SET created_at_ms = created_at_ms - ?", (KEPT_MS,))
    error = ann.refusal(previous_response_id=old)
    assert error["code"] == "previous_response_not_found"
    ann.tell()


def test_ids_are_kept_as_hashes_only(two_keys: Site, ann: Teller) -> None:
    made = ann.tell()["id"]
    ann.rows(1)
    with two_keys.books.database.read() as tx:
        rows = tx.execute("SELECT response_hash FROM stored_responses").fetchall()
    assert hash_response_id(made) in [bytes(row[0]) for row in rows]
    path = two_keys.books.database.files.path
    for file in path.parent.glob("llmproxy.db*"):
        assert made.encode() not in file.read_bytes()


# --- strict ---


def test_on_a_strict_server_no_link_of_a_chain_costs_more_than_it_held(strict_site: Site) -> None:
    keeping = KeepingProvider()
    keeping.fresh_tokens = 1600 + len(body(service_tier="default"))  # as much as can be
    strict_site.stub.handle = keeping.handle
    ann = Teller(strict_site, "50")
    previous = None
    for _ in range(6):
        fields = {"service_tier": "default", "previous_response_id": previous}
        previous = ann.tell(**fields)["id"]
    for row in ann.rows(6):
        assert row["cost_nanousd"] <= row["hold_nanousd"]
        assert row["shortfall_nanousd"] == 0


def test_a_strict_server_holds_the_whole_window_for_what_another_model_has_counted(
    strict_site: Site,
) -> None:
    strict_site.stub.handle = KeepingProvider().handle
    ann = Teller(strict_site, "50")
    made = ann.tell(service_tier="default")["id"]
    fields = {"model": "gpt-4o-mini", "service_tier": "default", "previous_response_id": made}
    ann.tell(**fields)
    row = ann.rows(2)[-1]
    assert row["hold_nanousd"] == 128_000 * 150 + 50 * 600
