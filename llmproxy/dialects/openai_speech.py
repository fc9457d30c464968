"""OpenAI's speech (reference wire.md A.5).

Older models, and those of other providers, are billed by the characters that they are given to
say, which the request itself tells. Others report tokens, but only in a stream of events.
"""

import msgspec

from llmproxy.dialects.answers import ABSENT, decoded, is_given
from llmproxy.dialects.base import (
    KEPT,
    InputFacts,
    Reading,
    RequestFacts,
    not_metered,
    written_bytes,
)
from llmproxy.dialects.json_gate import parse_object, required_model, text
from llmproxy.dialects.json_slowly import LongText
from llmproxy.dialects.media_answers import MediaEvent, MediaStreamReader
from llmproxy.dialects.openai_audio import NAMES
from llmproxy.dialects.openai_usage import read_usage
from llmproxy.errors import invalid_request
from llmproxy.usage import Leg, Movers, Usage

CHARACTER_TOKENS = 4
"""Of speech, for each character that is said: three times what ordinary speech takes."""
BYTES_PER_SEEN_BYTE = 256
"""Of sound in a stream: a token of it stands for a thousand bytes and more."""
SOUND_BYTES_MIN = 1024
"""So much in an event is taken for sound; what is told of some is shorter."""

_BILLED = frozenset({"model", "input", "voice", "stream_format", "stream", "instructions", "speed"})
_FORMATS = (None, "audio", "sse")
_TOO_LONG = (
    "`input` is too long to be counted in so large a body. Send at most 4,096 characters at once, "
    "and nothing that speech does not need."
)
_UNTOLD = (
    "sound alone does not tell how many there were",
    'Set `stream_format` to "sse", or use a model that is billed by characters',
)
_UNBOUNDED = (
    "how long a model speaks is its own choice",
    "Use a model that is billed by characters",
)


class OpenAISpeech:
    """`audio/speech`."""

    name = "audio/speech"
    upstream_path = "/audio/speech"
    output_members: tuple[str, ...] = ()
    read_output_members = output_members
    is_free = False
    bytes_per_seen_byte = BYTES_PER_SEEN_BYTE

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        fields = parse_object(body, _BILLED)
        model = required_model(fields)
        said = fields.get("input")
        if not isinstance(said, str):
            raise invalid_request("`input` must be text.", param="input")
        if isinstance(said, LongText):  # only its beginning is kept, and all of it is billed
            raise invalid_request(_TOO_LONG, param="input")
        if isinstance(fields.get("voice"), dict):
            raise not_metered("voice.id", KEPT)
        stream_format = text(fields, "stream_format")
        if stream_format not in _FORMATS:
            raise not_metered(f"stream_format: {stream_format:.20}", "it is not known here")
        is_stream = stream_format == "sse"
        units = (("character", len(said)),)
        return RequestFacts(
            model=model,
            is_stream=is_stream,
            output_max=len(said) * CHARACTER_TOKENS,
            choices=1,
            input=InputFacts(written_bytes(body)),
            movers=Movers(),
            may_write_cache=False,
            media=("output_audio",),
            units=units,
            likely_units=units,
            tokens_untold=None if is_stream else _UNTOLD,
            unbounded=_UNBOUNDED if is_stream else None,
            hides_output=True,
        )

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: a stream of speech always reports its usage."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Take note that there is sound; what it costs the request has told.

        An error is none, also where it is called a success: it costs nothing, however long it is.
        """
        if not body:
            return Reading()
        if body.startswith(b"{") and is_given(decoded(_answer_decoder, body)[0].error):
            return Reading(has_error=True, is_by_request=True)
        usage = Usage((Leg(),))
        return Reading(usage, is_final=True, seen_bytes=len(body), is_by_request=True)

    def stream_reader(self, *, withholds_usage: bool) -> "MediaStreamReader[_Event]":
        """Return a reader for one stream."""
        del withholds_usage
        return MediaStreamReader(
            _event_decoder,
            ("speech.audio.done",),
            _generated,
            lambda usage: (read_usage(usage, NAMES),),
        )


class _Answer(msgspec.Struct):
    error: msgspec.Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)


class _Event(MediaEvent):
    audio: msgspec.Raw = ABSENT


_event_decoder = msgspec.json.Decoder(_Event)


def _generated(event: _Event, data: bytes, unread: int | None) -> int:
    """Return for how much an event counts: sound is what is long, whatever its name."""
    sound_bytes = len(event.audio) if unread is None else unread
    if not (sound_bytes or is_given(event.error)) and len(data) > SOUND_BYTES_MIN:
        sound_bytes = len(data)
    return -(-sound_bytes // BYTES_PER_SEEN_BYTE)
