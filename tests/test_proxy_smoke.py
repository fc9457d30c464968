"""One request through everything: command line, server, provider, ledger."""

from pathlib import Path

from tests.support.answers import openai_chat, openai_usage, plain
from tests.support.proxy import PROVIDER_KEY, RunningProxy
from tests.support.stub_provider import StubProvider


def test_a_chat_request_is_forwarded_metered_and_charged_to_the_nano_dollar(
    tmp_path: Path,
) -> None:
    answer = openai_chat(text="Hello.", usage=openai_usage(1000, 200))
    with StubProvider() as stub, RunningProxy(tmp_path) as proxy:
        stub.handle = plain(answer)
        proxy.run("providers", "set", "openai", "--base-url", f"{stub.url}/v1")
        proxy.run("provider-keys", "add", "openai", stdin=PROVIDER_KEY)
        key = proxy.new_user("ann", credit="1.00", multiplier="1.2")
        proxy.start()
        body = {"model": "gpt-4o", "messages": [{"role": "user", "content": "hi"}]}
        answered = proxy.post("/v1/openai/chat/completions", body, key)

        assert (answered.status, answered.body) == (200, answer)
        assert stub.requests[0].header("authorization") == f"Bearer {PROVIDER_KEY}".encode()
        row = proxy.request_row(answered.request_id)
        # (1000 × 2.50 + 200 × 10.00) / 1e6 × 1.2
        assert (row["state"], row["basis"], row["cost_usd"]) == ("settled", "usage", "0.0054")
        assert proxy.json("users", "show", "ann")["balance_usd"] == "0.9946"
        assert proxy.json("ledger", "verify")["ok"]
        assert proxy.stop() == 0
