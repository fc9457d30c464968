"""The operator's check of a provider: it is asked with its keys, and what it says is shown."""

import asyncio
import threading
from concurrent.futures import ThreadPoolExecutor

from tests.dashboard.helpers import Desk
from tests.dashboard.test_admin_providers import OPENAI, SECRET, key_ids, rows_of
from tests.service.helpers import either
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Out, SeenRequest
from tests.support.waiting import wait_until


async def models(request: SeenRequest, out: Out) -> None:
    """Know one key, and list two models to it."""
    if request.header("authorization") == f"Bearer {PROVIDER_KEY}".encode():
        await out.json(200, {"data": [{"id": "a"}, {"id": "b"}]})
    else:
        error = {"message": "Incorrect API key provided", "code": "invalid_api_key"}
        await out.json(401, {"error": error})


def test_a_provider_is_asked_with_each_key_that_is_not_disabled(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    desk.site.stub.handle = models
    for name in ("wrong", "off"):
        boss.submit(f"{OPENAI}/keys", secret=f"{SECRET}-{name}", name=name)
    boss.submit(f"{OPENAI}/keys/{key_ids(desk)['off']}/disable")
    before = desk.acts(f"dashboard:{boss.name}")
    said = rows_of(boss.submit(f"{OPENAI}/check").text, "What it said")
    assert said == ["key-1 ok 2 models", "wrong refused 401: Incorrect API key provided"]
    # It changes nothing: what is asked is no act, and no key is taken out by it.
    assert desk.acts(f"dashboard:{boss.name}") == before
    states = {name: state for name, (state, _) in desk.books.key_states("openai").items()}
    assert states == {"key-1": "active", "wrong": "active", "off": "disabled"}


def test_a_provider_that_does_not_answer_is_told(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()

    async def hang_up(request: SeenRequest, out: Out) -> None:
        del request
        out.abort()

    desk.site.stub.handle = hang_up
    (row,) = rows_of(boss.submit(f"{OPENAI}/check").text, "What it said")
    assert row.startswith("key-1 unreachable")


def test_while_a_provider_is_asked_requests_are_served(own_desk: Desk) -> None:
    desk, boss = own_desk, own_desk.operator()
    released, (_, key) = threading.Event(), desk.books.user()

    async def slow_list(request: SeenRequest, out: Out) -> None:
        if request.method != "GET":
            await either(request, out)
            return
        while not released.is_set():
            await asyncio.sleep(0.01)
        await models(request, out)

    desk.site.stub.handle = slow_list
    with ThreadPoolExecutor(1) as thread:
        checking = thread.submit(boss.submit, f"{OPENAI}/check")
        try:
            wait_until(lambda: any(each.method == "GET" for each in desk.site.stub.requests))
            assert desk.ask(key) == 200
            assert not checking.done()
        finally:
            released.set()
        assert rows_of(checking.result().text, "What it said") == ["key-1 ok 2 models"]


def test_a_provider_that_sends_the_key_back_is_refused_and_the_key_is_not_shown(
    own_desk: Desk,
) -> None:
    desk, boss = own_desk, own_desk.operator()

    async def echo(request: SeenRequest, out: Out) -> None:
        del request
        await out.json(200, {"data": [{"id": PROVIDER_KEY}]})

    desk.site.stub.handle = echo
    answer = boss.submit(f"{OPENAI}/check")
    (row,) = rows_of(answer.text, "What it said")
    assert row.startswith("key-1 refused 200: it sends the key back")
    assert PROVIDER_KEY not in answer.text
