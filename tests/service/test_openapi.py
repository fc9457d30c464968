"""`/openapi.json`: that it is whole, says what the code goes by, and gives nothing away.

Whether the answers are as it says is for tests/service/test_schemathesis.py.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

import llmproxy
from llmproxy.errors import ApiError
from llmproxy.presets import PRESETS
from llmproxy.server import usage_query
from tests.service.helpers import Books, ask
from tests.support.proxy import RunningProxy

PATH = "/openapi.json"
DESCRIBED = {"/", "/healthz", "/readyz", "/openapi.json", "/metrics", "/v1/key", "/v1/usage"}
NEEDS_A_KEY = {"/v1/key", "/v1/usage"}
NOW_MS = 1_795_000_000_000


@pytest.fixture(scope="module")
def document(proxy: RunningProxy) -> dict[str, Any]:
    answered = ask(proxy.port, "GET", PATH)
    assert answered.status == 200
    assert answered.headers["content-type"] == "application/json"
    return answered.json()  # type: ignore[no-any-return]


def everything_in(value: object) -> Iterator[tuple[str, object]]:
    """Yield every member of every object, at any depth."""
    if isinstance(value, dict):
        for name, inner in value.items():
            yield name, inner
            yield from everything_in(inner)
    elif isinstance(value, list):
        for inner in value:
            yield from everything_in(inner)


def test_every_path_of_ours_is_described_and_no_other(document: dict[str, Any]) -> None:
    assert document["openapi"].startswith("3.1")
    assert set(document["paths"]) == DESCRIBED
    operations = [item["get"] for item in document["paths"].values()]
    assert all(set(item) == {"get"} for item in document["paths"].values())
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    assert all(operation["summary"] for operation in operations)


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    references = {value for name, value in everything_in(document) if name == "$ref"}
    schemas = document["components"]["schemas"]
    assert references <= {f"#/components/schemas/{name}" for name in schemas}
    assert references


def test_errors_have_the_one_envelope_and_keys_are_asked_for(document: dict[str, Any]) -> None:
    envelope = {"application/json": {"schema": {"$ref": "#/components/schemas/ErrorEnvelope"}}}
    for path, item in document["paths"].items():
        operation = item["get"]
        refusals = {status for status in operation["responses"] if status != "200"}
        assert {"400", "408", "431"} <= refusals
        assert ({"401", "403"} <= refusals) == (path in NEEDS_A_KEY)
        assert ("security" in operation) == (path in NEEDS_A_KEY)
        for status in refusals - ({"503"} if path == "/readyz" else set()):
            assert operation["responses"][status]["content"] == envelope
    schemes = document["components"]["securitySchemes"]
    for path in NEEDS_A_KEY:
        asked = document["paths"][path]["get"]["security"]
        assert [next(iter(each)) for each in asked] == list(schemes)


def test_each_place_that_is_named_for_the_key_takes_it(
    proxy: RunningProxy, books: Books, document: dict[str, Any]
) -> None:
    _, key = books.user()
    for scheme in document["components"]["securitySchemes"].values():
        path, headers = "/v1/key", {}
        if scheme["type"] == "http":
            headers = {"authorization": f"{scheme['scheme']} {key}"}
        elif scheme["in"] == "header":
            headers = {scheme["name"]: key}
        else:
            path = f"{path}?{scheme['name']}={key}"
        assert ask(proxy.port, "GET", path, headers=headers).status == 200, scheme


def parameter(document: dict[str, Any], name: str) -> dict[str, Any]:
    parameters = document["paths"]["/v1/usage"]["get"]["parameters"]
    return next(each["schema"] for each in parameters if each["name"] == name)


def test_the_parameters_are_those_that_are_read(document: dict[str, Any]) -> None:
    parameters = document["paths"]["/v1/usage"]["get"]["parameters"]
    assert tuple(each["name"] for each in parameters) == usage_query.PARAMETERS
    assert not any(each["required"] for each in parameters)
    assert parameter(document, "group")["enum"] == list(usage_query.GROUPS)
    assert parameter(document, "format")["enum"] == list(usage_query.FORMATS)
    now = usage_query.read_usage_query(b"", b"", now_ms=NOW_MS)
    assert parameter(document, "group")["default"] == now.group
    assert parameter(document, "limit")["default"] == now.limit


@pytest.mark.parametrize("text", ["0", "1", "1000", "1001", "-1"])
def test_the_bounds_of_the_limit_are_those_that_count(document: dict[str, Any], text: str) -> None:
    schema = parameter(document, "limit")
    is_described = schema["minimum"] <= int(text) <= schema["maximum"]
    assert is_read(f"limit={text}") == is_described


@pytest.mark.parametrize(
    "text",
    [
        *("2026-11-23", "2026-11-23T09:30", "2026-11-23T09:30:00Z", "2026-11-23 09:30:00.123456"),
        *(
            "2026-11-23T09:30:00Z.",
            "26-11-23",
            "now",
            "",
            "२०२६-११-२३",
            "2026-11-23T09:30:00.1234567",
        ),
    ],
)
def test_the_pattern_of_times_is_the_one_that_counts(document: dict[str, Any], text: str) -> None:
    for name in ("from", "to"):
        pattern = parameter(document, name)["pattern"]
        other = "to=9999-01-01" if name == "from" else "from=0001-01-02"
        is_described = re.search(pattern, text) is not None
        assert is_read(f"{name}={text}&{other}".replace(" ", "%20")) == is_described


def is_read(query: str) -> bool:
    try:
        usage_query.read_usage_query(query.encode(), b"", now_ms=NOW_MS)
    except ApiError:
        return False
    return True


def test_it_gives_nothing_away(proxy: RunningProxy, document: dict[str, Any]) -> None:
    text = json.dumps(document)
    assert llmproxy.__version__ not in text
    assert str(proxy.port) not in text
    assert str(proxy.home) not in text
    assert "litestar" not in text.lower()
    for provider in PRESETS:
        assert f"/{provider}" not in text.lower()
    assert document == ask(proxy.port, "GET", PATH, headers={"host": "elsewhere.example"}).json()


def test_it_takes_no_other_method(proxy: RunningProxy) -> None:
    refused = ask(proxy.port, "POST", PATH)
    assert (refused.status, refused.headers["allow"]) == (405, "GET, HEAD")
    head = ask(proxy.port, "HEAD", PATH)
    assert (head.status, head.body) == (200, b"")
