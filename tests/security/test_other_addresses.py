"""S3: nothing that a client sends, and nothing around the server, chooses where requests go."""

from pathlib import Path

import pytest

from tests.proxy.conftest import running_site
from tests.proxy.helpers import CHAT, Site, chat
from tests.support.answers import openai_chat, plain
from tests.support.raw_client import RawClient
from tests.support.stub_provider import StubProvider

MEMBERS = (
    *("api_base", "base_url", "api_url", "endpoint", "url", "host", "proxy", "callback_url"),
    *("azure_endpoint", "api_key", "organization", "custom_llm_provider", "litellm_params"),
    *("x-portkey-custom-host", "model_list", "webhook", "metadata", "user_config", "baseURL"),
)
HEADERS = (
    *("x-portkey-custom-host", "x-portkey-provider", "x-portkey-config", "helicone-target-url"),
    *("x-forwarded-host", "x-forwarded-for", "x-forwarded-proto", "x-forwarded-server"),
    *(
        "x-litellm-api-base",
        "x-litellm-model",
        "helicone-model-override",
        "helicone-openai-api-base",
    ),
    *("x-original-url", "x-rewrite-url", "x-host", "forwarded", "x-forwarded-prefix"),
)
IGNORED_BY_PROVIDERS = ("x-api-base", "api-base", "x-base-url", "base-url", "x-target", "x-proxy")
"""Known to no provider: they pass like any unknown header, and lead nobody anywhere."""


def assert_sent_home(site: Site) -> None:
    request = site.last_request()
    assert request.target == b"/v1/chat/completions"
    assert request.header("host") == f"127.0.0.1:{site.stub.port}".encode()


@pytest.mark.parametrize("member", MEMBERS)
def test_no_member_of_a_body_says_where_it_goes(
    site: Site, canary: StubProvider, member: str
) -> None:
    body = chat(**{member: f"{canary.url}/v1"})
    assert site.ask(site.visitor(), CHAT, body).status == 200
    assert_sent_home(site)


@pytest.mark.parametrize("name", [*HEADERS, *IGNORED_BY_PROVIDERS])
def test_no_header_says_where_it_goes(site: Site, canary: StubProvider, name: str) -> None:
    for spelling in (name, name.replace("-", "_"), name.replace("-", "_", 1)):
        got = site.ask(site.visitor(), CHAT, chat(), {spelling: canary.url})
        assert got.status == 200
        assert_sent_home(site)
        is_passed = site.last_request().header(spelling) is not None
        assert is_passed == (name in IGNORED_BY_PROVIDERS), spelling


@pytest.mark.parametrize("form", ["absolute", "host", "query"])
def test_no_address_of_the_request_says_where_it_goes(
    site: Site, canary: StubProvider, form: str
) -> None:
    host = f"127.0.0.1:{canary.port}"
    target = {
        "absolute": f"http://{host}{CHAT}",
        "host": CHAT,
        "query": f"{CHAT}?api_base={canary.url}&base_url={canary.url}&api-version=1",
    }[form]
    body = chat()
    head = f"POST {target} HTTP/1.1\r\nhost: {host}\r\nx-api-key: {site.visitor().key}\r\n"
    with RawClient(site.proxy.port) as client:
        client.send(f"{head}content-length: {len(body)}\r\n\r\n".encode() + body)
        assert client.recv_head().status == 200
    assert_sent_home(site)


def test_no_proxy_of_the_environment_hears_of_a_request(
    tmp_path: Path, canary: StubProvider
) -> None:
    names = ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "FTP_PROXY")
    environ = {each: canary.url for name in names for each in (name, name.lower())}
    with running_site(tmp_path, {**environ, "NO_PROXY": "", "no_proxy": ""}) as site:
        site.stub.handle = plain(openai_chat())
        assert site.ask(site.visitor(), CHAT, chat()).status == 200
        assert_sent_home(site)
        seen = len(site.stub.requests)
        site.proxy.try_run("providers", "check", "openai")  # asks by another client (fetch.py)
        assert len(site.stub.requests) > seen
