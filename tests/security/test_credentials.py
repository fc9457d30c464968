"""S7, S27: one rule lets clients in, whatever the path, the key's place and the Host header."""

import json
from itertools import combinations_with_replacement

import pytest

from llmproxy.dialects.families import BASES
from llmproxy.presets import PRESETS
from llmproxy.routes import endpoints_of
from llmproxy.vault import new_api_key
from tests.proxy.helpers import CHAT, Site, chat
from tests.support.raw_client import RawClient

PLACES = ("authorization", "x-api-key", "api-key", "x-goog-api-key", "query")


def posted_paths() -> list[str]:
    """Every path of the table that is answered with POST."""
    return [
        f"/v1/{provider}/{inner}{endpoint.name}"
        for provider, preset in PRESETS.items()
        for inner in ("", "v1/", *BASES.get(provider, ()))
        for endpoint in endpoints_of(provider, preset.dialect)
    ]


POSTED = posted_paths()
ASKED = [f"/v1/{provider}/models" for provider in PRESETS]
ASKED += ["/v1/openai/models/gpt-4o", "/v1/anthropic/v1/models", "/v1/key", "/v1/usage"]
PAIRS = list(combinations_with_replacement(PLACES, 2))
OPEN = ["/", "/healthz", "/readyz", "/openapi.json", *(f"/v1/{provider}" for provider in PRESETS)]
"""What anybody may ask: that there is somebody, and what may be asked."""
HOSTS = (
    *("localhost", "127.0.0.1", "evil.example", "admin", "[::1]", "x:99999", "*", "", "null"),
    *("169.254.169.254", "localhost:8000", "internal", "metrics", "%2e%2e", "a" * 2000),
)


def status_of(
    site: Site, method: str, path: str, key: str = "", place: str = "authorization", host: str = "x"
) -> int:
    """Ask with a body that no endpoint takes; return the status."""
    if place == "query":
        path = f"{path}?key={key}"
    lines = [f"{method} {path} HTTP/1.1", f"host: {host}", "content-length: 2"]
    if key and place != "query":
        value = f"Bearer {key}" if place == "authorization" else key
        lines.append(f"{place}: {value}")
    with RawClient(site.proxy.port) as client:
        client.send("\r\n".join(lines).encode() + b"\r\n\r\n[]")
        return client.recv_head().status


@pytest.mark.parametrize("place", PLACES)
def test_every_path_takes_the_key_from_every_place_and_no_other_key(site: Site, place: str) -> None:
    key, wrong, seen = site.visitor().key, new_api_key(), len(site.stub.requests)
    for path in POSTED:
        assert status_of(site, "POST", path, key, place) == 400, path
        assert status_of(site, "POST", path, wrong, place) == 401, path
    for path in ASKED:
        assert status_of(site, "GET", path, key, place) == 200, path
        assert status_of(site, "GET", path, wrong, place) == 401, path
    assert len(site.stub.requests) == seen


@pytest.mark.parametrize("host", HOSTS)
def test_no_host_opens_a_path_without_a_key(site: Site, host: str) -> None:
    for path in POSTED[:6]:
        assert status_of(site, "POST", path, host=host) == 401
    for path in ("/v1/key", "/v1/usage", "/v1/openai/models"):
        assert status_of(site, "GET", path, host=host) == 401
    for path in ("/metrics", "/admin", f"/{host}" if host.isalnum() else "/x"):
        assert status_of(site, "GET", path, host=host) == 404


def test_what_is_open_to_all_says_nothing_and_reaches_nobody(site: Site) -> None:
    seen = len(site.stub.requests)
    for path in OPEN:
        for key in ("", new_api_key()):
            assert status_of(site, "GET", path, key) == 200, path
    assert len(site.stub.requests) == seen


@pytest.mark.parametrize(("first", "second"), PAIRS)
def test_of_two_keys_the_first_known_one_pays(site: Site, first: str, second: str) -> None:
    """DESIGN 12: against the rule that two keys must be equal, some clients send two."""
    one, two, body = site.visitor(), site.visitor(), chat()
    for keys, payer in (
        ((one.key, two.key), one if first != second else None),
        ((new_api_key(), two.key), two),
        ((one.key, "sk-somebody-elses"), None),
    ):
        path, lines = CHAT, ["host: x", f"content-length: {len(body)}"]
        for place, key in zip((first, second), keys, strict=True):
            if place == "query":
                path = f"{path}{'&' if '?' in path else '?'}key={key}"
            else:
                lines.append(f"{place}: {'Bearer ' * (place == 'authorization')}{key}")
        with RawClient(site.proxy.port) as client:
            head = "\r\n".join([f"POST {path} HTTP/1.1", *lines])
            client.send(head.encode() + b"\r\n\r\n" + body)
            assert client.recv_head().status == 200
            json.loads(client.body())
        if payer is not None:
            site.books.settled_wallet(payer.name)
            assert [row["state"] for row in site.books.rows(payer.name)] == ["settled"]
        for name in (b"x-api-key", b"api-key", b"x-goog-api-key"):
            assert site.last_request().header(name.decode()) is None
        assert b"?" not in site.last_request().target
