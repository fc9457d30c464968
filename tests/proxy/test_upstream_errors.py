"""Errors that a provider answers with: they pass as they are, without a secret, and are free."""

import json

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Site, chat, message
from tests.support.answers import CannedError, anthropic_error, failing, openai_error
from tests.support.proxy import PROVIDER_KEY
from tests.support.stub_provider import Out, SeenRequest


@pytest.mark.parametrize("case", ["bad_request", "server_error", "overloaded"])
@pytest.mark.parametrize("is_stream", [False, True])
@pytest.mark.parametrize("path", [CHAT, MESSAGES])
def test_errors_that_are_not_about_a_key_pass_verbatim_and_are_free(
    site: Site, case: str, path: str, is_stream: bool
) -> None:
    is_chat = path == CHAT
    canned = (openai_error if is_chat else anthropic_error)(case)  # type: ignore[arg-type]
    site.stub.handle = failing(canned)
    before = len(site.stub.requests)
    visitor = site.visitor()
    body = chat(stream=is_stream) if is_chat else message(stream=is_stream)
    got = site.ask(visitor, path, body)
    assert (got.status, got.body) == (canned.status, canned.body)
    assert len(site.stub.requests) == before + 1  # never tried with another key
    row = site.assert_released(visitor)
    assert (row["status"], row["upstream_status"]) == (canned.status, canned.status)


@pytest.mark.parametrize("status", [400, 403, 404, 408, 413, 422, 451, 500, 502, 504, 529, 599])
def test_any_other_status_passes_too(site: Site, status: int) -> None:
    body = b"<html>\xff no JSON at all</html>"
    site.stub.handle = failing(CannedError(status, [("x-extra", "1")], body))
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert (got.status, got.body, got.header("x-extra")) == (status, body, b"1")
    site.assert_released(visitor)


def test_a_provider_key_that_is_echoed_is_masked(site: Site) -> None:
    text = json.dumps({"error": {"message": f"no: {PROVIDER_KEY}, {PROVIDER_KEY}."}}).encode()
    for status in (400, 500):
        site.stub.handle = failing(CannedError(status, [("x-echo", PROVIDER_KEY)], text))
        got = site.ask(site.visitor(), CHAT, chat())
        assert got.body == text.replace(PROVIDER_KEY.encode(), b"***")
        assert got.header("content-length") == str(len(got.body)).encode()
        assert got.header("x-echo") is None
    assert PROVIDER_KEY not in site.proxy.log.read_text()


@pytest.mark.parametrize("status", [400, 403, 404, 429, 500, 503])
def test_the_operators_organization_and_project_are_masked(site: Site, status: int) -> None:
    """A 429 that passes is one about the size of the request: it names the organization."""
    text = (
        b'{"error":{"message":"Request too large for gpt-4o in organization '
        b'%b on project %b. Members of an org-wide or a Groq %b."}}'
    )
    given = text % (b"org-AbCdEfGh12345678", b"proj_Zyx987Zyx987Zyx987", b"org_01hfgabcdefghijkl")
    site.stub.handle = failing(CannedError(status, [("x-of", "org-AbCdEfGh12345678")], given))
    got = site.ask(site.visitor(), CHAT, chat())
    assert got.status == status
    assert got.body == text % (b"***", b"***", b"***")
    assert got.header("x-of") == b"***"
    assert got.header("content-length") == str(len(got.body)).encode()


@pytest.mark.parametrize("cut", range(1, 24, 3))
def test_an_id_that_comes_in_two_pieces_is_masked(site: Site, cut: int) -> None:
    before, named = b"x" * (READ_FIRST - cut), b"org-AbCdEfGh12345678"

    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(400, [("content-type", "application/json")])
        await out.chunk(before)
        await out.chunk(named[:cut])
        await out.chunk(named[cut:] + b" " + PROVIDER_KEY.encode()[:cut])
        await out.chunk(PROVIDER_KEY.encode()[cut:] + b"!")
        await out.end()

    site.stub.handle = handle
    got = site.ask(site.visitor(), CHAT, chat())
    assert got.body == before + b"*** ***!"


READ_FIRST = 64 * 1024
"""As much of an error is read before anything is decided."""


@pytest.mark.parametrize(
    "at", [READ_FIRST - len(PROVIDER_KEY), READ_FIRST - 5, READ_FIRST - 1, READ_FIRST, 1_000_000]
)
def test_a_huge_error_passes_whole_with_a_key_masked_wherever_it_stands(
    site: Site, at: int
) -> None:
    body = b"x" * at + PROVIDER_KEY.encode() + b"y" * 2_000_000
    site.stub.handle = failing(CannedError(400, [], body))
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert (got.status, got.clean_end) == (400, True)
    assert got.body == b"x" * at + b"***" + b"y" * 2_000_000
    site.assert_released(visitor)


def test_an_error_that_breaks_off_is_still_that_error(site: Site) -> None:
    async def handle(request: SeenRequest, out: Out) -> None:
        await out.head(503, [("content-type", "application/json")], length=100)
        await out.send(b'{"error":')
        out.close()

    site.stub.handle = handle
    visitor = site.visitor()
    got = site.ask(visitor, CHAT, chat())
    assert (got.status, got.body, got.clean_end) == (503, b'{"error":', True)
    site.assert_released(visitor)
