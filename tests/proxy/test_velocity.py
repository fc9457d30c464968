"""A key that spends too fast is suspended, and says how that is lifted."""

from pathlib import Path

import pytest

from llmproxy import limit_store
from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.service.helpers import ask, bearer
from tests.support.answers import openai_chat, openai_chat_stream, openai_usage, plain, stream
from tests.support.limits import Held, limit_key, refused_row
from tests.support.waiting import wait_until

COST = 10 * 2500 + 20 * 10_000
USAGE = openai_usage(10, 20)
ANSWER = openai_chat(usage=USAGE)


def per_hour(cost_nanousd: int) -> int:
    """The limit that so much in ten minutes just does not pass."""
    return 6 * cost_nanousd


@pytest.mark.parametrize("is_stream", [False, True])
def test_a_key_that_spends_too_fast_is_suspended(site: Site, is_stream: bool) -> None:
    site.stub.handle = stream(openai_chat_stream(usage=USAGE)) if is_stream else plain(ANSWER)
    ann = site.visitor()
    limit_key(site.books, ann.name, spend_per_hour_nanousd=per_hour(2 * COST))
    body = chat(stream=is_stream)
    assert [site.ask(ann, CHAT, body).status for _ in range(3)] == [200, 200, 200]
    refused = site.ask(ann, CHAT, body)
    error = refused.error()
    assert (refused.status, error["type"], error["code"]) == (
        403,
        "permission_error",
        "api_key_suspended",
    )
    assert error["message"].endswith(f"resume it: llmproxy keys resume {ann.name} test")
    assert "its last ten minutes were spent faster than 0.0027 USD per hour" in error["message"]
    assert refused.header("x-should-retry") == b"false"
    assert refused_row(site, ann, CHAT, body)["status"] == 403

    def listed() -> str:
        keys = site.proxy.json("keys", "list", ann.name)
        return str(keys[0]["state"])

    wait_until(lambda: listed() == "suspended")
    # The user hears of it too, though no operator has changed anything.
    own = ask(site.proxy.port, "GET", "/v1/key", headers=bearer(ann.key)).json()
    assert own["suspended"] == "its last ten minutes were spent faster than 0.0027 USD per hour"
    shown = site.proxy.run("keys", "show", ann.name, "test")
    assert f"llmproxy keys resume {ann.name} test" in shown
    # Other keys work; so does this one once it is resumed, and what it spent is forgotten.
    assert site.ask(site.visitor(), CHAT, body).status == 200
    assert "works again" in site.proxy.run("keys", "resume", ann.name, "test")
    assert listed() == "live"
    assert [site.ask(ann, CHAT, body).status for _ in range(4)] == [200, 200, 200, 403]


def test_running_requests_finish_when_their_key_is_suspended(site: Site) -> None:
    ann = site.visitor()
    limit_key(site.books, ann.name, spend_per_hour_nanousd=per_hour(COST))
    site.stub.handle = held = Held(ANSWER)
    with site.send(ann, CHAT, chat()) as one:
        wait_until(lambda: held.begun == 1)
        site.stub.handle = plain(ANSWER)
        assert [site.ask(ann, CHAT, chat()).status for _ in range(3)] == [200, 200, 403]
        held.let_go()
        assert site.take(one).status == 200
    assert site.books.settled_wallet(ann.name) == 5_000_000_000 - 3 * COST


def test_a_suspension_and_what_led_to_it_survive_a_restart(tmp_path: Path) -> None:
    with running_site(tmp_path, {}) as site:
        site.stub.handle = plain(ANSWER)
        ann, bob = site.visitor(), site.visitor()
        limit_key(site.books, ann.name, spend_per_hour_nanousd=per_hour(COST))
        limit_key(site.books, bob.name, spend_per_hour_nanousd=per_hour(COST))
        assert [site.ask(ann, CHAT, chat()).status for _ in range(3)] == [200, 200, 403]
        assert site.ask(bob, CHAT, chat()).status == 200
        site.proxy.stop()
        site.proxy.start()
        assert site.ask(ann, CHAT, chat()).error()["code"] == "api_key_suspended"
        # The first answer before the restart and the second one after it are of one ten minutes.
        assert [site.ask(bob, CHAT, chat()).status for _ in range(2)] == [200, 403]


def test_a_limit_below_what_was_spent_lately_suspends_at_the_next_request(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann = site.visitor()
    for _ in range(2):
        assert site.ask(ann, CHAT, chat()).status == 200
    limit_key(site.books, ann.name, spend_per_hour_nanousd=per_hour(COST))
    assert site.ask(ann, CHAT, chat()).error()["code"] == "api_key_suspended"
    limit_key(site.books, ann.name, spend_per_hour_nanousd=None)
    assert site.ask(ann, CHAT, chat()).status == 403  # until it is resumed


def test_a_limit_that_is_lowered_below_what_was_spent_lately_suspends_at_once(site: Site) -> None:
    site.stub.handle = plain(ANSWER)
    ann = site.visitor()
    limits_id = limit_key(site.books, ann.name, spend_per_hour_nanousd=per_hour(3 * COST))
    for _ in range(2):
        assert site.ask(ann, CHAT, chat()).status == 200
    limit_key(site.books, ann.name, spend_per_hour_nanousd=per_hour(COST))

    def is_suspended() -> bool:
        with site.books.write() as tx:
            limits = limit_store.find_limits(tx, limits_id)
        return limits is not None and limits.is_suspended

    wait_until(is_suspended)  # no request needs to come
    assert site.ask(ann, CHAT, chat()).error()["code"] == "api_key_suspended"
