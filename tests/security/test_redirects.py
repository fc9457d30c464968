"""S3: where a provider points is not where its key goes."""

import pytest

from tests.proxy.helpers import CHAT, Site, chat
from tests.support.stub_provider import Out, SeenRequest, StubProvider


@pytest.mark.parametrize("status", [300, 301, 302, 303, 305, 307, 308, 399])
@pytest.mark.parametrize("name", ["location", "content-location", "refresh", "link"])
def test_a_redirect_leads_neither_the_proxy_nor_the_client_elsewhere(
    site: Site, canary: StubProvider, status: int, name: str
) -> None:
    target = f"{canary.url}/v1/chat/completions"
    value = f"0; url={target}" if name == "refresh" else target

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(status, b"{}", [(name, value)])

    site.stub.handle = handle
    visitor, seen = site.visitor(), len(site.stub.requests)
    got = site.ask(visitor, CHAT, chat())
    assert (got.status, got.error()["code"]) == (502, "upstream_unreachable")
    assert canary.url.encode() not in b"".join(value for _, value in got.headers) + got.body
    assert len(site.stub.requests) == seen + 1
    site.assert_released(visitor)


@pytest.mark.parametrize("name", ["location", "content-location", "refresh"])
def test_an_ordinary_answer_points_nowhere(site: Site, canary: StubProvider, name: str) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.json(404, b'{"error":{"message":"no"}}', [(name, canary.url)])

    site.stub.handle = handle
    got = site.ask(site.visitor(), CHAT, chat())
    assert (got.status, got.header(name)) == (404, None)
