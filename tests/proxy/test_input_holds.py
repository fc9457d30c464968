"""Holds of images and PDFs that fit life; and a strict server, which nothing costs too much."""

import base64
import json
from typing import Any

import pytest

from tests.proxy.helpers import CHAT, MESSAGES, Site, Visitor, chat, estimate_nanousd, message
from tests.support.answers import (
    anthropic_message,
    broken_stream,
    openai_chat,
    openai_chat_stream,
    openai_usage,
    plain,
    stream,
)

RESPONSES = "/v1/openai/responses"
CHAT_RATE, MESSAGE_RATE = 2_500, 3_000
"""Nano-USD per token of input, of gpt-4o and of claude-sonnet-4-6."""
OUTPUT = {CHAT: 100 * 10_000, MESSAGES: 100 * 15_000}
DATA = base64.b64encode(bytes(750_000)).decode()
PDF = base64.b64encode(b"%PDF-1.4 " + b"<</Type /Page>> " * 4 + bytes(300_000)).decode()


def image_in_chat() -> bytes:
    url = {"url": f"data:image/png;base64,{DATA}"}
    return chat(messages=[{"role": "user", "content": [{"type": "image_url", "image_url": url}]}])


def document_in_message() -> bytes:
    source = {"type": "base64", "media_type": "application/pdf", "data": PDF}
    return message(messages=[{"role": "user", "content": [{"type": "document", "source": source}]}])


def held(site: Site, who: Visitor) -> int:
    amount: int = site.ended(who)["hold_nanousd"]
    return amount


def test_an_image_of_a_megabyte_is_served_on_little_credit(site: Site) -> None:
    site.stub.handle = plain(openai_chat(usage=openai_usage(1100, 5)))
    ann = Visitor(*site.books.user("0.05"))
    body = image_in_chat()
    assert site.ask(ann, CHAT, body).status == 200
    tokens = (len(body) - len(DATA)) // 3 + 600 + 6000
    assert held(site, ann) == tokens * CHAT_RATE + OUTPUT[CHAT]
    assert site.last_request().body == body


def test_a_pdf_is_held_by_its_pages(site: Site) -> None:
    site.stub.handle = plain(anthropic_message())
    ann = Visitor(*site.books.user("0.10"))
    body = document_in_message()
    assert site.ask(ann, MESSAGES, body).status == 200
    tokens = (len(body) - len(PDF)) // 3 + 600 + 4 * 3000
    assert held(site, ann) == tokens * MESSAGE_RATE + OUTPUT[MESSAGES]


def test_an_image_is_estimated_as_it_was_held(site: Site) -> None:
    site.stub.handle = broken_stream(openai_chat_stream(["abc"], include_usage=False)[:2])
    fields = json.loads(image_in_chat())
    body = json.dumps({**fields, "stream": True}).encode()
    visitor = site.visitor()
    site.ask(visitor, CHAT, body)
    text = body.replace(DATA.encode(), b"")
    nanousd = estimate_nanousd(text, 3, input_rate=CHAT_RATE, output_rate=10_000)
    image_nanousd = 6000 * CHAT_RATE
    site.assert_paid(visitor, state="settled", basis="estimate", nanousd=nanousd + image_nanousd)


# --- strict ---


def test_a_strict_server_holds_a_token_for_each_byte_of_text(strict_site: Site) -> None:
    strict_site.stub.handle = plain(openai_chat())
    ann = strict_site.visitor()
    body = chat(service_tier="default")
    assert strict_site.ask(ann, CHAT, body).status == 200
    assert held(strict_site, ann) == (len(body) + 1600) * CHAT_RATE + OUTPUT[CHAT]


def test_a_strict_server_holds_the_whole_window_for_an_image(strict_site: Site) -> None:
    strict_site.stub.handle = plain(openai_chat())
    ann = strict_site.visitor()
    fields = {**json.loads(image_in_chat()), "service_tier": "default"}
    assert strict_site.ask(ann, CHAT, json.dumps(fields).encode()).status == 200
    assert held(strict_site, ann) == 128_000 * CHAT_RATE + OUTPUT[CHAT]


@pytest.mark.parametrize(
    ("path", "body"),
    [
        (MESSAGES, message(tools=[{"type": "web_search_20250305", "name": "web_search"}])),
        (RESPONSES, b'{"model":"gpt-4o","input":"x","tools":[{"type":"web_search"}]}'),
        (MESSAGES, message(context_management={"edits": [{"type": "compact_20260112"}]})),
    ],
)
def test_a_strict_server_refuses_what_has_no_bound(
    strict_site: Site, path: str, body: bytes
) -> None:
    seen = len(strict_site.stub.requests)
    ann = strict_site.visitor()
    got = strict_site.ask(ann, path, body)
    error: dict[str, Any] = got.error()
    assert (got.status, error["code"]) == (400, "option_not_metered")
    assert error["message"].startswith("This server is strict: ")
    assert got.header("x-should-retry") == b"false"
    assert strict_site.ended(ann)["state"] == "refused"
    assert len(strict_site.stub.requests) == seen


def test_the_estimate_of_an_input_is_never_more_than_what_was_held_for_it(
    strict_site: Site,
) -> None:
    """25 linked images may be 150,000 tokens by the rule; gpt-4o reads 128,000 at most."""
    strict_site.stub.handle = stream(openai_chat_stream(include_usage=False))
    ann = strict_site.visitor()
    image = {"type": "image_url", "image_url": {"url": "https://example.com/a.png"}}
    messages = [{"role": "user", "content": [image] * 25}]
    strict_site.ask(ann, CHAT, chat(stream=True, service_tier="default", messages=messages))
    # `Hello there!` has twelve bytes: four tokens.
    cost = 128_000 * CHAT_RATE + 4 * 10_000
    row = strict_site.assert_paid(ann, state="settled", basis="estimate", nanousd=cost)
    assert row["hold_nanousd"] == 128_000 * CHAT_RATE + OUTPUT[CHAT]
