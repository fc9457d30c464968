"""Where Gemini's own API is: other base URLs, servers of one's own, gateways."""

import json
from collections.abc import Iterator
from contextlib import closing

import pytest

from llmproxy import key_pool
from llmproxy.config import find_paths
from llmproxy.storage.database import AdminDatabase
from tests.proxy.gemini import ANSWER, GENERATE, JSON, MODEL, ask, chunk, gemini_site, in_pieces
from tests.proxy.helpers import Site, Visitor, chat
from tests.support.answers import openai_chat, openai_usage, plain
from tests.support.proxy import PROVIDER_KEY
from tests.support.waiting import wait_until


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gemini_site(tmp_path_factory.mktemp("gemini")) as site:
        yield site


def test_a_base_url_with_the_path_of_the_other_face_is_the_same_place(site: Site) -> None:
    """As all databases have it that knew `gemini` before it had a face of its own."""
    paths = find_paths(site.proxy.environ)
    with closing(AdminDatabase(paths.database)) as database, database.read() as tx:
        (before,) = [one for one in key_pool.list_providers(tx) if one.name == "gemini"]
    site.proxy.use_provider("gemini", f"{before.base_url}/v1beta/openai", ())
    try:
        site.stub.handle = plain(ANSWER)
        assert ask(site, GENERATE)[0].status == 200
        assert site.last_request().target == f"/v1beta/models/{MODEL}:generateContent".encode()
        site.stub.handle = plain(openai_chat(usage=openai_usage(1, 1)))
        assert ask(site, "/v1/gemini/chat/completions", chat(model=MODEL))[0].status == 200
        assert site.last_request().target == b"/v1beta/openai/chat/completions"
    finally:
        site.proxy.use_provider("gemini", before.base_url, ())


@pytest.fixture(scope="module")
def own(site: Site) -> Site:
    """The same proxy, which has a server of the operator's own that speaks this dialect."""
    url = ("--base-url", f"{site.stub.url}/google", "--dialect", "gemini")
    site.proxy.run("providers", "add", "mine", *url)
    site.proxy.run("provider-keys", "add", "mine", stdin=f"{PROVIDER_KEY}\n")
    price = ("--in-price", "1", "--out-price", "1000", "--max-output-tokens", "8192")
    site.proxy.run("catalog", "set", "mine", "big.model", *price)
    return site


def test_a_server_of_ones_own_is_asked_below_its_base_url(own: Site) -> None:
    own.stub.handle = plain(ANSWER)
    got, visitor = ask(own, "/v1/mine/v1beta/models/big.model:generateContent")
    assert got.status == 200
    assert own.last_request().target == b"/google/v1beta/models/big.model:generateContent"
    # 100 × 1 and 20 × 1000 USD per million tokens
    own.assert_paid(visitor, state="settled", basis="usage", nanousd=100 * 1_000 + 20 * 1_000_000)


@pytest.mark.parametrize("is_array", [True, False])
def test_where_the_credit_ends_an_answer_ends_and_not_cleanly(own: Site, is_array: bool) -> None:
    """It holds 4,096 tokens at first, 4.10 USD, and has no more than a little."""
    texts = [chunk("x" * 4_000) for _ in range(20)]
    events = [f"data: {json.dumps(one)}\r\n\r\n".encode() for one in texts]
    whole = f"[{','.join(map(json.dumps, texts))}]".encode() if is_array else b"".join(events)
    head = JSON if is_array else [("content-type", "text/event-stream")]
    own.stub.handle = in_pieces(whole, 5_000, head)
    visitor = Visitor(*own.books.user("4.5"))
    body = b'{"contents":[{"parts":[{"text":"hi"}]}],"generationConfig":{"maxOutputTokens":8000}}'
    path = "/v1/mine/v1beta/models/big.model:streamGenerateContent"
    got = own.ask(visitor, path if is_array else f"{path}?alt=sse", body)
    assert got.status == 200
    assert got.clean_end is not is_array
    passed, mark, last = got.body.partition(b'\n\ndata: {"error":')
    assert bool(mark) is not is_array
    assert whole.startswith(passed.rstrip())
    assert len(passed) < len(whole)
    if mark:
        error = json.loads(b'{"error":' + last)["error"]
        assert (error["code"], error["reason"]) == (402, "insufficient_credit")
    row = own.ended(visitor)
    assert (row["state"], row["basis"]) == ("settled", "estimate")
    assert own.books.wallet(visitor.name)[0] >= 0


def test_keys_are_checked_by_the_list_of_models(site: Site) -> None:
    site.stub.handle = plain(b'{"models":[{"name":"models/a"},{"name":"models/b"}]}')
    (checked,) = site.proxy.json("providers", "check", "gemini")
    assert checked["result"] == "ok"
    seen = site.last_request()
    assert seen.target == b"/v1beta/models?pageSize=1000"
    assert seen.header("x-goog-api-key") == PROVIDER_KEY.encode()


def test_behind_a_gateway_it_may_speak_openais_dialect_and_come_back(site: Site) -> None:
    before = site.proxy.json("providers", "show", "gemini")["base_url"]
    gateway = ("--base-url", f"{site.stub.url}/v1", "--dialect", "openai", "--yes")
    site.proxy.run("providers", "set", "gemini", *gateway)
    try:
        site.stub.handle = plain(openai_chat(usage=openai_usage(1, 1), model=MODEL))
        visitor = site.visitor()

        def is_there() -> bool:
            asked = site.ask(visitor, "/v1/gemini/chat/completions", chat(model=MODEL))
            return asked.status == 200 and site.last_request().target == b"/v1/chat/completions"

        wait_until(is_there)
        assert ask(site, GENERATE)[0].status == 400  # not served of it now
    finally:
        site.proxy.run(
            "providers", "set", "gemini", "--base-url", before, "--dialect", "gemini", "--yes"
        )
    site.stub.handle = plain(ANSWER)
    wait_until(lambda: ask(site, GENERATE)[0].status == 200)
