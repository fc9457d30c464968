"""Images and PDFs in a body: told from text wherever a dialect carries them, and nowhere else."""

import base64
import json
import zlib
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from llmproxy.dialects import json_gate
from llmproxy.dialects.anthropic_messages import AnthropicMessages
from llmproxy.dialects.base import Endpoint, InputFacts
from llmproxy.dialects.media import in_base64, in_data_url
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_responses import OpenAIResponses
from llmproxy.dialects.pdf_pages import PAGES_MAX, count_pages

CHAT, RESPONSES, MESSAGES = OpenAIChat(), OpenAIResponses(), AnthropicMessages()
PNG = base64.b64encode(b"\x89PNG" + bytes(range(256)) * 3).decode()


def pdf(pages: int) -> bytes:
    """A PDF whose pages can be seen."""
    objects = b"".join(b"%d 0 obj <</Type /Page /Parent 1 0 R>> endobj\n" % n for n in range(pages))
    return b"%PDF-1.4\n1 0 obj <</Type /Pages /Count 9>> endobj\n" + objects


def packed_pdf(pages: int, *, spoilt: bool = False) -> bytes:
    """A PDF whose pages are in a compressed object stream."""
    objects = (
        b"<</Type/Page/Contents %d 0 R/Parent %d 0 R>>" % (n * 7, n % 5) for n in range(pages)
    )
    packed = zlib.compress(b"".join(objects))
    if spoilt:
        packed = packed[::-1]
    head = b"%PDF-1.5\n7 0 obj <</Type/ObjStm/Filter/FlateDecode/N 3>> stream\r\n"
    return head + packed + b"\nendstream endobj\n<</Type/PageLabels>>"


def b64(data: bytes) -> str:
    return base64.b64encode(data).decode()


# --- where each dialect carries them ---


def chat_image(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": {"url": url}}


def chat_image_flat(url: str) -> dict[str, Any]:
    return {"type": "image_url", "image_url": url}


def chat_file(url: str) -> dict[str, Any]:
    return {"type": "file", "file": {"filename": "x", "file_data": url}}


def responses_image(url: str) -> dict[str, Any]:
    return {"type": "input_image", "image_url": url}


def responses_screenshot(url: str) -> dict[str, Any]:
    shot = {"type": "computer_screenshot", "image_url": url}
    return {"type": "computer_call_output", "call_id": "c", "output": shot}


def responses_file(url: str) -> dict[str, Any]:
    return {"type": "input_file", "filename": "x", "file_data": url}


def block(url: str) -> dict[str, Any]:
    """The same data as a block of Anthropic's."""
    media_type, _, data = url.removeprefix("data:").partition(";base64,")
    kind = "image" if media_type.lower().startswith("image") else "document"
    return {"type": kind, "source": {"type": "base64", "media_type": media_type, "data": data}}


def block_in_result(url: str) -> dict[str, Any]:
    return {"type": "tool_result", "tool_use_id": "t", "content": [block(url)]}


PLACES: list[tuple[Endpoint, Callable[[str], dict[str, Any]]]] = [
    (CHAT, chat_image),
    (CHAT, chat_image_flat),
    (CHAT, chat_file),
    (RESPONSES, responses_image),
    (RESPONSES, responses_screenshot),
    (RESPONSES, responses_file),
    (MESSAGES, block),
    (MESSAGES, block_in_result),
]
everywhere = pytest.mark.parametrize(("endpoint", "place"), PLACES)


def encode(endpoint: Endpoint, *parts: object) -> bytes:
    member = "input" if endpoint is RESPONSES else "messages"
    return json.dumps({"model": "m", member: [{"role": "user", "content": [*parts]}]}).encode()


def read(endpoint: Endpoint, body: bytes) -> InputFacts:
    return endpoint.read_request(body).input


@everywhere
def test_an_image_is_no_text_wherever_it_stands(
    endpoint: Endpoint, place: Callable[[str], dict[str, Any]]
) -> None:
    for media_type in ("image/png", "image/jpeg", "IMAGE/WEBP"):
        body = encode(endpoint, place(f"data:{media_type};base64,{PNG}"), {"text": PNG})
        assert read(endpoint, body) == InputFacts(len(body) - len(PNG), media=1)


@everywhere
def test_of_a_pdf_the_pages_count_wherever_it_stands(
    endpoint: Endpoint, place: Callable[[str], dict[str, Any]]
) -> None:
    for document, pages in ((pdf(3), 3), (packed_pdf(50), 50)):
        data = b64(document)
        body = encode(endpoint, place(f"data:application/pdf;base64,{data}"))
        assert read(endpoint, body) == InputFacts(len(body) - len(data), pdf_pages=pages)


@everywhere
@pytest.mark.parametrize(
    "head",
    [
        "data:text/plain;base64,",
        "data:image/svg+xml;base64,",
        "data:application/vnd.ms-excel;base64,",
        "data:application/pdfx;base64,",
        "data:audio/wav;base64,",
    ],
)
def test_every_other_kind_of_file_counts_by_its_bytes(
    endpoint: Endpoint, place: Callable[[str], dict[str, Any]], head: str
) -> None:
    body = encode(endpoint, place(head + PNG))
    assert read(endpoint, body) == InputFacts(len(body), media=1)


@pytest.mark.parametrize(
    "url",
    [
        f"data:image/png,{PNG}",  # not base64
        f" data:image/png;base64,{PNG}",
        f"x data:image/png;base64,{PNG}",
        f"https://example.org/?data:image/png;base64,{PNG}",
        PNG,
    ],
)
def test_what_only_looks_like_an_image_is_text(url: str) -> None:
    for endpoint, place in PLACES[:6]:
        body = encode(endpoint, place(url))
        assert read(endpoint, body) == InputFacts(len(body), media=1)


URL = f"data:image/png;base64,{PNG}"
SOURCE = block(URL)["source"]


@pytest.mark.parametrize(
    ("endpoint", "part"),
    [
        (CHAT, {"type": "text", "text": URL}),
        (CHAT, {"type": "text", "text": "x", "url": URL}),
        (CHAT, {"role": "assistant", "tool_calls": [{"function": {"arguments": URL}}]}),
        (CHAT, {"function": {"image_url": {"url": URL}}}),
        (CHAT, {"arguments": {"type": "image_url", "image_url": URL}}),
        (RESPONSES, {"type": "input_text", "text": URL}),
        (RESPONSES, {"type": "function_call_output", "output": URL}),
        (RESPONSES, {"arguments": {"image_url": URL}}),
        (MESSAGES, {"type": "text", "text": PNG, "media_type": "image/png"}),
        (MESSAGES, {"type": "text", "text": "x", "source": SOURCE}),
        (MESSAGES, {"type": "tool_use", "input": {"type": "image", "source": SOURCE}}),
        (MESSAGES, {"type": "document", "source": {**SOURCE, "type": "text"}}),
        (MESSAGES, {"type": "document", "source": {**SOURCE, "media_type": "text/plain"}}),
        (MESSAGES, {"type": "document", "source": {**SOURCE, "media_type": None}}),
    ],
)
def test_text_does_not_hide_as_an_image_where_none_can_be(
    endpoint: Endpoint, part: dict[str, Any]
) -> None:
    body = encode(endpoint, part)
    assert read(endpoint, body).text_bytes == len(body)


@pytest.mark.parametrize(
    ("endpoint", "part", "images"),
    [
        (CHAT, {"type": "file", "file": {"type": "file", "file_data": URL}}, 1),
        (CHAT, {"type": "file", "file": {"type": "input_file", "file_data": URL}}, 1),
        (CHAT, {"image_url": {"url": URL, "image_url": {"url": URL}}}, 2),
        (CHAT, {"type": "file", "image_url": URL, "file": {"file_data": URL}}, 1),
        (RESPONSES, {"type": "input_file", "image_url": URL, "file_data": URL}, 1),
        (RESPONSES, {"image_url": {"image_url": URL, "url": URL}}, 1),
        (MESSAGES, {"type": "image", "source": {**SOURCE, "source": SOURCE}}, 1),
        (MESSAGES, {"type": "image", "source": {"type": "image", "source": SOURCE}}, 1),
    ],
)
def test_no_byte_is_taken_for_an_image_twice(
    endpoint: Endpoint, part: dict[str, Any], images: int
) -> None:
    body = encode(endpoint, part)
    assert read(endpoint, body).text_bytes == len(body) - images * len(PNG)


# --- both readers, and escapes ---


ESCAPES: list[Callable[[str], str]] = [
    str,
    lambda text: text.replace("/", "\\/"),
    lambda text: text.replace("A", "\\u0041"),
    lambda text: text.replace("A", "\\\\u"),
    lambda text: text.replace("A", "é"),
    lambda text: text.replace("A", "\\ud83d\\ude00"),
]


@pytest.mark.parametrize("escape", ESCAPES)
@pytest.mark.parametrize("kind", ["image/png", "application/pdf"])
def test_escapes_never_take_more_than_stands_in_the_body(
    monkeypatch: pytest.MonkeyPatch, escape: Callable[[str], str], kind: str
) -> None:
    data = escape(PNG * 20)
    head = json.dumps({"model": "m", "messages": [{"content": [chat_image("URL")]}]})
    body = head.replace("URL", f"data:{kind};base64,{data}").encode()
    found = [read(CHAT, body)]
    monkeypatch.setattr(json_gate, "is_light", lambda _body: False)
    found.append(read(CHAT, body))
    for facts in found:
        assert len(body) - len(data.encode()) <= facts.text_bytes <= len(body)


@pytest.mark.parametrize("slash", ["/", "\\/"])
@pytest.mark.parametrize(
    "document", [pdf(2000), packed_pdf(9) + b"/" * 9000, pdf(0) + b"~" * 90_000]
)
def test_both_readers_find_the_same(
    monkeypatch: pytest.MonkeyPatch, slash: str, document: bytes
) -> None:
    url = f"data:application/pdf;base64,{b64(document)}"
    for endpoint, place in PLACES:
        body = encode(endpoint, place(url), {"text": "x" * 9000}).replace(b"/", slash.encode())
        with monkeypatch.context() as patched:
            wanted = read(endpoint, body)
            patched.setattr(json_gate, "is_light", lambda _body: False)
            assert read(endpoint, body) == wanted


# --- pages ---


@pytest.mark.parametrize(
    ("document", "pages"),
    [
        (pdf(1), 1),
        (pdf(700), 700),
        (packed_pdf(120), 120),
        (packed_pdf(120) + pdf(2), 122),
        (b"", 1),
        (b"%PDF-1.7 encrypted" + b"x" * 10_000, 4),  # by its size: 3 KiB a page
        (b"x" * 1_000_000, 100),  # and at most 100
        (packed_pdf(120, spoilt=True) + pdf(2), 1),
        (pdf(2) + b"<</Type/ObjStm>>", 1),
        (pdf(1) + b"x" * (5 * 1024 * 1024), 6),  # no scanned page is larger than a MiB
        (b"/Type/Page " * (PAGES_MAX + 50), PAGES_MAX),
    ],
)
def test_pages_are_counted_or_estimated_by_size(document: bytes, pages: int) -> None:
    assert count_pages(document) == pages


def test_object_streams_that_grow_without_end_are_not_followed() -> None:
    bomb = b"<</Type/ObjStm>>stream\n" + zlib.compress(b"/Type/Page " * 1_000_000)
    assert count_pages(bomb) == -(-len(bomb) // 3072)
    small = b"<</Type/ObjStm>>stream\n" + zlib.compress(b"/Type/Page " * 5000)
    assert count_pages(small) == 1  # it would grow to more than 20 times the file


@given(st.binary(max_size=300), st.sampled_from([b"", b"/Type/Page", b"/Type/ObjStm stream\n"]))
@settings(max_examples=200, deadline=None)
def test_any_bytes_have_a_number_of_pages(junk: bytes, bit: bytes) -> None:
    assert 1 <= count_pages(junk + bit + junk) <= 100
    for text in (junk.decode("latin-1"), b64(junk), b64(junk).rstrip("=")):
        embedded = in_data_url(f"data:application/pdf;base64,{text}")
        assert embedded is not None
        assert embedded == in_base64(text, "application/pdf")
        assert embedded.data_bytes == len(text)


def test_what_is_no_text_is_no_media() -> None:
    assert in_data_url({"url": 1}) is None
    assert in_base64(None, "image/png") is None
    assert in_base64("AAAA", ["image/png"]) is None
