"""The demo provider's `audio/speech` and `audio/transcriptions`: a tone, and how long sound is.

Speech is always a WAV file, whatever format is asked for, and called that. Token counts are made
up: one a character of speech, ten a second of what is listened to.
"""

import io
import math
import struct
import wave
from base64 import b64encode
from email import message_from_bytes
from email.policy import HTTP
from typing import Any, Literal

import msgspec

from llmproxy.demo.openai_wire import (
    event,
    headers,
    json_answer,
    missing,
    read_body,
    refusal,
    refuse_model,
    stream_answer,
)
from llmproxy.demo.replies import Answer, Counted, PromptCache, Request, count_tokens

RATE_HZ = 8000
TONE_HZ = 440
CHARACTERS_A_SECOND = 20
SECONDS_MAX = 10
"""A longer text is not spoken any longer."""
TOKENS_A_SECOND = 10
BYTES_A_SECOND = 8000
"""Of a file that is no WAV: 64 kbit/s are assumed."""
_BY_TIME = ("whisper", "gpt-transcribe")


class _Speak(msgspec.Struct):
    model: str = ""
    input: str = ""
    voice: str = ""
    stream_format: Literal["audio", "sse"] = "audio"


def speak(request: Request, _cache: PromptCache) -> Answer:
    """Answer one request for speech.

    Raises:
        RefusalError: the request is wrong.
    """
    asked = read_body(request, _Speak)
    refuse_model(asked.model)
    for name in ("input", "voice"):
        if not getattr(asked, name):
            raise missing(name)
    sound = wav(min(SECONDS_MAX, -(-len(asked.input) // CHARACTERS_A_SECOND)))
    tokens_in, tokens_out = count_tokens(len(asked.input)), len(asked.input)
    counted = Counted(request.path, asked.model, tokens_in, tokens_out)
    if asked.stream_format == "audio":
        return Answer(200, headers(request), sound, counted=counted, media_type="audio/wav")
    usage = {
        "input_tokens": tokens_in,
        "output_tokens": tokens_out,
        "total_tokens": tokens_in + tokens_out,
    }
    half = len(sound) // 2
    pieces = [
        event({"type": "speech.audio.delta", "audio": b64encode(piece).decode()})
        for piece in (sound[:half], sound[half:])
    ]
    done = event({"type": "speech.audio.done", "usage": usage})
    return stream_answer(request, [*pieces, done], counted)


def transcribe(request: Request, _cache: PromptCache) -> Answer:
    """Answer one form with a file of sound: by its length, for nothing here can listen.

    Raises:
        RefusalError: the request is wrong, or wants a stream or another format than JSON.
    """
    fields = _read_form(request)
    model = _text(fields, "model")
    refuse_model(model)
    if not fields.get("file"):
        raise missing("file")
    if _text(fields, "stream") == "true":
        raise refusal(400, "The demo provider does not stream transcriptions.", "stream")
    form = _text(fields, "response_format") or "json"
    if form not in {"json", "verbose_json"}:
        raise refusal(400, "The demo provider answers in json or verbose_json.", "response_format")
    seconds = sound_s(fields["file"])
    text = f"Nobody has listened: {seconds} s of sound."
    body: dict[str, Any] = {"text": text}
    if form == "verbose_json":
        body |= {"task": "transcribe", "language": "english", "duration": float(seconds)}
    if model.startswith(_BY_TIME):
        body["usage"] = {"type": "duration", "seconds": seconds}
        return json_answer(request, body, Counted(request.path, model, 0))
    heard, said = seconds * TOKENS_A_SECOND, count_tokens(len(text))
    body["usage"] = {
        "type": "tokens",
        "input_tokens": heard,
        "input_token_details": {"text_tokens": 0, "audio_tokens": heard},
        "output_tokens": said,
        "total_tokens": heard + said,
    }
    return json_answer(request, body, Counted(request.path, model, heard, said))


def wav(seconds: int) -> bytes:
    """Return a tone as a WAV file of plain samples."""
    tone = [round(8000 * math.sin(2 * math.pi * TONE_HZ * i / RATE_HZ)) for i in range(RATE_HZ)]
    with io.BytesIO() as file:
        with wave.open(file, "wb") as writer:
            writer.setnchannels(1)
            writer.setsampwidth(2)
            writer.setframerate(RATE_HZ)
            writer.writeframes(struct.pack(f"<{RATE_HZ}h", *tone) * seconds)
        return file.getvalue()


def sound_s(file: bytes) -> int:
    """Return how many seconds a file of sound has; begun ones count, and so does one at least."""
    try:
        with wave.open(io.BytesIO(file)) as reader:
            params = reader.getparams()
            seconds: int = math.ceil(params.nframes / max(1, params.framerate))
            return max(1, seconds)
    except (wave.Error, EOFError):
        return max(1, -(-len(file) // BYTES_A_SECOND))


def _read_form(request: Request) -> dict[str, bytes]:
    """Return the parts of a form by their names."""
    kind = request.headers.get("content-type", "")
    message = message_from_bytes(
        b"content-type: %b\r\n\r\n%b" % (kind.encode("latin-1"), request.body), policy=HTTP
    )
    if message.get_content_type() != "multipart/form-data" or not message.is_multipart():
        raise refusal(400, "We could not parse your multipart form.")
    fields = {}
    for part in message.walk():
        name = part.get_param("name", header="content-disposition")
        content = part.get_payload(decode=True)
        if name and isinstance(content, bytes):  # else it has parts of its own
            fields[str(name)] = content
    return fields


def _text(fields: dict[str, bytes], name: str) -> str:
    return fields.get(name, b"").decode("utf-8", "replace")
