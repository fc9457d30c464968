"""Images of Gemini's models and audio from its cache, through the running proxy.

`gemini-2.5-flash-image`: in 0.30 USD, text out 2.50, images out 30; `gemini-2.5-flash`: in 0.30,
out 2.50, from the cache 0.03, of audio 0.10.
"""

import json
from collections.abc import Iterator

import pytest

from tests.proxy.gemini import BASE, BODY, GENERATE, gemini_site
from tests.proxy.helpers import Site
from tests.support.answers import openai_chat, openai_usage, plain

MODEL = "gemini-2.5-flash-image"
COUNTS = {
    "promptTokenCount": 10,
    "candidatesTokenCount": 1300,
    "thoughtsTokenCount": 200,
    "totalTokenCount": 1510,
}
IMAGE = [{"modality": "IMAGE", "tokenCount": 1290}]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    with gemini_site(tmp_path_factory.mktemp("gemini")) as site:
        yield site


@pytest.mark.parametrize(
    ("details", "nanousd"),
    [
        # Thoughts and other text are text.
        ({"candidatesTokensDetails": IMAGE}, 10 * 300 + 210 * 2_500 + 1_290 * 30_000),
        # What is not told must not cost less for that; thoughts are no image.
        ({}, 10 * 300 + 200 * 2_500 + 1_300 * 30_000),
    ],
)
def test_text_and_images_have_their_prices(
    site: Site, details: dict[str, object], nanousd: int
) -> None:
    part = {"inlineData": {"mimeType": "image/png", "data": "A" * 9_000}}
    answer = {
        "candidates": [{"content": {"parts": [part]}, "finishReason": "STOP"}],
        "usageMetadata": {**COUNTS, **details},
    }
    site.stub.handle = plain(json.dumps(answer).encode())
    visitor = site.visitor()
    assert site.ask(visitor, f"{BASE}/{MODEL}:generateContent", BODY).status == 200
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)
    # 99 tokens of output at the price of images, and of input, with a maximum, / 3 + 600.
    assert row["hold_nanousd"] == (len(BODY) // 3 + 600) * 300 + 99 * 30_000


def test_a_model_for_images_that_is_asked_for_text_costs_what_text_does(site: Site) -> None:
    text = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}
    answer = json.dumps({"candidates": [text], "usageMetadata": COUNTS}).encode()
    site.stub.handle = plain(answer)
    visitor = site.visitor()
    config = {"maxOutputTokens": 50, "responseModalities": ["TEXT"]}
    body = json.dumps({"contents": [], "generationConfig": config}).encode()
    site.ask(visitor, f"{BASE}/{MODEL}:generateContent", body)
    nanousd = 10 * 300 + 1_500 * 2_500
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)
    assert row["hold_nanousd"] == (len(body) // 3 + 600) * 300 + 50 * 2_500


def test_all_that_chat_completions_tell_costs_what_images_do(site: Site) -> None:
    """12 of input and 3 of output."""
    site.stub.handle = plain(openai_chat("a", usage=openai_usage(12, 3)))
    visitor = site.visitor()
    body = json.dumps({"model": MODEL, "max_tokens": 50, "messages": []}).encode()
    assert site.ask(visitor, "/v1/gemini/chat/completions", body).status == 200
    nanousd = 12 * 300 + 3 * 30_000
    row = site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)
    assert row["hold_nanousd"] == (len(body) // 3 + 600) * 300 + 50 * 30_000


def test_audio_from_the_cache_has_its_price(site: Site) -> None:
    counts = {
        "promptTokenCount": 100,
        "cachedContentTokenCount": 90,
        "candidatesTokenCount": 5,
        "totalTokenCount": 105,
        "promptTokensDetails": [{"modality": "AUDIO", "tokenCount": 80}],
        "cacheTokensDetails": [{"modality": "AUDIO", "tokenCount": 70}],
    }
    text = {"content": {"parts": [{"text": "a"}]}, "finishReason": "STOP"}
    answer = {"candidates": [text], "usageMetadata": counts}
    site.stub.handle = plain(json.dumps(answer).encode())
    visitor = site.visitor()
    site.ask(visitor, GENERATE, BODY)
    # All ten fresh ones are audio, at 1 USD.
    nanousd = 10 * 1_000 + 20 * 30 + 70 * 100 + 5 * 2_500
    site.assert_paid(visitor, state="settled", basis="usage", nanousd=nanousd)
