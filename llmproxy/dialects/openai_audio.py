"""OpenAI's transcriptions and translations of sound, in forms with files (reference wire.md A.5).

Some models report tokens, others the seconds that they have listened to. Answers in formats other
than JSON report neither and are refused.
"""

import math
import re
from collections.abc import Iterable
from typing import Any

import msgspec

from llmproxy.dialects import sound
from llmproxy.dialects.answers import (
    ABSENT,
    decoded,
    is_given,
    text_bytes,
    unreadable,
)
from llmproxy.dialects.base import InputFacts, Reading, RequestFacts, not_metered
from llmproxy.dialects.json_gate import flag, required_model, text
from llmproxy.dialects.media_answers import MediaEvent, MediaStreamReader, read_media
from llmproxy.dialects.multipart_gate import parse_form, with_numbers
from llmproxy.dialects.openai_usage import INPUT, PROMPT, read_usage
from llmproxy.errors import invalid_request
from llmproxy.usage import TOKENS_MAX, Leg, Movers, UsageError, count

NAMES = INPUT._replace(input_details="input_token_details", output_details="output_token_details")
TRANSCRIPTION_FORMATS = ("json", "verbose_json", "diarized_json")
TIMED_FORMATS = ("verbose_json",)
"""Of translations, and of transcriptions where `json` is not known to report usage: with their
`duration`."""

_UNBOUNDED = (
    "only the sound of a WAV file with plain samples (PCM) of 8, 24 or 32 bits has a sure length",
    "Convert the file to that, as `ffmpeg -i FILE -c:a pcm_s24le SOUND.wav` does",
)
_ELSEWHERE = frozenset({"url", "fileid", "fileurl", "audiourl"})
"""Names of sound that is not in the request, without what divides their words."""
_NOT_HERE = "a file that is not in the request has no known length"
_BILLED = frozenset({"model", "stream", "response_format"})
_FILES = ("file",)


class OpenAIAudio:
    """`audio/transcriptions` or `audio/translations`."""

    output_members: tuple[str, ...] = ()
    read_output_members = output_members
    is_free = False
    bytes_per_seen_byte = 1

    def __init__(self, name: str, formats: tuple[str, ...], seconds_min: int = 0) -> None:
        """Take which it is, the formats that tell what was used, and the least that is billed."""
        self.name = name
        self.upstream_path = f"/{name}"
        self._formats = formats
        self._seconds_min = seconds_min

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        form = parse_form(body, _BILLED, _FILES)
        fields = with_numbers(form.fields, ())
        model = required_model(fields)
        _refuse_elsewhere(fields)
        self._require_format(fields)
        if len(form.files) != 1:
            raise invalid_request("The form must have exactly one `file`.", param="file")
        longest, likely, is_sure = sound.length(form.files[0])
        longest, likely = max(longest, self._seconds_min), max(likely, self._seconds_min)
        return RequestFacts(
            model=model,
            is_stream=flag(fields, "stream"),
            output_max=None,
            choices=1,
            input=InputFacts(form.text_bytes, audio_s=longest, likely_audio_s=likely),
            movers=Movers(),
            may_write_cache=False,
            media=("input_audio",),
            units=(("audio_second", longest),),
            likely_units=(("audio_second", likely),),
            unbounded=None if is_sure else _UNBOUNDED,
            content_type=form.content_type,
        )

    def _require_format(self, fields: dict[str, Any]) -> None:
        given = text(fields, "response_format") or "json"
        if given not in self._formats:
            raise not_metered(
                f"response_format: {given:.20}",
                f"such an answer does not tell what it used; use {' or '.join(self._formats[:2])}",
            )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: those that report usage always do."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer; the length of its sound counts where there is no usage."""
        answer, is_whole = decoded(_answer_decoder, body)
        if not (is_whole or is_given(answer.usage) or is_given(answer.duration)):
            nothing = unreadable(body)
            return msgspec.structs.replace(nothing, seen_bytes=max(1, nothing.seen_bytes))
        has_error = is_given(answer.error)
        # How long a file is says nothing of what an error costs.
        duration = ABSENT if has_error else answer.duration
        return read_media(
            answer.usage,
            lambda told: (read_audio_leg(told, _decoded(duration), self._seconds_min),),
            beside={"duration": duration},
            model=answer.model,
            # Silence has been listened to as well, and that is what is billed.
            seen_bytes=text_bytes(answer.text) if has_error else max(1, text_bytes(answer.text)),
            is_final=True,
            has_error=has_error,
        )

    def stream_reader(self, *, withholds_usage: bool) -> "MediaStreamReader[_Event]":
        """Return a reader for one stream."""
        del withholds_usage
        return MediaStreamReader(
            _event_decoder,
            ("transcript.text.done",),
            _generated,
            lambda told: (read_audio_leg(told, None, self._seconds_min),),
            whole_bytes_min=1,
        )


def _refuse_elsewhere(names: Iterable[str]) -> None:
    """Refuse fields for sound that is not in the request, at any depth of their names.

    Raises:
        ApiError: 400.
    """
    for name in names:
        words = re.sub(r"[_-]", "", name.casefold())
        if not _ELSEWHERE.isdisjoint(re.split(r"[\[\].]+", words)):
            raise not_metered(f"{name:.60}", _NOT_HERE)


def read_audio_leg(usage: object, duration: object, seconds_min: int) -> Leg:
    """Return what an answer says that was used: tokens, seconds, or both, as some do.

    Args:
        usage: its usage object; None when it has none.
        duration: how long the sound was, which counts where usage has no seconds.
        seconds_min: the least that is billed.

    Raises:
        UsageError: neither, or what cannot be true.
    """
    fields = usage if isinstance(usage, dict) else {}
    told = (fields.get("seconds"), fields.get("prompt_audio_seconds"), duration)
    seconds = next((begun for begun in map(begun_seconds, told) if begun is not None), None)
    names = PROMPT if PROMPT.input in fields else NAMES
    try:
        leg = _as_sound(read_usage(usage, names), fields.get(names.input_details))
    except UsageError:
        if seconds is None:
            raise
        leg = Leg()
    if seconds is not None:
        leg = msgspec.structs.replace(leg, audio_seconds=max(seconds, seconds_min))
    return leg


def _as_sound(leg: Leg, details: object) -> Leg:
    """Return tokens of which all that is not said to be text is sound, where that is not told.

    Raises:
        UsageError: the count of text cannot be true.
    """
    told = details if isinstance(details, dict) else {}
    if told.get("audio_tokens") is not None:
        return leg
    heard = max(leg.input - count(told.get("text_tokens")), 0)
    return msgspec.structs.replace(leg, input_audio=heard)


def begun_seconds(seconds: object) -> int | None:
    """Return a length of time as the whole seconds that have begun; None for what is none."""
    if isinstance(seconds, bool) or not isinstance(seconds, int | float):
        return None
    return math.ceil(seconds) if 0 <= seconds <= TOKENS_MAX else None


def _decoded(raw: msgspec.Raw) -> object:
    return msgspec.json.decode(raw) if is_given(raw) else None


class _Answer(msgspec.Struct):
    model: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    duration: msgspec.Raw = ABSENT
    text: msgspec.Raw = ABSENT
    error: msgspec.Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)


class _Event(MediaEvent):
    delta: msgspec.Raw = ABSENT


_event_decoder = msgspec.json.Decoder(_Event)


def _generated(event: _Event, _data: bytes, unread: int | None) -> int:
    """Return for how much an event counts: each of a transcript says that something was heard."""
    if unread is not None:
        return unread
    return text_bytes(event.delta) or int((event.type or "").startswith("transcript."))
