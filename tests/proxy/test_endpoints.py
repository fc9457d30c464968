"""Every endpoint through the running proxy: where it goes, what it costs, what it leaves."""

import json
import time
from pathlib import Path
from typing import Any

import pytest

from tests.proxy.conftest import running_site
from tests.proxy.helpers import Site, chat
from tests.support.answers import data_event, named_event, openai_chat, plain, stream
from tests.support.raw_client import RawClient

INPUT = b'{"model":"gpt-4o","input":"hi","max_output_tokens":100}'
USAGE = {
    "input_tokens": 1000,
    "input_tokens_details": {"cached_tokens": 400},
    "output_tokens": 200,
    "output_tokens_details": {"reasoning_tokens": 50},
    "total_tokens": 1200,
}
GPT_4O_NANOUSD = 600 * 2_500 + 400 * 1_250 + 200 * 10_000
"""What USAGE costs: 2.50 USD per million fresh tokens, 1.25 cached, 10 of output."""


def response(**fields: Any) -> dict[str, Any]:  # noqa: ANN401
    output = [{"type": "message", "content": [{"type": "output_text", "text": "Hello"}]}]
    head = {"id": "resp_1", "object": "response", "status": "completed", "model": "gpt-4o"}
    return {**head, "output": output, "usage": USAGE, "error": None, **fields}


def response_stream(end: str = "completed", **fields: Any) -> list[bytes]:  # noqa: ANN401
    begun = response(status="in_progress", usage=None, output=[])
    return [
        named_event("response.created", response=begun),
        named_event("response.in_progress", response=begun),
        named_event("response.output_text.delta", delta="Hel"),
        named_event("response.output_text.delta", delta="lo"),
        named_event(f"response.{end}", response=response(status=end, **fields)),
    ]


# --- responses ---


@pytest.mark.parametrize("name", ["responses", "responses/compact"])
def test_a_response_is_passed_on_and_paid(site: Site, name: str) -> None:
    body = json.dumps(response(), indent=1).encode()
    site.stub.handle = plain(body)
    visitor = site.visitor()
    got = site.ask(visitor, f"/v1/openai/{name}", INPUT)
    assert (got.status, got.body) == (200, body)
    assert got.header("x-llmproxy-cost-usd") == b"0.004"
    assert site.last_request().target == f"/v1/{name}".encode()
    assert site.last_request().body == INPUT
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=GPT_4O_NANOUSD)
    assert row["endpoint"] == name


@pytest.mark.parametrize("end", ["completed", "incomplete", "failed"])
def test_a_streamed_response_is_passed_on_and_paid(site: Site, end: str) -> None:
    events = response_stream(end)
    site.stub.handle = stream(events)
    visitor = site.visitor()
    got = site.ask(visitor, "/v1/openai/responses", INPUT[:-1] + b',"stream":true}')
    assert (got.status, got.body, got.clean_end) == (200, b"".join(events), True)
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=GPT_4O_NANOUSD)


def test_a_response_that_failed_before_it_began_is_free(site: Site) -> None:
    failed = response(status="failed", usage=None, output=[], error={"code": "server_error"})
    events = [response_stream()[0], named_event("response.failed", response=failed)]
    site.stub.handle = stream(events)
    visitor = site.visitor()
    got = site.ask(visitor, "/v1/openai/responses", INPUT[:-1] + b',"stream":true}')
    assert got.body == b"".join(events)
    site.assert_released(visitor)


def test_a_response_cut_by_the_provider_is_estimated_and_told(site: Site) -> None:
    events = response_stream()[:-1]
    site.stub.handle = stream(events)
    visitor = site.visitor()
    body = INPUT[:-1] + b',"stream":true}'
    got = site.ask(visitor, "/v1/openai/responses", body)
    assert got.body.startswith(b"".join(events))
    name, data = got.last_event()
    assert (name, data["error"]["code"]) == (b"error", "upstream_interrupted")
    nanousd = -(-len(body) // 3) * 2_500 + -(-len("Hello") // 3) * 10_000
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd)


@pytest.mark.parametrize("cut_after", range(1, 6))
def test_a_client_that_leaves_a_response_pays_what_the_provider_reports(
    site: Site, cut_after: int
) -> None:
    events = response_stream()
    site.stub.handle = stream(events, gap_s=0.02)
    visitor = site.visitor()
    wanted = len(b"".join(events[:cut_after]))
    with site.send(visitor, "/v1/openai/responses", INPUT[:-1] + b',"stream":true}') as client:
        client.recv_head()
        for _, chunk in client.recv_chunks():
            wanted -= len(chunk)
            if wanted <= 0:
                break
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=GPT_4O_NANOUSD)


def test_a_background_response_is_refused_with_the_reason(site: Site) -> None:
    seen = len(site.stub.requests)
    got = site.ask(site.visitor(), "/v1/openai/responses", INPUT[:-1] + b',"background":true}')
    assert (got.status, got.error()["code"]) == (400, "option_not_metered")
    assert "fetched later" in got.error()["message"]
    assert len(site.stub.requests) == seen


# --- legacy completions and embeddings ---


def completion_events() -> list[bytes]:
    head = {"id": "cmpl_1", "object": "text_completion", "model": "gpt-3.5-turbo-instruct"}

    def chunk(text: str, reason: str | None = None) -> bytes:
        choice = {"index": 0, "text": text, "logprobs": None, "finish_reason": reason}
        return data_event({**head, "choices": [choice]})

    return [chunk("Hel"), chunk("lo"), chunk("", "stop")]


def test_a_completion_stream_gets_its_usage_asked_for_and_withheld(site: Site) -> None:
    usage = {"prompt_tokens": 1000, "completion_tokens": 200, "total_tokens": 1200}
    events = completion_events()
    extra = data_event({"model": "gpt-3.5-turbo-instruct", "choices": [], "usage": usage})
    done = b"data: [DONE]\n\n"
    site.stub.handle = stream([*events, extra, done])
    visitor = site.visitor()
    body = b'{"model":"gpt-3.5-turbo-instruct","prompt":"hi","max_tokens":9,"stream":true}'
    got = site.ask(visitor, "/v1/openai/completions", body)
    assert got.body == b"".join([*events, done])
    assert site.last_request().json()["stream_options"] == {"include_usage": True}
    # 1.50 and 2 USD per million tokens.
    nanousd = 1000 * 1_500 + 200 * 2_000
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)


def test_an_embedding_is_paid_by_its_input(site: Site) -> None:
    body = {"object": "list", "data": [{"embedding": "AAAA"}], "model": "text-embedding-3-small"}
    usage = {"prompt_tokens": 1000, "total_tokens": 1000}
    site.stub.handle = plain(json.dumps({**body, "usage": usage}).encode())
    visitor = site.visitor()
    sent = b'{"model":"text-embedding-3-small","input":["hi"],"encoding_format":"base64"}'
    assert site.ask(visitor, "/v1/openai/embeddings", sent).status == 200
    # 0.02 USD per million tokens.
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=1000 * 20)


# --- free ---

FREE = {
    "/v1/openai/moderations": (b'{"input":"hi"}', b"/v1/moderations"),
    "/v1/openai/responses/input_tokens": (INPUT, b"/v1/responses/input_tokens"),
    "/v1/anthropic/messages/count_tokens": (chat(model="m"), b"/v1/messages/count_tokens"),
    "/v1/anthropic/v1/messages/count_tokens?beta=true": (
        chat(model="claude-sonnet-4-6"),
        b"/v1/messages/count_tokens?beta=true",
    ),
}


@pytest.mark.parametrize("path", FREE)
def test_what_is_free_needs_no_credit_and_leaves_a_row(site: Site, path: str) -> None:
    body, target = FREE[path]
    site.stub.handle = plain(b'{"input_tokens":7}')
    name, key = site.books.user(credit="0")
    with RawClient(site.proxy.port) as client:
        client.post(path, body, {"authorization": f"Bearer {key}"})
        assert client.recv_head().status == 200
        assert client.body() == b'{"input_tokens":7}'
    assert (site.last_request().target, site.last_request().body) == (target, body)
    row = wait_for_row(site, name)
    assert (row["state"], row["basis"], row["cost_nanousd"], row["hold_nanousd"]) == (
        *("settled", "none"),
        *(0, 0),
    )
    assert (row["status"], row["upstream_status"], row["attempts"]) == (200, 200, 1)


def test_a_free_request_that_fails_upstream_passes_the_error_on(site: Site) -> None:
    site.stub.handle = plain(b'{"error":{"message":"no such model"}}', status=404)
    visitor = site.visitor()
    got = site.ask(visitor, "/v1/openai/moderations", b'{"model":"x","input":"hi"}')
    assert (got.status, got.body) == (404, b'{"error":{"message":"no such model"}}')
    row = site.assert_released(visitor)
    assert (row["model"], row["upstream_status"]) == ("x", 404)


def test_what_is_free_needs_a_key_all_the_same(site: Site) -> None:
    with RawClient(site.proxy.port) as client:
        client.post("/v1/openai/moderations", b'{"input":"hi"}', {})
        assert client.recv_head().status == 401


def wait_for_row(site: Site, name: str) -> dict[str, Any]:
    deadline = time.monotonic() + 10
    while not (rows := site.books.rows(name)):
        assert time.monotonic() < deadline
        time.sleep(0.005)
    (row,) = rows
    return row


# --- paths ---


ALIASES = {
    "/v1/openai/chat/completions": "gpt-4o",
    "/v1/openai/v1/chat/completions": "gpt-4o",
    "/v1/groq/openai/v1/chat/completions": "llama-3.1-8b-instant",
    "/v1/gemini/v1beta/openai/chat/completions": "gemini-3.8-flash",
}


def test_the_paths_that_clients_use_lead_to_one_endpoint(tmp_path: Path) -> None:
    with running_site(tmp_path, {}) as site:
        site.proxy.use_provider("groq", f"{site.stub.url}/v1")
        site.proxy.use_provider("gemini", site.stub.url)
        site.stub.handle = plain(openai_chat())
        visitor = site.visitor()
        for path, model in ALIASES.items():
            assert site.ask(visitor, path, chat(model=model)).status == 200, path
            upstream = b"/v1beta/openai" if "/gemini/" in path else b"/v1"
            assert site.last_request().target == upstream + b"/chat/completions"


@pytest.mark.parametrize("path", ["/v1/openai", "/v1/openai/", "/v1/anthropic", "/v1/anthropic/"])
@pytest.mark.parametrize("method", ["GET", "HEAD"])
def test_a_base_url_is_there_for_whoever_looks(site: Site, method: str, path: str) -> None:
    with RawClient(site.proxy.port) as client:
        client.send(f"{method} {path} HTTP/1.1\r\nhost: x\r\n\r\n".encode())
        assert client.recv_head().status == 200
        assert client.body() == b""


def get(site: Site, path: str) -> tuple[int, dict[str, Any]]:
    """Ask with a key for a path; return the status and the JSON."""
    with RawClient(site.proxy.port) as client:
        key = site.visitor().key
        head = f"GET {path} HTTP/1.1\r\nhost: x\r\nauthorization: Bearer {key}\r\n\r\n"
        client.send(head.encode())
        return client.recv_head().status, json.loads(client.body())


def test_one_model_of_the_list_is_described(site: Site) -> None:
    status, model = get(site, "/v1/openai/models/gpt-4o")
    assert (status, model["id"], model["object"]) == (200, "gpt-4o", "model")
    status, model = get(site, "/v1/openai/v1/models/gpt-4o-2024-08-06")
    assert (status, model["id"]) == (200, "gpt-4o")
    status, model = get(site, "/v1/anthropic/v1/models/claude-sonnet-4-6")
    assert (status, model["type"]) == (200, "model")
    status, model = get(site, "/v1/openai/models/nothing")
    assert (status, model["error"]["code"]) == (404, "model_not_found")
    assert get(site, "/v1/openai/models/")[0] == 404


def test_the_list_offers_models_for_text_images_and_sound(site: Site) -> None:
    status, listed = get(site, "/v1/openai/models")
    ids = {model["id"] for model in listed["data"]}
    assert status == 200
    assert {"gpt-4o", "text-embedding-3-small", "gpt-image-2", "whisper-1", "tts-1"} <= ids
