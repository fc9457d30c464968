"""OpenAI's images: made, and edited (reference wire.md A.5).

GPT image models report tokens, of which text and images cost differently; those of other
providers that report nothing are billed by the image. How many tokens an image may have is what
OpenAI's own calculator of costs says, by quality and size, in its image generation guide.
"""

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from typing_extensions import override

from llmproxy.dialects.answers import (
    ABSENT,
    decoded,
    is_given,
    text_of,
    unreadable,
)
from llmproxy.dialects.base import (
    BYTES_PER_TOKEN,
    InputFacts,
    Reading,
    RequestFacts,
    not_metered,
    parts,
    refuse_members,
    written_bytes,
)
from llmproxy.dialects.json_gate import (
    flag,
    parse_object,
    required_model,
    text,
    whole,
)
from llmproxy.dialects.media_answers import Legs, MediaEvent, MediaStreamReader, read_media
from llmproxy.dialects.multipart_gate import parse_form, with_numbers
from llmproxy.dialects.openai_options import refuse_kept
from llmproxy.dialects.openai_usage import INPUT, read_usage
from llmproxy.usage import Leg, Movers, Usage, UsageError, count, with_media

IMAGES_MAX = 10
PARTIAL_IMAGES_MAX = 3
BYTES_PER_SEEN_BYTE = 256
"""Of an image's data, which is no text: about a megabyte stands for a thousand tokens, if they must
be estimated."""
PARTIAL_IMAGE_TOKENS = 100
"""Of each image that is shown before it is ready."""
DEAREST_FACTOR = 4
"""How many times the tokens of `high` are held for a quality above it, which has no known number:
the qualities below it go up by as much and more."""

_STEPS = {"low": 16, "medium": 48, "high": 96}
"""Into so many steps the longer edge of an image is divided: a token for each square of them."""
_OLDER_TOKENS = {"low": 408, "medium": 1584, "high": 6240}
"""The most of GPT Image 1 and 1.5, whatever the size."""
_KNOWN_QUALITIES = frozenset({*_STEPS, None, "auto", "standard", "hd"})
"""Those that cost no more than `high`."""
_ANY_SIZE = (None, "auto")
_SMALLEST_SIZE = "64x64"
"""No size has fewer tokens: so few that those of the older models are more."""
_USUAL_SIZE = "1024x1024"
"""Likely where the size is left to the provider."""
_PIXELS_MAX = 3840 * 2160
_EDGE_MAX = 3840
_SIZE = re.compile(r"([1-9]\d{1,3})x([1-9]\d{1,3})", re.ASCII)
_BY_THE_TABLE = re.compile(r"(?:.*/)?(?:chat)?gpt-image-.*", re.ASCII)
"""Models whose images have the tokens of OpenAI's calculator; others may have any number."""
_FORMATS = (None, "png", "jpeg", "webp")
_UNBOUNDED = (
    "neither a quality above `high` nor planning by `complexity` has a known number of tokens",
    'Set `quality` to "low", "medium" or "high", and leave `complexity` out',
)
_REFUSED = {"svg": "another model draws it, for tokens without a bound"}
_GIVEN_IMAGES = ("image", "images", "image_url", "input_reference", "reference_images")
_ELSEWHERE = frozenset({*_GIVEN_IMAGES, "file_id", "file_url", "url"})
"""Names of fields that would bring an image which is not in the form."""
_WHOLE = ("n", "partial_images")
_BILLED = frozenset(
    {"model", "stream", "n", "quality", "size", "output_format", "partial_images", "complexity"}
    | {"service_tier", "frame_count"}
    | _REFUSED.keys()
)
_FILES = ("image", "mask", "markup")
_IMAGE = frozenset({"b64_json", "url"})
_NO_IMAGE = frozenset({"revised_prompt", "error"})
_NOTHING = (b"", b"null", b'""')
"""As a member of an answer may be written that has nothing in it, or is not there."""
_DATA_BYTES_MIN = 1024
"""So much under another name is taken for an image; what is told of one is shorter."""
_LINK = re.compile(rb'"(?:https?|data):', re.IGNORECASE)


class OpenAIImages:
    """`images/generations`, in JSON, and `images/edits`, a form with files."""

    output_members: tuple[str, ...] = ()
    read_output_members = output_members
    is_free = False
    bytes_per_seen_byte = BYTES_PER_SEEN_BYTE

    def __init__(self, name: str) -> None:
        """Take which of the two it is."""
        self.name = name
        self.upstream_path = f"/{name}"
        self._is_form = name == "images/edits"

    def read_request(self, body: bytes) -> RequestFacts:
        """Read what the body says about its cost; see `Endpoint.read_request`."""
        if not self._is_form:
            fields = parse_object(body, _BILLED | set(_GIVEN_IMAGES))
            given = sum(_count(fields.get(name)) for name in _GIVEN_IMAGES)
            for part in parts(*(fields.get(name) for name in _GIVEN_IMAGES)):
                refuse_kept(part)
            return _facts(fields, InputFacts(written_bytes(body), media=given))
        form = parse_form(body, _BILLED, _FILES)
        for name in form.fields:
            if not _ELSEWHERE.isdisjoint(re.split(r"[\[\].]+", name)):
                raise not_metered(name[:60], "an image must be a file in the form")
        if not form.files:
            raise not_metered("image", "the image to be edited must be a file in the form")
        given_input = InputFacts(form.text_bytes, media=len(form.files))
        facts = _facts(with_numbers(form.fields, _WHOLE), given_input)
        return msgspec.structs.replace(facts, content_type=form.content_type)

    def upstream_body(self, body: bytes, facts: RequestFacts, *, injects_usage: bool) -> bytes:
        """Return the body as it is: those that report usage always do."""
        del facts, injects_usage
        return body

    def read_answer(self, body: bytes) -> Reading:
        """Read a whole plain answer.

        One with neither images nor an error is a success all the same, of which nobody knows how
        many images it has brought: without a usage, as many count as were asked for. Only one that
        says so itself, by an empty `data`, has brought none.
        """
        answer, is_whole = decoded(_answer_decoder, body)
        has_error = is_given(answer.error)
        is_counted = has_error or (is_whole and answer.data is not msgspec.UNSET)
        made = _made(answer.data)
        all_seen = -(-len(body) // BYTES_PER_SEEN_BYTE)
        seen = all_seen if made or not (is_whole or has_error) else 0
        if made and not is_given(answer.usage):
            return Reading(
                Usage((Leg(images=made),)),
                is_final=True,
                model=text_of(answer.model),
                seen_bytes=seen,
                has_error=has_error,
                images=made,
            )
        reading = read_media(
            answer.usage,
            _legs(made, answer.svg_usage),
            beside={"svg_usage": answer.svg_usage},
            model=answer.model,
            seen_bytes=seen,
            is_final=True,
            has_error=has_error,
        )
        if is_counted or reading.usage is not None:
            return msgspec.structs.replace(reading, images=made)
        problem = reading.problem or unreadable(body).problem
        return msgspec.structs.replace(reading, seen_bytes=all_seen, images=None, problem=problem)

    def stream_reader(self, *, withholds_usage: bool) -> "MediaStreamReader[_Event]":
        """Return a reader for one stream."""
        del withholds_usage
        return _ImageStreamReader(
            _event_decoder, _COMPLETED, _generated, _legs(), whole_bytes_min=1
        )


def image_tokens_max(quality: str, size: str | None) -> int:
    """Return the most tokens of one image of a quality, of any size where that is not told."""
    steps = _STEPS[quality]
    width, height = _edges(size)
    longer, shorter = max(width, height), min(width, height)
    squares = steps * ((2 * steps * shorter + longer) // (2 * longer))
    tokens = -(-squares * (2_000_000 + width * height) // 4_000_000)
    return max(tokens, _OLDER_TOKENS[quality])


def _edges(size: str | None) -> tuple[int, int]:
    """Return width and height in pixels: of the dearest image where they are not told."""
    match = _SIZE.fullmatch(size or "")
    if match is not None:
        width, height = int(match[1]), int(match[2])
        if max(width, height) <= _EDGE_MAX and width * height <= _PIXELS_MAX:
            return width, height
    edge = 2880  # a square, with all the pixels that there may be
    return edge, edge


def _facts(fields: dict[str, Any], given: InputFacts) -> RequestFacts:
    model = required_model(fields)
    refuse_members(fields, _REFUSED)
    is_stream = flag(fields, "stream")
    images = whole(fields, "n", lowest=1, highest=IMAGES_MAX) or 1
    if is_stream and images > 1:
        raise not_metered("n", "a stream does not tell which of several images its usage is of")
    if (file_format := text(fields, "output_format")) not in _FORMATS:
        raise not_metered(
            f"output_format: {file_format:.20}", "only png, jpeg and webp have a known price"
        )
    partial = whole(fields, "partial_images", lowest=0, highest=PARTIAL_IMAGES_MAX) or 0
    quality = text(fields, "quality")
    size = text(fields, "size")
    tokens = _tokens(quality, size) + partial * PARTIAL_IMAGE_TOKENS
    has_table = _BY_THE_TABLE.fullmatch(model) is not None
    is_bounded = not has_table or (quality in _STEPS and not fields.get("complexity"))
    return RequestFacts(
        model=model,
        is_stream=is_stream,
        output_max=tokens if has_table else None,
        choices=images,
        input=given,
        movers=Movers(service_tier=text(fields, "service_tier")),
        may_write_cache=False,
        media=("input_image", "output_image"),
        units=(("image", images),),
        likely_units=(("image", images),),
        hides_output=True,
        image_tokens=_tokens(quality, _USUAL_SIZE if size in _ANY_SIZE else size),
        lessened_by=_lessened_by(quality, size, partial) if has_table else (),
        unbounded=None if is_bounded else _UNBOUNDED,
    )


def _lessened_by(quality: str | None, size: str | None, partial: int) -> tuple[str, ...]:
    """Return what would lessen the most tokens of one image of a request."""
    tokens = _tokens(quality, size)
    ways = (
        ("fewer partial images", partial > 0),
        ("a smaller size", _tokens(quality, _SMALLEST_SIZE) < tokens),
        ("a lower quality", _tokens("low", size) < tokens),
    )
    return tuple(way for way, is_less in ways if is_less)


def _tokens(quality: str | None, size: str | None) -> int:
    """Return the most tokens of one image of a request, of any size where that is not told."""
    tokens = image_tokens_max(quality if quality in _STEPS else "high", size)
    return tokens if quality in _KNOWN_QUALITIES else tokens * DEAREST_FACTOR


def _count(images: object) -> int:
    if isinstance(images, list):
        return len(images)
    return 1 if images else 0


_Item = Mapping[str, msgspec.Raw]
_Items = list[_Item | None] | None | msgspec.UnsetType


class _Answer(msgspec.Struct):
    model: msgspec.Raw = ABSENT
    usage: msgspec.Raw = ABSENT
    svg_usage: msgspec.Raw = ABSENT
    data: _Items = msgspec.UNSET
    error: msgspec.Raw = ABSENT


_answer_decoder = msgspec.json.Decoder(_Answer)


def _made(data: _Items) -> int:
    """Return how many images have come, under whatever names.

    An item that is only told of, such as one that a filter has kept back, is none.
    """
    if not isinstance(data, list):
        return 0
    return sum(any(_is_image(name, raw) for name, raw in (item or {}).items()) for item in data)


def _is_image(name: str, raw: msgspec.Raw) -> bool:
    if name in _IMAGE:
        return _is_something(raw)
    return name not in _NO_IMAGE and _may_be_image(raw)


def _is_something(raw: msgspec.Raw) -> bool:
    # What is longer than `null` is not looked into: it may be megabytes.
    return len(raw) > len(b"null") or bytes(raw) not in _NOTHING


def _may_be_image(written: msgspec.Raw | bytes) -> bool:
    """Say whether JSON has the data of an image in it, or a link to one, by its looks."""
    return len(written) > _DATA_BYTES_MIN or _LINK.search(bytes(written)) is not None


class _Event(MediaEvent):
    b64_json: msgspec.Raw = ABSENT


_event_decoder = msgspec.json.Decoder(_Event)


class _ImageStreamReader(MediaStreamReader[_Event]):
    @override
    def reading(self) -> Reading:
        """Return what has been read so far: a stream has one image, which comes with its end."""
        return msgspec.structs.replace(super().reading(), images=int(self.is_complete))


_COUNTS = (INPUT.input, INPUT.output, "total_tokens")
_COMPLETED = ("image_generation.completed", "image_edit.completed")


def _generated(event: _Event, data: bytes, unread: int | None) -> int:
    """Return for how much an event counts: an image is what looks like one, whatever its name."""
    if unread is None:
        shows_image = _is_something(event.b64_json) or _may_be_image(data)
        unread = len(data) if shows_image and not is_given(event.error) else 0
    if not unread:
        return 0
    return PARTIAL_IMAGE_TOKENS * BYTES_PER_TOKEN + unread // BYTES_PER_SEEN_BYTE


def _legs(made: int = 0, raw_svg: msgspec.Raw = ABSENT) -> Legs:
    """Return what reads the usage of images, with one of them that another model has drawn.

    Where it has no tokens at all, as xAI's with its cost alone, the images that were made count.
    """

    def legs(usage: object) -> tuple[Leg, ...]:
        image = Leg(images=made) if made and _tells_no_tokens(usage) else _image_leg(usage)
        if not is_given(raw_svg):
            return (image,)
        return image, _svg_leg(msgspec.json.decode(raw_svg))

    return legs


def _tells_no_tokens(usage: object) -> bool:
    return isinstance(usage, dict) and usage.keys().isdisjoint(_COUNTS)


def _image_leg(usage: object) -> Leg:
    """Return the tokens of an image, where all that is not said to be text is one.

    Raises:
        UsageError: not an object, or with counts that are missing or cannot be true.
    """
    leg = read_usage(usage, INPUT)
    assert isinstance(usage, dict)
    read, made = (
        tokens - _text_tokens(usage.get(details))
        for tokens, details in (
            (leg.input, INPUT.input_details),
            (leg.output, INPUT.output_details),
        )
    )
    return with_media(leg, (0, max(read, 0)), (0, max(made, 0)))


def _text_tokens(details: object) -> int:
    return count(details.get("text_tokens")) if isinstance(details, dict) else 0


def _svg_leg(usage: object) -> Leg:
    """Return the tokens of the model that has drawn an SVG, which the others do not include.

    Raises:
        UsageError: not an object, or without its model, or with counts that cannot be true.
    """
    leg = read_usage(usage, INPUT)
    model = usage.get("model") if isinstance(usage, dict) else None
    if not isinstance(model, str):
        msg = "svg_usage names no model"
        raise UsageError(msg)
    return msgspec.structs.replace(leg, model=model)
