"""`Idempotency-Key`: however often a request is sent, it goes upstream and is paid for once."""

# ruff: noqa: ANN401 - the SDKs' overloads are wider than what the tests need.

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from llmproxy import accounts
from llmproxy.clock import Clock
from tests.proxy.conftest import running_site
from tests.proxy.families import FREE, PAID, check, check_no_rest, check_rest
from tests.proxy.helpers import CHAT, CREDIT_NANOUSD, MESSAGES, Site, Visitor, chat
from tests.proxy.idempotent import ANSWER, COST_NANOUSD, Gate, key, refusals
from tests.support.answers import (
    failing,
    in_turn,
    openai_error,
    plain,
)
from tests.support.raw_client import RawClient
from tests.support.waiting import wait_until


def sent_by(site: Site, begun: int) -> int:
    """How many requests the provider has seen since it had seen so many."""
    return len(site.stub.requests) - begun


def test_a_repeat_of_a_settled_request_is_told_what_the_first_one_cost(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann, begun = site.visitor(), len(site.stub.requests)
    first = site.ask(ann, CHAT, chat(), key())
    assert first.status == 200
    again = site.ask(ann, CHAT, chat(), key())
    text = check(again, 409, "conflict_error", "idempotency_key_used", should_retry=False)
    check_no_rest(again)
    first_id = (first.header("x-llmproxy-request-id") or b"").decode()
    assert f"used by request {first_id}, which is settled and cost 0.000075 USD" in text
    error = again.error()
    told = [error[f"first_{name}"] for name in ("request_id", "state", "cost_usd")]
    assert told == [first_id, "settled", "0.000075"]
    assert sent_by(site, begun) == 1
    assert site.books.settled_wallet(ann.name) == CREDIT_NANOUSD - COST_NANOUSD
    assert refusals(site, ann) == [text]


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_repeat_of_a_running_request_is_told_to_come_back(
    site: Site, gate: Gate, is_stream: bool
) -> None:
    site.stub.handle = gate.stream if is_stream else gate.plain
    ann, begun, body = site.visitor(), len(site.stub.requests), chat(stream=is_stream)
    with site.send(ann, CHAT, body, key()) as running:
        site.stub.wait_for_requests(begun + 1)
        again = site.ask(ann, CHAT, body, key())
        text = check(again, 409, "conflict_error", "idempotency_key_in_use", should_retry=True)
        assert check_rest(again) == 2
        error = again.error()
        assert error["first_request_id"] in text
        assert (error["first_state"], error["first_cost_usd"]) == ("open", None)
        gate.go.set()
        first = site.take(running)
        assert first.status == 200
        assert first.header("x-llmproxy-request-id") == error["first_request_id"].encode()
    assert site.ask(ann, CHAT, body, key()).error()["code"] == "idempotency_key_used"
    assert sent_by(site, begun) == 1
    assert site.books.settled_wallet(ann.name) == CREDIT_NANOUSD - COST_NANOUSD


def test_after_a_failure_that_cost_nothing_the_same_key_is_served(site: Site) -> None:
    ann = site.visitor()
    for status in (500, 400, 200):
        site.stub.handle = plain(ANSWER, status)
        assert site.ask(ann, CHAT, chat(), key()).status == status
    assert site.ask(ann, CHAT, chat(), key()).status == 409
    assert site.books.settled_wallet(ann.name) == CREDIT_NANOUSD - COST_NANOUSD


def test_a_refused_request_leaves_its_key_unused(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    poor = Visitor(*site.books.user("0.0001"))
    assert site.ask(poor, CHAT, chat(), key()).status == 402
    site.books.credit(poor.name, "1")
    assert site.ask(poor, CHAT, chat(), key()).status == 200


def test_another_request_may_not_have_the_key(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann, begun = site.visitor(), len(site.stub.requests)
    first = site.ask(ann, CHAT, chat(), key())
    others = ((CHAT, chat(max_tokens=99)), (MESSAGES, chat(model="claude-sonnet-4-6")))
    for path, body in others:
        got = site.ask(ann, path, body, key())
        kind, code = "invalid_request_error", "idempotency_key_reused"
        text = check(got, 422, kind, code, should_retry=False)
        check_no_rest(got)
        assert got.error()["first_request_id"].encode() == first.header("x-llmproxy-request-id")
        assert "Use a new key" in text
    assert sent_by(site, begun) == 1


def test_an_alias_of_the_path_is_the_same_request(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann = site.visitor()
    assert site.ask(ann, CHAT, chat(), key()).status == 200
    alias = "/v1/openai/v1/chat/completions"
    assert site.ask(ann, alias, chat(), key()).error()["code"] == "idempotency_key_used"


def test_a_key_belongs_to_its_user_whichever_api_key_is_used(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann, ben = site.visitor(), site.visitor()
    with site.books.write() as tx:
        user = accounts.find_user(tx, ann.name)
        second = Visitor(
            ann.name, accounts.create_api_key(tx, user, "desk", now_ms=Clock().now_ms())
        )
    statuses = [site.ask(who, CHAT, chat(), key()).status for who in (ann, second, ben)]
    assert statuses == [200, 409, 200]


@pytest.mark.parametrize("family", PAID.values(), ids=PAID)
def test_every_paid_endpoint_knows_keys(site: Site, gate: Gate, family: Any) -> None:
    site.stub.handle = gate.plain
    ann, begun = site.visitor(), len(site.stub.requests)
    with site.send(ann, family.path, family.request(), key()):
        site.stub.wait_for_requests(begun + 1)
        again = site.ask(ann, family.path, family.request(), key())
        assert again.error()["code"] == "idempotency_key_in_use"


@pytest.mark.parametrize("family", FREE.values(), ids=FREE)
def test_free_endpoints_take_no_notice_of_keys(site: Site, family: Any) -> None:
    site.stub.handle = plain(b"{}")
    ann, begun = site.visitor(), len(site.stub.requests)
    for value in ("order-17", "order-17", "x" * 256):
        assert site.ask(ann, family.path, family.request(), key(value)).status == 200
    assert sent_by(site, begun) == 3
    assert site.last_request().header("idempotency-key") is None


@pytest.mark.parametrize("value", ["", "   ", "x" * 256])
def test_a_key_without_characters_or_with_too_many_is_refused(site: Site, value: str) -> None:
    begun = len(site.stub.requests)
    got = site.ask(site.visitor(), CHAT, chat(), key(value))
    text = check(got, 400, "invalid_request_error", "invalid_request", should_retry=False)
    assert "Use 1 to 255" in text
    assert sent_by(site, begun) == 0


@pytest.mark.parametrize(("second", "status"), [("order-17", 200), ("order-18", 400)])
def test_the_header_may_come_twice_but_only_with_one_key(
    site: Site, second: str, status: int
) -> None:
    site.stub.handle = plain(ANSWER)
    ann, body = site.visitor(), chat()
    head = f"POST {CHAT} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {ann.key}\r\n"
    head += f"idempotency-key: order-17\r\nIdempotency-Key: {second}\r\n"
    with RawClient(site.proxy.port) as client:
        client.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert client.recv_head().status == status


@pytest.mark.parametrize("value", ["x" * 255, "naïve 後".encode().decode("latin-1")])
def test_a_key_may_be_long_and_of_any_characters(site: Site, value: str) -> None:
    site.stub.handle = plain(ANSWER)
    ann = site.visitor()
    assert site.ask(ann, CHAT, chat(), key(value)).status == 200
    assert site.ask(ann, CHAT, chat(), key(value)).status == 409


def test_a_body_too_long_for_the_loop_is_known_again(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann = site.visitor()
    long = [{"role": "user", "content": "word " * 100_000}]
    assert site.ask(ann, CHAT, chat(messages=long), key()).status == 200
    assert site.ask(ann, CHAT, chat(messages=long), key()).error()["code"] == "idempotency_key_used"


@pytest.mark.parametrize("turn", range(3))
def test_of_fifty_at_once_exactly_one_goes_upstream(site: Site, turn: int) -> None:
    site.stub.handle = plain(ANSWER)
    ann, begun = site.visitor(), len(site.stub.requests)
    with ExitStack() as stack:
        clients = [stack.enter_context(RawClient(site.proxy.port, timeout_s=30)) for _ in range(50)]
        for client in clients:
            headers = {"authorization": f"Bearer {ann.key}", **key(f"turn-{turn}")}
            client.post(CHAT, chat(), headers)
        statuses = Counter(site.take(client).status for client in clients)
    assert statuses == {200: 1, 409: 49}
    assert sent_by(site, begun) == 1
    assert site.books.settled_wallet(ann.name) == CREDIT_NANOUSD - COST_NANOUSD


# --- with holds that are made to fit ---


def test_a_hold_that_was_made_to_fit_keeps_the_key(site: Site, gate: Gate) -> None:
    site.stub.handle = gate.plain
    ann, begun = Visitor(*site.books.user("0.05")), len(site.stub.requests)
    body = chat(max_tokens=None)
    with site.send(ann, CHAT, body, key()) as running:
        site.stub.wait_for_requests(begun + 1)
        # Nothing is left to hold: that it is a repeat is the more useful answer.
        assert site.ask(ann, CHAT, body, key()).error()["code"] == "idempotency_key_in_use"
        assert site.ask(ann, CHAT, body).status == 402
        gate.go.set()
        assert site.take(running).header("x-llmproxy-max-tokens") is not None
    assert site.ask(ann, CHAT, body, key()).error()["code"] == "idempotency_key_used"
    assert sent_by(site, begun) == 1


# --- with an operator, other provider keys and crashes ---


@pytest.fixture(scope="module")
def own_site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """A proxy with two provider keys that may be killed, and whose queue can be looked at."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        environ = {"LLMPROXY_METRICS_PORT": str(free.getsockname()[1])}
    with running_site(tmp_path_factory.mktemp("own"), environ) as site:
        site.proxy.run("provider-keys", "add", "openai", stdin="sk-provider-secret-0002")
        yield site


def queue_length(site: Site) -> int:
    port = int(site.proxy.environ["LLMPROXY_METRICS_PORT"])
    with RawClient(port) as client:
        client.send(b"GET /metrics HTTP/1.1\r\nhost: x\r\n\r\n")
        client.recv_head()
        lines = client.body().decode().splitlines()
    (value,) = (
        line.split()[1] for line in lines if line.startswith("llmproxy_writer_queue_length ")
    )
    return int(float(value))


def test_a_request_that_is_admitted_anew_keeps_its_key(own_site: Site) -> None:
    """Its first hold is released before the second is placed: it is no repeat of itself."""
    site, ann = own_site, own_site.visitor()
    site.stub.handle = plain(ANSWER)
    assert site.ask(ann, CHAT, chat()).status == 200  # the model's prices are pinned now
    site.books.settled_wallet(ann.name)
    with ExitStack() as stack:
        with site.books.write() as tx:
            client = stack.enter_context(site.send(ann, CHAT, chat(), key()))
            wait_until(lambda: queue_length(site) > 0)
            accounts.set_user(
                tx, ann.name, now_ms=Clock().now_ms(), rate_multiplier_micro=2_000_000
            )
        assert site.take(client).status == 200
    site.books.settled_wallet(ann.name)
    _, released, settled = site.books.rows(ann.name)
    assert (released["state"], released["reason"]) == (
        "released",
        "something was changed: admitted anew",
    )
    assert (settled["state"], settled["cost_nanousd"]) == ("settled", 2 * COST_NANOUSD)
    assert site.ask(ann, CHAT, chat(), key()).error()["code"] == "idempotency_key_used"


def test_a_second_provider_key_is_tried_under_the_same_key(own_site: Site) -> None:
    site, ann, begun = own_site, own_site.visitor(), len(own_site.stub.requests)
    limited = failing(openai_error("rate_limit", "30"))
    site.stub.handle = in_turn(limited, plain(ANSWER))
    assert site.ask(ann, CHAT, chat(), key()).status == 200
    assert site.ended(ann)["attempts"] == 2
    tried = site.stub.requests[begun:]
    assert [seen.header("idempotency-key") for seen in tried] == [None, None]
    assert site.ask(ann, CHAT, chat(), key()).error()["first_cost_usd"] == "0.000075"


def test_after_a_kill_the_key_of_a_running_request_is_used(own_site: Site, gate: Gate) -> None:
    """What the provider did with it is not known: sending it again could pay twice."""
    site, ann, begun = own_site, own_site.visitor(), len(own_site.stub.requests)
    site.stub.handle = gate.plain
    with site.send(ann, CHAT, chat(), key()):
        site.stub.wait_for_requests(begun + 1)
        site.proxy.kill()
    gate.go.set()
    site.proxy.start()
    got = site.ask(ann, CHAT, chat(), key())
    text = check(got, 409, "conflict_error", "idempotency_key_used", should_retry=False)
    assert "which is expired and cost 0.00 USD" in text
    assert (got.error()["first_state"], got.error()["first_cost_usd"]) == ("expired", "0.00")
    assert sent_by(site, begun) == 1
    site.stub.handle = plain(ANSWER)
    assert site.ask(ann, CHAT, chat(), key("order-18")).status == 200
