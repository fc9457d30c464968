"""Azure's own client, by base URL and key alone: its paths name the deployment."""

import json
from collections.abc import Iterator

import pytest
from openai import AzureOpenAI, BadRequestError

from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site
from tests.support.answers import data_event, openai_chat, openai_usage, plain, stream

PRICES = ("--in-price", "2.50", "--out-price", "10", "--alias", "gpt-4o-2024-08-06")


@pytest.fixture(scope="module")
def azure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with running_site(tmp_path_factory.mktemp("azure"), {}) as site:
        url = f"{site.stub.url}/openai/v1"
        site.proxy.run("providers", "add", "azure", "--base-url", url, "--dialect", "openai")
        site.proxy.use_provider("azure", url)
        site.proxy.run("catalog", "set", "azure", "our-gpt", *PRICES)
        yield site


def client(site: Site, key: str) -> AzureOpenAI:
    return AzureOpenAI(
        azure_endpoint=f"http://127.0.0.1:{site.proxy.port}/v1/azure",
        api_key=key,
        api_version="2024-10-21",
        max_retries=0,
    )


def test_azures_client_is_served_and_pays(azure: Site) -> None:
    azure.stub.handle = plain(openai_chat(usage=openai_usage(1000, 200)))
    visitor = azure.visitor()
    answer = client(azure, visitor.key).chat.completions.create(
        model="our-gpt", messages=[{"role": "user", "content": "hi"}], max_tokens=300
    )
    assert answer.usage is not None
    sent = azure.last_request()
    assert sent.target == b"/openai/v1/chat/completions"  # neither deployment nor version
    assert json.loads(sent.body)["model"] == "our-gpt"
    azure.assert_paid(visitor, state="settled", basis="usage", nanousd=1000 * 2500 + 200 * 10_000)


def test_azures_client_gets_a_stream_whose_first_chunk_has_no_choices(azure: Site) -> None:
    def event(choices: list[object], **fields: object) -> bytes:
        return data_event(
            {"id": "c", "object": "chat.completion.chunk", "choices": choices} | fields
        )

    filtered = event([], prompt_filter_results=[{"prompt_index": 0}])
    text = event([{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}])
    end = event([{"index": 0, "delta": {}, "finish_reason": "stop"}])
    usage = event([], usage=openai_usage(10, 2))
    azure.stub.handle = stream([filtered, text, end, usage, b"data: [DONE]\n\n"])
    visitor = azure.visitor()
    chunks = list(
        client(azure, visitor.key).chat.completions.create(
            model="our-gpt",
            messages=[{"role": "user", "content": "hi"}],
            max_tokens=300,
            stream=True,
        )
    )
    assert [len(chunk.choices) for chunk in chunks] == [0, 1, 1]
    azure.assert_paid(visitor, state="settled", basis="usage", nanousd=10 * 2500 + 2 * 10_000)


def test_a_deployment_without_a_price_is_refused(azure: Site) -> None:
    seen = len(azure.stub.requests)
    with pytest.raises(BadRequestError, match="not in the model catalog"):
        client(azure, azure.visitor().key).chat.completions.create(
            model="theirs", messages=[{"role": "user", "content": "hi"}]
        )
    assert len(azure.stub.requests) == seen


@pytest.mark.parametrize(
    "path",
    ["our-gpt/files", "our-gpt/../../x/chat/completions", "a%2fb/chat/completions", "our-gpt/"],
)
def test_below_a_deployment_is_what_is_served_and_nothing_else(azure: Site, path: str) -> None:
    seen = len(azure.stub.requests)
    got = azure.ask(azure.visitor(), f"/v1/azure/openai/deployments/{path}", b"{}")
    assert got.status in {400, 404}
    assert len(azure.stub.requests) == seen


def test_a_body_without_a_model_is_told_that_the_deployment_is_not_read(azure: Site) -> None:
    seen = len(azure.stub.requests)
    body = json.dumps({"messages": [{"role": "user", "content": "hi"}]}).encode()
    path = "/v1/azure/openai/deployments/our-gpt/chat/completions?api-version=2024-10-21"
    got = azure.ask(azure.visitor(), path, body)
    error = got.error()
    assert (got.status, error["code"], error["param"]) == (400, "invalid_request", "model")
    assert "must be in the body" in error["message"]
    assert "a deployment in the path is not read" in error["message"]
    assert len(azure.stub.requests) == seen
