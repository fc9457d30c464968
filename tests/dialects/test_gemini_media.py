"""Gemini's own API: images, audio, video, files and links in a request, and those asked for."""

import base64
from typing import Any

import pytest

from llmproxy.dialects.base import ClipTokens, InputFacts
from llmproxy.errors import ApiError
from tests.support.forms import wav
from tests.support.gemini_requests import CONTENTS, encode, facts, refused, with_part

PNG = base64.b64encode(b"\x89PNG" + b"x" * 300).decode()


@pytest.mark.parametrize("name", ["inlineData", "inline_data"])
@pytest.mark.parametrize("kind", ["mimeType", "mime_type"])
def test_an_image_counts_flat_and_not_by_its_bytes(name: str, kind: str) -> None:
    contents = [{"parts": [{name: {kind: "image/png", "data": PNG}}]}]
    body = encode(contents=contents)
    read = CONTENTS.read_request(body)
    assert (read.input.media, read.input.text_bytes) == (1, len(body) - len(PNG))
    assert read.media == ("input_image", "output_image")


def test_the_pages_of_a_pdf_count() -> None:
    pdf = base64.b64encode(b"%PDF-1.4\n" + b"<< /Type /Page >>\n" * 3).decode()
    read = with_part({"inlineData": {"mimeType": "application/pdf", "data": pdf}})
    assert (read.input.pdf_pages, read.input.media) == (3, 0)
    assert "input_image" in read.media


def test_text_in_base64_counts_by_its_bytes() -> None:
    contents = [{"parts": [{"inlineData": {"mimeType": "text/csv", "data": "YSxi" * 99}}]}]
    body = encode(contents=contents)
    assert CONTENTS.read_request(body).input == InputFacts(len(body))


@pytest.mark.parametrize("where", ["system", "answer of a tool", "one content", "one part"])
def test_an_image_counts_wherever_it_stands(where: str) -> None:
    image = {"inlineData": {"mimeType": "image/png", "data": PNG}}
    answer = {"functionResponse": {"name": "f", "response": {"a": 1}, "parts": [image]}}
    read = {
        "system": lambda: facts(systemInstruction={"parts": [image]}),
        "answer of a tool": lambda: with_part(answer),
        "one content": lambda: facts(contents={"parts": [image]}),
        "one part": lambda: facts(contents={"parts": image}),
    }[where]()
    assert read.input.media == 1


def test_the_words_of_a_tool_are_not_looked_into() -> None:
    own = {"fileData": {"fileUri": "files/x"}, "InlineData": 1, "inlineData": 2, "inline_data": 3}
    with_part({"functionCall": {"name": "f", "args": own}})
    with_part({"functionResponse": {"name": "f", "response": own}})
    facts(tools=[{"functionDeclarations": [{"name": "f", "parameters": own}]}])


@pytest.mark.parametrize(
    ("kind", "content", "most", "likely", "unsure"),
    [
        # Two seconds and a sample, so three of 32 tokens.
        ("audio/wav", wav(16_001), 96, 96, 0),
        ("audio/wav; rate=8000", wav(16_001), 96, 96, 0),
        (" Audio/X-WAV", wav(16_001), 96, 96, 0),
        ("audio/wav", wav(16_001, width=2), 96, 96, 1),
        # By their size: 16,047 bytes at 1,000 a second are 17 seconds, and likely 3, at 8,000.
        ("audio/mp3", wav(16_001), 17 * 32, 3 * 32, 1),
        ("audio/wav", b"x" * 16_047, 17 * 32, 3 * 32, 1),
        # At 16,000 bytes a second 2; each of 300 tokens.
        ("video/mp4", b"x" * 16_047, 2 * 300, 2 * 300, 1),
        ("Video/x", b"x" * 15_999, 300, 300, 1),
    ],
)
def test_audio_and_video_count_by_their_length(
    kind: str, content: bytes, most: int, likely: int, unsure: int
) -> None:
    data = base64.b64encode(content).decode()
    contents = [{"parts": [{"inlineData": {"mimeType": kind, "data": data}}]}]
    body = encode(contents=contents)
    read = CONTENTS.read_request(body)
    tokens = ClipTokens(most, likely)
    assert read.input == InputFacts(len(body) - len(data), clip_tokens=tokens, unsure_clips=unsure)
    assert read.media == ("input_audio", "input_image", "output_image")


def test_audio_in_a_large_body_counts_alike() -> None:
    """Of long texts only the beginning is kept; an escape does not change what it says."""
    data = base64.b64encode(wav(799_990)).decode()
    contents = [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": data}}]}]
    body = encode(contents=contents)
    read = CONTENTS.read_request(body)
    tokens = ClipTokens(100 * 32, 100 * 32)
    assert read.input == InputFacts(len(body) - len(data), clip_tokens=tokens)
    escaped = body.replace(data[:4].encode(), b"\\u0055" + data[1:4].encode())
    assert CONTENTS.read_request(escaped).input.clip_tokens == tokens
    assert CONTENTS.read_request(escaped).input.unsure_clips == 0


def test_what_is_no_base64_is_no_wav() -> None:
    read = with_part({"inlineData": {"mimeType": "audio/wav", "data": "!" * 400}})
    assert (read.input.clip_tokens, read.input.unsure_clips) == (ClipTokens(32, 32), 1)


def test_data_that_are_no_text_count_by_their_bytes() -> None:
    contents = [{"parts": [{"inlineData": {"mimeType": "audio/wav", "data": 7}}]}]
    body = encode(contents=contents)
    assert CONTENTS.read_request(body).input == InputFacts(len(body))


@pytest.mark.parametrize(
    ("fps", "times"),
    [(1, 1), (0.5, 1), (2, 2), (2.1, 3), (24, 24), (99, 24), ("2", 24), (True, 24)],
)
@pytest.mark.parametrize("name", ["videoMetadata", "video_metadata"])
def test_more_frames_of_a_video_count_more(name: str, fps: object, times: int) -> None:
    video = {"inlineData": {"mimeType": "video/mp4", "data": "AAAA"}, name: {"fps": fps}}
    assert with_part(video).input.clip_tokens == ClipTokens(300 * times, 300 * times)


@pytest.mark.parametrize(
    "uri",
    [
        "https://generativelanguage.googleapis.com/v1beta/files/abc",
        "files/abc",
        "gs://bucket/x.png",
        "https://www.youtube.com/watch?v=x",
        "https://youtu.be/x",
        "https://WWW.YouTube.com./watch",
        "https://storage.googleapis.com/x.png",
        "https://[",
        7,
    ],
)
@pytest.mark.parametrize("name", ["fileData", "file_data"])
def test_files_at_google_and_videos_are_refused(name: str, uri: object) -> None:
    with pytest.raises(ApiError, match="fileData") as caught:
        with_part({name: {"fileUri": uri, "mimeType": "image/png"}})
    assert caught.value.code == "option_not_metered"


def test_a_link_to_an_image_counts_flat() -> None:
    read = with_part({"file_data": {"file_uri": "https://example.com/a", "mime_type": "image/png"}})
    assert read.input.media == 1


@pytest.mark.parametrize("kind", [None, "text/html", "video/mp4", 7])
def test_a_link_to_anything_else_is_refused(kind: object) -> None:
    with pytest.raises(ApiError):
        with_part({"fileData": {"fileUri": "https://example.com/a", "mimeType": kind}})


@pytest.mark.parametrize("name", ["cachedContent", "cached_content"])
def test_what_google_keeps_is_refused(name: str) -> None:
    assert refused(**{name: "cachedContents/x"}).code == "option_not_metered"


@pytest.mark.parametrize("kinds", [["VIDEO"], ["TEXT", "video"], "MODALITY_UNSPECIFIED", [2]])
def test_output_of_an_unknown_kind_is_refused(kinds: object) -> None:
    assert refused(generationConfig={"responseModalities": kinds}).code == "option_not_metered"


@pytest.mark.parametrize(
    ("config", "media"),
    [
        ({}, ("output_image",)),
        ({"responseModalities": []}, ("output_image",)),
        ({"responseModalities": ["Text"]}, ()),
        ({"response_modalities": "TEXT"}, ()),
        ({"responseModalities": ["TEXT", "image"]}, ("output_image",)),
        ({"response_modalities": "AUDIO"}, ("output_audio",)),
        ({"responseModalities": ["Audio", "IMAGE"]}, ("output_image", "output_audio")),
    ],
)
def test_images_may_come_unless_others_alone_are_asked_for(
    config: dict[str, Any], media: tuple[str, ...]
) -> None:
    read = facts(generationConfig=config)
    assert read.media == media
    # What is no text cannot be counted as it passes: of a stream all is held.
    asks = "responseModalities" in config or "response_modalities" in config
    assert read.hides_output == (asks and bool(media) and config != {"responseModalities": []})
