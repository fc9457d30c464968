"""What is held for images and sound, and which models are refused where nothing counts them."""

import base64
import json

import msgspec
import pytest

from llmproxy.catalog import Model, Prices, Rates
from llmproxy.dialects.base import Reading, RequestFacts, estimated
from llmproxy.dialects.gemini_contents import GENERATE, STREAM, GeminiContents
from llmproxy.dialects.openai_audio import TRANSCRIPTION_FORMATS, OpenAIAudio
from llmproxy.dialects.openai_chat import OpenAIChat
from llmproxy.dialects.openai_images import OpenAIImages
from llmproxy.dialects.openai_speech import OpenAISpeech
from llmproxy.errors import ApiError
from llmproxy.input_bound import input_estimate
from llmproxy.ledger import Standing
from llmproxy.meters import Room
from llmproxy.money import MULTIPLIER_ONE, format_usd
from llmproxy.quote import (
    HoldPolicy,
    Quote,
    budget_exceeded,
    insufficient_credit,
    make_quote,
    with_likely_units,
    with_untold_images,
)
from llmproxy.usage import Leg, Usage
from tests.support.forms import form, wav

USD = 10**9
BY_HOUR = Rates(0, 0, 0, 0, 0, audio_hour=36 * USD // 100)
BY_CHARACTER = Rates(0, 0, 0, 0, 0, character=15 * USD)
BY_IMAGE = Rates(0, 0, 0, 0, 0, image=20 * USD)
BY_TOKEN = Rates(5 * USD, 10 * USD, 0, 0, 0, input_image=8 * USD, output_image=32 * USD)
TEXT_ONLY = Rates(5 * USD, 10 * USD, 0, 0, 0)
CHAT = OpenAIChat().read_request(b'{"model":"m","messages":[]}')
SPEECH = OpenAISpeech().read_request(b'{"model":"m","input":"four"}')
SPOKEN = OpenAISpeech().read_request(b'{"model":"m","input":"four","stream_format":"sse"}')
HEARD = OpenAIAudio("audio/transcriptions", TRANSCRIPTION_FORMATS).read_request(
    form({"model": "m"}, {"file": wav(16_000)})
)
MADE = OpenAIImages("images/generations").read_request(
    b'{"model":"gpt-image-2","prompt":"a","n":2,"quality":"low","size":"1024x1024"}'
)


def quote(
    facts: RequestFacts, rates: Rates, *, is_strict: bool = False, mode: str = "audio"
) -> Quote:
    model = Model("p", "m", (), mode, Prices(rates), MULTIPLIER_ONE, None, None, reasoning=False)
    return make_quote(facts, model, MULTIPLIER_ONE, HoldPolicy(is_strict=is_strict))


def refusal(facts: RequestFacts, rates: Rates, *, is_strict: bool = False) -> str:
    with pytest.raises(ApiError) as caught:
        quote(facts, rates, is_strict=is_strict)
    assert (caught.value.status, caught.value.code) == (400, "option_not_metered")
    return caught.value.message


@pytest.mark.parametrize("is_strict", [False, True])
def test_what_is_billed_by_number_is_held_exactly(is_strict: bool) -> None:
    """Two seconds at 0.36 USD an hour, 4 characters at 15 USD a million, 2 images at 2 cents."""
    assert quote(HEARD, BY_HOUR, is_strict=is_strict).amount_nanousd == 200_000
    assert quote(SPEECH, BY_CHARACTER, is_strict=is_strict).amount_nanousd == 60_000
    assert quote(MADE, BY_IMAGE, is_strict=is_strict).amount_nanousd == 40_000_000


def test_sound_is_held_for_no_more_tokens_than_the_model_takes() -> None:
    """A file of 25 MB may be 25,000 seconds by its size, at 32 tokens each."""
    heard = OpenAIAudio("audio/transcriptions", TRANSCRIPTION_FORMATS).read_request(
        form({"model": "m"}, {"file": bytes(25_000_000)})
    )
    model = Model(
        "p", "m", (), "audio", Prices(BY_TOKEN), MULTIPLIER_ONE, 16_000, 0, reasoning=False
    )
    held = make_quote(heard, model, MULTIPLIER_ONE, HoldPolicy())
    assert (held.input_tokens, held.amount_nanousd) == (16_000, 16_000 * 5_000)
    unknown = msgspec.structs.replace(model, max_input_tokens=None)
    assert make_quote(heard, unknown, MULTIPLIER_ONE, HoldPolicy()).input_tokens > 800_000


def test_images_are_held_at_the_dearest_of_text_and_image() -> None:
    text = 77 // 3 + 600
    assert MADE.input.text_bytes == 77
    assert quote(MADE, BY_TOKEN).amount_nanousd == text * 8_000 + 2 * 408 * 32_000


@pytest.mark.parametrize("mode", ["chat", "image"])
@pytest.mark.parametrize(("modalities", "nanousd"), [(None, 50 * 32_000), (["TEXT"], 50 * 10_000)])
def test_a_gemini_model_that_makes_images_unasked_is_held_at_their_rate(
    modalities: list[str] | None, nanousd: int, mode: str
) -> None:
    config = {"maxOutputTokens": 50, "responseModalities": modalities}
    body = json.dumps({"contents": [], "generationConfig": config}).encode()
    read = GeminiContents(GENERATE, "m").read_request(body)
    held = quote(read, BY_TOKEN, is_strict=True, mode=mode)
    # A token for each byte, and what the provider puts around it.
    assert held.amount_nanousd == (len(body) + 1600) * 5_000 + nanousd


@pytest.mark.parametrize(
    ("rates", "mode", "modalities", "held"),
    [
        (BY_TOKEN, "chat", None, 9000),
        (TEXT_ONLY, "image", None, 9000),
        # Whose text can be seen as it comes, its hold grows.
        (TEXT_ONLY, "chat", None, 4096),
        (BY_TOKEN, "image", ["TEXT"], 4096),
    ],
)
def test_a_stream_with_images_is_held_in_full(
    rates: Rates, mode: str, modalities: list[str] | None, held: int
) -> None:
    config = {"maxOutputTokens": 9000, "responseModalities": modalities}
    body = json.dumps({"contents": [], "generationConfig": config}).encode()
    read = GeminiContents(STREAM, "m").read_request(body)
    assert quote(read, rates, mode=mode).held_output_tokens == held


def test_chat_with_a_model_for_images_is_held_at_their_rate() -> None:
    read = OpenAIChat().read_request(b'{"model":"m","messages":[],"max_tokens":50}')
    text = (len(b'{"model":"m","messages":[],"max_tokens":50}') // 3 + 600) * 5_000
    assert quote(read, BY_TOKEN, mode="image").amount_nanousd == text + 50 * 32_000
    assert quote(read, BY_TOKEN, mode="chat").amount_nanousd == text + 50 * 10_000


@pytest.mark.parametrize(("mode", "held"), [("image", 9000), ("chat", 4096)])
def test_a_chat_stream_of_a_model_for_images_is_held_in_full(mode: str, held: int) -> None:
    body = b'{"model":"m","messages":[],"max_tokens":9000,"stream":true}'
    read = OpenAIChat().read_request(body)
    assert quote(read, BY_TOKEN, mode=mode).held_output_tokens == held


@pytest.mark.parametrize(
    ("facts", "mode", "leg", "images"),
    [
        (CHAT, "image", Leg(output=9), 9),
        (CHAT, "image", Leg(output=9, output_image=5), 5),
        (CHAT, "chat", Leg(output=9), 0),
        # What an endpoint for images does not call one, it calls text.
        (MADE, "image", Leg(output=9), 0),
    ],
)
def test_all_output_of_a_model_for_images_is_such_where_none_is_told(
    facts: RequestFacts, mode: str, leg: Leg, images: int
) -> None:
    model = quote(facts, BY_TOKEN, mode=mode).model
    other = Leg(output=1, model="x")
    got = with_untold_images(Usage((leg, other)), facts, model)
    assert got.legs == (msgspec.structs.replace(leg, output_image=images), other)


@pytest.mark.parametrize(
    ("facts", "rates", "what"),
    [
        (CHAT, BY_HOUR, "audio seconds"),
        (CHAT, BY_CHARACTER, "characters"),
        (CHAT, BY_IMAGE, "images"),
        (HEARD, BY_CHARACTER, "characters"),
        (SPEECH, BY_HOUR, "audio seconds"),
    ],
)
def test_a_model_is_refused_where_nothing_counts_what_it_is_billed_by(
    facts: RequestFacts, rates: Rates, what: str
) -> None:
    assert f"m is billed by {what}, which this endpoint does not count" in refusal(facts, rates)


def test_speech_of_a_model_billed_by_tokens_must_come_in_events() -> None:
    assert 'Set `stream_format` to "sse"' in refusal(SPEECH, BY_TOKEN)
    assert quote(SPOKEN, BY_TOKEN).output_tokens == 16


def test_a_strict_server_says_why_there_is_no_bound() -> None:
    assert "its own choice. Use a model" in refusal(SPOKEN, BY_TOKEN, is_strict=True)


ONE = OpenAIImages("images/generations").read_request(b'{"model":"gpt-image-2","prompt":"a"}')
SEVERAL = OpenAIImages("images/generations").read_request(
    b'{"model":"gpt-image-2","prompt":"a","n":2}'
)
LEAST = OpenAIImages("images/generations").read_request(
    b'{"model":"gpt-image-2","prompt":"a","quality":"low","size":"1024x1024"}'
)
ONE_ELSEWHERE = OpenAIImages("images/generations").read_request(b'{"model":"m","prompt":"a"}')


@pytest.mark.parametrize(
    ("facts", "rates", "advice"),
    [
        (SEVERAL, BY_TOKEN, "ask for fewer images, a smaller size or a lower quality"),
        (ONE, BY_TOKEN, "ask for a smaller size or a lower quality"),
        # Of low quality, no smaller size has fewer tokens than 1024 by 1024.
        (MADE, BY_TOKEN, "ask for fewer images"),
        (LEAST, BY_TOKEN, "use another model"),
        (MADE, BY_IMAGE, "ask for fewer images"),
        (ONE, BY_IMAGE, "use another model"),
        # Of others' models nobody knows what size and quality do.
        (ONE_ELSEWHERE, BY_TOKEN, "use another model"),
        (SPOKEN, BY_TOKEN, "send less input"),
        (SPEECH, BY_CHARACTER, "send less input"),
        (HEARD, BY_HOUR, "send less input"),
        (HEARD, BY_TOKEN, "send less input"),
    ],
)
def test_a_402_for_images_and_sound_advises_what_these_have(
    facts: RequestFacts, rates: Rates, advice: str
) -> None:
    needs = quote(facts, rates)
    error = insufficient_credit(needs, Standing(10**9, 10**9 - 1))
    assert error.fields["max_tokens_affordable"] == 0
    assert error.message == (
        f"Insufficient credit balance — top up or {advice}. "
        f"Needed {format_usd(needs.amount_nanousd)} USD, available 0.000000001 USD."
    )
    over = budget_exceeded(needs, Room("monthly", 5, 4, 0, 1_796_083_200_000)).message
    assert f" this request — {advice}, or wait until " in over
    assert "max_tokens" not in over


@pytest.mark.parametrize(
    ("facts", "expected"),
    [
        (CHAT, Leg(input=9, output=5)),
        (SPEECH, Leg(input=9, output=5, characters=4)),
        (HEARD, Leg(input=9, output=5, input_audio=9, audio_seconds=2)),
        (MADE, Leg(input=9, output=5, output_image=5, images=2)),
    ],
)
def test_an_estimate_counts_what_was_asked_for(facts: RequestFacts, expected: Leg) -> None:
    other = Leg(input=1, model="x")
    usage = Usage((Leg(input=9, output=5), other))
    assert with_likely_units(usage, facts).legs == (expected, other)


@pytest.mark.parametrize(("came", "counted"), [(1, 1), (2, 2), (3, 2), (0, 2)])
def test_of_the_images_that_came_not_more_count_than_were_asked_for(
    came: int, counted: int
) -> None:
    """Where none is known to have come whole, as in a stream that broke off, those asked for do."""
    usage = estimated(Reading(seen_bytes=9, images=came), 9, 5)
    expected = Leg(input=9, output=3, output_image=3, images=counted)
    assert with_likely_units(usage, MADE).legs == (expected,)


def test_bodies_are_called_what_they_were_read_as() -> None:
    assert CHAT.content_type == b"application/json"
    assert HEARD.content_type.startswith(b"multipart/form-data; boundary=")


CLIPS = Rates(5 * USD, 10 * USD, 0, 0, 0, input_audio=7 * USD, output_audio=40 * USD)


def clip(kind: str, content: bytes, **config: object) -> bytes:
    data = base64.b64encode(content).decode()
    part = {"inlineData": {"mimeType": kind, "data": data}}
    given = {"contents": [{"parts": [part]}]}
    return json.dumps({**given, "generationConfig": {"maxOutputTokens": 50, **config}}).encode()


def test_a_plain_wav_sent_to_gemini_has_a_bound_of_its_own() -> None:
    """Two seconds of 32 tokens, and the text around it at the dearest rate; speech is asked for."""
    body = clip("audio/wav", wav(16_000), responseModalities=["AUDIO"])
    text = len(body) - len(base64.b64encode(wav(16_000)))
    read = GeminiContents(GENERATE, "m").read_request(body)
    strict = (text + 1600 + 64) * 7_000 + 50 * 40_000
    assert quote(read, CLIPS, is_strict=True).amount_nanousd == strict
    assert quote(read, CLIPS).amount_nanousd == (text // 3 + 600 + 64) * 7_000 + 50 * 40_000


@pytest.mark.parametrize("kind", ["audio/mp3", "video/mp4"])
def test_strictly_other_clips_are_all_that_the_model_takes(kind: str) -> None:
    read = GeminiContents(GENERATE, "m").read_request(clip(kind, b"x" * 99))
    assert "video, audio other than plain WAV" in refusal(read, CLIPS, is_strict=True)
    model = Model(
        "p", "m", (), "chat", Prices(CLIPS), MULTIPLIER_ONE, 90_000, None, reasoning=False
    )
    held = make_quote(read, model, MULTIPLIER_ONE, HoldPolicy(is_strict=True))
    assert held.input_tokens == 90_000
    small = msgspec.structs.replace(model, max_input_tokens=650)
    assert make_quote(read, small, MULTIPLIER_ONE, HoldPolicy()).input_tokens == 650


def test_a_stream_of_speech_is_held_in_full() -> None:
    config = {"maxOutputTokens": 9000, "responseModalities": ["AUDIO"]}
    read = GeminiContents(STREAM, "m").read_request(clip("audio/wav", wav(9), **config))
    assert quote(read, TEXT_ONLY, mode="chat").held_output_tokens == 9000


@pytest.mark.parametrize(
    ("kind", "held", "likely"),
    [
        # A minute, at 8,000 bytes a second; eight are held, at 1,000.
        ("audio/mp3", 480 * 32, 60 * 32),
        # Of video there is one figure: half a minute, at 16,000.
        ("video/mp4", 30 * 300, 30 * 300),
    ],
)
def test_the_estimate_of_a_clip_is_its_likely_length(kind: str, held: int, likely: int) -> None:
    read = GeminiContents(GENERATE, "m").read_request(clip(kind, b"x" * 480_000))
    text = read.input.text_bytes
    assert input_estimate(read.input) == -(-text // 3) + likely
    assert quote(read, CLIPS).input_tokens == text // 3 + 600 + held
