"""Images and sound of the demo provider, asked for with OpenAI's SDK through the running proxy.

What is charged is worked out by hand from the shipped catalog's prices.
"""

# ruff: noqa: ANN401 - the SDK's overloads are wider than what the tests need.

import base64
import io
import struct
import wave
import zlib
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import openai
import pytest

from llmproxy.demo import openai_audio
from tests.service.helpers import Books
from tests.support.demo import RunningDemo
from tests.support.proxy import RunningProxy

HELLO = "Hello there"
"""11 characters, 3 tokens by the demo's count, 1 s of sound."""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[RunningProxy, Books]]:
    home = tmp_path_factory.mktemp("demo-media")
    with RunningDemo() as demo, RunningProxy(home) as proxy:
        proxy.use_provider("openai", demo.provider.openai_base_url)
        proxy.start()
        with closing(Books(home)) as books:
            yield proxy, books
        proxy.verify_ledger()


@pytest.fixture
def ann(running: tuple[RunningProxy, Books]) -> Iterator[tuple[Any, Any]]:
    """The SDK of a new user, and what tells how many nano-USD they have spent."""
    proxy, books = running
    name, key = books.user()
    before = books.settled_wallet(name)
    url = f"{proxy.url}/v1/openai"
    with openai.OpenAI(base_url=url, api_key=key, max_retries=0) as sdk:
        yield sdk, lambda: before - books.settled_wallet(name)


def test_an_image_is_a_png_and_billed_by_its_tokens(ann: Any) -> None:
    sdk, spent = ann
    made = sdk.images.generate(model="gpt-image-1.5", prompt="A red square", n=2, quality="low")
    images = [base64.b64decode(each.b64_json) for each in made.data]
    assert len(set(images)) == 2
    for image in images:
        assert image[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", image[16:24]) == (16, 16)
        start = image.index(b"IDAT") + 4
        (size,) = struct.unpack(">I", image[start - 8 : start - 4])
        (crc,) = struct.unpack(">I", image[start + size : start + size + 4])
        assert crc == zlib.crc32(image[start - 4 : start + size])
        assert len(zlib.decompress(image[start : start + size])) == 16 * (1 + 16 * 3)
    # 3 × 5 + 2 × 272 × 32 = 17423 µUSD
    assert spent() == 17_423_000


def test_speech_is_a_wav_and_billed_by_its_characters(ann: Any) -> None:
    sdk, spent = ann
    said = sdk.audio.speech.create(model="tts-1", voice="alloy", input=HELLO)
    assert said.response.headers["content-type"] == "audio/wav"
    with wave.open(io.BytesIO(said.content)) as sound:
        assert (sound.getnchannels(), sound.getnframes()) == (1, sound.getframerate())
        assert any(sound.readframes(100))
    # 11 × 15 = 165 µUSD
    assert spent() == 165_000


def test_streamed_speech_is_the_same_sound_and_billed_by_its_tokens(ann: Any) -> None:
    sdk, spent = ann
    raw = sdk.audio.speech.with_raw_response.create(
        model="gpt-4o-mini-tts", voice="alloy", input=HELLO, stream_format="sse"
    )
    lines = raw.text.split("\n\n")[:-1]
    assert [line.split('"')[3] for line in lines] == ["speech.audio.delta"] * 2 + [
        "speech.audio.done"
    ]
    sound = b"".join(base64.b64decode(line.split('"')[7]) for line in lines[:2])
    assert sound == openai_audio.wav(1)
    # 3 × 0.6 + 11 × 12 = 133.8 µUSD
    assert spent() == 133_800


def test_a_transcription_tells_the_length_and_is_billed_by_it(ann: Any) -> None:
    sdk, spent = ann
    file = ("two.wav", openai_audio.wav(2), "audio/wav")
    heard = sdk.audio.transcriptions.create(model="whisper-1", file=file)
    assert heard.text == "Nobody has listened: 2 s of sound."
    # 2 × 0.36 / 3600 = 200 µUSD
    assert spent() == 200_000
    told = sdk.audio.transcriptions.create(
        model="whisper-1", file=file, response_format="verbose_json"
    )
    assert told.duration == 2
    assert spent() == 400_000


def test_a_transcription_of_a_newer_model_is_billed_by_its_tokens(ann: Any) -> None:
    sdk, spent = ann
    file = ("noise.mp3", bytes(12_000), "audio/mpeg")
    heard = sdk.audio.transcriptions.create(model="gpt-4o-transcribe", file=file)
    # 20 tokens of sound × 6; 34 characters are 9 tokens × 10: 210 µUSD
    assert (heard.usage.input_tokens, heard.usage.output_tokens) == (20, 9)
    assert spent() == 210_000


def test_what_it_cannot_do_is_refused(ann: Any) -> None:
    sdk, spent = ann
    file = ("two.wav", openai_audio.wav(2), "audio/wav")
    with pytest.raises(openai.BadRequestError, match="does not stream images"):
        sdk.images.generate(model="gpt-image-1.5", prompt="x", quality="low", stream=True)
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'voice'"):
        sdk.post("/audio/speech", cast_to=object, body={"model": "tts-1", "input": "hi"})
    with pytest.raises(openai.BadRequestError, match="does not stream transcriptions"):
        sdk.audio.transcriptions.create(model="gpt-4o-transcribe", file=file, stream=True)
    with pytest.raises(openai.BadRequestError, match="Missing required parameter: 'prompt'"):
        sdk.images.generate(model="gpt-image-1.5", prompt="", quality="low")
    assert spent() == 0


def test_sound_without_usage_stays_sound() -> None:
    """A marker that edits JSON answers leaves others alone."""
    with (
        RunningDemo() as demo,
        openai.OpenAI(base_url=demo.provider.openai_base_url, api_key="k", max_retries=0) as sdk,
    ):
        said = sdk.audio.speech.create(model="tts-1", voice="alloy", input="[demo:no-usage] hi")
        assert said.content.startswith(b"RIFF")
        with pytest.raises(openai.BadRequestError, match="multipart form"):
            sdk.post("/audio/transcriptions", cast_to=object, body={"model": "whisper-1"})
