"""S15: of all that the providers offer, only what is metered gets through."""

import json
import re
from pathlib import Path

import pytest

from tests.proxy.helpers import Site, chat, message
from tests.security import provider_paths as paths
from tests.security.visit import Visit
from tests.support.answers import anthropic_message, openai_chat, plain
from tests.support.forms import form

SERVED = {"openai": paths.METERED_OPENAI, "anthropic": paths.METERED_ANTHROPIC}
OFFERED = {"openai": paths.OPENAI, "anthropic": paths.ANTHROPIC}
EXAMPLES = ("abc-123", "gpt-4o", "..", "%2e%2e", "me")
MODELS = {"openai": "gpt-4o", "anthropic": "claude-sonnet-4-6"}
BODIES = {
    "/completions": b'{"model":"gpt-3.5-turbo-instruct","prompt":"hi","max_tokens":9}',
    "/responses": b'{"model":"gpt-4o","input":"hi","max_output_tokens":9}',
    "/responses/compact": b'{"model":"gpt-4o","input":"hi"}',
    "/responses/input_tokens": b'{"model":"gpt-4o","input":"hi"}',
    "/embeddings": b'{"model":"text-embedding-3-small","input":"hi"}',
    "/moderations": b'{"input":"hi"}',
    "/images/generations": b'{"model":"gpt-image-1.5","prompt":"hi","quality":"low"}',
    "/images/edits": form({"model": "gpt-image-1.5", "quality": "low"}, {"image": b"\x89PNG"}),
    "/audio/speech": b'{"model":"tts-1","input":"hi"}',
    "/audio/transcriptions": form({"model": "whisper-1"}, {"file": b"ID3"}),
    "/audio/translations": form(
        {"model": "whisper-1", "response_format": "verbose_json"}, {"file": b"ID3"}
    ),
}


def body_for(provider: str, path: str) -> bytes:
    return BODIES.get(path, chat() if provider == "openai" else message())


def test_the_lists_are_long_and_apart() -> None:
    for provider, offered in OFFERED.items():
        assert not set(paths.listed(offered)) & set(paths.listed(SERVED[provider]))
    every = {path for offered in OFFERED.values() for _, path in paths.listed(offered)}
    assert len(every) >= 180


@pytest.mark.parametrize("provider", OFFERED)
def test_nothing_else_that_the_provider_offers_is_forwarded(site: Site, provider: str) -> None:
    """Each path by every method, also without the inner `/v1` or with it, as SDKs may write it."""
    seen, visit, key = len(site.stub.requests), Visit(site), site.visitor().key
    served = set(paths.listed(SERVED[provider]))
    for path in {path for _, path in paths.listed(OFFERED[provider])}:
        for number, method in enumerate(paths.METHODS):
            is_served = (method, path) in served or (method == "HEAD" and ("GET", path) in served)
            if is_served:
                continue
            example = EXAMPLES[number % len(EXAMPLES)]
            bare = path.removeprefix("/v1").replace("{id}", example)
            for base in ("", "/v1"):
                target = f"/v1/{provider}{base}{bare}"
                status, said = visit.ask(method, target, body_for(provider, path), x_api_key=key)
                if bare.startswith("/models/") and method in {"GET", "HEAD"}:
                    continue  # served by the proxy itself
                assert status in {400, 404, 405}, (method, target, status)
                if method != "HEAD":
                    code = json.loads(said)["error"]["code"]
                    assert code in {"endpoint_not_metered", "invalid_request", "unknown_path"}
    visit.close()
    assert len(site.stub.requests) == seen


@pytest.mark.parametrize("provider", SERVED)
def test_exactly_the_table_gets_through(site: Site, provider: str) -> None:
    """By the one method it has, to the very path that the provider gives it."""
    site.stub.handle = plain(openai_chat() if provider == "openai" else anthropic_message())
    visit, key = Visit(site), site.visitor().key
    for right, path in paths.listed(SERVED[provider]):
        for method in paths.METHODS:
            seen = len(site.stub.requests)
            target = f"/v1/{provider}{path.replace('{id}', MODELS[provider])}"
            status, _ = visit.ask(method, target, body_for(provider, path), x_api_key=key)
            is_right = method == right or (right, method) == ("GET", "HEAD")
            assert status == (200 if is_right else 405), (method, target)
            forwarded = [request.target for request in site.stub.requests[seen:]]
            inner = "" if provider == "anthropic" else "/v1"
            wanted = [f"{inner}{path}".encode()] if is_right and right == "POST" else []
            assert forwarded == wanted
    visit.close()


def test_the_table_of_the_docs_is_the_table() -> None:
    page = (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text("utf-8")
    documented = set(re.findall(r"`POST …(/[a-z_/]+)`", page))
    served = {
        path for _, path in paths.listed(paths.METERED_OPENAI) if not path.startswith("/models")
    }
    served |= {"/messages", "/messages/count_tokens"}
    assert documented == served
