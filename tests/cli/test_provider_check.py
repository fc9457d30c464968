"""`providers check`: real requests to servers that take, refuse or do not answer."""

import json
import re
from collections.abc import Iterator

import pytest

from tests.cli.conftest import Program, Quick
from tests.support.stub_provider import Out, SeenRequest, StubProvider, closed_port

GOOD = "sk-good-0123456789abcdefghij"
BAD = "sk-bad-00123456789abcdefghij"


async def handle(request: SeenRequest, out: Out) -> None:
    """List models to the good key and to nobody's, refuse others and echo their key."""
    assert (request.method, request.body) == ("GET", b"")
    sent = request.header("authorization") or request.header("x-api-key") or b""
    if BAD.encode() in sent:
        message = f"Incorrect API key provided: {BAD}."
        await out.json(401, {"error": {"message": message, "code": "invalid_api_key"}})
    elif request.target == b"/echo/models":
        await out.json(200, {"data": [], "headers": {"authorization": sent.decode()}})
    elif request.target == b"/html/models":
        await out.json(200, b"<html>Welcome</html>")
    elif request.target == b"/moved/models":
        await out.head(308, [("location", "https://example.com/models")], length=0)
    else:
        await out.json(200, {"object": "list", "data": [{"id": "a"}, {"id": "b"}]})


@pytest.fixture
def stub() -> Iterator[StubProvider]:
    with StubProvider() as stub:
        stub.handle = handle
        yield stub


def add(quick: Quick, name: str, url: str, *more: str, dialect: str = "openai") -> None:
    quick.ok("providers", "add", name, "--base-url", url, "--dialect", dialect, *more)


def checked(quick: Quick, *words: str) -> list[tuple[str, str, str]]:
    ran = quick.run("providers", "check", *words, "--json")
    rows = json.loads(ran.out)
    assert ran.code == (0 if all(row["result"] == "ok" for row in rows) else 1)
    return [(row["key"], row["result"], row["message"]) for row in rows]


def test_a_server_without_a_key_is_asked_without_one(quick: Quick, stub: StubProvider) -> None:
    add(quick, "local", f"{stub.url}/v1", "--no-key")
    assert checked(quick) == [("none", "ok", "2 models")]
    (request,) = stub.requests
    assert request.target == b"/v1/models"
    assert request.header("authorization") is None


def test_each_key_is_tried_in_its_dialect(quick: Quick, stub: StubProvider) -> None:
    quick.ok("providers", "set", "openai", "--base-url", f"{stub.url}/v1")
    quick.ok("providers", "set", "anthropic", "--base-url", stub.url)
    for provider in ("openai", "anthropic"):
        quick.ok("provider-keys", "add", provider, "--name", "good", stdin=GOOD)
        quick.ok("provider-keys", "add", provider, "--name", "bad", stdin=BAD)
        quick.ok("provider-keys", "add", provider, "--name", "off", stdin=f"{BAD}-off")
        quick.ok("provider-keys", "disable", provider, "off")
    refused = "401: Incorrect API key provided: ***."
    for provider in ("openai", "anthropic"):
        found = checked(quick, provider)
        assert found == [("good", "ok", "2 models"), ("bad", "refused", refused)]
    targets = sorted(request.target for request in stub.requests)
    assert targets == [b"/v1/models"] * 4
    versions = [request.header("anthropic-version") for request in stub.requests]
    assert versions == [None, None, b"2023-06-01", b"2023-06-01"]
    ran = quick.run("providers", "check")
    assert ran.code == 1
    assert BAD not in ran.out + ran.err
    # It has changed nothing.
    states = [key["state"] for key in quick.json("provider-keys", "list")]
    assert states == ["active", "active", "disabled"] * 2


def test_a_dead_key_that_works_again_is_told(quick: Quick, stub: StubProvider) -> None:
    quick.ok("providers", "set", "openai", "--base-url", f"{stub.url}/v1")
    quick.ok("provider-keys", "add", "openai", stdin=GOOD)
    from llmproxy import key_pool
    from llmproxy.storage.database import AdminDatabase

    database = AdminDatabase(quick.database)
    with database.write() as tx:
        key = key_pool.find_provider_key(tx, "openai", "key-1")
        key_pool.set_key_state(tx, key.id, "dead", reason="401", actor="proxy", now_ms=1)
    database.close()
    ran = quick.run("providers", "check", "openai")
    assert ran.code == 0
    assert "works again: llmproxy provider-keys enable openai key-1" in ran.err


def test_what_is_no_provider_is_not_ok(quick: Quick, stub: StubProvider) -> None:
    add(quick, "a-html", f"{stub.url}/html", "--no-key")
    add(quick, "b-moved", f"{stub.url}/moved", "--no-key")
    add(quick, "c-gone", f"http://127.0.0.1:{closed_port()}/v1", "--no-key")
    found = checked(quick)
    assert [result for _, result, _ in found] == ["refused", "refused", "unreachable"]
    assert "is the base URL right?" in found[0][2]
    assert found[1][2] == "308: it is at https://example.com/models now"
    assert "refused" in found[2][2]


def test_a_key_that_cannot_be_opened_is_not_ok(quick: Quick, stub: StubProvider) -> None:
    quick.ok("providers", "set", "openai", "--base-url", f"{stub.url}/v1")
    quick.ok("provider-keys", "add", "openai", stdin=GOOD)
    (quick.home / "config" / "master.key").unlink()
    ((_, result, message),) = checked(quick)
    assert (result, "master key is missing" in message) == ("sealed", True)
    assert stub.requests == []


def test_nothing_to_check_and_nobody_to_check(quick: Quick) -> None:
    ran = quick.run("providers", "check")
    assert (ran.code, ran.out) == (0, "")
    assert "No key to try" in ran.err
    assert quick.json("providers", "check") == []
    quick.fails(3, "providers", "check", "nobody")


def test_the_table_fits_a_narrow_terminal(program: Program, stub: StubProvider) -> None:
    url = ("--base-url", f"{stub.url}/v1", "--dialect", "openai", "--no-key")
    program.run("providers", "add", "ollama", *url)
    ran = program.run_in_terminal("providers", "check", COLUMNS="80")
    assert ran.code == 0, ran
    assert "2 models" in ran.out
    plain = re.sub("\x1b\\[[0-9;]*m", "", ran.out)
    assert all(len(line.rstrip()) <= 80 for line in plain.splitlines())


def test_a_server_that_sends_the_key_back_is_no_place_for_it(
    quick: Quick, stub: StubProvider
) -> None:
    add(quick, "echo", f"{stub.url}/echo")
    quick.ok("provider-keys", "add", "echo", stdin=GOOD)
    ((_, result, message),) = checked(quick, "echo")
    assert result == "refused"
    assert "sends the key back" in message
    assert GOOD not in message
