"""Images in OpenAI's dialect: what a request may cost, and what its answer has used."""

import json
from typing import Any

import pytest

from llmproxy.dialects.base import RequestFacts
from llmproxy.dialects.openai_images import image_tokens_max
from llmproxy.routes import endpoints_of
from llmproxy.usage import Leg, Usage
from tests.support.forms import form
from tests.support.reading import only_leg, read_events, refusal_of

OPENAI = {one.name: one for one in endpoints_of("openai", "openai")}
IMAGES, EDITS = OPENAI["images/generations"], OPENAI["images/edits"]


def images(**fields: Any) -> RequestFacts:  # noqa: ANN401
    return IMAGES.read_request(
        json.dumps({"model": "gpt-image-2", "prompt": "p", **fields}).encode()
    )


def edits(*files: str, **fields: str) -> RequestFacts:
    return EDITS.read_request(
        form({"model": "gpt-image-2", **fields}, dict.fromkeys(files, b"\x89PNG"))
    )


# --- images: requests ---


@pytest.mark.parametrize(
    ("quality", "size", "tokens"),
    [
        # As OpenAI's calculator has them for GPT Image 2.
        ("high", "1024x1024", 7024),
        ("high", "3584x2048", 12329),
        # And its guide for GPT Image 1, where that is more.
        ("low", "1024x1536", 408),
        ("medium", "1536x1024", 1584),
        ("high", "1536x1024", 6240),
        # A square with all pixels there may be: 96 × 96 × (2,000,000 + 2880²) / 4,000,000.
        ("high", None, 23719),
        ("high", "auto", 23719),
        ("high", "9999x16", 23719),
        ("low", "auto", 659),
    ],
)
def test_an_image_has_as_many_tokens_as_its_quality_and_size(
    quality: str, size: str | None, tokens: int
) -> None:
    assert image_tokens_max(quality, size) == tokens
    facts = images(quality=quality, **({"size": size} if size else {}))
    assert (facts.output_max, facts.choices, facts.unbounded) == (tokens, 1, None)


def test_a_request_for_images_is_bounded_by_their_number() -> None:
    facts = images(n=3, quality="low", size="1024x1024")
    assert (facts.choices, facts.output_max) == (3, 408)
    assert facts.units == facts.likely_units == (("image", 3),)
    assert facts.media == ("input_image", "output_image")
    assert facts.hides_output


def test_partial_images_cost_a_hundred_tokens_each() -> None:
    facts = images(stream=True, partial_images=2, quality="low", size="1024x1024")
    assert (facts.is_stream, facts.output_max) == (True, 408 + 200)


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({}, 23719),
        ({"quality": "auto"}, 23719),
        ({"quality": "xhigh"}, 4 * 23719),
        ({"quality": "max", "size": "1024x1024"}, 4 * 7024),
        ({"quality": "low", "complexity": "high"}, 659),
    ],
)
def test_what_has_no_known_number_of_tokens_has_no_bound(
    fields: dict[str, Any], tokens: int
) -> None:
    facts = images(**fields)
    assert facts.output_max == tokens
    assert facts.unbounded is not None


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"svg": {"model": "gpt-5.6-sol"}}, "another model"),
        ({"output_format": "svg"}, "png, jpeg and webp"),
        ({"output_format": "gif", "frame_count": 16}, "png, jpeg and webp"),
        ({"stream": True, "n": 2}, "several images"),
        ({"n": 0}, "`n` must be"),
        ({"n": 11}, "`n` must be"),
        ({"partial_images": 4}, "`partial_images` must be"),
        ({"stream": "yes"}, "`stream` must be"),
        ({"model": None}, "`model` must be"),
    ],
)
def test_images_that_cannot_be_metered_are_refused(fields: dict[str, Any], why: str) -> None:
    body = {"model": "gpt-image-2", "prompt": "p", **fields}
    assert why in refusal_of(IMAGES, json.dumps(body).encode()).message


def test_images_that_are_given_count_each() -> None:
    assert images(image_url="https://x").input.media == 1
    assert images(images=[{"image_url": "https://x"}] * 3).input.media == 3


def test_the_files_of_an_edit_are_images_and_not_text() -> None:
    facts = edits("image", "mask", n="2", quality="low", size="1024x1024")
    assert (facts.input.media, facts.choices, facts.output_max) == (2, 2, 408)
    empty = form(
        {"model": "gpt-image-2", "n": "2", "quality": "low", "size": "1024x1024"},
        {"image": b"", "mask": b""},
    )
    assert facts.input.text_bytes == len(empty)
    assert facts.content_type.startswith(b"multipart/form-data; boundary=")
    assert edits("image", "markup", stream="true").is_stream


@pytest.mark.parametrize(
    ("fields", "why"),
    [
        ({"n": "two"}, "`n` must be"),
        ({"stream": "1"}, "`stream` must be"),
        ({"svg[model]": "gpt-5.6-sol"}, "must be written 'svg'"),
        ({"svg": "x"}, "another model"),
        ({"output_format": "gif"}, "png, jpeg and webp"),
    ],
)
def test_edits_that_cannot_be_metered_are_refused(fields: dict[str, str], why: str) -> None:
    assert (
        why in refusal_of(EDITS, form({"model": "gpt-image-2", **fields}, {"image": b"x"})).message
    )


def test_an_edit_in_json_is_refused() -> None:
    assert "multipart/form-data" in refusal_of(EDITS, b'{"model":"m"}').message


# --- images: answers ---

COUNTS = {"input_tokens": 50, "output_tokens": 200, "total_tokens": 250}


def image_answer(**fields: Any) -> bytes:  # noqa: ANN401
    return json.dumps({"created": 1, "data": [{"b64_json": "aaaa"}], **fields}).encode()


@pytest.mark.parametrize(
    ("details", "expected"),
    [
        ({}, (50, 200)),
        ({"input_tokens_details": {"text_tokens": 50, "image_tokens": 0}}, (0, 200)),
        ({"input_tokens_details": {"text_tokens": 20, "image_tokens": 10}}, (30, 200)),
        ({"output_tokens_details": {"text_tokens": 30, "image_tokens": 170}}, (50, 170)),
        ({"output_tokens_details": {"text_tokens": 999}}, (50, 0)),
        ({"output_tokens_details": None}, (50, 200)),
    ],
)
def test_what_is_not_called_text_is_an_image(
    details: dict[str, Any], expected: tuple[int, int]
) -> None:
    got = only_leg(IMAGES.read_answer(image_answer(usage={**COUNTS, **details})))
    assert (got.input, got.output) == (50, 200)
    assert (got.input_image, got.output_image) == expected
    assert got.images == 0


def test_without_usage_the_images_count() -> None:
    reading = IMAGES.read_answer(image_answer(data=[{"url": "x"}] * 3))
    assert (only_leg(reading), reading.images) == (Leg(images=3), 3)
    assert not IMAGES.read_answer(image_answer(data=[])).is_final
    ended = IMAGES.read_answer(image_answer(data=[{"url": "x"}], model="m", error={"code": "x"}))
    assert (ended.images, ended.has_error, ended.model) == (1, True, "m")
    assert IMAGES.read_answer(image_answer(usage={}, data=[{"url": "x"}] * 3)).images == 3


@pytest.mark.parametrize(
    ("fields", "tokens"),
    [
        ({"quality": "low", "size": "1024x1536"}, 408),
        ({"quality": "medium", "partial_images": 2}, 1756),
        ({}, 7024),  # as OpenAI's calculator has it for `high` and a square of 1024
        ({"quality": "auto", "size": "auto"}, 7024),
        ({"quality": "hd", "size": "9999x16"}, 23719),
        ({"quality": "max"}, 4 * 7024),
        ({"model": "m", "quality": "low"}, 408),
    ],
)
def test_an_image_of_which_nothing_is_told_has_likely_tokens(
    fields: dict[str, Any], tokens: int
) -> None:
    assert images(**fields).image_tokens == tokens


def test_what_another_model_has_drawn_is_a_leg_of_it() -> None:
    svg = {
        "model": "gpt-5.6-sol",
        "input_tokens": 7,
        "output_tokens": 9,
        "reasoning_tokens": 2,
        "total_tokens": 16,
    }
    reading = IMAGES.read_answer(image_answer(usage=COUNTS, svg_usage=svg))
    assert reading.usage is not None
    assert reading.usage.legs[1] == Leg(input=7, output=9, model="gpt-5.6-sol")
    without = IMAGES.read_answer(image_answer(usage=COUNTS, svg_usage={**svg, "model": 1}))
    assert (without.is_final, without.problem) == (False, "svg_usage names no model")


@pytest.mark.parametrize(
    ("data", "made"),
    [
        ([{"b64_json": "aaaa"}, {"url": "https://x"}, {"b64_json": None, "url": "https://x"}], 3),
        ([{"b64_json": "aaaa"}, {"b64_json": None}, {"url": ""}, {"revised_prompt": "p"}, {}], 1),
        ([None, {"url": "https://x", "b64_json": ""}, {"url": "/", "b64_json": None}], 2),
        ([{"b64_json": None, "url": None}], 0),
        # Under whatever name: a link, or more than 1,024 bytes of JSON.
        ([{"image": "A" * 1023}, {"image_url": {"url": "https://x"}}, {"bytes": [1] * 600}], 3),
        ([{"a": "data:image/png;base64,A"}, {"b": [{"c": "HTTP://x"}]}, {"url": None}], 2),
        ([{"b64_json": "", "image": "A" * 1022}, {"image": {}}, {"revised_prompt": "p" * 2000}], 0),
        # What a filter has kept back is told of, and no image.
        ([{"b64_json": None, "index": 0}, {"b64_json": None, "finish_reason": "safety"}], 0),
        ([{"url": None, "content_filter_results": {"hate": {"filtered": True}}, "id": "x"}], 0),
        ([{"revised_prompt": "p", "error": {"code": "x"}}, {"error": "https://x", "image": ""}], 0),
    ],
)
def test_an_image_has_come_where_an_item_has_anything_that_looks_like_one(
    data: list[object], made: int
) -> None:
    reading = IMAGES.read_answer(image_answer(data=data))
    assert (reading.images, reading.is_final, bool(reading.seen_bytes)) == (
        made,
        made > 0,
        made > 0,
    )
    assert reading.usage == (Usage((Leg(images=made),)) if made else None)
    assert IMAGES.read_answer(image_answer(data=data, usage=COUNTS)).images == made


@pytest.mark.parametrize("item", [7, "aaaa", ["b64_json"]])
def test_items_that_are_none_are_not_known_to_be_images(item: object) -> None:
    body = image_answer(data=[item, {"url": "https://x"}])
    reading = IMAGES.read_answer(body)
    assert (reading.images, reading.is_final, reading.seen_bytes) == (None, False, 1)
    absurd = image_answer(data=[item], usage={**COUNTS, "input_tokens": -1})
    assert (IMAGES.read_answer(absurd).usage, IMAGES.read_answer(absurd).seen_bytes) == (None, 1)
    assert only_leg(IMAGES.read_answer(image_answer(data=[item], usage=COUNTS))).output == 200


@pytest.mark.parametrize(
    ("event", "seen"),
    [
        ({"b64_json": "aaaa"}, 300),
        ({"image": "A" * 3000}, 300 + 3085 // 256),
        ({"image": {"url": "https://x"}}, 300),
        ({"b64_json": None}, 0),
        ({"image": "A" * 900}, 0),
        ({"error": {"code": "x", "help": "https://x"}, "image": "A" * 3000}, 0),
    ],
)
def test_a_partial_image_is_known_by_its_data_or_link(event: dict[str, object], seen: int) -> None:
    partial = {"type": "image_generation.partial_image", "partial_image_index": 0, **event}
    assert read_events(IMAGES, partial).seen_bytes == seen


def test_of_a_partial_image_that_cannot_be_read_all_counts() -> None:
    reader = IMAGES.stream_reader(withholds_usage=False)
    reader.events.feed(b'data: {"b64_json": no JSON' + b" " * 300 + b"}\n\n")
    assert reader.seen_bytes == 300 + 321 // 256  # of what cannot be read all counts


@pytest.mark.parametrize(("usage", "cost"), [({}, None), ({"cost_in_usd_ticks": 4 * 10**8}, 4)])
def test_where_no_tokens_are_told_the_images_count(usage: object, cost: int | None) -> None:
    """As xAI answers, with what it bills and nothing else; a tick is 10⁻¹⁰ USD."""
    reading = IMAGES.read_answer(image_answer(data=[{"url": "x"}] * 2, usage=usage))
    assert (reading.is_final, reading.problem) == (True, None)
    told = None if cost is None else cost * 10**13
    assert reading.usage == Usage((Leg(images=2),), provider_cost=told)
    none = IMAGES.read_answer(image_answer(data=[], usage=usage))
    assert (none.usage, none.provider_cost) == (None, told)
    assert (none.is_final, none.problem) == (False, "usage has no token counts")


UNREAD = [
    ({**COUNTS, "input_tokens": -1}, "absurd token count -1"),
    ({**COUNTS, "total_tokens": 1}, "usage contradicts itself"),
    ({"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}, "usage reports no tokens"),
]


@pytest.mark.parametrize(("usage", "problem"), UNREAD)
def test_what_the_provider_bills_is_kept_where_the_tokens_beside_it_cannot_be_true(
    usage: dict[str, int], problem: str
) -> None:
    told = {**usage, "cost": 0.02}
    plain = IMAGES.read_answer(image_answer(usage=told))
    completed = {"type": "image_generation.completed", "b64_json": "aaaa", "usage": told}
    for reading in (plain, read_events(IMAGES, completed)):
        assert (reading.usage, reading.provider_cost) == (None, 2 * 10**13)
        assert (reading.is_final, reading.images) == (False, 1)
        assert (reading.problem or "").startswith(problem)
        assert json.loads(reading.raw_usage or b"") == told
    running = read_events(IMAGES, {**completed, "type": "image_generation.partial_image"})
    assert (running.provider_cost, running.usage) == (None, None)
    for cost in (-1, "0.02", None):
        odd = IMAGES.read_answer(image_answer(usage={**told, "cost": cost}))
        assert (odd.usage, odd.provider_cost) == (None, None)


def test_the_record_has_what_another_model_has_drawn() -> None:
    written = (
        b'{"usage":{"input_tokens": 1,"output_tokens":2},"svg_usage":{"model": "m"},"data":[]}'
    )
    assert IMAGES.read_answer(written).raw_usage == (
        b'{"usage":{"input_tokens": 1,"output_tokens":2},"svg_usage":{"model": "m"}}'
    )


@pytest.mark.parametrize(
    "usage", [{**COUNTS, "input_tokens": -1}, {**COUNTS, "total_tokens": 1}, []]
)
def test_an_absurd_usage_of_images_is_not_trusted(usage: object) -> None:
    reading = IMAGES.read_answer(image_answer(usage=usage))
    assert not reading.is_final
    assert reading.problem


@pytest.mark.parametrize(
    "body",
    [
        *(b"<html>", b'{"data":', b"[]", b"{}", b'{"created":1}', b'{"data":{}}', b" " * 257),
        *(b'{"images":[{"url":"https://x"}]}', b'{"error":null,"usage":null}'),
    ],
)
def test_of_an_answer_that_says_nothing_of_images_nobody_knows_how_many_came(body: bytes) -> None:
    reading = IMAGES.read_answer(body)
    assert (reading.usage, reading.is_final, reading.images) == (None, False, None)
    assert reading.seen_bytes == (2 if len(body) > 256 else 1)
    assert reading.problem == "the answer is not the expected JSON"


@pytest.mark.parametrize("body", [b"", b'{"data":[]}', b'{"data":null}', b'{"error":{"code":"x"}}'])
def test_an_answer_that_says_that_there_are_none_has_no_images(body: bytes) -> None:
    reading = IMAGES.read_answer(body)
    assert (reading.usage, reading.seen_bytes, reading.images or 0) == (None, 0, 0)
    assert (reading.problem, reading.has_error) == (None, b"error" in body)


def test_a_usage_counts_where_nothing_is_said_of_images() -> None:
    body = json.dumps({"usage": COUNTS}).encode()
    assert only_leg(IMAGES.read_answer(body)).output == 200
    nothing = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0}
    assert IMAGES.read_answer(json.dumps({"usage": nothing}).encode()).is_final
    absurd = IMAGES.read_answer(json.dumps({"usage": {**COUNTS, "input_tokens": -1}}).encode())
    assert (absurd.images, absurd.seen_bytes, absurd.problem) == (None, 1, "absurd token count -1")


def test_a_stream_of_an_image_that_breaks_off_is_no_bill() -> None:
    partial = {"type": "image_generation.partial_image", "b64_json": "a" * 300}
    reading = read_events(IMAGES, partial)
    assert (reading.is_final, reading.usage) == (False, None)
    assert (reading.seen_bytes >= 300, reading.images) == (True, 0)
    completed = read_events(IMAGES, {"type": "image_generation.completed", "b64_json": "aaaa"})
    assert (completed.is_final, completed.usage, completed.images) == (False, None, 1)
    linked = read_events(IMAGES, {"type": "image_generation.completed", "url": "https://x"})
    assert (linked.seen_bytes, linked.images) == (300, 1)  # not free
    failed = read_events(
        IMAGES, partial, {"type": "error", "error": {"code": "moderation_blocked"}}
    )
    assert (failed.is_final, failed.has_error) == (False, True)


SMALLER, LOWER = "a smaller size", "a lower quality"


@pytest.mark.parametrize(
    ("fields", "ways"),
    [
        # 408 tokens at 64 by 64 too, and of the least quality there is.
        ({"quality": "low", "size": "1024x1024"}, ()),
        ({"quality": "low", "size": "64x64"}, ()),
        ({"quality": "low"}, (SMALLER,)),  # 659 of any size
        ({"quality": "medium", "size": "1024x1024"}, (SMALLER, LOWER)),  # 1,756, of 1,584 at least
        ({"quality": "medium", "size": "1536x1024"}, (LOWER,)),  # 1,584
        ({"quality": "high", "size": "64x64"}, (LOWER,)),
        ({}, (SMALLER, LOWER)),
        ({"quality": "max", "size": "64x64"}, (LOWER,)),
        ({"quality": "low", "size": "64x64", "partial_images": 1}, ("fewer partial images",)),
        ({"model": "grok-2-image"}, ()),
    ],
)
def test_a_request_says_what_would_lessen_its_tokens(
    fields: dict[str, Any], ways: tuple[str, ...]
) -> None:
    assert images(**fields).lessened_by == ways


def test_models_that_are_not_openais_may_have_any_number_of_tokens() -> None:
    for model in ("gpt-image-1", "chatgpt-image-latest", "openai/gpt-image-2.5-flare"):
        assert images(model=model, quality="low").output_max is not None, model
    for model in ("gemini-3-pro-image", "grok-2-image", "m"):
        read = images(model=model, quality="low")
        assert (read.output_max, read.unbounded) == (None, None), model


@pytest.mark.parametrize("size", ["00x00", "0000x0000", "0x10", "10x00"])
def test_a_size_of_nothing_is_any_size(size: str) -> None:
    assert images(size=size).output_max == images().output_max


@pytest.mark.parametrize(
    "name",
    ["images[0][image_url]", "image_url", "file_id", "images[0][file_id]", "input_reference"],
)
def test_an_edit_has_its_images_in_the_form(name: str) -> None:
    body = form({"model": "gpt-image-2", name: "https://example.com/a.png"}, {"image": b"x"})
    assert "must be a file in the form" in refusal_of(EDITS, body).message
    assert "must be a file" in refusal_of(EDITS, form({"model": "gpt-image-2"}, {})).message


def test_what_a_provider_keeps_is_no_image_of_a_request() -> None:
    body = {"model": "gpt-image-2", "prompt": "p", "images": [{"file_id": "file-1"}]}
    assert refusal_of(IMAGES, json.dumps(body).encode()).param == "file_id"


def test_the_data_of_an_image_is_not_counted_as_text() -> None:
    reader = IMAGES.stream_reader(withholds_usage=False)
    event = {"type": "image_generation.partial_image", "b64_json": "A" * 400_000}
    reader.events.feed(f"data: {json.dumps(event)}\n\n".encode())
    assert reader.seen_bytes == 300 + 400_002 // 256  # tokens: 620 at most, not 133,334
