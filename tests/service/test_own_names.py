"""A newer catalog prices itself what was an own entry's alias: requests cost what it says."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.service.helpers import CHAT, Books, ask, bearer, chat_body
from tests.support.answers import openai_chat
from tests.support.proxy import RunningProxy
from tests.support.stub_provider import Out, SeenRequest, StubProvider
from tests.support.waiting import wait_until

SHIPPED = json.loads((Path(__file__).parents[2] / "model_catalog.json").read_bytes())


@pytest.fixture
def proxy(tmp_path: Path) -> Iterator[RunningProxy]:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(200, openai_chat(prompt_tokens=1000, completion_tokens=0))

    with StubProvider() as stub, RunningProxy(tmp_path) as proxy:
        stub.handle = handle
        proxy.use_provider("openai", f"{stub.url}/v1")
        proxy.run("catalog", "set", "openai", "gpt-4o", "--multiplier", "1.5")
        own = ("openai", "mine", "--in-price", "1", "--out-price", "2", "--alias", "gpt-new2")
        proxy.run("catalog", "set", *own)
        proxy.start()
        yield proxy
        proxy.verify_ledger()


def cost(proxy: RunningProxy, key: str, model: str) -> str:
    got = ask(proxy.port, "POST", CHAT, chat_body(model=model), bearer(key))
    assert got.status == 200, got.body
    return got.headers["x-llmproxy-cost-usd"]


def test_the_catalogs_price_takes_effect_and_the_log_says_so(
    proxy: RunningProxy, tmp_path: Path
) -> None:
    books = Books(proxy.home)
    _, key = books.user()
    # A thousand tokens of input, at 2.50 × 1.5 and at 1 USD per million.
    assert cost(proxy, key, "gpt-4o-2024-08-06") == "0.00375"
    assert cost(proxy, key, "gpt-new2") == "0.001"
    models = dict(SHIPPED["models"])
    former = models["openai/gpt-4o"]
    aliases = [name for name in former["aliases"] if name != "gpt-4o-2024-08-06"]
    models["openai/gpt-4o"] = {**former, "aliases": aliases}
    models["openai/gpt-4o-2024-08-06"] = {**former, "aliases": []}
    models["openai/gpt-new2"] = {"in_price": "5", "out_price": "20"}
    file = tmp_path / "newer.json"
    file.write_text(json.dumps({**SHIPPED, "updated": "2027-01-02", "models": models}))
    proxy.run("catalog", "update", "--from", str(file), "--yes")
    wait_until(lambda: cost(proxy, key, "gpt-new2") == "0.005")
    assert cost(proxy, key, "gpt-4o-2024-08-06") == "0.0025"
    assert cost(proxy, key, "gpt-4o") == "0.00375"
    log = proxy.log.read_text()
    for name in ("gpt-4o-2024-08-06", "gpt-new2"):
        assert log.count(f"openai/{name} is a model of the catalog now") == 1
    books.close()
