"""What is not served says why, and what to do instead; nothing of it reaches the provider."""

import json
import re
from pathlib import Path

import pytest

from llmproxy.refused_endpoints import REFUSED_ENDPOINTS, find_refused
from tests.proxy.helpers import Site
from tests.security.visit import Visit

PAGE = (Path(__file__).parents[2] / "docs" / "endpoints.md").read_text("utf-8")


@pytest.mark.parametrize(
    ("method", "path", "why", "instead"),
    [
        ("GET", "/v1/openai/responses/resp_1", "paid for", "previous_response_id"),
        ("GET", "/v1/openai/v1/responses/resp_1?stream=true", "paid for", "previous_response_id"),
        ("DELETE", "/v1/openai/responses/resp_1", "paid for", "Keep the answer"),
        ("POST", "/v1/openai/responses/resp_1/cancel", "paid for", "Keep the answer"),
        ("GET", "/v1/openai/responses/resp_1/input_items", "paid for", "Keep the answer"),
        ("GET", "/v1/openai/chat/completions/chatcmpl-1", "paid for", "Keep the answer"),
        ("POST", "/v1/openai/batches", "only in its results", "one by one"),
        ("POST", "/v1/anthropic/v1/messages/batches", "only in its results", "one by one"),
        ("POST", "/v1/openai/files", "operator's account", "into the request"),
        ("POST", "/v1/openai/vector_stores/vs_1/search", "operator's account", "into the request"),
        ("POST", "/v1/openai/conversations", "no size", "Send the messages"),
        ("POST", "/v1/openai/realtime/sessions", "no bound", "Use `chat/completions`"),
        ("POST", "/v1/openai/videos", "does not report", "images/generations"),
        ("POST", "/v1/openai/fine_tuning/jobs", "for hours", "operator"),
        ("GET", "/v1/anthropic/v1/organizations/api_keys", "not yours alone", "operator"),
        ("POST", "/v1/openai/decisions", "not read here", "Ask `responses`"),
        ("POST", "/v1/openai/fim/completions", "not read here", "with a `suffix`"),
        ("POST", "/v1/openai/ocr", "by the page", "Put the document into"),
        ("POST", "/v1/openai/v2/chat", "not read here", "Use `chat/completions`"),
        ("POST", "/v1/openai/v1/rerank", "by the search", "`embeddings`"),
        ("POST", "/v1/openai/v2/rerank", "by the search", "`embeddings`"),
        ("POST", "/v1/openai/chat/moderations", "not read here", "`moderations`"),
    ],
)
def test_an_endpoint_that_is_not_served_says_why_and_what_to_do(
    site: Site, method: str, path: str, why: str, instead: str
) -> None:
    before = len(site.stub.requests)  # of other tests that share the site
    visit = Visit(site)
    status, answer = visit.ask(method, path, b"{}", x_api_key=site.visitor().key)
    visit.close()
    error = json.loads(answer)["error"]
    message = error["message"]
    assert (status, error["code"]) == (400, "endpoint_not_metered")
    assert why in message
    assert instead in message
    assert len(site.stub.requests) == before


def test_an_endpoint_that_nobody_has_heard_of_is_refused_with_what_there_is(site: Site) -> None:
    got = site.ask(site.visitor(), "/v1/openai/telepathy", b"{}")
    message = json.loads(got.body)["error"]["message"]
    assert "not forwarded. Available: /v1/openai/" in message


def test_another_providers_endpoint_is_not_told_of_as_a_kept_answer() -> None:
    for served in ("chat/completions", "messages", "responses", "v1beta/chat/completions"):
        assert find_refused(served) is None


def test_the_longest_path_counts_and_a_beginning_of_a_word_does_not() -> None:
    batches, kept = find_refused("messages/batches/b_1"), find_refused("messages/m_1")
    assert batches is not None
    assert kept is not None
    assert "one by one" in batches.instead
    assert "Keep the answer" in kept.instead
    assert find_refused("filesystem") is None
    assert find_refused("v1/files") == find_refused("files/f_1/content")


@pytest.mark.parametrize(
    "before", ["v1/", "v1beta/", "v1beta/openai/", "openai/v1/", "openai/deployments/our-gpt/"]
)
def test_what_clients_put_before_an_endpoint_does_not_hide_its_reason(before: str) -> None:
    assert find_refused(f"{before}files") == find_refused("files")
    assert find_refused(f"{before}chat/completions") is None
    assert find_refused("openai/telepathy") is None


def test_the_document_has_every_refused_endpoint_and_no_other() -> None:
    """A row of its table for each kind of them, in any order."""
    section = PAGE.partition("## Refused endpoints\n")[2].partition("\n## ")[0]
    firsts = [row.split(" | ")[0] for row in section.splitlines() if row.startswith("| ")][1:]
    documented = [set(re.findall(r"`([^`…]+)`", first)) for first in firsts]
    wanted = [set(each.paths) for each in REFUSED_ENDPOINTS]
    assert sorted(map(sorted, documented)) == sorted(map(sorted, wanted))
