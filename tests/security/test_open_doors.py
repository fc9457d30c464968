"""S26: what the port offers is exactly this; no page administers it, one document describes it."""

import re
from pathlib import Path

import pytest

import llmproxy
from llmproxy.dialects.families import BASES
from llmproxy.presets import PRESETS
from llmproxy.routes import Routes, endpoints_of
from tests.proxy.helpers import Site
from tests.support.raw_client import RawClient

ROUTES = Routes((name, preset.dialect) for name, preset in PRESETS.items())
METERED = {
    "openai": {
        *("chat/completions", "responses", "responses/compact", "completions", "embeddings"),
        *("responses/input_tokens", "moderations", "images/generations", "images/edits"),
        *("audio/speech", "audio/transcriptions", "audio/translations"),
    },
    "anthropic": {"messages", "messages/count_tokens"},
}
METERED["gemini"] = METERED["openai"]
BELOW_MODELS = {
    *("generateContent", "streamGenerateContent", "countTokens"),
    *("embedContent", "batchEmbedContents"),
}
NOTHING = """
    /docs /redoc /schema /schema/openapi.json /schema/swagger /schema/redoc /schema/elements
    /openapi.yaml /openapi.yml /swagger.json /swagger-ui /api /api/v1 /admin /admin/ /metrics
    /debug /debug/pprof /debug/vars /status /server-status /info /health /actuator /actuator/env
    /audit /catalog /pool /ledger /admin/audit /admin/catalog /admin/pool /admin/ledger
    /config /config.json /.env /.git/HEAD /.well-known/security.txt /console /graphql /login
    /key/generate /user/new /model/info /spend/logs /v1 /v1/ /v1/keys /v1/users /v1/admin
    /users /admin/users /admin/providers /dashboard/users /dashboard/providers /dashboard/admin.json
    /v1/models /v1/chat/completions /v1/messages /v1/mcp /static /public /phpinfo.php /xmlrpc.php
""".split()  # noqa: SIM905 - a list of words is easier to read


def test_the_table_of_the_proxy_is_exactly_this() -> None:
    posted = {
        f"/v1/{provider}/{inner}{name}".encode()
        for provider, preset in PRESETS.items()
        for inner in ("", "v1/", *BASES.get(provider, ()))
        for name in METERED[preset.dialect]
    }
    assert set(ROUTES._post) == posted
    assert {path.rpartition(b"/")[2] for path in ROUTES._get} == {b"models"}
    below = {path: one.by_model.keys() for path, one in ROUTES._below.items()}
    inner = ("", "v1/", "v1beta/")
    assert below == {f"/v1/gemini/{one}models".encode(): BELOW_MODELS for one in inner}
    assert len(ROUTES._bases) == 2 * len(PRESETS)
    for provider, preset in PRESETS.items():
        names = {endpoint.name for endpoint in endpoints_of(provider, preset.dialect)}
        assert names == METERED[preset.dialect]


def test_the_pages_are_exactly_these() -> None:
    source = (Path(llmproxy.__file__).parent / "server" / "app.py").read_text()
    assert re.findall(
        r'@(?:route|get|post|put|delete|patch|asgi|websocket)\(\s*"([^"]*)"', source
    ) == [*("/", "/healthz", "/readyz", "/openapi.json"), "/"]  # the last on the dashboard's port
    assert "openapi_config=None" in source  # no pages of Litestar's, which load from elsewhere
    assert "debug=True" not in source


@pytest.mark.parametrize("method", ["GET", "POST", "OPTIONS"])
def test_there_is_nothing_else(site: Site, method: str) -> None:
    key = site.visitor().key
    for path in NOTHING:
        head = f"{method} {path} HTTP/1.1\r\nhost: x\r\nx-api-key: {key}\r\ncontent-length: 0\r\n"
        with RawClient(site.proxy.port) as client:
            client.send(f"{head}\r\n".encode())
            assert client.recv_head().status == 404, path


def test_an_answer_names_neither_the_server_nor_its_parts(site: Site) -> None:
    for path in ("/", "/healthz", "/openapi.json", "/nothing", "/v1/openai/chat/completions"):
        with RawClient(site.proxy.port) as client:
            client.send(f"GET {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
            names = {name.lower() for name, _ in client.recv_head().headers}
            said = client.body().lower()
        assert not names & {b"server", b"x-powered-by", b"via"}
        assert not any(word in said for word in (b"uvicorn", b"litestar", b"python", b"traceback"))
